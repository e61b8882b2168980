"""Removed channels expressed by kept ones, from weights alone: the consumers' weights take over their part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...ir.channels import Channels, Group
from .consumers import consumers
from .folding import merge_map
from .saliency import producer_rows

__all__ = ["merge"]


def merge(channels: Channels, removed: npt.NDArray[np.int64], ridge: float) -> None:
    """W₂ ← W₂·S in every consumer, S the ridge combination of kept producer rows (with their biases) for each channel.

    Exact for a filter in the span of the kept ones as long as the activation between is linear there (LBYL,
    arXiv 2502.08474; neuron merging is the case of one kept filter). In place, before the units are cut out.
    """
    for group in channels.free:
        kept = np.flatnonzero(~np.isin(group.units, removed))
        if len(kept) in (0, len(group)):
            continue
        combination = merge_map(producer_rows(group), kept, ridge)
        _spread(group, kept, combination)


def _spread(group: Group, kept: npt.NDArray[np.int64], combination: npt.NDArray[np.floating]) -> None:
    for consumer in consumers(group):
        weight = consumer.layer.matrix()
        flat = weight.reshape(len(weight), -1)
        units = flat[:, consumer.columns]  # [outputs, units, columns of a unit]
        flat[:, consumer.columns[kept]] = np.einsum("oum,uk->okm", units, combination)
        consumer.layer.store(flat.reshape(weight.shape), consumer.layer.offset())
