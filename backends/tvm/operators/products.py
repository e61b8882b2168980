"""Products of two activations: MatMul with both factors computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernel import Kernel, Located, View

__all__ = ["matmul"]


def matmul(kernel: Kernel) -> Located:
    """acc = Σ (a − z_a)(b − z_b) as numpy.matmul; y = clip(rint(float32(acc) · m) + z_y, low, high), or float32 · m."""
    op, te = kernel.op, kernel.te
    assert op.multiplier is not None
    a, b = kernel.operand(0), kernel.operand(1)
    left, right = kernel.centered(a, 0), kernel.centered(b, 1)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows = a.shape[-2:-1] if len(a.shape) > 1 else ()
    columns = b.shape[-1:] if len(b.shape) > 1 else ()
    k = te.reduce_axis((0, a.shape[-1]), name="k")

    def own(view: View, index: tuple[Any, ...]) -> list[Any]:
        """The batch index of an operand under broadcasting."""
        count = max(len(view.shape) - 2, 0)
        tail = index[len(index) - count :] if count else ()
        return [0 if extent == 1 else i for extent, i in zip(view.shape, tail, strict=False)]

    def term(*index: Any) -> Any:
        outer = index[: len(batch)]
        at_a = [*own(a, outer), *index[len(batch) : len(batch) + len(rows)], k]
        at_b = [*own(b, outer), k, *(index[len(index) - 1 :] if columns else ())]
        return te.sum(left(*at_a) * right(*at_b), axis=k)

    shape = (*batch, *rows, *columns)
    acc = te.compute(shape or (1,), term, name="acc")
    factor, clip = kernel.array(op.multiplier.reshape(1), "multiplier")[0], kernel.levels()
    return kernel.result(
        shape, lambda *i: clip(acc(*(i or (0,))).astype("float32") * factor), schedule=kernel.last_axis_innermost
    )
