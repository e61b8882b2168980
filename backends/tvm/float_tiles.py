"""Float kernels by tile products of bfloat16 (AMX): up to 16 positions × 32 channels times 32 × 16 filters at a time.

A scheduled kernel sums a block of results in float32 and then makes results of them; here the sums of a block, and
nothing else of the kernel, become instructions on tile registers. Weights are packed to pairs of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...targets.target import Target
from . import schedule
from .operators.workload import TILE_SIDE, Config

__all__ = ["Bfloat16Product", "configuration", "factor", "packed", "scheduled", "workload"]

Array = npt.NDArray[np.generic]

_BYTES = 64  # of a row of a tile register
_SUMS, _POSITIONS, _WEIGHTS, _REGISTERS = 0, 4, 6, 8  # first register of each use
_LEAST_ROWS = 4  # fewer positions leave more than three quarters of every tile empty


@dataclass(frozen=True)
class Bfloat16Product:
    """Results in rows of `width` positions by `columns`; `taps`: rows and columns of the window over `channels`.

    strides: distances between columns and between taps beside each other, in columns of the operand.
    """

    rows: int
    width: int
    columns: int
    channels: int
    taps: tuple[int, int]
    strides: tuple[int, int]

    @property
    def positions(self) -> int:
        """Of a tile: as many as divide a row of results."""
        return max(n for n in range(1, TILE_SIDE + 1) if self.width % n == 0)

    @property
    def joined(self) -> int:
        """Taps of a row of the window whose channels lie behind each other."""
        return self.taps[1] if self.strides[1] == 1 else 1

    @property
    def step(self) -> int:
        """Channels of a row of a tile: as many as divide those behind each other."""
        run = self.joined * self.channels
        return max((n for n in range(2, min(run, _BYTES // 2) + 1, 2) if run % n == 0), default=0)

    def space(self) -> list[Config]:
        """Every config that computes the workload; sums are added up in the same order in all."""
        tiles = (self.width // self.positions, self.columns // TILE_SIDE)
        sides = ([n for n in (1, 2) if count % n == 0] for count in tiles)
        return [Config(*side) for side in product(*sides)]

    def choose(self) -> Config:
        """The block with the fewest loads for each product."""
        return min(self.space(), key=lambda c: ((c.positions + c.vectors) / (c.positions * c.vectors), c.vectors))


def workload(sch: Any, block: Any, position: int, target: Target) -> Bfloat16Product | None:
    """The products that a block sums, where tile registers do them well; position: of its operand among its reads."""
    stated = sch.get(block)
    *outer, width, columns = schedule.extents(sch, block, summed=False)
    *taps, channels = schedule.extents(sch, block, summed=True)
    operand, weight = stated.reads[position], stated.reads[1 - position]
    if "amx-bf16" not in target.features or {str(r.source.dtype) for r in (operand, weight)} != {"bfloat16"}:
        return None
    place, axes = [r.min for r in operand.region], [axis.var for axis in stated.iter_vars]
    if columns % TILE_SIDE or len(taps) not in (0, 2) or not place[-1].same_as(axes[-1]):
        return None
    if int(operand.source.shape[-1]) != channels or len(place) < 2:
        return None
    window = (taps[0], taps[1]) if taps else (1, 1)
    column = factor(place[-2], axes[-len(taps) - 3])
    tap = factor(place[-2], axes[-2]) if window[1] > 1 else 1
    if column is None or tap is None:
        return None
    if any(not _copies(sch.get(stage).body) for stage in sch.get_producers(block)):
        return None
    found = Bfloat16Product(prod(outer), width, columns, channels, window, (column, tap))
    return found if found.positions >= _LEAST_ROWS and 2 * found.step >= min(channels, _BYTES // 2) else None


def factor(index: Any, variable: Any) -> int | None:
    """The number that a variable is multiplied by in a sum; None where the index has another form."""
    from tvm import tirx

    if index.same_as(variable):
        return 1
    if isinstance(index, tirx.Mul) and index.a.same_as(variable) and isinstance(index.b, tirx.IntImm):
        return int(index.b)
    if isinstance(index, tirx.Add):
        found = [factor(part, variable) for part in (index.a, index.b)]
        return next((one for one in found if one is not None), None)
    return None


def packed(array: Array) -> Array:
    """Weights [..., channels, columns] as [columns / 16, ..., channels / 2, 16, 2]."""
    *front, channels, columns = array.shape
    split = array.reshape(*front, channels // 2, 2, columns // TILE_SIDE, TILE_SIDE)
    return np.ascontiguousarray(np.moveaxis(np.moveaxis(split, -2, 0), -2, -1))


def configuration(p: Bfloat16Product) -> Array:
    """What LDTILECFG reads: rows and bytes a row of each register; sums first, then positions, then weights."""
    raw = np.zeros(64, np.uint8)
    raw[0] = 1  # palette
    columns, rows = raw[16:48].view(np.uint16), raw[48:64]
    columns[:_REGISTERS], rows[:_WEIGHTS] = _BYTES, p.positions
    columns[_POSITIONS:_WEIGHTS], rows[_WEIGHTS:_REGISTERS] = 2 * p.step, p.step // 2
    return raw


def scheduled(function: Any, p: Bfloat16Product, position: int, config: Config, target: Target) -> Any:
    """The fused kernel with one more argument before its result, `configuration`; weights are read as `packed`."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = schedule.reduction(sch)
    weight = 1 - position

    def place(*index: Any) -> list[Any]:
        *front, channel, column = index
        return [column // TILE_SIDE, *front, channel // 2, column % TILE_SIDE, channel % 2]

    sch.transform_layout(block, ("read", weight), place, pad_value=None)
    result = schedule.tail(sch, block)
    *outer, w, o = sch.get_loops(result)
    wo, wi = sch.split(w, [None, p.positions * config.positions])
    oo, oi = sch.split(o, [None, TILE_SIDE * config.vectors])
    many = p.taps[0] * p.taps[1] * p.channels * p.columns > p.rows * p.width * max(p.channels, p.columns)
    sch.reorder(*([oo, *outer] if many else [*outer, oo]), wo, wi, oi)
    sch.vectorize(sch.split(oi, [None, TILE_SIDE])[1])
    sch.compute_at(block, wo, preserve_unit_loops=True)
    schedule.finish(sch, target)
    staged = bool(sch.get_producers(block))
    return _Tiles(sch.get(block), p, position, config, staged=staged).put_into(sch.mod["main"])


class _Tiles:
    """Puts tile registers in the place of the loops around a block that sums."""

    def __init__(self, block: Any, p: Bfloat16Product, position: int, config: Config, *, staged: bool) -> None:
        from tvm import s_tir, tirx

        self.tirx, self.s_tir = tirx, s_tir
        self.name, self.p, self.position, self.config = block.name_hint, p, position, config
        self.operand, self.weight = block.reads[position], block.reads[1 - position]
        source = self.operand.source
        self.bits = tirx.decl_buffer(source.shape, "uint16", source.name) if staged else None

    def put_into(self, function: Any) -> Any:
        """The function with them, and with the argument that sets them up."""
        tirx = self.tirx
        tiles = tirx.decl_buffer((64,), "uint8", "tiles")
        root = function.body.block
        nests = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
        begin = self._opaque([tiles], [], [self._do("ldtilecfg", tirx.address_of(tirx.BufferLoad(tiles, [0])))])
        body = []
        for nest in nests:
            body += [begin, self._walk(nest)] if self._sums(nest, anywhere=True) else [self._bits(nest)]
        allocated = [self.bits if self._is_staged(buffer) else buffer for buffer in root.alloc_buffers]
        block = self._renewed(root, tirx.SeqStmt(body), allocated)
        *arguments, out = function.params
        realize = self.s_tir.SBlockRealize(function.body.iter_values, function.body.predicate, block)
        return tirx.PrimFunc([*arguments, tiles, out], realize, function.ret_type, function.attrs)

    def _renewed(self, old: Any, body: Any, allocated: Sequence[Any], writes: Sequence[Any] | None = None) -> Any:
        regions = (old.iter_vars, old.reads, old.writes if writes is None else writes, old.name_hint)
        return self.s_tir.SBlock(*regions, body, old.init, allocated, old.match_buffers, old.annotations)

    def _is_staged(self, buffer: Any) -> bool:
        """The operand with its padding, if the kernel has one."""
        return self.bits is not None and bool(buffer.same_as(self.operand.source))

    def _bits(self, statement: Any) -> Any:
        """Loops that stage the operand, storing its bits: TVM would make float32 of what a kernel keeps to itself."""
        tirx = self.tirx
        if isinstance(statement, tirx.For):
            body = self._bits(statement.body)
            return tirx.For(statement.loop_var, statement.min, statement.extent, statement.kind, body)
        if not hasattr(statement, "iter_values") or not self._is_staged(statement.block.writes[0].source):
            return statement
        old = statement.block
        store = tirx.BufferStore(self.bits, _bits(old.body.value), old.body.indices)
        written = [tirx.BufferRegion(self.bits, old.writes[0].region)]
        block = self._renewed(old, store, old.alloc_buffers, written)
        return self.s_tir.SBlockRealize(statement.iter_values, statement.predicate, block)

    def _sums(self, statement: Any, *, anywhere: bool = False) -> bool:
        """The statement is loops around the block; or has them inside."""
        tirx = self.tirx
        while isinstance(statement, tirx.For):
            statement = statement.body
        if isinstance(statement, tirx.SeqStmt):
            return anywhere and any(self._sums(inner, anywhere=True) for inner in statement.seq)
        return hasattr(statement, "iter_values") and statement.block.name_hint == self.name

    def _walk(self, statement: Any) -> Any:
        tirx = self.tirx
        if self._sums(statement):
            return self._replacement(statement)
        if isinstance(statement, tirx.SeqStmt):
            return tirx.SeqStmt([self._walk(inner) for inner in statement.seq])
        if isinstance(statement, tirx.For):
            return tirx.For(
                statement.loop_var, statement.min, statement.extent, statement.kind, self._walk(statement.body)
            )
        return statement

    def _replacement(self, nest: Any) -> Any:
        """Zeros, products, and the sums written to where the block would have left them."""
        tirx, p, config = self.tirx, self.p, self.config
        loops = []
        while isinstance(nest, tirx.For):
            loops.append(nest.loop_var)
            nest = nest.body
        axes = nest.block.iter_vars
        depth = sum(int(axis.iter_type) == schedule.REDUCTION for axis in axes)
        inside = {loop: tirx.const(0, _kind(loop)) for loop in loops[: len(axes) - depth]}
        base = {axis.var: _substituted(value, inside) for axis, value in zip(axes, nest.iter_values, strict=True)}
        column, filter_ = (axis.var for axis in axes[: len(axes) - depth][-2:])
        summed = [axis.var for axis in axes[len(axes) - depth :]]

        def address(region: Any, i: int, j: int, *taps: Any) -> Any:
            """Where tile (i, j) of the block begins, at a place of the window."""
            known = base | dict(zip(summed, taps[-len(summed) :], strict=False))
            known |= {column: base[column] + i * p.positions, filter_: base[filter_] + j * TILE_SIDE}
            index = [_substituted(axis.min, known) for axis in region.region]
            source = self.bits if self._is_staged(region.source) else region.source
            return tirx.address_of(tirx.BufferLoad(source, index))

        result = nest.block.writes[0]
        first = [_substituted(axis.min, base) for axis in result.region]
        sizes = [*[1] * (len(first) - 2), p.positions * config.positions, TILE_SIDE * config.vectors]
        written = tirx.BufferRegion(result.source, [_range(*pair) for pair in zip(first, sizes, strict=True)])
        pairs = list(product(range(config.positions), range(config.vectors)))
        pitch = tirx.const(4 * TILE_SIDE * config.vectors, "int64")
        zeros = [self._do("tilezero", _SUMS + number) for number in range(len(pairs))]
        stores = [
            self._do("tilestored64", _SUMS + number, address(result, i, j), pitch)
            for number, (i, j) in enumerate(pairs)
        ]
        body = [*zeros, self._products(nest.block, pairs, address), *stores]
        read = self.operand.source if self.bits is None else self.bits
        return self._opaque([read, self.weight.source], [written], body)

    def _products(self, block: Any, pairs: Sequence[tuple[int, int]], address: Callable[..., Any]) -> Any:
        """Load and multiply, tap by tap of the window and step by step of the channels behind it."""
        tirx, p, config = self.tirx, self.p, self.config
        r, s, k = (tirx.Var(name, _kind(block.iter_vars[-1].var)) for name in "rsk")
        over, channel = tirx.floordiv(k * p.step, p.channels), tirx.floormod(k * p.step, p.channels)
        taps = (r, s + over, channel)
        operand, weight = block.reads[self.position], block.reads[1 - self.position]
        pitches = [tirx.const(n, "int64") for n in (2 * p.strides[0] * p.channels, _BYTES)]
        body = [
            self._do("tileloadd64", _POSITIONS + i, address(operand, i, 0, *taps), pitches[0])
            for i in range(config.positions)
        ]
        body += [
            self._do("tileloadd64", _WEIGHTS + j, address(weight, 0, j, *taps), pitches[1])
            for j in range(config.vectors)
        ]
        body += [
            self._do("tdpbf16ps", _SUMS + number, _POSITIONS + i, _WEIGHTS + j) for number, (i, j) in enumerate(pairs)
        ]
        nest = tirx.SeqStmt(body)
        sizes = (p.joined * p.channels // p.step, p.taps[1] // p.joined, p.taps[0])
        for variable, extent in zip((k, s, r), sizes, strict=True):
            nest = tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, nest)
        return nest

    def _opaque(self, reads: Sequence[Any], writes: Sequence[Any], body: Sequence[Any]) -> Any:
        """A block of statements that schedules and passes leave alone; reads: buffers."""
        tirx = self.tirx
        whole = [tirx.BufferRegion(b, [_range(0, extent) for extent in b.shape]) for b in reads]
        statement = body[0] if len(body) == 1 else tirx.SeqStmt(list(body))
        block = self.s_tir.SBlock([], whole, list(writes), "tile_registers", statement)
        return self.s_tir.SBlockRealize([], True, block)

    def _do(self, name: str, *arguments: Any) -> Any:
        """An instruction; numbers are those of registers."""
        tirx = self.tirx
        given = [tirx.const(a, "int8") if isinstance(a, int) else a for a in arguments]
        return tirx.Evaluate(tirx.call_llvm_intrin("int32", f"llvm.x86.{name}", *given))


def _copies(statement: Any) -> bool:
    """A store of a load, or of 0 where a condition does not hold."""
    from tvm import ir

    value: Any = getattr(statement, "value", None)
    while _is_choice(value) and _is_zero(value.args[2]):
        value = value.args[1]
    return isinstance(value, ir.TensorLoad)


def _is_choice(value: Any) -> bool:
    return str(getattr(getattr(value, "op", None), "name", "")).endswith("if_then_else")


def _is_zero(value: Any) -> bool:
    from tvm import tirx

    return isinstance(value, tirx.FloatImm) and float(value.value) == 0.0


def _bits(value: Any) -> Any:
    """The bits of what `_copies` stores."""
    from tvm import tirx

    if _is_choice(value):
        return tirx.if_then_else(value.args[0], _bits(value.args[1]), tirx.const(0, "uint16"))
    return tirx.reinterpret("uint16", value)


def _range(start: Any, extent: Any) -> Any:
    from tvm import ir

    return ir.Range.from_min_extent(start, extent)


def _kind(variable: Any) -> str:
    """The type of an index."""
    return str(variable.ty.dtype)


def _substituted(value: Any, known: Mapping[Any, Any]) -> Any:
    """An index with other expressions in the places of variables."""
    for variable, other in known.items():
        if value.same_as(variable):
            return other
    if hasattr(value, "a") and hasattr(value, "b"):
        return type(value)(_substituted(value.a, known), _substituted(value.b, known))
    return value
