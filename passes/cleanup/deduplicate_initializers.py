"""Initialisers with equal type, shape and contents: one of them, however large, found by streaming hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import onnx_ir as ir

from ..base import Pass
from ..context import Context

__all__ = ["DeduplicateInitializers", "digest"]


@dataclass(frozen=True)
class DeduplicateInitializers(Pass):
    """W₁ = W₂ (type, shape, every bit)  ⇒  readers of W₂ read W₁

    Only tensors that share type and shape with another are read, one at a time; under a limit, those of at most so many
    elements.
    """

    limit: int = 0
    name: ClassVar[str] = "deduplicate-initializers"

    def run(self, model: ir.Model, context: Context) -> None:
        groups: dict[object, list[ir.Value]] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            small = tensor is not None and (not self.limit or tensor.size <= self.limit)
            if tensor is not None and small and not value.is_graph_input():
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
    hasher = hashlib.blake2b(digest_size=16)
    # `tofile` reads external data in pieces; `numpy` would map the file, and every page read counts as our memory
    tensor.tofile(SimpleNamespace(write=hasher.update))  # type: ignore[attr-defined]
    return hasher.digest()
