"""Transposed convolution: TRANSPOSE_CONV without padding; ONNX's pads are what is cut off."""

from __future__ import annotations

import numpy as np

from ...ir.integer import IntegerOp
from .activation import emit_clipped
from .plane import as_plane, give_plane, operand_plane
from .products import bias_tensor, weight_tensor
from .site import NoForm, Site

__all__ = ["conv_transpose"]


def conv_transpose(site: Site, op: IntegerOp) -> None:
    """conv_transpose  ⇒  TRANSPOSE_CONV [▸ SLICE]."""
    op, x = as_plane(site, op), operand_plane(site)
    assert op.weight is not None
    strides, pads, extra = (op.attributes[k] for k in ("strides", "pads", "output_padding"))
    kernel, channels = op.weight.shape[2:], op.weight.shape[1]
    full = [(n - 1) * s + k for n, s, k in zip(x.shape[1:3], strides, kernel, strict=True)]
    size = [n + extra[i] - pads[i] - pads[i + 2] for i, n in enumerate(full)]
    if any(pads[i] + size[i] > full[i] for i in (0, 1)):
        raise NoForm("a transposed convolution padded beyond its result")
    shape = (x.shape[0], *full, channels)
    weight = weight_tensor(site, op, op.weight.transpose(1, 2, 3, 0), 0)
    inputs = [site.integers(shape), weight, x]
    bias = bias_tensor(site, op, x)
    if bias is not None and (op.weight_zero_point is not None or np.any(op.bias)):
        inputs.append(bias)
    options = {"padding": "VALID", "strideH": strides[0], "strideW": strides[1]}
    result = emit_clipped(site, op, "TRANSPOSE_CONV", inputs, shape, **options)
    if size != full:
        cut = (x.shape[0], *size, channels)
        starts = site.integers([0, pads[0], pads[1], 0])
        result = site.apply("SLICE", [result, starts, site.integers(cut)], cut)
    give_plane(site, result)
