"""`Kernel`: one integer operation on its way to a PrimFunc: operands in their layouts, constants, one result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....ir.integer import IntegerOp
from ....targets.target import Target
from .. import environment, loop_nest
from ..program import Choice, Program
from ..residual import Residual
from ..transposing import tile_transposed
from .arithmetic import Arithmetic
from .located import Located, View, channels_last, row_major

__all__ = ["Kernel", "Templated"]

# operations whose results are elements of their operands
_BYTEWISE = frozenset({"concat", "max", "max_pool", "pad", "resize", "slice", "split"})

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Templated:
    """A kernel by a template: `schedule(prepared(function), config)` of the PrimFunc that computes TE tensor `out`."""

    out: Any
    place: Located
    workload: Any
    config: Any
    schedule: Callable[[Any, Any], Any]
    prepared: Callable[[Any], Any] = lambda function: function


class Kernel(Arithmetic):
    """Collects the arguments of one PrimFunc and appends its call to the program.

    widths: elements of a vector, widest first; interleaves: see `staging.py`; residual: what the operation ends with,
    of which the last operand is a part.
    """

    widths: ClassVar[tuple[int, ...]] = (16, 8, 4)
    interleaves: ClassVar[bool] = True

    def __init__(self, program: Program, op: IntegerOp, operands: Sequence[Located], target: Target) -> None:
        tvm = environment.load()
        self.te, self.tirx = tvm.te, tvm.tirx
        self.program, self.op, self.operands, self.target = program, op, list(operands), target
        self.residual: Residual | None = None
        self._reads: list[str] = []
        self._arguments: list[Any] = []

    def operand(self, i: int = 0, stored: tuple[int, ...] | None = None) -> View:
        """The i-th operand as an argument; `stored` may give its bytes another shape (then index `.data` directly)."""
        place = self.operands[i]
        return View(place, self.argument(place.tensor, stored or place.stored, place.dtype, f"x{i}"))

    def array(self, array: Array, name: str) -> Any:
        """A constant array as an argument, so that kernels that differ in constants only are one kernel."""
        tensor = self.program.constant(np.asarray(array))
        return self.argument(tensor, tuple(np.shape(array)), str(np.asarray(array).dtype), name)

    def scalar(self, value: Any, dtype: str, name: str) -> Any:
        """A constant number as an argument."""
        return self.array(np.array([value], dtype), name)[0]

    def zero_point(self, i: int = 0) -> int:
        """The zero point of operand i (0 for floats)."""
        encoding = self.op.inputs[i].encoding
        return 0 if encoding is None else int(encoding.zero_point.reshape(-1)[0])

    def centered(self, view: View, i: int = 0) -> Callable[..., Any]:
        """`x − z_x` in int32, as a function of the logical index."""
        zero = self.scalar(self.zero_point(i), "int32", f"z{i}")
        return lambda *index: view(*index).astype("int32") - zero

    @property
    def last(self) -> IntegerOp:
        """The operation whose results are stored."""
        return self.op if self.residual is None else self.residual.addition

    @property
    def result_type(self) -> str:
        """The numpy name of the result's type."""
        encoding = self.last.encoding
        return "float32" if encoding is None else encoding.dtype.numpy().name

    def levels(self) -> Callable[[Any], Any]:
        """`clip(rint(v) + z_y, low, high)` of a float32, in the result's type; the identity for a float result."""
        encoding = self.last.encoding
        if encoding is None:
            return lambda scaled: scaled
        zero = int(encoding.zero_point.reshape(-1)[0])
        bounds = self.array(np.array([int(self.last.low) - zero, int(self.last.high) - zero], np.float32), "bounds")
        moved = self.scalar(zero, "int32", "zero_point")

        def clipped(scaled: Any) -> Any:
            # Clipping commutes with rounding, its bounds being integers; z_y is then added to integers, which is exact.
            return (self.rounded(self.limited(scaled, bounds[0], bounds[1])) + moved).astype(self.result_type)

        return clipped

    def relay(self, i: int, layout: tuple[int, ...]) -> None:
        """Put operand i in another layout, by a kernel of its own where its bytes have to move."""
        place = self.operands[i]
        if place.lies_as(layout):
            self.operands[i] = replace(place, layout=layout)
            return
        copy = type(self)(self.program, self.op, [place], self.target)
        self.operands[i] = copy.result(place.shape, copy.operand(), layout, place.dtype)

    def result(
        self,
        shape: Sequence[int],
        element: Callable[..., Any],
        layout: tuple[int, ...] | None = None,
        dtype: str | None = None,
        schedule: Callable[[Any], Any] | None = None,
    ) -> Located:
        """Finish: `element` gives each element by its logical index; float results are stored as ONNX sees them."""
        dtype = dtype or self.result_type
        rank = len(shape)
        layout = layout or (row_major(rank) if dtype == "float32" else channels_last(rank))
        shape = tuple(int(d) for d in shape)
        inverse = [layout.index(axis) for axis in range(rank)]
        stored = tuple(shape[axis] for axis in layout)
        out = self.te.compute(stored, lambda *i: element(*(i[p] for p in inverse)), name="out")
        return self.finish(out, Located("", shape, dtype, layout), schedule)

    def finish(self, out: Any, place: Located, schedule: Callable[[Any], Any] | None = None) -> Located:
        """Append the call of the PrimFunc that computes the TE tensor `out` into a new tensor placed like `place`."""
        choice = loop_nest.choice(self.function(out), self.op.kind, schedule or self.vectorized)
        return self._append(choice.scheduled(loop_nest.config(self.program, choice)), place, choice)

    def tiled(self, made: Templated) -> Located:
        """`finish` by a template; the program keeps how to make the kernel with other configs."""
        function = made.prepared(self.function(made.out))
        choice = Choice(made.workload, lambda other: made.schedule(function, other))
        return self._append(made.schedule(function, made.config), made.place, choice)

    def function(self, out: Any) -> Any:
        """The PrimFunc, not scheduled, that computes a TE tensor from the arguments so far."""
        return self.te.create_prim_func([*self._arguments, out]).without_attr("global_symbol")

    def _append(self, function: Any, place: Located, choice: Choice) -> Located:
        tensor = self.program.tensor(self.last.outputs[0], place.stored, place.dtype)
        self.program.call(function, self.op.kind, tuple(self._reads), (tensor,), choice)
        return Located(tensor, place.shape, place.dtype, place.layout)

    def vectorized(self, function: Any) -> Any:
        """The plain loop nest with its innermost loop in vectors where a power of two divides it."""
        from tvm.s_tir import Schedule

        sch = Schedule(function)
        if tile_transposed(sch, sch.get_sblock("out"), self.target):
            return sch.mod["main"]
        loops = sch.get_loops(sch.get_sblock("out"))
        if not loops or sch.get(loops[-1]).kind != self.tirx.ForKind.SERIAL:
            return sch.mod["main"]
        width = self.width(int(sch.get(loops[-1]).extent))
        if width:
            sch.vectorize(sch.split(loops[-1], [None, width])[1])
        return sch.mod["main"]

    def last_axis_innermost(self, function: Any) -> Any:
        """Reduce the block `acc` into vectors along its last data-parallel axis, then finish in vectors."""
        from tvm.s_tir import Schedule

        sch = Schedule(function)
        block = sch.get_sblock("acc")
        loops, axes = sch.get_loops(block), sch.get(block).iter_vars
        # create_prim_func makes one loop an axis, data-parallel ones (iter_type 0) first.
        count = sum(int(axis.iter_type) == 0 for axis in axes)
        spatial, reduction = loops[:count], loops[count:]
        if len(loops) != len(axes) or not spatial or not reduction:
            return sch.mod["main"]
        last = spatial[-1]
        width = self.width(int(sch.get(last).extent))
        sch.reorder(*spatial[:-1], *reduction, last)
        if width:
            sch.vectorize(sch.split(last, [None, width])[1])
        init = sch.decompose_reduction(block, reduction[0])
        if width:
            sch.vectorize(sch.get_loops(init)[-1])
        return self.vectorized(sch.mod["main"])

    def width(self, extent: int) -> int | None:
        """The widest vector that divides a loop: a whole register of bytes that are only moved or compared."""
        wider = self.bytes_wide if self.op.kind in _BYTEWISE and self.result_type in ("int8", "uint8") else ()
        return next((width for width in (*wider, *self.widths) if extent % width == 0), None)

    @property
    def bytes_wide(self) -> tuple[int, ...]:
        """Registers of more than sixteen bytes, widest first."""
        found = {"avx512bw": 64, "avx2": 32}
        return tuple(width for feature, width in found.items() if feature in self.target.features)

    def argument(self, tensor: str, shape: tuple[int, ...], dtype: str, name: str) -> Any:
        """A tensor as an argument, its bytes under any shape and type."""
        placeholder = self.te.placeholder(shape or (1,), dtype, name=name)
        self._reads.append(tensor)
        self._arguments.append(placeholder)
        if not shape:
            return _Scalar(placeholder)
        assert prod(shape) * np.dtype(dtype).itemsize == self.program.tensors[tensor].bytes
        return placeholder


@dataclass(frozen=True)
class _Scalar:
    """A 0-d array: PrimFuncs need an axis, so it is stored with one and indexed with none."""

    placeholder: Any

    def __call__(self, *index: Any) -> Any:
        return self.placeholder[0]

    def __getitem__(self, index: Any) -> Any:
        return self.placeholder[0]
