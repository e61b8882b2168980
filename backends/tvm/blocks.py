"""Blocks of PrimFuncs: what their axes are, and statements with other blocks inside.

TVM's nodes cannot be changed in place: what differs inside one is made again around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "exchanged",
    "extents",
    "is_data_parallel",
    "is_summed",
    "loop_with",
    "realized",
    "summed",
    "with_root",
]

_REDUCTION = 2  # tirx.IterVar.CommReduce; 0 is data-parallel
_PARTS = (
    *("iter_vars", "reads", "writes", "name_hint", "body"),
    *("init", "alloc_buffers", "match_buffers", "annotations"),
)


def is_summed(axis: Any) -> bool:
    """A block sums over the axis."""
    return int(axis.iter_type) == _REDUCTION


def summed(block: Any) -> list[Any]:
    """The axes that a block sums over."""
    return [axis for axis in block.iter_vars if is_summed(axis)]


def is_data_parallel(block: Any) -> bool:
    """Every element that a block writes is computed by itself."""
    return not any(int(axis.iter_type) for axis in block.iter_vars)


def extents(sch: Any, block: Any, *, summed: bool) -> list[int]:
    """Extents of the axes that a scheduled block sums over, or of the others."""
    return [int(axis.dom.extent) for axis in sch.get(block).iter_vars if is_summed(axis) == summed]


def realized(realize: Any, **parts: Any) -> Any:
    """A block in its loops with other parts, each under its name in TVM: body, writes, name_hint …"""
    from tvm import s_tir

    block = s_tir.SBlock(*(parts[name] if name in parts else getattr(realize.block, name) for name in _PARTS))
    return s_tir.SBlockRealize(realize.iter_values, realize.predicate, block)


def with_root(function: Any, **parts: Any) -> Any:
    """The PrimFunc with other parts of its outermost block."""
    return function.with_body(realized(function.body, **parts))


def loop_with(loop: Any, body: Any) -> Any:
    """The loop with another body."""
    from tvm import tirx

    kept = (loop.thread_binding, loop.annotations, loop.step)
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, *kept)


def exchanged(statement: Any, change: Callable[[Any], Any]) -> Any:
    """The statement with `change` of every block in its loops; blocks inside blocks are left to `change`."""
    from tvm import s_tir, tirx

    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([exchanged(inner, change) for inner in statement.seq])
    if isinstance(statement, tirx.For):
        return loop_with(statement, exchanged(statement.body, change))
    return change(statement) if isinstance(statement, s_tir.SBlockRealize) else statement
