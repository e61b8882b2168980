"""Bias correction: rounding the weights moves a layer's mean by E[(W_q − W)·x]; the bias takes it back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mean_shift"]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.generic]


def mean_shift(error: Array, input_mean: Array, axis: int, groups: int = 1) -> Floats:
    """E[ε·x] per output channel for a weight error ε = W_q − W and per-channel input means E[x].

    error: Conv M×C/g×k…, or a matrix with output channels on `axis`. Border pixels see fewer taps than counted here.
    (Nagel et al. 2019, section 4.2)
    """
    wrong, mean = np.asarray(error, np.float64), np.asarray(input_mean, np.float64)
    if wrong.ndim == 2 and axis == 1:
        return np.asarray(mean @ wrong)
    taps = wrong.reshape(wrong.shape[0], wrong.shape[1], -1).sum(2)
    outputs = taps.shape[0] // groups
    channels = mean.reshape(groups, taps.shape[1])
    shift: Floats = np.einsum("goc,gc->go", taps.reshape(groups, outputs, taps.shape[1]), channels)
    return shift.reshape(-1)
