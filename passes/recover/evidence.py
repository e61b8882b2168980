"""What the gates compare on: the original model and samples, the user's before synthesised ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.execute import Session
from ..context import Context, Feeds

__all__ = ["NO_ORIGINAL", "Labels", "compared", "decisions"]

Labels = npt.NDArray[np.int64]

NO_ORIGINAL = "the original model is not at hand: run the pass in a pipeline of `optimize`"
_BATCH = 64


def compared(context: Context) -> tuple[ir.Model, Sequence[Feeds]] | None:
    """The original and the feeds to run it on; None, said in the record, when one of them is missing."""
    feeds = context.data or context.synthetic
    if context.original is None:
        context.record.skip("model", NO_ORIGINAL)
    elif not feeds:
        context.record.skip("model", "no inputs to compare on: put synthesize-inputs before it, or give --data")
    else:
        return context.original, feeds
    return None


def decisions(model: ir.Model, feeds: Sequence[Feeds]) -> Labels | None:
    """The class that the first output names for each sample; None when it is no vector of scores."""
    session = Session(model, optimized=True)
    name = session.fetch[0]
    found = []
    for feed in feeds:
        for batch, count in _batches(feed, model):
            scores = np.asarray(session(batch)[name])
            if scores.ndim != 2 or scores.shape[1] < 2:
                return None
            found.append(scores[:count].argmax(1))
    return np.concatenate(found).astype(np.int64)


def _batches(feed: Feeds, model: ir.Model) -> Iterator[tuple[Feeds, int]]:
    """The samples of a feed, as many at a time as the model takes, and how many of them count: a fixed batch is filled
    up with copies of the last sample."""
    batched = {str(v.name): v.shape[0] for v in model.graph.inputs if v.shape}
    fixed = [size for size in batched.values() if isinstance(size, int)]
    total = min(len(feed[name]) for name in batched)
    step = fixed[0] if fixed else _BATCH
    for start in range(0, total, step):
        count = min(step, total - start)
        rows = np.minimum(np.arange(start, start + (step if fixed else count)), total - 1)
        yield {name: x[rows] if name in batched else x for name, x in feed.items()}, count
