"""Low-rank replacements of a convolution: over channels, along the two axes of the kernel, Tucker and CP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .factory import Candidate, Piece, Site, pointwise, ranks, solve

__all__ = ["canonical", "channel", "spatial", "truncations", "tucker"]

Floats = npt.NDArray[np.float64]

_RANKS = 16  # that are offered for a layer
_SWEEPS = 30  # of alternating least squares; it gains little after ten


def channel(site: Site) -> Iterator[Candidate]:
    """Conv C→M, k×k ⇒ Conv C→R, k×k, then 1×1 R→M: the best rank-R map of `W·C^½`"""
    if len(site.kernel) != 2 or site.layer.depthwise:
        return
    for features, coefficients, bias, error in truncations(site):
        first = features.reshape(len(features), -1, *site.kernel)
        pieces = (_conv(first, {"kernel_shape": list(site.kernel), **site.windows()}), pointwise(coefficients, bias))
        if sum(p.parameters for p in pieces) < site.matrix.size:
            yield Candidate("low-rank-channel", f"rank {len(features)}", pieces, error)


def spatial(site: Site) -> Iterator[Candidate]:
    """Conv k×l ⇒ Conv k×1 to R channels, then 1×l: SVD of W as [C·k, l·M]. Source: Jaderberg et al., BMVC 2014"""
    if len(site.kernel) != 2 or site.layer.depthwise or min(site.kernel) == 1:
        return
    height, width = site.kernel
    outputs = len(site.matrix)
    kernels = site.matrix.reshape(outputs, -1, height, width)
    channels = kernels.shape[1]
    tall = kernels.transpose(1, 2, 0, 3).reshape(channels * height, outputs * width)
    left, values, _ = np.linalg.svd(tall, full_matrices=False)
    full, cost = int((values > 1e-9 * values[0]).sum()), channels * height + outputs * width
    window = site.windows()
    for rank in ranks(full, site.matrix.size // cost):
        vertical = left[:, :rank].T.reshape(rank, channels, height)
        features = np.zeros((rank, width, channels, height, width))
        for x in range(width):
            features[:, x, :, :, x] = vertical
        coefficients, bias, error = solve(site, features.reshape(rank * width, -1))
        pieces = (
            _conv(vertical[..., None], {"kernel_shape": [height, 1], **_only(window, 0)}),
            _conv(
                coefficients.reshape(outputs, rank, 1, width), {"kernel_shape": [1, width], **_only(window, 1)}, bias
            ),
        )
        if sum(p.parameters for p in pieces) < site.matrix.size:
            yield Candidate("low-rank-spatial", f"rank {rank}", pieces, error)


def tucker(site: Site) -> Iterator[Candidate]:
    """Conv C→M, k×k ⇒ 1×1 C→R, k×k R→S, 1×1 S→M: HOSVD on both channel axes. Source: Kim et al., ICLR 2016"""
    if len(site.kernel) != 2 or site.layer.depthwise or max(site.kernel) == 1:
        return
    outputs, taps = len(site.matrix), int(np.prod(site.kernel))
    kernels = site.matrix.reshape(outputs, -1, taps)
    channels = kernels.shape[1]
    inward = np.linalg.svd(kernels.transpose(1, 0, 2).reshape(channels, -1), full_matrices=False)[0]
    outward = np.linalg.svd(site.matrix, full_matrices=False)[0]
    for share in (0.25, 0.375, 0.5, 0.625, 0.75):
        r, s = max(1, round(share * channels)), max(1, round(share * outputs))
        core = np.einsum("oct,cr,os->srt", kernels, inward[:, :r], outward[:, :s])
        features = np.einsum("srt,cr->sct", core, inward[:, :r]).reshape(len(core), -1)
        coefficients, bias, error = solve(site, features)
        pieces = (
            _conv(inward[:, :r].T[:, :, None, None], {"kernel_shape": [1, 1]}),
            _conv(core.reshape(*core.shape[:2], *site.kernel), {"kernel_shape": list(site.kernel), **site.windows()}),
            pointwise(coefficients, bias),
        )
        if sum(p.parameters for p in pieces) < site.matrix.size:
            yield Candidate("tucker", f"ranks {r} and {len(core)}", pieces, error)


def canonical(site: Site) -> Iterator[Candidate]:
    """Conv C→M, k×k ⇒ 1×1 C→R, depthwise k×k, 1×1 R→M: CP by alternating least squares. Source: Lebedev, ICLR 2015"""
    if len(site.kernel) != 2 or site.layer.depthwise or max(site.kernel) == 1:
        return
    outputs, taps = len(site.matrix), int(np.prod(site.kernel))
    kernels = site.matrix.reshape(outputs, -1, taps)
    channels = kernels.shape[1]
    for rank in ranks(max(outputs, channels) * 2, site.matrix.size // (outputs + channels + taps) - 1, 4):
        a, _, d = _alternate(kernels, rank)
        features = np.einsum("cr,tr->rct", a, d).reshape(rank, -1)
        coefficients, bias, error = solve(site, features)
        pieces = (
            _conv(a.T[:, :, None, None], {"kernel_shape": [1, 1]}),
            _conv(
                d.T.reshape(rank, 1, *site.kernel), {"group": rank, "kernel_shape": list(site.kernel), **site.windows()}
            ),
            pointwise(coefficients, bias),
        )
        if sum(p.parameters for p in pieces) < site.matrix.size:
            yield Candidate("cp", f"rank {rank}", pieces, error)


def truncations(site: Site) -> Iterator[tuple[Floats, Floats, Floats, float]]:
    """`W ≈ B·A` at a few ranks R, from one decomposition: A [R, n], B [m, R], the bias, the share missed (`missed`).

    The rows of A are C-orthogonal, so that B is `W·C·Aᵀ` whatever the rank: both are cut from those of full rank. A row
    of A is as long as its column of B, so that training moves both alike.
    """
    covariance, weight = site.covariance(), site.matrix
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(values, 1e-12 * max(values[-1], 1e-30)))
    _, _, right = np.linalg.svd(weight @ (vectors * root), full_matrices=False)
    features = right @ (vectors / root).T
    coefficients = weight @ (vectors * root) @ right.T
    balance = np.sqrt(np.linalg.norm(coefficients, axis=0) / np.maximum(np.linalg.norm(features, axis=1), 1e-30))
    balance = np.maximum(balance, 1e-30)
    features, coefficients = features * balance[:, None], coefficients / balance
    seen = features @ site.observed
    caught = np.cumsum(np.sum(seen * (coefficients.T @ weight), axis=1))  # tr(B·A·C·Wᵀ) at every rank
    kept = (seen @ features.T) * (coefficients.T @ coefficients)  # its leading blocks sum to tr(B·A·C·Aᵀ·Bᵀ)
    energy = max(float(np.sum((weight @ site.observed) * weight)), 1e-30)
    for rank in ranks(min(weight.shape), weight.size // sum(weight.shape), _RANKS):
        share = 1.0 + (float(kept[:rank, :rank].sum()) - 2.0 * float(caught[rank - 1])) / energy
        rest = weight @ site.mean - coefficients[:, :rank] @ (features[:rank] @ site.mean)
        yield features[:rank], coefficients[:, :rank], site.bias + rest, min(max(share, 0.0), 1.0)


def _alternate(kernels: Floats, rank: int) -> tuple[Floats, Floats, Floats]:
    """CP factors of W[m, c, t] ≈ Σᵣ b[m, r]·a[c, r]·d[t, r]: a and d with columns of norm 1, the scale in b."""
    rng = np.random.default_rng(0)
    outputs, channels, taps = kernels.shape
    a, d = rng.normal(size=(channels, rank)), rng.normal(size=(taps, rank))
    b = np.zeros((outputs, rank))
    for _ in range(_SWEEPS):
        b = _factor(kernels.reshape(outputs, -1), _pairs(a, d))
        a = _unit(_factor(kernels.transpose(1, 0, 2).reshape(channels, -1), _pairs(b, d)))
        d = _unit(_factor(kernels.transpose(2, 0, 1).reshape(taps, -1), _pairs(b, a)))
    return a, b, d


def _pairs(x: Floats, y: Floats) -> Floats:
    """Khatri–Rao product: [len(x) · len(y), rank]."""
    pairs: Floats = np.einsum("ir,jr->ijr", x, y).reshape(-1, x.shape[1])
    return pairs


def _factor(unfolded: Floats, pairs: Floats) -> Floats:
    gram = pairs.T @ pairs
    found = np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), pairs.T @ unfolded.T)
    factor: Floats = np.asarray(found.T, np.float64)
    return factor


def _unit(x: Floats) -> Floats:
    scaled: Floats = x / np.maximum(np.linalg.norm(x, axis=0), 1e-30)
    return scaled


def _only(window: Mapping[str, Sequence[int]], axis: int) -> dict[str, list[int]]:
    """The window along one spatial axis; along the other it is one wide."""
    neutral = {"strides": 1, "dilations": 1, "pads": 0}
    return {key: [v if i % 2 == axis else neutral[key] for i, v in enumerate(values)] for key, values in window.items()}


def _conv(weight: Floats, attributes: Mapping[str, int | Sequence[int]], bias: Floats | None = None) -> Piece:
    weights = [weight, bias] if bias is not None else [weight]
    return Piece("Conv", tuple(np.ascontiguousarray(w, np.float32) for w in weights), attributes)
