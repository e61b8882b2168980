"""Transposed convolutions as convolutions, for machines whose kernels those are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant, is_constant, only_consumer
from ...ir.shapes import infer
from ...ir.transposed_convolution import Subpixel, subpixel
from ..base import Pass
from ..context import Context
from .edit import Editor, become, standard_nodes

__all__ = ["ConvolveTransposed"]

_ACTIVATIONS = frozenset({"Clip", "Elu", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
_SLICE_INPUTS = 10  # the opset from which on what Slice keeps is an input


@dataclass(frozen=True)
class ConvolveTransposed(Pass):
    """ConvTranspose of stride s ▸ f  ⇒  Conv to s² times the channels ▸ f ▸ DepthToSpace ▸ Slice

    f: an activation, if one follows. Statistics of a BatchNormalization are kept, repeated for every place.
    """

    name: ClassVar[str] = "convolve-transposed"

    def run(self, model: ir.Model, context: Context) -> None:
        infer(model)
        edit = Editor(model)
        for node in standard_nodes(model):
            if node.op_type != "ConvTranspose":
                continue
            found = subpixel(node)
            if not isinstance(found, str) and edit.version < _SLICE_INPUTS and not found.whole:
                found = f"opset {edit.version} has no Slice with inputs"
            if not isinstance(found, str) and "macs" in context.budgets and _multiplies_more(node, found):
                found = "it would take more multiplications, for which there is a budget"
            if isinstance(found, str):
                context.record.skip(node, found)
            elif context.record.change(node, f"{found.block}² places of a convolution"):
                _rewrite(node, found, edit)


def _multiplies_more(node: ir.Node, found: Subpixel) -> bool:
    """Kernels that are no multiple of the stride are filled up with zeros, and what is cut off is computed too."""
    weight = constant(node.inputs[1])
    return weight is not None and (found.weight.size > weight.size or not found.whole)


def _rewrite(node: ir.Node, found: Subpixel, edit: Editor) -> None:
    result, stem = node.outputs[0], str(node.outputs[0].name)
    inputs: list[ir.Value | None] = [node.inputs[0], edit.constant(f"{stem}.filters", found.weight)]
    if found.bias is not None:
        inputs.append(edit.constant(f"{stem}.bias", found.bias))
    conv = edit.insert(node, "Conv", inputs, {"pads": [found.pads] * 4}, f"{stem}.places")
    made = _statistics(result, conv, found.block)
    last = node
    reader = only_consumer(result)
    if reader is not None and reader.op_type in _ACTIVATIONS and reader.graph is node.graph:
        bounds = list(reader.inputs[1:])
        if all(v is None or is_constant(v) for v in bounds):
            made = edit.insert(reader, reader.op_type, [conv, *bounds], dict(reader.attributes), f"{stem}.active")
            last = reader
    _spread(last, made, found, edit)


def _statistics(result: ir.Value, conv: ir.Value, block: int) -> ir.Value:
    fact: Any = metadata.get(result, metadata.STATISTICS)
    if fact is not None:
        tiled = {key: np.tile(fact[key], block * block) for key in ("mean", "std")}
        metadata.put(conv, metadata.STATISTICS, fact | tiled)
    return conv


def _spread(node: ir.Node, places: ir.Value, found: Subpixel, edit: Editor) -> None:
    """Let the node be what puts the places side by side and cuts off what padding removes."""
    stem = str(node.outputs[0].name)
    block = {"blocksize": found.block}
    if found.whole:
        become(node, "DepthToSpace" if found.block > 1 else "Identity", [places], block if found.block > 1 else {})
        return
    if found.block > 1:
        places = edit.insert(node, "DepthToSpace", [places], block, f"{stem}.space")
    ends = [[keep[side] for keep in found.keep] for side in (0, 1)]
    bounds = [edit.constant(f"{stem}.{what}", ints) for what, ints in zip(("from", "to"), ends, strict=True)]
    become(node, "Slice", [places, *bounds, edit.constant(f"{stem}.axes", [2, 3])], {})
