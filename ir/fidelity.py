"""How far two executions of a model are apart: relative error, SQNR, agreement of decisions, per output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["OutputFidelity", "compare", "sqnr", "worst_relative"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class OutputFidelity:
    """One output over all samples.

    sqnr_db: 10·log10(Σ ref² / Σ (ref − x)²), inf when equal; relative: max |ref − x| / max |ref|;
    worst: max |ref − x|; agreement: share of rows with the same arg max, None where the output is no score vector.
    """

    output: str
    sqnr_db: float
    relative: float
    worst: float
    agreement: float | None

    def to_json(self) -> dict[str, object]:
        fact = asdict(self)
        fact["sqnr_db"] = None if math.isinf(self.sqnr_db) else round(self.sqnr_db, 2)
        return fact


def sqnr(reference: Array, other: Array) -> float:
    """Signal to quantization-noise ratio in dB; inf for equal arrays, −inf for a result that is not finite."""
    ref, out = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    same_nan = np.isnan(ref) & np.isnan(out)
    with np.errstate(invalid="ignore"):  # inf - inf, where both are equal
        error = np.where(same_nan | (ref == out), 0.0, ref - out)
    noise = float(np.sum(error**2))
    if noise == 0.0:
        return math.inf
    if not math.isfinite(noise):
        return -math.inf
    signal = float(np.sum(np.where(np.isfinite(ref), ref, 0.0) ** 2))
    return 10.0 * math.log10(signal / noise) if signal else -math.inf


def compare(reference: Sequence[Mapping[str, Array]], other: Sequence[Mapping[str, Array]]) -> list[OutputFidelity]:
    """Compare the outputs of the same samples, name by name; a missing output or another shape counts as all wrong."""
    result = []
    for name in reference[0]:
        ref = [np.asarray(r[name]) for r in reference]
        out = [np.asarray(o[name]) if name in o else np.empty(0) for o in other]
        if any(a.shape != b.shape for a, b in zip(ref, out, strict=True)):
            result.append(OutputFidelity(name, -math.inf, math.inf, math.inf, 0.0))
            continue
        flat_ref, flat_out = (
            np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays]) for arrays in (ref, out)
        )
        with np.errstate(invalid="ignore"):
            difference = np.abs(flat_ref - flat_out)
        difference[(np.isnan(flat_ref) & np.isnan(flat_out)) | (flat_ref == flat_out)] = 0.0
        difference[np.isnan(difference)] = math.inf
        worst = float(difference.max(initial=0.0))
        scale = float(np.abs(flat_ref[np.isfinite(flat_ref)]).max(initial=0.0))
        relative = worst / scale if scale else (math.inf if worst else 0.0)
        result.append(OutputFidelity(name, sqnr(flat_ref, flat_out), relative, worst, _agreement(ref, out)))
    return result


def _flat(arrays: Sequence[Array]) -> npt.NDArray[np.float64]:
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])


def _agreement(ref: Sequence[Array], out: Sequence[Array]) -> float | None:
    if ref[0].ndim != 2 or ref[0].shape[1] < 2 or not np.issubdtype(ref[0].dtype, np.floating):
        return None
    hits = [np.argmax(a, 1) == np.argmax(b, 1) for a, b in zip(ref, out, strict=True)]
    return float(np.mean(np.concatenate(hits)))


def worst_relative(fidelity: Sequence[OutputFidelity]) -> float:
    """The largest relative error of any output."""
    return max((f.relative for f in fidelity), default=0.0)
