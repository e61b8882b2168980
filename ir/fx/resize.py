"""ONNX `Resize` and `Upsample` in torch: along each axis a few taps, gathered and weighted, so it is differentiable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .tensors import integers, leaf

Tensor = Any


def upsample(X: Tensor, scales: Any = None, *, mode: str = "nearest") -> Tensor:
    return resize(X, None, scales, None, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@leaf
def resize(
    X: Tensor,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Separable resampling: every axis in turn, by the coordinate, interpolation and rounding modes of ONNX."""
    dims = [axis % X.dim() for axis in axes] if axes is not None else list(range(X.dim()))
    factors, targets = _plan(X, dims, scales, sizes, keep_aspect_ratio_policy)
    regions = [0.0] * len(dims) + [1.0] * len(dims) if roi is None or not len(roi) else [float(r) for r in roi]
    outside = None
    for i, axis in enumerate(dims):
        length = X.shape[axis]
        if targets[i] == length and factors[i] == 1 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        x = _coordinates(
            coordinate_transformation_mode, length, targets[i], factors[i], (regions[i], regions[i + len(dims)])
        )
        if coordinate_transformation_mode == "tf_crop_and_resize":
            beyond = ((x < 0) | (x > length - 1)).to(X.device)
            beyond = beyond.reshape([-1 if d == axis else 1 for d in range(X.dim())])
            outside = beyond if outside is None else outside | beyond
        X = _resample(X, axis, x, mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), antialias, factors[i])
    return X if outside is None else X.masked_fill(outside, extrapolation_value)


def _plan(X: Tensor, dims: list[int], scales: Any, sizes: Any, policy: str) -> tuple[list[float], list[int]]:
    lengths = [X.shape[axis] for axis in dims]
    if sizes is None or not len(sizes):
        factors = [float(s) for s in scales]
        return factors, [math.floor(length * f) for length, f in zip(lengths, factors, strict=True)]
    targets = integers(sizes)
    if policy != "stretch":
        choose = min if policy == "not_larger" else max
        factor = choose(t / length for t, length in zip(targets, lengths, strict=True))
        return [factor] * len(dims), [math.floor(length * factor + 0.5) for length in lengths]
    return [t / length for t, length in zip(targets, lengths, strict=True)], targets


def _coordinates(mode: str, length: int, target: int, factor: float, region: tuple[float, float]) -> Tensor:
    """Positions in the input of every output element, in float64."""
    i = torch.arange(target, dtype=torch.float64)
    if mode == "asymmetric":
        return i / factor
    if mode == "align_corners":
        return i * (length - 1) / (target - 1) if target > 1 else i * 0
    if mode == "tf_crop_and_resize":
        start, end = region[0] * (length - 1), region[1] * (length - 1)
        return start + i * (end - start) / (target - 1) if target > 1 else i * 0 + (start + end) / 2
    if mode == "pytorch_half_pixel" and target == 1:
        return i * 0
    if mode == "half_pixel_symmetric":
        adjustment = target / (factor * length)
        return length / 2 * (1 - adjustment) + (i + 0.5) / factor - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / factor
    return (i + 0.5) / factor - 0.5


_ROUND = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
}


def _resample(
    X: Tensor, axis: int, x: Tensor, mode: str, rounding: str, a: float, exclude: bool, antialias: int, factor: float
) -> Tensor:
    length = X.shape[axis]
    if mode == "nearest":
        index = _ROUND[rounding](x).clamp(0, length - 1).long()
        return X.index_select(axis, index.to(X.device))
    support, weigh = (1, _hat) if mode in ("linear", "bilinear") else (2, lambda d: _cubic(d, a))
    stretch = 1 / factor if antialias and factor < 1 else 1.0
    reach = math.ceil(support * stretch)
    first = torch.floor(x).long() - reach + 1
    result = None
    taps, weights = [], []
    for step in range(2 * reach):
        position = first + step
        weight = weigh((x - position).abs() / stretch)
        if exclude:
            weight = torch.where((position < 0) | (position >= length), torch.zeros_like(weight), weight)
        taps.append(position.clamp(0, length - 1))
        weights.append(weight)
    norm = torch.stack(weights).sum(0) if exclude or stretch > 1 else torch.ones_like(x)
    shape = [-1 if d == axis else 1 for d in range(X.dim())]
    for tap, weight in zip(taps, weights, strict=True):
        part = X.index_select(axis, tap.to(X.device)) * (weight / norm).to(X.device, X.dtype).reshape(shape)
        result = part if result is None else result + part
    return result


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
