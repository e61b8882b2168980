"""Second moments of a layer's inputs, in the float model and behind layers that are rounded, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["InputMoments"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InputMoments:
    """x: inputs of a layer in the float model, x̂: behind earlier layers that are rounded; per group of weights.

    mean, mean_now: E[x], E[x̂] as [groups, n]; covariance: of x̂, [groups, n, n]; cross: E[(x − E x)(x̂ − E x̂)ᵀ];
    samples: rows they were taken over.
    """

    mean: Floats
    mean_now: Floats
    covariance: Floats
    cross: Floats
    samples: int

    @classmethod
    def of(cls, rows: Floats, rows_now: Floats) -> InputMoments:
        """From matching feature rows [samples, n], or [samples, groups, n]."""
        x, now = (a[:, None] if a.ndim == 2 else a for a in (rows, rows_now))
        mean, mean_now = x.mean(0, dtype=np.float64), now.mean(0, dtype=np.float64)
        centred = np.ascontiguousarray(np.swapaxes(x - mean.astype(x.dtype), 0, 1))
        centred_now = np.ascontiguousarray(np.swapaxes(now - mean_now.astype(now.dtype), 0, 1))
        covariance = np.swapaxes(centred_now, 1, 2) @ centred_now / len(x)
        cross = np.swapaxes(centred, 1, 2) @ centred_now / len(x)
        return cls(mean, mean_now, covariance.astype(np.float64), cross.astype(np.float64), len(x))

    def damped(self, damping: float) -> Floats:
        """E[(x̂ − E x̂)(x̂ − E x̂)ᵀ] + λI, with λ = (damping + n/samples)·mean variance, what an error of the weights costs
        where the bias takes up its mean: [groups, n, n].

        What few samples seem to say about many inputs is mostly chance, hence the second term of λ.
        """
        n = self.covariance.shape[-1]
        level = np.maximum(np.einsum("gii->g", self.covariance) / n, 1e-12)
        ridge = (damping + n / self.samples) * level
        return np.asarray(self.covariance + ridge[:, None, None] * np.eye(n))

    def second(self, damping: float) -> Floats:
        """E[x̂x̂ᵀ] + λI, what an error of the weights costs where no bias takes up its mean: [groups, n, n]."""
        return np.asarray(self.damped(damping) + self.mean_now[:, :, None] * self.mean_now[:, None, :])

    def wanted(self, weight: Floats, damping: float) -> Floats:
        """argmin over V of E‖(W x − V x̂) less its mean‖² + λ‖V − W‖²: W + W·(cross − covariance)·(covariance + λI)⁻¹.

        The float weights that answer to x̂ as W did to x, to be rounded in the place of W. weight: [groups, rows, n].
        """
        correction = np.linalg.solve(self.damped(damping), np.swapaxes(weight @ (self.cross - self.covariance), 1, 2))
        return np.asarray(weight + np.swapaxes(correction, 1, 2))

    def shift(self, weight: Floats, rounded: Floats) -> Floats:
        """E[W x] − E[W_q x̂], what the bias has to take up: [groups, rows]."""
        before, now = np.einsum("gri,gi->gr", weight, self.mean), np.einsum("gri,gi->gr", rounded, self.mean_now)
        return np.asarray(before - now)
