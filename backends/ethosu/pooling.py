"""Means, maxima and pools over windows."""

from __future__ import annotations

import numpy as np

from ...ir.integer import IntegerOp
from .activation import emit_clipped
from .plane import as_plane, give_plane, operand_plane
from .products import explicit_padding, trailing_pads
from .site import NoForm, Site, levels

__all__ = ["average_pool", "max_pool", "maximum", "mean"]


def mean(site: Site, op: IntegerOp) -> None:
    """mean  ⇒  MEAN, or SUM where the multiplier holds no division."""
    place = site.operands[0]
    axes, keep = op.attributes["axes"], op.attributes["keepdims"]
    count = int(np.prod([place.shape[a] for a in axes]))
    code = "MEAN"
    if op.multiplier is not None:
        x = op.inputs[0].encoding
        scale = 1.0 if x is None else float(x.scale)
        out = 1.0 if op.encoding is None else float(op.encoding.scale)
        if count > 1 and np.isclose(float(op.multiplier) * out / scale, 1.0, rtol=1e-4):
            code = "SUM"
    _reduce(site, op, code, axes, keep)


def maximum(site: Site, op: IntegerOp) -> None:
    """max  ⇒  REDUCE_MAX."""
    _reduce(site, op, "REDUCE_MAX", op.attributes["axes"], op.attributes["keepdims"])


def _reduce(site: Site, op: IntegerOp, code: str, axes: tuple[int, ...], keep: bool) -> None:
    place = site.operands[0]
    physical = sorted(place.axes.index(a) for a in axes)
    shape = [1 if p in physical else n for p, n in enumerate(place.tensor.shape)]
    left = place.axes
    if not keep:
        shape = [n for p, n in enumerate(place.tensor.shape) if p not in physical]
        names = [a for p, a in enumerate(place.axes) if p not in physical]
        left = tuple(sorted(names).index(a) for a in names)
    result = site.tensor(shape, encoding=op.encoding, name=op.outputs[0])
    site.add(code, [place.tensor, site.integers(physical)], [result], keepDims=bool(keep))
    site.give(result, left)


def average_pool(site: Site, op: IntegerOp) -> None:
    """average_pool  ⇒  MEAN where one window is the whole map; AVERAGE_POOL_2D where the encoding stays;

    else DEPTHWISE_CONV_2D with weights 1 at scale 1/count, which rounds once, as the plan does.
    """
    place, whole = site.operands[0], tuple(range(2, len(site.operands[0].axes)))
    plain = not any(op.attributes["pads"]) and set(op.attributes["dilations"]) == {1}
    if plain and tuple(op.attributes["kernel"]) == place.shape[2:]:
        _reduce(site, op, "MEAN", whole, keep=True)
        return
    op, x = as_plane(site, op), operand_plane(site)
    kernel, strides, dilations = (op.attributes[k] for k in ("kernel", "strides", "dilations"))
    pads = trailing_pads(x.shape[1:3], kernel, strides, dilations, op.attributes["pads"])
    if op.multiplier is not None and op.multiplier.size > 1:
        raise NoForm("windows that count padding differently")
    if set(dilations) != {1}:
        raise NoForm("dilated windows")
    x, _ = explicit_padding(site, x, pads, kernel, strides, dilations, counted=True)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel, strides, strict=True)]
    shape = (x.shape[0], *size, x.shape[3])
    options = {"padding": "VALID", "strideH": strides[0], "strideW": strides[1]}
    same = op.encoding is None or site.tensor((1,), encoding=op.encoding).encoding == x.encoding
    if same:
        options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
        give_plane(site, emit_clipped(site, op, "AVERAGE_POOL_2D", [x], shape, **options))
        return
    assert op.multiplier is not None and op.encoding is not None and x.scale is not None
    share = float(op.multiplier) * float(op.encoding.scale) / float(x.scale)
    ones = site.constant(np.ones((1, *kernel, x.shape[3]), np.int8), scale=np.full(x.shape[3], share), axis=3)
    zeros = np.zeros(x.shape[3], np.int64 if x.dtype == "int16" else np.int32)
    bias = site.constant(zeros, scale=np.full(x.shape[3], share * float(x.scale)))
    options |= {"depthMultiplier": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    give_plane(site, emit_clipped(site, op, "DEPTHWISE_CONV_2D", [x, ones, bias], shape, **options))


def max_pool(site: Site, op: IntegerOp) -> None:
    """max_pool  ⇒  [PADV2 with the lowest level] MAX_POOL_2D."""
    op, x = as_plane(site, op), operand_plane(site)
    kernel, strides, dilations = (op.attributes[k] for k in ("kernel", "strides", "dilations"))
    if set(dilations) != {1}:
        raise NoForm("dilated windows")
    pads = trailing_pads(x.shape[1:3], kernel, strides, dilations, op.attributes["pads"])
    lowest = float(np.finfo(np.float32).min) if op.encoding is None else levels(op.encoding)[0]
    x, padding = explicit_padding(site, x, pads, kernel, strides, dilations, level=lowest)
    size = [
        (n - k) // s + 1 if padding == "VALID" else -(-n // s)
        for n, k, s in zip(x.shape[1:3], kernel, strides, strict=True)
    ]
    options = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    options |= {"filterHeight": kernel[0], "filterWidth": kernel[1], "fusedActivationFunction": "NONE"}
    result = site.tensor((x.shape[0], *size, x.shape[3]), x, name=op.outputs[0])
    site.add("MAX_POOL_2D", [x], [result], **options)
    give_plane(site, result)
