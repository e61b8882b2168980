"""`ldnq`: weights at levels 0, ±1, ±2, ±4, … that need no multiplier, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..base import Pass
from ..context import Context
from .admm import admm, power_levels
from .round_weights import round_layers

__all__ = ["Ldnq"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ldnq(Pass):
    """W, b  ⇒  α·q, b′ with q in {0, ±1, ±2, ±4, …} and E‖W·x + b − α·q·x̂ − b′‖² small, by ADMM

    levels: how many, an odd number: 3 is ternary, 5, 7, 9, … add ±2, ±4, ±8, …; one α per output channel. `quantize`
    takes them over as int8: products by shifts are left to hardware that has them.
    iterations: of ADMM; rows, damping: as in `round-weights`. The cascade of fine-tuning behind every layer is left to
    `reconstruct` and `recover`. (Chen, Wang, Pan, AAAI 2019)
    """

    levels: int = 7
    iterations: int = 50
    rows: int = 16384
    damping: float = 0.5
    name: ClassVar[str] = "ldnq"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.levels < 3 or self.levels % 2 == 0 or self.levels > 15 or self.iterations < 1:
            raise ValueError("levels must be odd, from 3 to 15; iterations at least 1")

    def run(self, model: ir.Model, context: Context) -> None:
        magnitudes = power_levels(self.levels)

        def solver(weight: Floats, hessian: Floats) -> tuple[Floats, Floats]:
            return admm(weight, hessian, magnitudes, self.iterations)

        round_layers(model, context, solver, rows=self.rows, damping=self.damping)
