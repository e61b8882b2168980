"""Grouped replacement of a convolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .factory import Candidate, Piece, Site, missed

__all__ = ["grouped"]


def grouped(site: Site) -> Iterator[Candidate]:
    """Conv ⇒ Conv with g groups: each group of outputs solved for on its own group of inputs, g = 2, 4, 8"""
    if len(site.kernel) != 2 or site.layer.depthwise:
        return
    taps = int(np.prod(site.kernel))
    outputs, width = site.matrix.shape
    channels = width // taps
    covariance, mean = site.covariance(), site.mean
    for groups in (2, 4, 8):
        if channels % groups or outputs % groups:
            continue
        weight = np.zeros_like(site.matrix)
        for rows, columns in zip(np.split(np.arange(outputs), groups), np.split(np.arange(width), groups), strict=True):
            seen = covariance[np.ix_(columns, columns)]
            weight[np.ix_(rows, columns)] = np.linalg.solve(seen, covariance[columns] @ site.matrix[rows].T).T
        rest = site.matrix - weight
        own = np.concatenate(
            [
                weight[r][:, c]
                for r, c in zip(np.split(np.arange(outputs), groups), np.split(np.arange(width), groups), strict=True)
            ]
        )
        shaped = own.reshape(outputs, channels // groups, *site.kernel).astype(np.float32)
        bias = (site.bias + rest @ mean).astype(np.float32)
        attributes = {"group": groups, "kernel_shape": list(site.kernel), **site.windows()}
        yield Candidate("grouped", f"{groups} groups", (Piece("Conv", (shaped, bias), attributes),), missed(site, rest))
