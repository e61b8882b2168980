"""What Relax may fuse with a PrimFunc of ours, stated where it would guess: numbers of TVM's OpPatternKind."""

from __future__ import annotations

__all__ = ["OPAQUE", "WHAT_FOLLOWS"]

WHAT_FOLLOWS = 4  # kOutEWiseFusable: elementwise operators that read its result
OPAQUE = 8  # kOpaque: nothing
