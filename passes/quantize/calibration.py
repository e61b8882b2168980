"""From what is measured on synthesised inputs to what is to be expected on real ones, with its error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["Prediction", "constants", "noise_allowed", "predicted"]


@dataclass(frozen=True)
class Prediction:
    """One output on real data. sqnr_db ± error_db; agreement: share of decisions (arg max) that stay as they were,
    `least` its lower end; both None where the output is no score vector. The errors hold in about 2 of 3 models.
    """

    output: str
    sqnr_db: float
    error_db: float
    agreement: float | None = None
    least: float | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "output": self.output,
            "sqnr_db": round(self.sqnr_db, 2),
            "error_db": round(self.error_db, 2),
            "agreement": None if self.agreement is None else round(self.agreement, 4),
            "least_agreement": None if self.least is None else round(self.least, 4),
        }


@cache
def constants() -> dict[str, Any]:
    """The constants of `calibration.json`, with the command that made them."""
    content: dict[str, Any] = json.loads(files(__package__).joinpath("calibration.json").read_text(encoding="utf-8"))
    return content


def noise_allowed(drop: float, real: bool) -> float:
    """The noise power on the inputs at hand at which `least` of `predicted` has just fallen by `drop`."""
    numbers = constants()["samples" if real else "synthetic"]
    amplitude = drop / (numbers["flip_rate"] * numbers["flip_factor"])
    return float(amplitude**2 * 10 ** (numbers["scores_db"] / 10))


def predicted(
    output: str, observed_db: float, changed: float | None, real: bool, fitted: dict[str, Any] | None = None
) -> Prediction:
    """SQNR = observed + offset ± error. Share of changed decisions: rate · 10^(−SQNR/20), times or divided by `factor`.

    observed_db, changed: SQNR and share of changed decisions on the inputs at hand (None: no score vector). Scores have
    an offset of their own: networks are surer of real inputs than of made ones, which is more signal over the same
    noise. real: the inputs are the user's samples.
    A decision changes when the noise exceeds the margin between the two highest scores: for small noise a share in
    proportion to its amplitude.
    """
    table = fitted or constants()
    numbers = table["samples" if real else "synthetic"]
    offset = numbers["offset_db" if changed is None else "scores_db"]
    sqnr = observed_db + (offset if math.isfinite(observed_db) else 0.0)
    if changed is None:
        return Prediction(output, sqnr, numbers["error_db"])
    flips = min(numbers["flip_rate"] * 10 ** (-sqnr / 20), 1.0)
    most = min(flips * numbers["flip_factor"], 1.0)
    return Prediction(output, sqnr, numbers["error_db"], 1 - flips, 1 - most)
