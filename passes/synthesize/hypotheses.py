"""Scales and offsets that inputs come in, and the choice among them by what they do to the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .priors import dead_leaves, fields, strokes
from .signature import Signature

__all__ = ["CONVENTIONS", "Hypothesis", "features", "pictures", "search", "surprise"]

Floats = npt.NDArray[np.float32]

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
_DRAWING = (28, 28)  # MNIST and the data sets made in its likeness
_LARGEST_LOG_SCALE = 14.0  # e¹⁴ ≈ 10⁶: sensors do not count further


def _imagenet(u: Floats) -> Floats:
    if u.shape[1] != 3:
        return np.asarray((u - _IMAGENET_MEAN.mean()) / _IMAGENET_STD.mean(), np.float32)
    return (u - _IMAGENET_MEAN[:, None, None]) / _IMAGENET_STD[:, None, None]


_IMAGENET, _STANDARDISED = "ImageNet mean and deviation", "mean 0, deviation 1"
_BYTES = "0…255"
_LESS_MEAN = "0…255 less the mean"
_FROM_ELSEWHERE = frozenset({_IMAGENET, _LESS_MEAN})  # PyTorch's and Caffe's, seldom found in TensorFlow's networks
_FOREIGN = 0.1  # their prior there


def _standardised(u: Floats, rng: np.random.Generator) -> Floats:
    """By the mean and deviation of a data set, which are not known: those of u, e^(z/4) times as large, z normal."""
    about = np.exp(0.25 * rng.standard_normal((2, len(u), *[1] * (u.ndim - 1)))).astype(np.float32)
    return np.asarray((u - about[0] * u.mean()) / (about[1] * max(float(u.std()), 1e-6)), np.float32)


# convention of preparing pictures -> from u in [0, 1], N×C×H×W, to what the network is fed
CONVENTIONS: Mapping[str, Callable[[Floats], Floats]] = {
    "0…1": lambda u: u,
    "−1…1": lambda u: 2 * u - 1,
    _BYTES: lambda u: 255 * u,
    _LESS_MEAN: lambda u: 255 * u - 128,
    _IMAGENET: _imagenet,
    _STANDARDISED: lambda u: (u - u.mean()) / max(float(u.std()), 1e-6),
}


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """Inputs of one kind at one scale, N×…, with the words that describe them.

    prior: how usual it is beside others; varied: the same with what is not known about them drawn anew for every
    sample, where that is more than `samples`.
    """

    title: str
    samples: Floats
    prior: float = 1.0
    varied: Floats | None = None

    @property
    def drawn(self) -> Floats:
        return self.samples if self.varied is None else self.varied


def pictures(
    signature: Signature, count: int, rng: np.random.Generator, tensorflow: bool = False, whole: bool = False
) -> list[Hypothesis]:
    """Every convention over every content: natural pictures; where there is a single channel drawings too, and these
    alone at the size of handwritten digits. tensorflow: the network comes from there; whole: it is fed bytes.
    """
    axis = signature.axis or 1
    channels = signature.shape[axis]
    height, width = signature.shape[2:] if axis == 1 else signature.shape[1:3]
    contents = {}
    if channels > 1 or (height, width) != _DRAWING:
        contents["pictures"] = dead_leaves(rng, count, channels, height, width)
    if channels == 1:
        contents["drawings"] = strokes(rng, count, channels, height, width)
    found = []
    for content, u in contents.items():
        for convention, prepare in CONVENTIONS.items():
            if whole and convention != _BYTES:
                continue
            if convention == _STANDARDISED and channels == 3:
                continue  # ImageNet's mean and deviation are those of colour pictures in general
            x = np.asarray(prepare(u), np.float32)
            varied = _standardised(u, rng) if convention == _STANDARDISED else x
            x, varied = (a if axis == 1 else a.transpose(0, 2, 3, 1) for a in (x, varied))
            prior = _FOREIGN if tensorflow and convention in _FROM_ELSEWHERE else 1.0
            found.append(Hypothesis(f"{content}, {convention}", x, prior, varied))
    return found


def features(signature: Signature, count: int, rng: np.random.Generator) -> tuple[Floats, tuple[int, ...]]:
    """Unit fields N×… and the shape that one mean or scale per feature group broadcasts from."""
    shape = (count, *signature.shape[1:])
    unit = fields(rng, shape, signature.axis)
    return unit, tuple(shape[i] if i == signature.axis else 1 for i in range(len(shape)))


def surprise(mean: Floats, log_scale: Floats) -> float:
    """What speaks against extreme means and scales, 0.001·(log²σ + asinh²μ): too little to matter at 100, enough to
    decide where the network does not care, as behind a normalisation of its input.
    """
    return float(1e-3 * np.mean(np.square(log_scale) + np.square(np.arcsinh(mean))))


def search(
    objective: Callable[[Floats, Floats], float], groups: int, steps: int, rng: np.random.Generator
) -> tuple[Floats, Floats, float]:
    """Mean and log-scale per feature that minimise the objective: (1+1) evolution from the scales 1, 8 and 64.

    Each start gets a twentieth of the steps; the best goes on until they are used up, or until 50 trials, and four more
    for every number to find, have together gained less than a hundredth.
    """
    starts = [_Search(objective, groups, scale, rng) for scale in (1.0, 8.0, 64.0)]
    for start in starts:
        start.advance(steps // 20)
    best = min(starts, key=lambda start: start.value)
    left, patience = steps - len(starts) * (steps // 20), 50 + 8 * groups
    while left > 0:
        before = best.value
        best.advance(min(patience, left))
        left -= patience
        if best.value > 0.99 * before:
            break
    return (*_split(best.point), best.value)


class _Search:
    """(1+1) evolution of means and log-scales, all scales alike at first.

    The step grows by 1.3 on success and shrinks by 0.93 on failure, which holds the success rate near one in five
    (Rechenberg's rule); a third of the coordinates move at a time.
    """

    def __init__(
        self, objective: Callable[[Floats, Floats], float], groups: int, scale: float, rng: np.random.Generator
    ) -> None:
        self._objective, self._rng, self._step = objective, rng, 1.0
        self.point = np.concatenate([np.zeros(groups), np.full(groups, np.log(scale))])
        self._unit = np.concatenate([np.full(groups, scale), np.full(groups, 0.5)])
        self.value = objective(*_split(self.point))

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            moved = self._rng.random(len(self.point)) < 1 / 3
            trial = self.point + self._step * self._unit * moved * self._rng.standard_normal(len(self.point))
            result = self._objective(*_split(trial))
            if result < self.value:
                self.point, self.value, self._step = trial, result, self._step * 1.3
            else:
                self._step = max(self._step * 0.93, 0.02)


def _split(point: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    mean, log_scale = np.split(point.astype(np.float32), 2)
    return mean, np.clip(log_scale, -_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE)
