"""Inputs that fit a model's signature, for comparing a model with itself before and after a pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..errors import ModelError

__all__ = ["Feeds", "random_feeds", "working_feeds"]

Feeds = dict[str, npt.NDArray[np.generic]]

# sizes tried for dimensions that are not fixed; recurrent and strided nets refuse some of them
_SIZES = (32, 64, 128, 8, 16, 256, 576, 512, 224, 1, 2, 4)
_REAL = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def random_feeds(model: ir.Model, rng: np.random.Generator, size: int, batch: int = 1) -> Feeds:
    """One feed: N(0, 1) for real inputs, 0 or 1 for integers and booleans (valid as token, mask and index alike).

    size: what dimensions without a fixed size get; the first axis gets `batch`, and equal symbols are equal.
    """
    feeds: Feeds = {}
    for value in model.graph.inputs:
        dtype = value.dtype or ir.DataType.FLOAT
        dims = value.shape if value.shape is not None else ir.Shape([])
        shape = [
            d if isinstance(d, int) else (batch if axis == 0 or _is_batch(d) else size) for axis, d in enumerate(dims)
        ]
        if dtype in _REAL:
            feeds[str(value.name)] = rng.standard_normal(shape).astype(dtype.numpy())
        elif dtype == ir.DataType.BOOL:
            feeds[str(value.name)] = rng.integers(0, 2, shape).astype(bool)
        elif dtype == ir.DataType.STRING:
            feeds[str(value.name)] = np.full(shape, "", dtype=object)
        else:
            feeds[str(value.name)] = np.asarray(rng.integers(0, 2, shape), dtype.numpy())
    return feeds


def _is_batch(dim: object) -> bool:
    name = getattr(dim, "value", None)
    return isinstance(name, str) and name.lower() in ("batch", "batch_size", "n", "b")


def working_feeds(
    model: ir.Model, run: Callable[[Feeds], object], seed: int, count: int = 1, batch: int = 1
) -> list[Feeds]:
    """`count` random feeds on which `run` succeeds; the free dimensions take the first size that works.

    Raises ModelError with the runtime's last complaint when none does.
    """
    free = any(not isinstance(d, int) for v in model.graph.inputs for d in list(v.shape or ())[1:])
    complaint = ""
    for size in _SIZES if free else (1,):
        rng = np.random.default_rng(seed)
        feeds = [random_feeds(model, rng, size, batch) for _ in range(count)]
        try:
            run(feeds[0])
        except Exception as error:
            complaint = str(error)
            continue
        return feeds
    raise ModelError(
        f"the model runs on no random input: {complaint[:300]}",
        where=", ".join(f"{v.name}{list(v.shape or ())}" for v in model.graph.inputs),
        hint="fix its free dimensions with --shape name:1,3,224,224, or give real samples with --data",
    )
