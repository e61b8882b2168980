"""`CudaKernel`: one operation on its way to a kernel whose results are computed by threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...ir.integer import IntegerOp
from ...targets.target import Target
from ..tvm.operators.kernel import Kernel, Templated
from ..tvm.operators.located import Located
from ..tvm.program import Program
from .environment import load
from .schedule import bind_results

__all__ = ["CudaKernel"]


class CudaKernel(Kernel):
    """The computations are those of the CPU back end; schedules that an operator brings are for CPUs and left out."""

    interleaves: ClassVar[bool] = False

    def __init__(self, program: Program, op: IntegerOp, operands: Sequence[Located], target: Target) -> None:
        super().__init__(program, op, operands, target)
        load()

    def rounded(self, value: Any) -> Any:
        return self.tirx.call_pure_extern("int32", "__float2int_rn", value)

    def quotient(self, value: Any, divisor: Any, reciprocal: Any) -> Any:
        return self.tirx.div(value, divisor)

    def finish(self, out: Any, place: Located, schedule: Callable[[Any], Any] | None = None) -> Located:
        return super().finish(out, place, lambda function: bind_results(function, self.target))

    def tiled(self, made: Templated) -> Located:
        return super().finish(made.out, made.place, lambda function: bind_results(made.prepared(function), self.target))

    def blocked(self, made: Templated) -> Located:
        """`Kernel.tiled`, by a template for GPUs."""
        return super().tiled(made)
