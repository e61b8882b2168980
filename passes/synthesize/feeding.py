"""From samples to feeds: batches of equal size, sentences of several lengths, states carried from call to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .sentences import sentence
from .signature import Signature, beside

__all__ = ["feeds_of", "token_feeds"]

Array = npt.NDArray[np.generic]
Feed = dict[str, Array]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_BATCH = 4  # samples per run where the model takes any number
_SHORTEST = 0.4  # share of a sequence that is filled at least, where a mask says how much


def feeds_of(model: ir.Model, signature: Signature, samples: npt.NDArray[np.float32], run: Run | None) -> list[Feed]:
    """Runs of equal size: 4 samples where the batch is free, else the model's own batch.

    A model with states is run, sample by sample, and every feed holds the states that its predecessors left; without
    `run` the states stay 0. Twins of the signal get other samples than it does.
    """
    batch = _BATCH if signature.free_batch else signature.shape[0]
    runs = max(len(samples) // batch, 1)
    padded = samples if len(samples) >= batch else np.resize(samples, (batch, *samples.shape[1:]))
    rest = beside(model, signature, batch)
    drawn = {name: np.roll(padded, k, axis=0) for k, name in enumerate((signature.name, *signature.roles.twins))}
    feeds = [
        rest | {name: np.ascontiguousarray(x[i * batch : (i + 1) * batch]) for name, x in drawn.items()}
        for i in range(runs)
    ]
    return feeds if run is None else _rolled_out(feeds, signature.roles.states, run)


def _rolled_out(feeds: list[Feed], states: Mapping[str, str], run: Run) -> list[Feed]:
    """Each feed with the states that running those before it leaves behind."""
    carried: Feed = {}
    result = []
    for feed in feeds:
        result.append(feed | carried)
        if states:
            outputs = run(result[-1])
            carried = {name: outputs[source] for name, source in states.items()}
    return result


def token_feeds(model: ir.Model, signature: Signature, count: int, rng: np.random.Generator) -> list[Feed]:
    """`count` sentences in batches; where there is a mask, most end early and the rest is masked."""
    batch = _BATCH if signature.free_batch else signature.shape[0]
    length = signature.shape[1]
    feeds = []
    for _ in range(max(count // batch, 1)):
        feed = beside(model, signature, batch)
        masks = [str(v.name) for v in signature.roles.masks]
        fills = rng.integers(max(int(_SHORTEST * length), 1), length + 1, batch) if masks else np.full(batch, length)
        fills[0] = length
        for tokens in signature.roles.tokens:
            value = next(v for v in model.graph.inputs if v.name == tokens.name)
            rows = np.zeros((batch, length), (value.dtype or ir.DataType.INT64).numpy())
            for row, fill in zip(rows, fills, strict=True):
                row[:fill] = sentence(tokens, int(fill), rng)
            feed[tokens.name] = rows
        for name in masks:
            feed[name] = np.asarray(np.arange(length) < fills[:, None], feed[name].dtype)
        feeds.append(feed)
    return feeds
