"""Products of two activations: MatMul with both factors computed, one product for each row of each image.

Σ (a − z_a)(b − z_b) is Σ a·b, which starts at K·z_a·z_b − z_a·Σb of its column, and − z_b·Σa of its row at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from .conv import chosen, product, workload
from .direct import any_matmul
from .epilogue import bias_offset, finisher
from .kernel import Kernel
from .located import Located, row_major
from .packing import image, packed_in_every_run
from .staging import sign_shift, staged
from .workload import MatrixProduct, Operands, Workload

__all__ = ["matmul"]

_BESIDE = (0, 2, 1, 3)  # the heads of an attention beside each other, as what follows reads them


def matmul(kernel: Kernel) -> Located:
    """acc = Σ (a − z_a)(b − z_b) as numpy.matmul; y = clip(rint(float32(acc) · m) + z_y, low, high), or float32 · m."""
    a, b = kernel.operands
    ranks = {len(a.shape), len(b.shape)}
    if min(ranks) < 2 or max(ranks) > 4 or {a.dtype, b.dtype} - {"int8", "uint8"} or kernel.target.instruction is None:
        return any_matmul(kernel)
    batch = (1, 1, *np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))[-2:]
    (m, k), n = a.shape[-2:], b.shape[-1]
    ones, none = (1, 1), (0, 0, 0, 0)
    work = workload(kernel, batch[0], k, (batch[1], m), n, ones, ones, ones, none)
    return _Product(kernel, chosen(kernel, MatrixProduct(**work.__dict__))).result(max(ranks))


class _Product:
    """One product on its way to its kernels: b packed, sums of b by column and of a by row, and the product itself."""

    def __init__(self, kernel: Kernel, p: Workload) -> None:
        self.kernel, self.p = kernel, p
        self.shifts = [sign_shift(kernel.operands[0].dtype, p), -128 if kernel.operands[1].dtype == "uint8" else 0]
        self.zeros = [kernel.zero_point(i) + shift for i, shift in enumerate(self.shifts)]

    def result(self, rank: int) -> Located:
        """rank: dimensions of the result."""
        kernel, p, op = self.kernel, self.p, self.kernel.op
        assert op.multiplier is not None
        spans = [operand.encoding.span for operand in op.inputs if operand.encoding is not None]
        largest = np.full(p.padded_filters, p.channels * spans[0] * spans[1], np.int64)
        x = self._left()
        bias = self._starts(bias_offset(kernel, largest))
        factors = kernel.array(np.full(p.padded_filters, op.multiplier.item(), np.float32), "multiplier")
        packed = packed_in_every_run(kernel, p, kernel.operands[1])
        x = replace(x, bias=bias, factors=factors, packed=packed, rows=self._rows(), own=True)
        order = _BESIDE if rank == 4 and op.encoding is not None else row_major(4)
        shape = (p.batch, p.size[0], p.size[1], p.filters)[-rank:]
        out = Located("", shape, kernel.result_type, order if rank == 4 else row_major(rank))
        return product(p)(kernel, p, x, finisher(kernel, largest, factors), out, order)

    def _left(self) -> Operands:
        """The left operand where it lies, or as a stage of the kernel where the instruction cannot read it there."""
        kernel, p = self.kernel, self.p
        rank = len(kernel.operands[0].shape)
        if kernel.operands[0].layout[-1] != rank - 1:
            kernel.relay(0, row_major(rank))
        view = kernel.operand(0)
        place = view.place

        def at(n: Any, h: Any, w: Any, c: Any) -> tuple[Any, ...]:
            index = (*image(place, n, h), w, c)
            return tuple(index[axis] for axis in place.layout)

        def element(*index: Any) -> Any:
            return view.data(*at(*index))

        data = staged(kernel, p, element, self.shifts[0], self.zeros[0])
        if data is not element:
            return Operands(data)
        inside = place.layout[place.layout.index(rank - 2) + 1 :]
        return Operands(view.data, at=at, pitch=prod(place.shape[axis] for axis in inside))

    def _starts(self, offset: int) -> Any:
        """What sums start at: Σ of columns of b where z_a is not 0, else the same number for all."""
        kernel, p, zero = self.kernel, self.p, self.zeros[0]
        if zero == 0:
            return kernel.array(np.full(p.padded_filters, offset, np.int32), "bias")
        start = p.channels * zero * (self.zeros[1] - self.shifts[1]) + offset
        return self._sums(1, p.padded_filters, lambda k, o: (k, self.kernel.tirx.min(o, p.filters - 1)), -zero, start)

    def _rows(self) -> Any:
        """What the sums of a row have added: Σ of rows of a, nothing where z_b is 0."""
        zero, p = self.zeros[1], self.p
        if zero == 0:
            return None
        return self._sums(0, p.size[1], lambda k, m: (m, k), -zero, -p.channels * zero * self.shifts[0])

    def _sums(self, i: int, count: int, place: Callable[[Any, Any], tuple[Any, Any]], factor: int, start: int) -> Any:
        """factor · Σₖ operand i at `place(k, j)` + start, for each image, row and j, by a kernel of its own."""
        kernel, p = self.kernel, self.p
        own = type(kernel)(kernel.program, kernel.op, [kernel.operands[i]], kernel.target)
        view, k = own.operand(), own.te.reduce_axis((0, p.channels), name="k")
        shape = (p.batch, p.size[0], count)

        def term(n: Any, h: Any, j: Any) -> Any:
            return own.te.sum(view(*image(view.place, n, h), *place(k, j)).astype("int32"), axis=k)

        acc = own.te.compute(shape, term, name="acc")
        numbers = own.array(np.array([factor, start], np.int32), "numbers")
        out = own.te.compute(shape, lambda n, h, j: acc(n, h, j) * numbers[0] + numbers[1], name="out")
        beside = view.place.layout[-1] == len(view.shape) - 1 - (i == 1)  # what is summed lies behind each other
        found = own.finish(out, Located("", shape, "int32", row_major(3)), None if beside else own.last_axis_innermost)
        return kernel.argument(found.tensor, shape, "int32", "bias" if i else "rows")
