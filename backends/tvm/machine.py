"""`Machine`: how kernels are made for one kind of processor, for everything that lowers a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...targets.target import Target
from . import environment, schedule
from .operators import OPERATORS
from .operators.kernel import Kernel, Located

__all__ = ["CPU", "Machine"]


@dataclass(frozen=True)
class Machine:
    """kernel, operators: builders of the integer operations; target: TVM's target for one of ours;
    schedule: a scheduled copy of the PrimFunc of a group of float operators.
    """

    kernel: type[Kernel]
    operators: Mapping[str, Callable[[Kernel], Located | list[Located]]]
    target: Callable[[Target], Any]
    schedule: Callable[[Any, Target], Any]


CPU = Machine(Kernel, OPERATORS, environment.llvm_target, schedule.schedule)
