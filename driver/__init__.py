"""The driver: one model's way through the house, and the search for the rewrite that breaks one."""

from __future__ import annotations

from .bisection import bisect
from .flow import Result, optimize, run
from .options import Options

__all__ = ["Options", "Result", "bisect", "optimize", "run"]
