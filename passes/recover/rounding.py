"""Quantizers in a torch module: every pair Q → DQ as one function with a backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...ir.fx import Bridge
from ...ir.fx.quantized import along, dequantize_linear, quantize_linear
from ...ir.fx.tensors import leaf
from .fake_quantize import Rule, fake_quantize

__all__ = ["Bounds", "fuse"]

Tensor = Any
# lowest and highest level in use, fewer than the type holds at low bits: of a tensor, or in a shape that broadcasts
Bounds = tuple[int | npt.NDArray[np.int32], int | npt.NDArray[np.int32]]


def fuse(bridge: Bridge, bounds: Mapping[str, Bounds], delta: float, rule: Rule) -> None:
    """Make one function of every pair Q → DQ, and of a Relu before it that clipping does anyway.

    bounds: levels in use where they are fewer than the type's, of weights by the name of their initialiser, of
    activations by that of their QuantizeLinear; delta, rule: see `fake_quantize`.
    """
    graph = bridge.module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not dequantize_linear:
            continue
        pair = node.args[0]
        if pair.op != "call_function" or pair.target is not quantize_linear or pair.args[1:] != node.args[1:]:
            continue
        zero = _zero_point(bridge, pair)
        if zero is None:
            continue
        source = pair.args[0]
        value = bridge.weights.get(str(source.target)) if source.op == "get_attr" else None
        kwargs: dict[str, Any] = {"axis": pair.kwargs.get("axis", 1), "delta": delta, "rule": rule}
        with graph.inserting_before(node):
            found = bounds.get(str(value.name if value is not None else pair.meta.get("onnx")))
            low, high = found or pair.kwargs["levels"]
            low, high = low - zero, high - zero
            if source.target is torch.relu and len(source.users) == 1 and low <= 0:
                source, low, kwargs["relu"] = source.args[0], 0, True
            kwargs["levels"] = _held(bridge, str(source.target), (low, high))
            fused = graph.call_function(_rounded, (source, pair.args[1]), kwargs)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    bridge.module.recompile()


@leaf
def _rounded(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int,
    levels: tuple[Any, Any],
    delta: float,
    rule: Rule,
    relu: bool = False,
) -> Tensor:
    """Q → DQ as one function; levels are counted from the zero point."""
    return fake_quantize(x, along(scale, x, axis, 0), levels, relu=relu, delta=delta, rule=rule)


def _zero_point(bridge: Bridge, quantize: Any) -> int | None:
    """The zero point of a QuantizeLinear in the module, 0 without one; None where slices have their own."""
    if len(quantize.args) < 3 or quantize.args[2] is None:
        return 0
    parent, _, name = str(quantize.args[2].target).rpartition(".")
    contents = getattr(bridge.module.get_submodule(parent), name).unique()
    return int(contents) if contents.numel() == 1 else None


def _held(bridge: Bridge, path: str, bounds: Bounds) -> tuple[Any, Any]:
    """Bounds as the graph takes them: integers, or buffers of the module beside the weight at `path`."""
    nodes = []
    for end, bound in zip(("lowest", "highest"), bounds, strict=True):
        if isinstance(bound, int):
            return bounds
        name = f"{path.replace('.', '_')}_{end}"
        bridge.module.register_buffer(name, torch.tensor(np.asarray(bound, np.float32)))
        nodes.append(bridge.module.graph.get_attr(name))
    return nodes[0], nodes[1]
