"""`CUDA`: how kernels are made for GPUs; the computations are those of the CPU back end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.integer import IntegerOp
from ...targets.target import Target
from ..tvm.machine import Machine
from ..tvm.operators import OPERATORS, conv
from ..tvm.operators.kernel import Kernel, Located
from ..tvm.program import Program
from .environment import load, tvm_target
from .products import product
from .schedule import bind_results, schedule

__all__ = ["CUDA", "CudaKernel"]


class CudaKernel(Kernel):
    """A kernel whose results are computed by threads; schedules that an operator brings for CPUs are left out."""

    def __init__(self, program: Program, op: IntegerOp, operands: Sequence[Located], target: Target) -> None:
        super().__init__(program, op, operands, target)
        load()

    def rounded(self, value: Any) -> Any:
        return self.tirx.call_pure_extern("int32", "__float2int_rn", value)

    def finish(self, out: Any, place: Located, schedule: Callable[[Any], Any] | None = None) -> Located:
        return super().finish(out, place, lambda function: bind_results(function, self.target))


CUDA = Machine(
    kernel=CudaKernel,
    operators={
        **OPERATORS,
        "conv": lambda kernel: conv.conv(kernel, product),
        "dense": lambda kernel: conv.dense(kernel, product),
    },
    target=tvm_target,
    schedule=schedule,
)
