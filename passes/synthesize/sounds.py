"""Hypotheses about sound: waveforms at either full scale, and the forms of a spectrum a network may be fed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .hypotheses import Hypothesis
from .signature import Signature
from .speech import LEVELS, SPECTRA, frames, speech

__all__ = ["sounds", "spectra"]

Floats = npt.NDArray[np.float32]


def sounds(signature: Signature, count: int, rng: np.random.Generator) -> list[Hypothesis]:
    """Waveforms: consecutive frames of one signal where the model carries state, else a signal a sample; of every
    length that the model runs on.
    """
    found = []
    for length in signature.lengths or (signature.shape[signature.axis or -1],):
        shape = [length if i == signature.axis else d for i, d in enumerate(signature.shape)]
        heard = _signals(signature, count, length, length, rng).reshape(count, *shape[1:])
        for title, level in LEVELS.items():
            found.append(Hypothesis(f"speech in pieces of {length}, {title}", np.asarray(level(heard), np.float32)))
    return found


def spectra(signature: Signature, count: int, rng: np.random.Generator) -> list[Hypothesis]:
    """Short-time spectra of such signals: magnitude, power, logarithms; Hann window, hops of half a frame."""
    axis = signature.axis or -1
    bins = signature.shape[axis]
    frame = 2 * (bins - 1)
    steps = int(np.prod(signature.shape[1:])) // bins
    window = np.hanning(frame + 1)[:-1]
    heard = _signals(signature, count, frame + (steps - 1) * (frame // 2), frame // 2, rng)
    found = []
    for level, scale in LEVELS.items():
        complex_ = np.stack([np.fft.rfft(window * frames(scale(x), frame, frame // 2)) for x in heard])
        for title, form in SPECTRA.items():
            shown = form(complex_) if axis == len(signature.shape) - 1 else form(complex_).swapaxes(1, 2)
            samples = np.asarray(shown, np.float32).reshape(count, *signature.shape[1:])
            found.append(Hypothesis(f"speech spectra, {title}, {level}", samples))
    return found


def _signals(signature: Signature, count: int, length: int, hop: int, rng: np.random.Generator) -> Floats:
    """[count, length]: overlapping frames of one signal for models with state, signals of their own for others."""
    if signature.roles.states:
        return frames(speech(rng, length + (count - 1) * hop), length, hop)
    return np.stack([speech(rng, length) for _ in range(count)])
