"""ConvTranspose, Softmax and Resize read as integer operations, for the executors that have them."""

from __future__ import annotations

import onnx_ir as ir

from ..resampling import linear_matrices
from ..windows import pool_attributes
from . import movement
from .products import product, weight
from .site import Site
from .steps import Refusal

__all__ = ["conv_transpose", "resize", "softmax"]


def conv_transpose(site: Site) -> None:
    """ConvTranspose(DQ(x), DQ(w)[, b]) ▸ Q  ⇒  conv_transpose, one multiplier for each output channel."""
    _need(site, "conv_transpose", "ConvTranspose has no integer form")
    x, w = site.operand(0), weight(site, 1)
    assert w.constant is not None
    if site.attribute("group", 1) != 1:
        raise Refusal("a transposed convolution in groups")
    if site.attribute("auto_pad", "NOTSET") not in ("NOTSET", "") or site.attribute("output_shape"):
        raise Refusal("a transposed convolution whose padding is implicit")
    rank = w.constant.ndim - 2
    window = pool_attributes(site.node, site.spatial)
    if set(window["dilations"]) - {1}:
        raise Refusal("a dilated transposed convolution")
    attributes = {
        "strides": window["strides"] or (1,) * rank,
        "pads": window["pads"] or (0,) * (2 * rank),
        "output_padding": tuple(int(n) for n in site.attribute("output_padding") or (0,) * rank),
    }
    product(site, "conv_transpose", x, w, channel_axis=1, bias=site.input(2), attributes=attributes)


def softmax(site: Site) -> None:
    """Softmax(DQ(x)) ▸ Q  ⇒  softmax, exponentials and quotients in float64, rounded once."""
    _need(site, "softmax", "Softmax has no integer form")
    graph = site.node.graph
    if isinstance(graph, ir.Graph) and graph.opset_imports.get("", 13) < 13:
        raise Refusal("before opset 13 Softmax is over all axes behind the first")
    x, sink = site.operand(0), site.sink()
    if sink is None:
        raise Refusal("the result stays float")
    site.emit("softmax", (x,), sink, attributes={"axis": site.axis(site.attribute("axis", -1))})


def resize(site: Site) -> None:
    """Resize(DQ(x)) [▸ Q]  ⇒  resize to the nearest neighbour, or resize_linear: y = rint(A·x) along each axis."""
    if site.attribute("mode", "nearest") == "linear":
        _need(site, "resize_linear", "mode linear")
        _resize_linear(site)
    else:
        movement.resize(site)


def _resize_linear(site: Site) -> None:
    value = site.input(0)
    shape = [n if isinstance(n, int) else None for n in (value.shape if value is not None and value.shape else ())]
    found = linear_matrices(site.node, shape, [site.constant(i) for i in range(len(site.node.inputs))])
    if isinstance(found, str):
        raise Refusal(found)
    coordinates = str(site.attribute("coordinate_transformation_mode", "half_pixel"))
    attributes = {"axes": tuple(found), "matrices": tuple(found.values()), "coordinates": coordinates}
    movement.move(site, "resize_linear", attributes)


def _need(site: Site, kind: str, reason: str) -> None:
    """Refuse for an executor that lacks this kind of operation."""
    if kind not in site.arithmetic.kinds:
        raise Refusal(reason)
