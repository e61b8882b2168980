"""What a BatchNormalization of a model's input remembers of the data: the mean and deviation of every channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ...ir import metadata
from ...ir.graph import constant
from .hypotheses import Floats, Hypothesis, features, pictures
from .signature import Signature
from .typicality import Statistics, stored_statistics

__all__ = ["recalled", "remembered"]


def remembered(model: ir.Model, signature: Signature) -> Statistics | None:
    """Mean and deviation along axis 1 of the input, of a BatchNormalization that reads it or was folded behind it."""
    value = next(v for v in model.graph.inputs if v.name == signature.name)
    found = stored_statistics(value) if metadata.get(value, metadata.STATISTICS) is not None else None
    for use in value.uses():
        if found is None and use.node.op_type == "BatchNormalization" and use.idx == 0:
            mean, variance = (constant(v) for v in use.node.inputs[3:5])
            if mean is not None and variance is not None:
                found = np.asarray(mean, np.float64), np.sqrt(np.asarray(variance, np.float64))
    return found if found is not None and found[0].shape == (signature.shape[1],) else None


def recalled(
    signature: Signature, statistics: Statistics, count: int, rng: np.random.Generator
) -> Sequence[Hypothesis]:
    """Every content that inputs of the kind can have, each channel with the mean and deviation that are remembered."""
    how = "with the mean and deviation that their BatchNormalization remembers"
    if signature.kind != "picture":
        unit, _ = features(signature, count, rng)
        return [Hypothesis(f"features, {how}", _scaled(unit, statistics))]
    contents = {h.title.split(",")[0]: h for h in reversed(pictures(signature, count, rng))}
    return [
        replace(h, title=f"{content}, {how}", samples=_scaled(h.samples, statistics), prior=1.0, varied=None)
        for content, h in contents.items()
    ]


def _scaled(samples: Floats, statistics: Statistics) -> Floats:
    """Axis 1 with these means and deviations."""
    others = tuple(axis for axis in range(samples.ndim) if axis != 1)
    wide = [-1 if axis == 1 else 1 for axis in range(samples.ndim)]
    mean, std = (np.reshape(s, wide) for s in statistics)
    spread = samples.std(axis=others, keepdims=True)
    unit = (samples - samples.mean(axis=others, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(mean + std * unit, np.float32)
