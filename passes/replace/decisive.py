"""Impressions for the layers that decide: what they are fitted and trained on where there are no real samples."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from ...errors import ModelError
from ...ir.layers import Layer
from ..context import Context
from ..prune.evidence import Moments, moments_of
from ..synthesize.decisions import tail_of

if TYPE_CHECKING:
    from ..synthesize.impressions import Impressions

__all__ = ["impressions_of", "seen"]

_COUNT = 8192


def impressions_of(model: ir.Model, layers: Sequence[Layer], context: Context) -> Mapping[str, Impressions]:
    """Impressions of every layer that ends in scores, by the name of its weight; none where there are real samples.

    Such a layer sees one vector a picture: made pictures, which decide for few classes, are far too few for it.
    """
    if context.data or importlib.util.find_spec("torch") is None:
        return {}
    from ..synthesize.impressions import impressions

    found = {}
    for layer in layers:
        tail = tail_of(layer)
        if isinstance(tail, str):
            continue
        try:
            found[layer.name] = impressions(
                model, layer, tail, _COUNT, context.seed, lambda share: context.progress("class impressions", share)
            )
        except (ModelError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:200]
            context.record.note(f"no class impressions for {layer.node.name}: {reason}")
            continue
        context.record.note(
            f"{layer.node.name}: {_COUNT} impressions of {len(layer.matrix())} classes, drawn at {tail.entry.name}"
        )
    return found


def seen(impressions: Impressions) -> Moments:
    """Mean and covariance of a layer's inputs over its impressions."""
    return moments_of(impressions.features, float(impressions.scores.var(0).sum()))
