"""Moments of values ahead of their activations: from stored statistics, else observed on the inputs there are."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED, Probe, with_shapes
from ...ir.statistics import Moments, of_statistics
from ..context import Context

__all__ = ["moments"]


def moments(model: ir.Model, values: Sequence[ir.Value], context: Context) -> dict[str, Moments]:
    """Per-channel moments by name; a value without statistics, where no input could be made, is not in it."""
    known = {str(v.name): fact for v in values if (fact := metadata.get(v, metadata.STATISTICS))}
    found = {name: of_statistics(fact, 6.0) for name, fact in known.items()}
    feeds = context.data or context.synthetic or ()
    shaped = with_shapes(model)
    ranked = {v.name for n in shaped.graph for v in n.outputs if v.shape is not None and len(v.shape) > 1}
    wanted = [str(v.name) for v in values if v.name not in found and v.name in ranked]
    if wanted and feeds and weight_bytes(model) <= LARGEST_OBSERVED:
        try:
            found |= Probe(shaped, wanted)(feeds)
        except ModelError as error:
            context.record.note(f"the model could not be observed: {error.what}")
    return found
