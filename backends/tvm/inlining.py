"""Elementwise blocks into the blocks that read them, where nothing is computed more often by that."""

from __future__ import annotations

from math import prod
from typing import Any

from .blocks import is_data_parallel
from .expressions import is_choice, operands

__all__ = ["inline_elementwise"]


def inline_elementwise(sch: Any) -> None:
    """Inline every block of a PrimFunc whose readers are data-parallel and together no larger than it is."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        readers = sch.get_consumers(block)
        fits = readers and _is_elementwise(sch, block) and all(_takes(sch, reader) for reader in readers)
        if fits and sum(_points(sch, reader) for reader in readers) <= _points(sch, block):
            sch.compute_inline(block)


def _points(sch: Any, block: Any) -> int:
    return prod(int(axis.dom.extent) for axis in sch.get(block).iter_vars)


def _is_elementwise(sch: Any, block: Any) -> bool:
    """A single store of results at the block's own axes."""
    from tvm import tirx

    stated = sch.get(block)
    if not is_data_parallel(stated) or not isinstance(stated.body, tirx.BufferStore):
        return False
    indices = stated.body.indices
    return len(indices) == len(stated.iter_vars) and all(
        index.same_as(axis.var) for index, axis in zip(indices, stated.iter_vars, strict=True)
    )


def _takes(sch: Any, reader: Any) -> bool:
    """A data-parallel block without conditions, which would stand around what is inlined."""
    from tvm import tirx

    stated = sch.get(reader)
    if not is_data_parallel(stated) or not isinstance(stated.body, tirx.BufferStore):
        return False
    return not _has_condition(stated.body.value)


def _has_condition(value: Any) -> bool:
    return is_choice(value) or any(map(_has_condition, operands(value)))
