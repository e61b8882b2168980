"""The template of float kernels that tile registers (AMX) multiply in bfloat16.

A scheduled kernel sums a block of results in float32 and then makes results of them; the sums of a block, and nothing
else of the kernel, become instructions on tile registers. Weights are packed to pairs of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ....targets.target import Target
from .. import schedule
from ..blocks import extents
from ..expressions import is_choice
from ..operators.workload import TILE_SIDE, Config
from .bfloat16_packing import WORD
from .bfloat16_product import (
    INSTRUCTIONS,
    ROW_BYTES,
    Bfloat16MatrixPairs,
    Bfloat16MatrixProduct,
    Bfloat16Pairs,
    Bfloat16Product,
    matrix_product,
)
from .matrix_products import Places, row_axis
from .pair_registers import PairRegisters
from .tile_registers import TileRegisters

__all__ = ["activations", "factor", "scheduled", "workload"]

_LEAST_ROWS = 4  # fewer positions leave more than three quarters of every tile empty


def workload(sch: Any, block: Any, position: int, target: Target) -> Bfloat16Product | None:
    """The products that a block sums, where instructions of bfloat16 do them well; position: of its operand's read."""
    stated = sch.get(block)
    *outer, width, columns = extents(sch, block, summed=False)
    *taps, channels = extents(sch, block, summed=True)
    operand, weight = stated.reads[position], stated.reads[1 - position]
    if not target.features & INSTRUCTIONS or {str(r.source.dtype) for r in (operand, weight)} != {"bfloat16"}:
        return None
    place, axes = [r.min for r in operand.region], [axis.var for axis in stated.iter_vars]
    if columns < TILE_SIDE or channels % 2 or len(taps) not in (0, 2) or not place[-1].same_as(axes[-1]):
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
    sizes = (prod(outer), width, columns, channels, window, (column, tap))
    tiles = Bfloat16Product(*sizes)
    fills = tiles.positions >= _LEAST_ROWS or tiles.rows * width == 1  # one row reads its weights once in any case
    if "amx-bf16" in target.features and fills and 2 * tiles.step >= min(channels, ROW_BYTES // 2):
        return tiles
    return Bfloat16Pairs(*sizes) if "avx512bf16" in target.features else None


def activations(sch: Any, block: Any, target: Target) -> tuple[Bfloat16MatrixProduct, Places] | None:
    """The products of two activations that a block sums, the right one packed as `bfloat16_packing` does."""
    stated = sch.get(block)
    types = [str(read.source.dtype) for read in stated.reads]
    if not target.features & INSTRUCTIONS or sorted(types) != ["bfloat16", WORD]:
        return None
    sizes = extents(sch, block, summed=False)
    (channels,) = extents(sch, block, summed=True)
    position = types.index("bfloat16")
    row = row_axis(stated, position, len(sizes))
    operand = stated.reads[position]
    if row is None or sizes[row] == 1 or not operand.region[-1].min.same_as(stated.iter_vars[-1].var):
        return None
    place = next(i for i, r in enumerate(operand.region) if r.min.same_as(stated.iter_vars[row].var))
    stride = prod(int(extent) for extent in operand.source.shape[place + 1 :]) // channels
    p = matrix_product(target, prod(sizes) // sizes[row] // sizes[-1], sizes[row], sizes[-1], channels, stride)
    words = [int(extent) for extent in stated.reads[1 - position].source.shape[-3:]]
    return None if p is None or words != p.packed_shape else (p, Places(row, position))


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


def scheduled(
    function: Any,
    p: Bfloat16Product,
    place: Places,
    shape: Sequence[int] | None,
    target: Target,
    config: Config,
) -> Any:
    """The fused kernel with one more argument before its result, `configuration`, and weights as `packed`, of a shape.

    shape: None where it reads a packed factor already.
    """
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    block = schedule.reduction(sch)
    result = schedule.tail(sch, block)
    *outer, o = sch.get_loops(result)
    w = outer.pop(place.row)
    wo, wi = sch.split(w, [None, p.positions * config.positions])
    oo, oi = sch.split(o, [None, TILE_SIDE * config.vectors])
    weights, data = prod(p.taps) * p.channels * p.columns, p.rows * p.width * max(p.channels, p.columns)
    many = shape is not None and weights > data
    sch.reorder(*([oo, *outer] if many else [*outer, oo]), wo, wi, oi)
    vector, lane = sch.split(oi, [None, TILE_SIDE])
    sch.vectorize(lane)
    in_tiles = not isinstance(p, (Bfloat16Pairs, Bfloat16MatrixPairs))
    if not in_tiles:  # sums stay in registers until they are results
        sch.unroll(wi)
        sch.unroll(vector)
    sch.compute_at(block, wo, preserve_unit_loops=True)
    schedule.finish(sch, target)
    blocks, staged = (sch.get(wo).loop_var, sch.get(oo).loop_var), bool(sch.get_producers(block))
    registers = (TileRegisters if in_tiles else PairRegisters)(
        sch.get(block), p, place.position, config, shape=shape, row=place.row, staged=staged, blocks=blocks
    )
    return registers.put_into(sch.mod["main"])


def _copies(statement: Any) -> bool:
    """A store of a load, or of 0 where a condition does not hold."""
    from tvm import ir

    value: Any = getattr(statement, "value", None)
    while is_choice(value) and _is_zero(value.args[2]):
        value = value.args[1]
    return isinstance(value, ir.TensorLoad)


def _is_zero(value: Any) -> bool:
    from tvm import tirx

    return isinstance(value, tirx.FloatImm) and float(value.value) == 0.0
