"""Low-rank replacement of Gemm and MatMul, attention projections among them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .factory import Candidate, Piece, Site
from .low_rank import truncations

__all__ = ["linear"]


def linear(site: Site) -> Iterator[Candidate]:
    """x·W ⇒ (x·A)·B, A·B the best rank-R map of `W·C^½`: what the inputs never excite costs nothing"""
    if site.node.op_type not in ("Gemm", "MatMul"):
        return
    for features, coefficients, bias, error in truncations(site):
        first = Piece("MatMul", (np.ascontiguousarray(features.T, np.float32),))
        second = np.ascontiguousarray(coefficients.T, np.float32)
        offset = bias.astype(np.float32)
        rest: tuple[Piece, ...] = (Piece("MatMul", (second,)),)
        if site.node.op_type == "Gemm":
            rest = (Piece("Gemm", (second, offset)),)
        elif site.layer.has_offset:
            rest += (Piece("Add", (offset,)),)
        if sum(p.parameters for p in (first, *rest)) < site.matrix.size:
            yield Candidate("low-rank", f"rank {len(features)}", (first, *rest), error)
