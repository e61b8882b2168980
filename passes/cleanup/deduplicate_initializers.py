"""Initialisers with equal type, shape and contents: one of them, however large, found by streaming hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..base import Pass
from ..context import Context

__all__ = ["DeduplicateInitializers", "digest"]

_CHUNK = 1 << 24  # bytes hashed at a time


@dataclass(frozen=True)
class DeduplicateInitializers(Pass):
    """W₁ = W₂ (type, shape, every bit)  ⇒  readers of W₂ read W₁

    Only tensors that share type and shape with another are read, one at a time.
    """

    name: ClassVar[str] = "deduplicate-initializers"

    def run(self, model: ir.Model, context: Context) -> None:
        groups: dict[object, list[ir.Value]] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and not value.is_graph_input():
                key = (tensor.dtype, tuple(tensor.shape))
                groups.setdefault(key, []).append(value)
        for members in groups.values():
            if len(members) > 1:
                _merge(members, model.graph, context)


def _merge(members: list[ir.Value], graph: ir.Graph, context: Context) -> None:
    first: dict[bytes, ir.Value] = {}
    for value in members:
        assert value.const_value is not None
        kept = first.setdefault(digest(value.const_value), value)
        if kept is value:
            continue
        if value.is_graph_output():
            context.record.skip(value, "it is a graph output")
        elif context.record.change(value, f"the same as {kept.name}"):
            value.replace_all_uses_with(kept)
            assert value.name is not None
            graph.initializers.pop(value.name)


def digest(tensor: ir.TensorProtocol) -> bytes:
    """128 bits that differ for different contents; equal for tensors equal to the bit."""
    if tensor.dtype == ir.DataType.STRING:
        return repr(tensor.numpy().tolist()).encode()
    array = tensor.numpy()
    hasher = hashlib.blake2b(digest_size=16)
    flat = np.asarray(array, order="C").reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        hasher.update(flat[start : start + _CHUNK].data)
    return hasher.digest()
