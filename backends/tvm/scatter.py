"""`ScatterND` and `ScatterElements` at computed places: every result looks for the updates of its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ...ir.graph import attribute
from . import environment, loop_nest
from .loops import refuse, whole
from .operators.located import Located

if TYPE_CHECKING:
    from .lower import Lowering

__all__ = ["HANDLERS"]

# whether update number n goes to a place, and its element for that place
Hits = Callable[[Any, tuple[Any, ...]], Any]
Reads = Callable[[Any, tuple[Any, ...]], Any]


def _scatter(walk: Lowering, node: ir.Node) -> list[Located]:
    """The last update of a place, or the sum of all, for every result: in vectors, in memory that no thread shares."""
    how = attribute(node, "reduction", "none")
    if how not in ("none", "add"):
        raise refuse(node, f"reduction {how} at computed places")
    te = environment.load().te
    tensors = [walk.program.tensors[walk.rows(value)] for value in node.inputs if value is not None]
    x, index, updates = (
        te.placeholder(t.shape, t.dtype, name=name) for t, name in zip(tensors, ("x", "index", "updates"), strict=True)
    )
    data, places, _ = (tensor.shape for tensor in tensors)
    if node.op_type == "ScatterND":
        hits, read, count = _nd(index, updates, places, data)
    else:
        axis = int(attribute(node, "axis", 0)) % len(data)  # type: ignore[call-overload]
        hits, read, count = _elements(index, updates, places, axis, data)
    stages = (_sum if how == "add" else _last)(x, data, count, hits, read)
    function = te.create_prim_func([x, index, updates, stages]).without_attr("global_symbol")
    result = walk.program.tensor("scattered", data, tensors[0].dtype)
    reads = tuple(tensor.name for tensor in tensors)
    loop_nest.call(walk.program, function, "scatter", reads, (result,), walk.scheduled)
    return [whole(walk.program, result)]


def _last(x: Any, shape: tuple[int, ...], count: int, hits: Hits, read: Reads) -> Any:
    """The update that comes last, else the element that was there."""
    tvm = environment.load()
    te, tirx = tvm.te, tvm.tirx
    n = te.reduce_axis((0, count), name="n")
    nothing = tirx.const(-1, "int32")
    winner = te.compute(shape, lambda *o: te.max(tirx.Select(hits(n, o), n.astype("int32"), nothing), axis=n), "winner")

    def element(*o: Any) -> Any:
        found = winner(*o)
        return tirx.Select(found >= 0, read(tirx.max(found, tirx.const(0, "int32")), o), x(*o))

    return te.compute(shape, element, "result")


def _sum(x: Any, shape: tuple[int, ...], count: int, hits: Hits, read: Reads) -> Any:
    """The element that was there plus all its updates."""
    tvm = environment.load()
    te, tirx = tvm.te, tvm.tirx
    n = te.reduce_axis((0, count), name="n")
    nothing = tirx.const(0, x.dtype)
    total = te.compute(shape, lambda *o: te.sum(tirx.Select(hits(n, o), read(n, o), nothing), axis=n), "total")
    return te.compute(shape, lambda *o: x(*o) + total(*o), "result")


def _nd(index: Any, updates: Any, places: tuple[int, ...], data: tuple[int, ...]) -> tuple[Hits, Reads, int]:
    """Update n is a slice, at the place that row n of the indices names."""
    *outer, depth = places
    count = 1
    for extent in outer:
        count *= extent

    def row(n: Any) -> list[Any]:
        found: list[Any] = []
        for extent in reversed(outer):
            found.insert(0, n % extent)
            n = n // extent
        return found

    def hits(n: Any, o: tuple[Any, ...]) -> Any:
        return _all(_is_at(index(*row(n), d), o[d], data[d]) for d in range(depth))

    return hits, lambda n, o: updates(*row(n), *o[depth:]), count


def _elements(
    index: Any, updates: Any, places: tuple[int, ...], axis: int, data: tuple[int, ...]
) -> tuple[Hits, Reads, int]:
    """Update n of a line along the axis is at the place of the line that the index of the same position names."""
    tirx = environment.load().tirx

    def at(n: Any, o: tuple[Any, ...]) -> list[Any]:
        # Beyond the updates, which `hits` rules out, some element of them is read all the same.
        bounded = [
            position if extent == size else tirx.min(position, extent - 1)
            for position, extent, size in zip(o, places, data, strict=True)
        ]
        return [*bounded[:axis], n, *bounded[axis + 1 :]]

    def hits(n: Any, o: tuple[Any, ...]) -> Any:
        inside = (o[d] < places[d] for d in range(len(data)) if d != axis and places[d] != data[d])
        return _all((*inside, _is_at(index(*at(n, o)), o[axis], data[axis])))

    return hits, lambda n, o: updates(*at(n, o)), places[axis]


def _is_at(index: Any, position: Any, extent: int) -> Any:
    """An index, counted from the end where it is negative, names a position."""
    at = index.astype("int32")
    return environment.load().tirx.any(at.equal(position), (at + extent).equal(position))


def _all(conditions: Any) -> Any:
    return environment.load().tirx.all(*conditions)


HANDLERS: Mapping[str, Callable[[Lowering, ir.Node], list[Located]]] = {
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
}
