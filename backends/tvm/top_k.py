"""`TopK` without a sort: an element's rank is the number of those before it, and each result looks for its rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ...ir.graph import attribute, constant
from . import environment, loop_nest
from .loops import refuse
from .operators.located import Located, row_major

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["HANDLERS"]


def _top_k(walk: Lowering, node: ir.Node) -> list[Located]:
    """n comparisons for each of n elements: no branch, all in vectors, and the order of equal elements is ONNX's."""
    count = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "k")
    if count is None:
        raise refuse(node, "the number of its results depends on the input")
    source = walk.program.tensors[walk.rows(node.inputs[0])]  # type: ignore[arg-type]
    axis = int(attribute(node, "axis", -1)) % len(source.shape)  # type: ignore[call-overload]
    k = int(count.reshape(-1)[0]) if hasattr(count, "reshape") else int(count)  # type: ignore[call-overload]
    sizes = (prod(source.shape[:axis]), source.shape[axis], prod(source.shape[axis + 1 :]))
    ranked = _kernels(walk, sizes, k, source.dtype, bool(attribute(node, "largest", 1)))
    shape = (*source.shape[:axis], k, *source.shape[axis + 1 :])
    rank, index, value = (
        walk.program.tensor(name, size, dtype)
        for name, size, dtype in (("rank", sizes, "int32"), ("index", shape, "int64"), ("value", shape, source.dtype))
    )
    for function, reads, write in zip(
        ranked, ((source.name,), (rank,), (source.name, index)), (rank, index, value), strict=True
    ):
        loop_nest.call(walk.program, function, "top_k", reads, (write,), walk.scheduled)
    layout = row_major(len(shape))
    return [Located(value, shape, source.dtype, layout), Located(index, shape, "int64", layout)]


def _kernels(walk: Lowering, sizes: tuple[int, int, int], k: int, dtype: str, largest: bool) -> list[Any]:
    """PrimFuncs of ranks, of the k first indices, and of the elements there; tensors are [outer, n, inner]."""
    te = environment.load().te
    tirx = environment.load().tirx
    outer, n, inner = sizes
    x = te.placeholder(sizes, dtype, name="x")
    ranks = te.placeholder(sizes, "int32", name="ranks")
    chosen = te.placeholder((outer, k, inner), "int64", name="chosen")
    other, position = te.reduce_axis((0, n), name="j"), te.reduce_axis((0, n), name="i")

    def precedes(o: Any, i: Any, c: Any) -> Any:
        """Element j is in front of element i."""
        a, b = x(o, other, c), x(o, i, c)
        wins = a > b if largest else a < b
        return tirx.any(wins, tirx.all(a.equal(b), other < i))

    def count(o: Any, i: Any, c: Any) -> Any:
        return te.sum(tirx.Select(precedes(o, i, c), tirx.const(1, "int32"), tirx.const(0, "int32")), axis=other)

    def found(o: Any, r: Any, c: Any) -> Any:
        at_rank = ranks(o, position, c).equal(r)
        return te.sum(tirx.Select(at_rank, position.astype("int64"), tirx.const(0, "int64")), axis=position)

    rank = te.compute(sizes, count, name="rank")
    index = te.compute((outer, k, inner), found, name="index")
    value = te.compute((outer, k, inner), lambda o, r, c: x(o, chosen(o, r, c), c), name="value")
    arguments = ([x, rank], [ranks, index], [x, chosen, value])
    return [te.create_prim_func(own).without_attr("global_symbol") for own in arguments]


HANDLERS: Mapping[str, Callable[[Lowering, ir.Node], list[Located]]] = {"TopK": _top_k}
