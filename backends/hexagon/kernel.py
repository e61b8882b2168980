"""`HexagonKernel`: what kernels of the integer operations have of their own on HVX, and the machine they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ..tvm.machine import CPU, Machine
from ..tvm.operators import OPERATORS, elementwise
from ..tvm.operators.direct import any_matmul
from ..tvm.operators.kernel import Kernel, Templated
from ..tvm.operators.located import Located
from .depthwise import conv
from .operations import LEVELS, register

__all__ = ["HEXAGON", "HexagonKernel"]


_INTEGERS, _INTEGERS_BITS = 12582912.0, 0x4B400000


class HexagonKernel(Kernel):
    """Vectors of 128 bytes; results are rounded and clipped in integers."""

    widths: ClassVar[tuple[int, ...]] = (128, 64, 32, 16, 8, 4)
    interleaves: ClassVar[bool] = False

    def levels(self) -> Callable[[Any], Any]:
        encoding = self.op.encoding
        if encoding is None or encoding.dtype.itemsize > 1:
            return super().levels()
        register()
        dtype, zero = self.result_type, int(encoding.zero_point.reshape(-1)[0])
        if self.op.kind == "add":  # a sum of two products in integers costs more than it saves
            return super().levels()
        bounds = self.array(np.array([int(self.op.low) - zero, int(self.op.high) - zero, zero], np.int32), "bounds")
        return lambda scaled: self.tirx.call_intrin(dtype, LEVELS, scaled, bounds[0], bounds[1], bounds[2])

    def rounded(self, value: Any) -> Any:
        encoding = self.op.encoding
        if encoding is None or encoding.dtype.itemsize > 2:
            return super().rounded(value)
        # There is no such instruction. At 1.5 · 2²³ float32 holds integers only, the addition rounds to the nearest.
        shifted = value + self.tirx.const(_INTEGERS, "float32")
        return self.tirx.reinterpret("int32", shifted) - self.tirx.const(_INTEGERS_BITS, "int32")

    def width(self, extent: int) -> int | None:
        if self.op.encoding is None or self.op.kind == "add":
            return None  # in float32, whose vectors LLVM takes apart at great length
        if self.op.kind == "unary":
            return max(self.widths) if extent % max(self.widths) == 0 else None  # TVM looks up whole vectors only
        return super().width(extent)

    def finish(self, out: Any, place: Located, schedule: Callable[[Any], Any] | None = None) -> Located:
        if schedule is None:
            return super().finish(out, place)
        return super().finish(out, place, lambda function: self.vectorized(schedule(function)))

    def tiled(self, made: Templated) -> Located:
        return super().tiled(replace(made, schedule=lambda f, chosen: self.vectorized(made.schedule(f, chosen))))


def _quantize(kernel: Kernel) -> Located:
    """`elementwise.quantize`, rounded in integers where there is one scale."""
    encoding = kernel.op.encoding
    if encoding is None or encoding.axis is not None or encoding.dtype.itemsize > 1:
        return elementwise.quantize(kernel)
    x, scale, levels = kernel.operand(), kernel.scalar(encoding.scale.item(), "float32", "scale"), kernel.levels()
    return kernel.result(x.shape, lambda *index: levels(kernel.tirx.div(x(*index), scale)))


_OPERATORS = {**OPERATORS, "conv": conv, "matmul": any_matmul, "quantize": _quantize}
HEXAGON = Machine(HexagonKernel, _OPERATORS, CPU.target, CPU.schedule)
