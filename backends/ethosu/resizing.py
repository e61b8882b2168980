"""Resize to the nearest neighbour and by linear interpolation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...ir.integer import IntegerOp
from .site import NHWC, NoForm, Site

__all__ = ["linear", "nearest"]

# ONNX's coordinates -> TFLite's options for them
_COORDINATES: Mapping[str, dict[str, bool]] = {
    "align_corners": {"alignCorners": True, "halfPixelCenters": False},
    "asymmetric": {"alignCorners": False, "halfPixelCenters": False},
    "half_pixel": {"alignCorners": False, "halfPixelCenters": True},
    "pytorch_half_pixel": {"alignCorners": False, "halfPixelCenters": True},
}


def nearest(site: Site, op: IntegerOp) -> None:
    """resize  ⇒  RESIZE_NEAREST_NEIGHBOR where the indices are ⌊i · in / out⌋, else GATHER along each axis."""
    place = site.operands[0]
    axes, indices = op.attributes["axes"], op.attributes["indices"]
    x, size = place.tensor, dict(zip(axes, indices, strict=True))
    spatial = len(place.axes) == 4 and place.axes == NHWC and set(axes) <= {2, 3}
    even = all(
        np.array_equal(at, np.arange(at.size) * place.shape[a] // at.size) for a, at in zip(axes, indices, strict=True)
    )
    if spatial and even:
        out = [size[a].size if a in size else place.shape[a] for a in (2, 3)]
        options = {"alignCorners": False, "halfPixelCenters": False}
        shape = (x.shape[0], *out, x.shape[3])
        site.give(site.apply("RESIZE_NEAREST_NEIGHBOR", [x, site.integers(out)], shape, **options), place.axes)
        return
    for a, at in size.items():
        p = place.axes.index(a)
        shape = tuple(at.size if q == p else n for q, n in enumerate(x.shape))
        x = site.apply("GATHER", [x, site.integers(at)], shape, axis=p, batchDims=0)
    site.give(x, place.axes)


def linear(site: Site, op: IntegerOp) -> None:
    """resize_linear  ⇒  RESIZE_BILINEAR, whose coordinates are ONNX's where the sizes are whole multiples."""
    place = site.operands[0]
    axes, matrices, coordinates = (op.attributes[k] for k in ("axes", "matrices", "coordinates"))
    if len(place.axes) != 4 or not set(axes) <= {2, 3} or coordinates not in _COORDINATES:
        raise NoForm(f"a linear resize of axes {list(axes)} with {coordinates} coordinates")
    size = {a: m.shape[0] for a, m in zip(axes, matrices, strict=True)}
    out = [size.get(a, place.shape[a]) for a in (2, 3)]
    if coordinates != "align_corners" and any(size[a] % place.shape[a] and place.shape[a] % size[a] for a in size):
        raise NoForm("a linear resize by a scale that is no whole number")
    if coordinates == "pytorch_half_pixel" and 1 in size.values():
        raise NoForm("a linear resize to one element by its first")
    x = site.operand(0, NHWC)
    shape = (x.shape[0], *out, x.shape[3])
    site.give(site.apply("RESIZE_BILINEAR", [x, site.integers(out)], shape, **_COORDINATES[coordinates]), NHWC)
