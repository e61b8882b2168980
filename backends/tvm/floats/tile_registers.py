"""Tile registers (AMX) in the place of the loops of a scheduled kernel that sum products of bfloat16.

Up to 16 positions × 32 channels times 32 × 16 filters an instruction; sums stay in registers for a block of such tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from ..blocks import exchanged, loop_with, realized, summed
from ..expressions import is_choice
from ..operators.workload import TILE_SIDE, Config
from .bfloat16_product import POSITIONS, ROW_BYTES, SUMS, WEIGHTS, Bfloat16MatrixProduct, Bfloat16Product
from .overlap import index_type, started, substituted

__all__ = ["TileRegisters"]


class TileRegisters:
    """Puts tile registers in the place of the loops around a block that sums.

    shape: of packed weights; None where the kernel reads a packed factor as it is; row: the axis of results that
    positions lie along; staged: the kernel pads its operand; blocks: what counts blocks of positions and of columns,
    the last of which begin where they end with the row.
    """

    def __init__(
        self,
        block: Any,
        p: Bfloat16Product,
        position: int,
        config: Config,
        *,
        shape: Sequence[int] | None,
        row: int,
        staged: bool,
        blocks: tuple[Any, Any],
    ) -> None:
        from tvm import s_tir, tirx

        self.tirx, self.s_tir = tirx, s_tir
        self.name, self.p, self.position, self.config = block.name_hint, p, position, config
        self.operand, self.weight = block.reads[position], block.reads[1 - position]
        source = self.operand.source
        self.bits = tirx.decl_buffer(source.shape, "uint16", source.name) if staged else None
        own = self.weight.source
        self.packed = own if shape is None else tirx.decl_buffer(shape, "bfloat16", own.name)
        self.columns, self.row = blocks[1], row
        sizes = (p.positions * config.positions, TILE_SIDE * config.vectors)
        ends = zip(blocks, sizes, (p.width, p.columns), strict=True)
        self.last = [(count, extent - size) for count, size, extent in ends if extent % size]

    def put_into(self, function: Any) -> Any:
        """The function with them, and with the argument that sets them up."""
        tirx = self.tirx
        root = function.body.block
        nests = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
        added, begin = self._beginning()
        body = []
        for nest in nests:
            body += [*begin, self._walk(nest)] if self._sums(nest, anywhere=True) else [self._bits(nest)]
        allocated = [self.bits if self._is_staged(buffer) else buffer for buffer in root.alloc_buffers]
        *given, out = function.params
        arguments = [self.packed if buffer.same_as(self.weight.source) else buffer for buffer in given]
        realize = realized(function.body, body=self._sequence(body), alloc_buffers=allocated)
        return tirx.PrimFunc([*arguments, *added, out], realize, function.ret_type, function.attrs)

    def _beginning(self) -> tuple[list[Any], list[Any]]:
        """What sets registers up before they are used: arguments and statements."""
        tirx = self.tirx
        tiles = tirx.decl_buffer((64,), "uint8", "tiles")
        begin = self._do("ldtilecfg", tirx.address_of(tirx.BufferLoad(tiles, [0])))
        return [tiles], [self._opaque([tiles], [], [begin])]

    def _is_staged(self, buffer: Any) -> bool:
        """The operand with its padding, if the kernel has one."""
        return self.bits is not None and bool(buffer.same_as(self.operand.source))

    def _bits(self, statement: Any) -> Any:
        """Loops that stage the operand, storing its bits: TVM would make float32 of what a kernel keeps to itself."""
        tirx = self.tirx

        def stored(realize: Any) -> Any:
            old = realize.block
            if not self._is_staged(old.writes[0].source):
                return realize
            store = tirx.BufferStore(self.bits, _bits(old.body.value), old.body.indices)
            return realized(realize, body=store, writes=[tirx.BufferRegion(self.bits, old.writes[0].region)])

        return exchanged(statement, stored)

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
            return loop_with(statement, self._walk(statement.body))
        if hasattr(statement, "iter_values"):
            starts = [started(value, self.last) for value in statement.iter_values]
            inside = True if self.last else statement.predicate
            return self.s_tir.SBlockRealize(starts, inside, statement.block)
        return statement

    def _replacement(self, nest: Any) -> Any:
        """Zeros, products, and the sums written to where the block would have left them."""
        tirx, p, config = self.tirx, self.p, self.config
        loops = []
        while isinstance(nest, tirx.For):
            loops.append(nest.loop_var)
            nest = nest.body
        axes = nest.block.iter_vars
        depth = len(summed(nest.block))
        inside = {loop: tirx.const(0, index_type(loop)) for loop in loops[: len(axes) - depth]}
        values = [substituted(started(value, self.last), inside) for value in nest.iter_values]
        base = {axis.var: value for axis, value in zip(axes, values, strict=True)}
        column, filter_ = axes[self.row].var, axes[len(axes) - depth - 1].var
        reduced = [axis.var for axis in axes[len(axes) - depth :]]

        def address(region: Any, i: int, j: int, *taps: Any) -> Any:
            """Where tile (i, j) of the block begins, at a place of the window."""
            known = base | dict(zip(reduced, taps[-len(reduced) :], strict=False))
            known |= {column: base[column] + i * p.positions, filter_: base[filter_] + j * TILE_SIDE}
            index = [substituted(axis.min, known) for axis in region.region]
            source = self.bits if self._is_staged(region.source) else region.source
            return tirx.address_of(tirx.BufferLoad(source, index))

        result = nest.block.writes[0]
        first = [substituted(axis.min, base) for axis in result.region]
        sizes = [1] * len(first)
        sizes[self.row], sizes[-1] = p.positions * config.positions, TILE_SIDE * config.vectors
        written = tirx.BufferRegion(result.source, [_range(*pair) for pair in zip(first, sizes, strict=True)])
        pairs = list(product(range(config.positions), range(config.vectors)))
        sums = [address(result, i, j) for i, j in pairs]
        batch = [substituted(axis.min, base) for axis in self.weight.region[: len(self.packed.shape) - 3]]
        before, after = self._ends(sums)
        body = [*before, self._products(nest.block, pairs, sums, address, batch), *after]
        read = self.operand.source if self.bits is None else self.bits
        return self._opaque([read, self.packed], [written], body)

    def _ends(self, sums: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What comes before the products, and what behind: zeros, and sums written to their addresses."""
        pitch = self.tirx.const(4 * TILE_SIDE * self.config.vectors, "int64")
        zeros = [self._do("tilezero", SUMS + number) for number in range(len(sums))]
        return zeros, [self._do("tilestored64", SUMS + number, place, pitch) for number, place in enumerate(sums)]

    def _products(
        self,
        block: Any,
        pairs: Sequence[tuple[int, int]],
        sums: Sequence[Any],
        address: Callable[..., Any],
        batch: Sequence[Any],
    ) -> Any:
        """Load and multiply, tap by tap of the window and step by step of the channels behind it.

        pairs: tile of positions and tile of columns of each tile of sums; batch: where the factor lies that was packed
        in this run.
        """
        tirx, p, config = self.tirx, self.p, self.config
        r, s, k = (tirx.Var(name, index_type(block.iter_vars[-1].var)) for name in "rsk")
        over, channel = tirx.floordiv(k * p.step, p.channels), tirx.floormod(k * p.step, p.channels)
        computed = isinstance(p, Bfloat16MatrixProduct)
        if computed:
            over, channel = tirx.const(0, index_type(k)), started(k * p.step, [(k, p.channels - p.step)])
        taps = (r, s + over, channel)
        operand = block.reads[self.position]
        front = (r, s + over) if len(self.packed.shape) == 6 else ()

        def weights(j: int) -> Any:
            tile = self.columns * config.vectors + j
            rest = [k * (p.step // 2), 0] if computed else [*front, tirx.floordiv(channel, 2), 0, 0]
            return tirx.address_of(tirx.BufferLoad(self.packed, [*(batch if computed else ()), tile, *rest]))

        places = (
            [address(operand, i, 0, *taps) for i in range(config.positions)],
            [*map(weights, range(config.vectors))],
        )
        nest = self._sequence(self._step(pairs, sums, *places))
        sizes = (-(-p.joined * p.channels // p.step), p.taps[1] // p.joined, p.taps[0])
        for variable, extent in zip((k, s, r), sizes, strict=True):
            nest = tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, nest)
        return nest

    def _step(
        self, pairs: Sequence[tuple[int, int]], sums: Sequence[Any], positions: Sequence[Any], weights: Sequence[Any]
    ) -> list[Any]:
        """The instructions of a step, from the addresses of what it reads."""
        pitches = [self.tirx.const(n, "int64") for n in (2 * self.p.strides[0] * self.p.channels, ROW_BYTES)]
        loads = [self._do("tileloadd64", POSITIONS + i, place, pitches[0]) for i, place in enumerate(positions)]
        loads += [self._do("tileloadd64", WEIGHTS + j, place, pitches[1]) for j, place in enumerate(weights)]
        products = [("tdpbf16ps", SUMS + number, POSITIONS + i, WEIGHTS + j) for number, (i, j) in enumerate(pairs)]
        return [*loads, *(self._do(*instruction) for instruction in products)]

    def _opaque(self, reads: Sequence[Any], writes: Sequence[Any], body: Sequence[Any]) -> Any:
        """A block of statements that schedules and passes leave alone; reads: buffers."""
        tirx = self.tirx
        whole = [tirx.BufferRegion(b, [_range(0, extent) for extent in b.shape]) for b in reads]
        block = self.s_tir.SBlock([], whole, list(writes), "tile_registers", self._sequence(body))
        return self.s_tir.SBlockRealize([], True, block)

    def _sequence(self, statements: Sequence[Any]) -> Any:
        return statements[0] if len(statements) == 1 else self.tirx.SeqStmt(list(statements))

    def _do(self, name: str, *arguments: Any) -> Any:
        """An instruction; numbers are those of registers."""
        tirx = self.tirx
        given = [tirx.const(a, "int8") if isinstance(a, int) else a for a in arguments]
        return tirx.Evaluate(tirx.call_llvm_intrin("int32", f"llvm.x86.{name}", *given))


def _bits(value: Any) -> Any:
    """The bits of what `_copies` stores."""
    from tvm import tirx

    if is_choice(value):
        return tirx.if_then_else(value.args[0], _bits(value.args[1]), tirx.const(0, "uint16"))
    return tirx.reinterpret("uint16", value)


def _range(start: Any, extent: Any) -> Any:
    from tvm import ir

    return ir.Range.from_min_extent(start, extent)
