"""Stand-ins for sound: voiced and unvoiced syllables with pauses over noise, and their short-time spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["LEVELS", "SPECTRA", "frames", "speech"]

Floats = npt.NDArray[np.float32]

_LEVELS = 32767  # of 16 bits, either sign
_RATE = 16000  # samples a second; at 8 kHz the same signal is a lower and slower voice

# convention of a waveform's numbers -> from a signal whose full scale is 1
LEVELS: Mapping[str, Callable[[Floats], Floats]] = {
    "full scale 1": lambda x: x,
    "full scale 32768": lambda x: 32768 * x,
}
# what a network is fed of a short-time spectrum -> from the complex spectrum of one frame
SPECTRA: Mapping[str, Callable[[npt.NDArray[np.complex128]], npt.NDArray[np.float64]]] = {
    "magnitude": np.abs,
    "power": lambda z: np.abs(z) ** 2,
    "log magnitude": lambda z: np.log(np.maximum(np.abs(z), 1e-7)),
    "log power": lambda z: np.log(np.maximum(np.abs(z) ** 2, 1e-12)),
    "log10 power": lambda z: np.log10(np.maximum(np.abs(z) ** 2, 1e-12)),
    "decibels": lambda z: 10 * np.log10(np.maximum(np.abs(z) ** 2, 1e-12)),
}


def speech(rng: np.random.Generator, count: int) -> Floats:
    """`count` samples of speech-like sound with |x| ≤ 1 at 16 kHz: syllables of 80 to 250 ms, a quarter of them pauses.

    Voiced ones are harmonics of a gliding pitch (80 to 300 Hz) that fall by 12 dB an octave, raised at three formants;
    unvoiced ones are noise above 2 kHz (source and filter after Fant, "Acoustic theory of speech production", 1960).
    Peaks of syllables lie 3 to 26 dB below full scale, a noise with 1/f power 15 to 45 dB below the voice, the white
    one of the microphone 60 to 90 dB below full scale; the whole is rounded to 16 bits with dither: no recording is
    silent.
    """
    parts, made = [], 0
    while made < count:
        length = int(_RATE * rng.uniform(0.08, 0.25))
        kind = rng.choice(["voiced", "unvoiced", "pause"], p=[0.55, 0.2, 0.25])
        sound = {"voiced": _voiced, "unvoiced": _unvoiced}.get(str(kind), lambda _, n: np.zeros(n))(rng, length)
        parts.append(10 ** (-rng.uniform(3, 26) / 20) * sound * np.hanning(length))
        made += length
    voice = np.concatenate(parts)[:count]
    spectrum = np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.maximum(np.fft.rfftfreq(count), 1 / count))
    noise = np.fft.irfft(spectrum, count)
    noise *= max(float(voice.std()), 1e-3) * 10 ** (-rng.uniform(15, 45) / 20) / noise.std()
    noise += 10 ** (-rng.uniform(60, 90) / 20) * rng.standard_normal(count)
    dither = rng.random(count) - rng.random(count)
    return (np.rint(np.clip((voice + noise) * _LEVELS + dither, -_LEVELS, _LEVELS)) / _LEVELS).astype(np.float32)


def _voiced(rng: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    pitch = rng.uniform(80, 300) * (1 + rng.uniform(-0.2, 0.2) * np.linspace(0, 1, length))
    phase = 2 * np.pi * np.cumsum(pitch) / _RATE
    formants = np.array([rng.uniform(250, 850), rng.uniform(850, 2300), rng.uniform(2300, 3200)])
    sound = np.zeros(length)
    for harmonic in range(1, int(0.45 * _RATE / pitch.max()) + 1):
        frequency = harmonic * float(pitch.mean())
        gain = 0.1 + (1 / (1 + ((frequency - formants) / 120) ** 2)).sum()
        sound += gain * harmonic**-1.5 * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    return sound / max(float(np.abs(sound).max()), 1e-9)


def _unvoiced(rng: np.random.Generator, length: int) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum[np.fft.rfftfreq(length, 1 / _RATE) < 2000] *= 0.05
    sound = np.fft.irfft(spectrum, length)
    return 0.25 * sound / max(float(np.abs(sound).max()), 1e-9)


def frames(signal: Floats, length: int, hop: int) -> Floats:
    """[frames, length] of a signal, each `hop` after the one before."""
    starts = range(0, len(signal) - length + 1, hop)
    return np.stack([signal[s : s + length] for s in starts])
