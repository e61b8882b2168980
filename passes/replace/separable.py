"""Depthwise-separable replacements of a convolution, from singular vectors of every input channel's kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .factory import Candidate, Piece, Site, pointwise, solve

__all__ = ["separable", "separable_pairs"]

Floats = npt.NDArray[np.float64]


def separable(site: Site) -> Iterator[Candidate]:
    """Conv k×k ⇒ depthwise k×k with multiplier m, then 1×1: `W[:, i] ≈ Σⱼ P[:, ij]·D[ij]`, m = 1 … taps − 1

    D holds the leading right singular vectors of `W[:, i]·C_i^½`; P is solved for on all of them together.
    """
    if len(site.kernel) != 2 or site.layer.depthwise:
        return
    taps = int(np.prod(site.kernel))
    channels = site.matrix.shape[1] // taps
    directions = _directions(site, taps)
    for multiplier in range(1, taps):
        depthwise = directions[:, :multiplier]
        coefficients, bias, error = solve(site, _expand(depthwise))
        pieces = (
            _depthwise(site, depthwise),
            pointwise(coefficients, bias),
        )
        if sum(p.parameters for p in pieces) < site.matrix.size:
            yield Candidate("separable", f"multiplier {multiplier}, {channels} channels", pieces, error)


def separable_pairs(site: Site) -> Iterator[Candidate]:
    """Conv k×k, Relu ⇒ (depthwise, 1×1, Relu) twice: the first as `separable`, the second starts as the identity

    Only where a Relu follows, because `Relu(I·Relu(y)) = Relu(y)`. Source: Blakeney et al., TPDS 2021.
    """
    readers = [use.node.op_type for use in site.node.outputs[0].uses()]
    if len(site.kernel) != 2 or site.layer.depthwise or readers != ["Relu"] or site.node.outputs[0].is_graph_output():
        return
    taps = int(np.prod(site.kernel))
    first = _directions(site, taps)[:, :1]
    coefficients, bias, error = solve(site, _expand(first))
    outputs = len(coefficients)
    identity = np.zeros((outputs, 1, 3, 3))
    identity[:, 0, 1, 1] = 1.0
    keep = Piece(
        "Conv", (identity.astype(np.float32),), {"group": outputs, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    )
    pieces = (
        _depthwise(site, first),
        pointwise(coefficients, bias),
        Piece("Relu"),
        keep,
        pointwise(np.eye(outputs), np.zeros(outputs)),
    )
    if sum(p.parameters for p in pieces) < site.matrix.size:
        yield Candidate("separable-pairs", "", pieces, error)


def _directions(site: Site, taps: int) -> Floats:
    """[channels, taps, taps]: kernels of one input channel, those that carry most of the output first."""
    channels = site.matrix.shape[1] // taps
    kernels = site.matrix.reshape(-1, channels, taps)
    covariance = site.covariance().reshape(channels, taps, channels, taps)
    found = np.empty((channels, taps, taps))
    for i in range(channels):
        values, vectors = np.linalg.eigh(covariance[i, :, i, :])
        root = np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-30)))
        _, _, right = np.linalg.svd(kernels[:, i] @ (vectors * root), full_matrices=True)
        found[i] = right @ (vectors / root).T
    norms = np.linalg.norm(found, axis=2, keepdims=True)
    found /= np.maximum(norms, 1e-30)
    return found


def _expand(depthwise: Floats) -> Floats:
    """[channels, m, taps] as a map of whole patches: [channels · m, channels · taps]."""
    channels, multiplier, taps = depthwise.shape
    features = np.zeros((channels, multiplier, channels, taps))
    features[np.arange(channels), :, np.arange(channels)] = depthwise
    return features.reshape(channels * multiplier, channels * taps)


def _depthwise(site: Site, kernels: Floats) -> Piece:
    channels, multiplier, _ = kernels.shape
    weight = kernels.reshape(channels * multiplier, 1, *site.kernel).astype(np.float32)
    return Piece("Conv", (weight,), {"group": channels, "kernel_shape": list(site.kernel), **site.windows()})
