"""`check-similarity`: how much of the original's representation each edge still holds; stops below a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError, VerificationError
from ...ir.execute import Session
from ...ir.probe import channel_axis, with_shapes
from ..base import Pass
from ..context import Context, Feeds
from .evidence import compared
from .similarity import MEASURES, Covariances

__all__ = ["CheckSimilarity"]

Array = npt.NDArray[np.generic]

_EDGES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "InstanceNormalization"})
_ROWS = 8192  # positions of one value taken from one run: neighbours tell little more
_PER_CHANNEL = 5  # fewer samples than this a channel, and canonical correlations tend to 1 whatever the data


@dataclass(frozen=True)
class CheckSimilarity(Pass):
    """Similarity of every layer's result to the original's: linear CKA, SVCCA or PWCCA over samples and positions

    measure: `cka` sees changes of scale between channels; `svcca` and `pwcca` are blind to any invertible linear map.
    at_least: the least similarity that an edge may have; below it the pipeline stops (exit 4). 0 only reports.
    Runs on the user's data or on synthesised inputs; edges are matched by name, removed channels do not matter.
    """

    measure: Literal["cka", "svcca", "pwcca"] = "cka"
    at_least: float = 0.0
    name: ClassVar[str] = "check-similarity"

    def run(self, model: ir.Model, context: Context) -> None:
        found = compared(context)
        if found is None:
            return
        original, feeds = found
        names = _common(with_shapes(original), with_shapes(model))
        scores = {}
        for name, covariances in _observed(original, model, names, feeds):
            width = max(len(covariances.xx), len(covariances.yy))
            if covariances.count < _PER_CHANNEL * width:
                context.record.skip(name, f"{covariances.count} samples are too few for {width} channels")
                continue
            scores[name] = round(MEASURES[self.measure](covariances), 4)
        context.record.measures["similarity"] = {"measure": self.measure, **scores}
        if not scores:
            context.record.note("no layer of the original has a counterpart of the same name to be compared with")
            return
        worst = min(scores, key=lambda name: scores[name])
        context.record.note(f"lowest {self.measure} to the original: {scores[worst]:.3f} at {worst}")
        if scores[worst] < self.at_least:
            raise VerificationError(
                f"{self.measure} to the original is {scores[worst]:.3f}, at least {self.at_least:g} is asked",
                where=f"value {worst}",
                hint="compress less, append `recover`, or lower `at-least`",
            )


def _common(before: ir.Model, after: ir.Model) -> list[str]:
    """Names of layers' results with channels that both models have, in the order of computation."""
    known = {v.name for node in after.graph for v in node.outputs if channel_axis(v) is not None}
    return [
        str(v.name)
        for node in before.graph
        if node.op_type in _EDGES
        for v in node.outputs[:1]
        if v.name in known and channel_axis(v) is not None
    ]


def _observed(
    before: ir.Model, after: ir.Model, names: Sequence[str], feeds: Sequence[Feeds]
) -> Iterator[tuple[str, Covariances]]:
    """Covariances of the named values over all feeds, one value at a time: memory is that of one value."""
    if not names:
        return
    axes = [{v.name: channel_axis(v) for n in with_shapes(m).graph for v in n.outputs} for m in (before, after)]
    for name in names:
        sessions = [Session(model, [name]) for model in (before, after)]
        total: Covariances | None = None
        for feed in feeds:
            try:
                values = [session(feed)[name] for session in sessions]
            except Exception as error:  # the runtime's own exception types are not public
                raise ModelError(
                    f"the model does not run: {str(error)[:300]}",
                    where=f"value {name}",
                    hint="give samples with --data",
                ) from error
            x, y = (_rows(value, axis[name]) for value, axis in zip(values, axes, strict=True))
            if len(x) != len(y):
                break  # a spatial size changed: positions do not correspond
            total = total or Covariances(x.shape[1], y.shape[1])
            step = max(len(x) // _ROWS, 1)
            total.add(x[::step], y[::step])
        if total is not None:
            yield name, total


def _rows(value: Array, axis: int | None) -> Array:
    """[samples × positions, channels]."""
    assert axis is not None
    return np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
