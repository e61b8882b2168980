"""`relax-relu6`: a bound that next to nothing reaches is dropped, so that channels can be scaled through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.propagate import clip_bounds
from ...ir.statistics import Moments, normal_cdf, normal_pdf
from ..base import Pass
from ..cleanup.edit import become
from ..context import Context
from .preactivation import moments

__all__ = ["RelaxRelu6", "excess"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RelaxRelu6(Pass):
    """Clip(x, 0, u)  ⇒  Relu(x), where E[max(x − u, 0)] summed over channels ≤ tolerance · E[clip(x, 0, u)]

    tolerance: share of the signal that the bound may cut off; `inf` drops every upper bound, as DFQ does.
    Moments: of the BatchNorm that was there, else observed on the inputs there are; without either the bound stays.
    (Nagel et al. 2019, section 5.1.1)
    """

    tolerance: float = 0.001
    name: ClassVar[str] = "relax-relu6"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError("tolerance must not be negative")

    def run(self, model: ir.Model, context: Context) -> None:
        clips = [node for node in model.graph if node.op_type == "Clip" and not node.domain]
        sources = [v for node in clips if (v := node.inputs[0]) is not None]
        known = moments(model, sources, context) if np.isfinite(self.tolerance) else {}
        for node in clips:
            low, high = clip_bounds(node)
            source = node.inputs[0]
            if source is None or low != 0 or not high > 0:
                context.record.skip(node, f"its bounds are {low:g} … {high:g}, not 0 … u")
                continue
            share = 0.0
            if np.isfinite(self.tolerance) and np.isfinite(high):
                found = known.get(str(source.name))
                if found is None:
                    context.record.skip(node, "how much reaches the bound is not known: no statistics, no inputs")
                    continue
                share = excess(found, high)
                if not share <= self.tolerance:
                    context.record.skip(node, f"its bound cuts off {share:.1%} of the signal")
                    continue
            if context.record.change(node, f"upper bound {high:g} dropped ({share:.2%} of the signal was beyond)"):
                become(node, "Relu", [source])


def excess(m: Moments, bound: float) -> float:
    """Σ E[max(z − u, 0)] / Σ E[max(z, 0)] for z ~ N(μ, σ²) in each channel: what a bound at u takes of the signal."""
    total = float(_above(m, 0.0).sum())
    return float(_above(m, bound).sum()) / total if total > 0 else 0.0


def _above(m: Moments, bound: float) -> Floats:
    """E[max(z − u, 0)] = σφ(t) + (μ − u)Φ(t), t = (μ − u)/σ."""
    std = np.maximum(m.std, 1e-12)
    t = (m.mean - bound) / std
    return np.maximum(std * normal_pdf(t) + (m.mean - bound) * normal_cdf(t), 0.0)
