"""Stand-ins for the data a model was trained on: pictures, drawings and feature sequences from a random generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["dead_leaves", "fields", "strokes"]

Floats = npt.NDArray[np.float32]


_LEAVES = 60  # they cover a picture about twice
_SMALLEST, _LARGEST = 0.04, 0.6  # radii, of the shorter side
_LEAST_SPREAD, _MOST_SPREAD = 0.3, 3.0  # α + β over 2 of a picture's colours: nearly black and white … nearly grey


def dead_leaves(rng: np.random.Generator, count: int, channels: int, height: int, width: int) -> Floats:
    """Pictures in [0, 1], N×C×H×W: occluding shaded ellipses whose radii follow p(r) ∝ r⁻³.

    The model of natural images that reproduces their edges, 1/f² spectrum and flat areas (Lee, Mumford and Huang,
    "Occlusion models for natural images", 2001). Brightness, contrast and sharpness differ from picture to picture,
    which gives filters the heavy tails that they have on photographs (Wainwright and Simoncelli, "Scale mixtures of
    Gaussians and the statistics of natural images", 1999). Colours of one leaf are correlated over the channels.
    """
    pictures = np.stack([_leaves(rng, channels, height, width) for _ in range(count)])
    pictures = np.clip(pictures + 0.02 * rng.standard_normal(pictures.shape), 0, 1).astype(np.float32)
    sharp = 0.5 * rng.random((count, 1, 1, 1), np.float32) ** 2
    return np.asarray(sharp * pictures + (1 - sharp) * _blurred(pictures))


def _leaves(rng: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """One picture, C×H×W, its colours around a brightness and at a contrast of its own."""
    spread = 2 * np.exp(rng.uniform(np.log(_LEAST_SPREAD), np.log(_MOST_SPREAD)))
    brightness = rng.beta(8, 8)
    ends = spread * brightness, spread * (1 - brightness)
    picture = np.empty((channels, height, width), np.float32)
    picture[:] = np.clip(rng.beta(*ends) + 0.1 * rng.standard_normal((channels, 1, 1)), 0, 1)
    inverse = rng.random(_LEAVES) * (_SMALLEST**-2 - _LARGEST**-2) + _LARGEST**-2
    for radius in min(height, width) / np.sqrt(inverse):
        y, x, stretch = rng.random() * height, rng.random() * width, np.exp(0.5 * rng.standard_normal())
        colour = np.clip(rng.beta(*ends) + 0.12 * rng.standard_normal(channels), 0, 1)
        slope = 0.15 * rng.standard_normal(2)
        rows, columns = _around(y, radius * stretch, height), _around(x, radius / stretch, width)
        down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y
        across = np.arange(columns.start, columns.stop, dtype=np.float32) - x
        inside = (down / stretch) ** 2 + (across * stretch) ** 2 < radius**2
        shade = slope[0] * down / height + slope[1] * across / width
        np.copyto(picture[:, rows, columns], colour[:, None, None] + shade, where=inside, casting="same_kind")
    return picture


def _around(centre: float, reach: float, size: int) -> slice:
    """The pixels of an axis that are at most `reach` from the centre."""
    return slice(max(int(np.ceil(centre - reach)), 0), min(int(np.floor(centre + reach)) + 1, size))


def _blurred(pictures: Floats) -> Floats:
    """Each plane through the binomial filter (1 2 1)/4 both ways, as lenses and resizing do."""
    x = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return np.asarray((rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4, np.float32)


def strokes(rng: np.random.Generator, count: int, channels: int, height: int, width: int) -> Floats:
    """Drawings in [0, 1], N×C×H×W: a few thick bright curves on a dark ground, as in handwriting."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    side = min(height, width)
    drawings = np.zeros((count, 1, height, width), np.float32)
    for drawing in drawings:
        for _ in range(rng.integers(1, 4)):
            points = np.array([height, width]) / 2 + side * 0.22 * rng.standard_normal((3, 2))
            thickness = side * rng.uniform(0.03, 0.07)
            for t in np.linspace(0, 1, 24):  # a quadratic Bézier curve, drawn as overlapping soft discs
                y, x = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
                distance = np.hypot(rows - y, columns - x)
                np.maximum(drawing[0], np.clip(thickness + 0.5 - distance, 0, 1), out=drawing[0])
    return np.repeat(drawings, channels, axis=1)


def fields(rng: np.random.Generator, shape: tuple[int, ...], feature_axis: int | None) -> Floats:
    """Sequences N×…: unit variance, 1/f amplitude along every axis but the samples' and the features'."""
    noise = rng.standard_normal(shape)
    for axis in range(1, len(shape)):
        if axis == feature_axis or shape[axis] < 2:
            continue
        frequency = np.abs(np.fft.fftfreq(shape[axis]))
        frequency[0] = 1 / shape[axis]
        weight = frequency.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        noise = np.fft.ifft(np.fft.fft(noise, axis=axis) / weight, axis=axis).real
    spread = noise.std()
    return np.asarray(noise / (spread if spread > 0 else 1.0), np.float32)
