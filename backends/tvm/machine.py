"""`Machine`: how kernels are made for one kind of processor, for everything that lowers a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...targets.target import Target
from . import environment, schedule
from .floats import templates
from .floats.templates import Template
from .operators import OPERATORS
from .operators.kernel import Kernel
from .operators.located import Located

__all__ = ["CPU", "Machine"]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Machine:
    """kernel, operators: builders of the integer operations; target: TVM's target for one of ours;
    schedule: a scheduled copy of the PrimFunc of a group of float operators; template: the same by a template, where
    there is one for such a PrimFunc with these constants; branches: the code that calls kernels can read a bool that
    they computed.
    """

    kernel: type[Kernel]
    operators: Mapping[str, Callable[[Kernel], Located | list[Located]]]
    target: Callable[[Target], Any]
    schedule: Callable[[Any, Target], Any]
    template: Callable[[Any, Sequence[Array | None], Target], Template | None] = lambda *_: None
    branches: bool = True


CPU = Machine(Kernel, OPERATORS, environment.llvm_target, schedule.schedule, templates.template)
