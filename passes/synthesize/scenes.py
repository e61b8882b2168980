"""Pictures as varied as photographs are: textured dead leaves, seen from any distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["closer", "scenes", "texture"]

Floats = npt.NDArray[np.floating]

_LEAVES = 60  # they cover a picture about twice
_SMALLEST, _LARGEST = 0.04, 0.6  # radii, of the shorter side
_LEAST_SPREAD, _MOST_SPREAD = 0.3, 3.0  # α + β over 2 of a picture's colours: nearly black and white … nearly grey
_TEXTURES = 4  # a picture
_FAINTEST, _STRONGEST = 0.01, 0.2  # deviation of a leaf's texture
_COARSEST, _FINEST = 1 / 64, 1 / 4  # cycles a pixel, where a texture's spectrum begins
_CLOSEST = 1 / 8  # of the side: the part of a picture that is seen
_GRAIN = 0.01


def scenes(rng: np.random.Generator, count: int, channels: int, height: int, width: int) -> Floats:
    """Pictures in [0, 1], N×C×H×W: occluding ellipses and rectangles with textures of their own, from any distance.

    Means over a whole picture differ among photographs about as much as positions within one do: some show a single
    surface, some thousands of things. Dead leaves of one scale all have much the same means; a part of 1/8 … 1 of the
    picture, in logarithm evenly distributed, gives their spread (Ruderman, "The statistics of natural images", 1994:
    they are the same at every scale). Textures: Achddou, Gousseau, Ladjal, "Synthetic images as a regularity prior
    for image restoration neural networks", 2021.
    """
    pictures = [closer(rng, _scene(rng, channels, height, width)) for _ in range(count)]
    noisy = np.stack(pictures) + _GRAIN * rng.standard_normal((count, channels, height, width))
    return np.asarray(np.clip(noisy, 0, 1), np.float32)


def texture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A plane of unit variance: noise of amplitude r^−β from a lowest frequency on, stretched along some direction."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    angle, stretch, slope = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.6)), rng.uniform(0.5, 2.0)
    along = stretch * (np.cos(angle) * across + np.sin(angle) * down)
    aside = (np.cos(angle) * down - np.sin(angle) * across) / stretch
    frequency = np.maximum(np.hypot(along, aside), 1e-9)
    lowest = np.exp(rng.uniform(np.log(_COARSEST), np.log(_FINEST)))
    amplitude = frequency**-slope * np.exp(-np.square(lowest / frequency) / 4)
    amplitude[0, 0] = 0
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    plane = np.fft.irfft2(amplitude * phases, s=(height, width))
    spread = float(plane.std())
    return np.asarray(plane / spread if spread > 0 else plane)


def closer(rng: np.random.Generator, picture: Floats) -> Floats:
    """A part of the picture C×H×W at its full size: 1/8 … 1 of either side, interpolated linearly."""
    part = np.exp(rng.uniform(np.log(_CLOSEST), 0.0))
    rows, columns = (_interpolation(size, part * size, rng.random() * (1 - part) * size) for size in picture.shape[1:])
    return np.asarray(rows @ picture @ columns.T)


def _interpolation(size: int, length: float, start: float) -> Floats:
    """The matrix [size, size] that reads `size` points of `length` pixels from `start` on."""
    at = np.clip(start + (np.arange(size) + 0.5) * length / size - 0.5, 0, size - 1)
    below = np.minimum(at.astype(int), max(size - 2, 0))
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), below] = 1 - (at - below)
    matrix[np.arange(size), np.minimum(below + 1, size - 1)] += at - below
    return matrix


def _scene(rng: np.random.Generator, channels: int, height: int, width: int) -> Floats:
    """One picture, C×H×W, its colours around a brightness and at a contrast of its own."""
    spread = 2 * np.exp(rng.uniform(np.log(_LEAST_SPREAD), np.log(_MOST_SPREAD)))
    brightness = rng.beta(8, 8)
    ends = spread * brightness, spread * (1 - brightness)
    textures = [texture(rng, height, width).astype(np.float32) for _ in range(_TEXTURES)]
    tinted = rng.beta(*ends) + 0.1 * rng.standard_normal((channels, 1, 1))
    picture = np.clip(tinted, 0, 1) + 0.1 * rng.random() * textures[0]
    inverse = rng.random(_LEAVES) * (_SMALLEST**-2 - _LARGEST**-2) + _LARGEST**-2
    for radius in min(height, width) / np.sqrt(inverse):
        _add_leaf(rng, picture, radius, textures, np.clip(rng.beta(*ends) + 0.12 * rng.standard_normal(channels), 0, 1))
    return np.asarray(np.clip(picture, 0, 1))


def _add_leaf(rng: np.random.Generator, picture: Floats, radius: float, textures: list[Floats], colour: Floats) -> None:
    """An ellipse, or every third time a rectangle, shaded and with a texture, in place."""
    channels, height, width = picture.shape
    centre, angle, stretch = rng.random(2) * (height, width), rng.uniform(0, np.pi), np.exp(0.5 * rng.standard_normal())
    reach = radius * max(stretch, 1 / stretch) * 1.5
    rows, columns = (
        slice(max(int(c - reach), 0), min(int(c + reach) + 2, n)) for c, n in zip(centre, (height, width), strict=True)
    )
    down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - centre[0]
    across = np.arange(columns.start, columns.stop, dtype=np.float32) - centre[1]
    along = (np.cos(angle) * across + np.sin(angle) * down) / stretch
    aside = (np.cos(angle) * down - np.sin(angle) * across) * stretch
    if rng.integers(3):
        inside = along**2 + aside**2 < radius**2
    else:
        inside = np.maximum(np.abs(along), np.abs(aside)) < 0.9 * radius
    slope = 0.3 * rng.standard_normal(2)
    shade = slope[0] * down / height + slope[1] * across / width
    moved = np.roll(textures[rng.integers(len(textures))], rng.integers(0, height, 2), (0, 1))[rows, columns]
    strength = np.exp(rng.uniform(np.log(_FAINTEST), np.log(_STRONGEST)))
    strengths = strength * (1 + 0.3 * rng.standard_normal((channels, 1, 1)))
    np.copyto(picture[:, rows, columns], colour[:, None, None] + shade + strengths * moved, where=inside)
