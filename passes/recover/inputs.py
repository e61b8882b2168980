"""Inputs to train on: the user's data, or synthesised samples; drawn in batches, pictures augmented."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..context import Context, Feeds

__all__ = ["Inputs", "gather"]

Array = npt.NDArray[np.generic]

_LARGEST = 4 << 30  # bytes of samples held in memory; what is beyond is not read
_HELD_OUT = 20  # one sample of so many judges the training and takes no part in it
_MOST_HELD_OUT = 512
_PICTURE_CHANNELS = (3, 4)  # a single plane may be a spectrogram or a digit, which have no mirror images
_SHIFT = 8  # pictures are moved by at most this part of their side: 4 pixels of 32, as is usual


@dataclass(frozen=True)
class Inputs:
    """Samples by input name, all of one length, their labels if known, and where they come from.

    made: they are synthesised; they are few and cost minutes, so that pictures among them are also mixed in pairs.
    """

    arrays: dict[str, Array]
    labels: Array | None
    source: str
    made: bool = False

    def __len__(self) -> int:
        return min(len(x) for x in self.arrays.values())

    def split(self) -> tuple[Inputs, Inputs]:
        """What is trained on and what judges; a handful of samples does both."""
        count = min(len(self) // _HELD_OUT, _MOST_HELD_OUT)
        judges = np.linspace(0, len(self) - 1, count).astype(int) if count >= 2 else np.arange(len(self))
        others = np.setdiff1d(np.arange(len(self)), judges) if count >= 2 else judges
        return self.take(others), self.take(judges)

    def take(self, rows: Array) -> Inputs:
        labels = None if self.labels is None else self.labels[rows]
        return Inputs({name: x[rows] for name, x in self.arrays.items()}, labels, self.source, self.made)

    def batches(self, size: int, rng: np.random.Generator, augment: bool) -> Iterator[Inputs]:
        """Without end: epochs in random order, every batch of full size unless there are fewer samples."""
        size = min(size, len(self))
        while True:
            order = rng.permutation(len(self))
            for start in range(0, len(order) - size + 1, size):
                batch = self.take(order[start : start + size])
                for name in [n for n, x in batch.arrays.items() if augment and _is_picture(x)]:
                    moved = _augmented(batch.arrays[name], rng)
                    batch.arrays[name] = _mixed(moved, rng) if self.made else moved
                yield batch


def gather(context: Context) -> Inputs | None:
    """All of the user's data, up to 4 GiB; else the synthesised inputs; None when there are neither."""
    if context.everything is not None:
        parts: list[Feeds] = []
        labels: list[Array | None] = []
        size = 0
        for feeds, label in context.everything():
            parts.append(feeds)
            labels.append(label)
            size += sum(x.nbytes for x in feeds.values())
            if size > _LARGEST:
                context.record.note(f"training reads the first {size >> 20} MiB of the data only")
                break
        known = [label for label in labels if label is not None]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Inputs(joined, np.concatenate(known) if len(known) == len(parts) else None, "the user's data")
    if made := context.likeliest or context.synthetic:
        joined = {name: np.concatenate([feed[name] for feed in made]) for name in made[0]}
        return Inputs(joined, None, "synthesised inputs", made=True)
    return None


def _is_picture(x: Array) -> bool:
    return x.ndim == 4 and x.shape[1] in _PICTURE_CHANNELS and min(x.shape[2:]) >= _SHIFT


def _augmented(x: Array, rng: np.random.Generator) -> Array:
    """Each picture moved a little, its border mirrored, and flipped left to right half of the time."""
    _, _, height, width = x.shape
    top, left = height // _SHIFT, width // _SHIFT
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), mode="reflect")
    result = np.empty_like(x)
    for i, picture in enumerate(padded):
        y, z = rng.integers(0, 2 * top + 1), rng.integers(0, 2 * left + 1)
        crop = picture[:, y : y + height, z : z + width]
        result[i] = crop[:, :, ::-1] if rng.random() < 0.5 else crop
    return result


def _mixed(x: Array, rng: np.random.Generator) -> Array:
    """A third of the pictures as they are, a third blended with another one of them, a third with a rectangle of it
    pasted in (Zhang et al. 2018, mixup; Yun et al. 2019, CutMix); the teacher says what they show.
    """
    result = x.copy()
    size = np.asarray(x.shape[2:])
    for i, (other, way, share) in enumerate(
        zip(rng.permutation(len(x)), rng.integers(0, 3, len(x)), rng.random(len(x)), strict=True)
    ):
        if way == 1:
            result[i] = share * x[i] + (1 - share) * x[other]
        elif way == 2:
            sides = np.rint(size * np.sqrt(share)).astype(int)
            y, z = (int(rng.integers(0, room + 1)) for room in size - sides)
            part = (slice(None), slice(y, y + sides[0]), slice(z, z + sides[1]))
            result[i][part] = x[other][part]
    return result
