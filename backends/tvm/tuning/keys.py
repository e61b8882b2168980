"""`Key`: what a measured cost belongs to: the workload, the target and the version of TVM, as plain data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ....targets.target import Target
from .. import environment

__all__ = ["Key", "describe", "key_of", "nearest", "plain", "shown"]

_CPUINFO = Path("/proc/cpuinfo")
_LONG = 60  # letters
_MACHINE = ("lanes", "depth", "dtype", "registers")  # fields that follow from the target


@dataclass(frozen=True)
class Key:
    """workload: its kind and its fields; target: what LLVM generates code for, and on which processor it ran."""

    workload: dict[str, Any]
    target: str
    tvm: str

    def __hash__(self) -> int:
        return hash((self.target, self.tvm, repr(sorted(self.workload.items()))))


def key_of(workload: Any, target: Target) -> Key:
    """The key of a workload (a dataclass of numbers, texts and tuples of them)."""
    return Key({"kind": type(workload).__name__, **plain(workload)}, _target(target), environment.TVM_VERSION)


def plain(data: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON gives them back: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(data).items()}


def shown(data: Any) -> dict[str, Any]:
    """The fields of a config for people: a long text as a digest."""
    fields = plain(data)
    return {name: _digest(value) if len(str(value)) > _LONG else value for name, value in fields.items()}


def _digest(text: Any) -> str:
    return hashlib.blake2b(str(text).encode(), digest_size=4).hexdigest()


def _target(target: Target) -> str:
    options = target.llvm
    features = ",".join(sorted(str(f) for f in options.get("mattr", ()) or ()))  # type: ignore[attr-defined]
    processor = _processor() if target.kind == "host" else str(options.get("mcpu", target.cpu))
    return f"{target.triple} {processor} {features}"


@cache
def _processor() -> str:
    """The model of this machine's processor: what is best differs between those with the same features."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return "unknown"
    names = ("model name", "cpu family", "model\t", "stepping", "CPU part")
    return " ".join(line.partition(":")[2].strip() for line in lines[:30] if line.startswith(names)) or "unknown"


def describe(workload: dict[str, Any]) -> str:
    """A workload in a few words, for people: what it computes, without what the machine adds."""
    fields = {name: value for name, value in workload.items() if name not in _MACHINE}
    kind = str(fields.pop("kind", "workload"))
    shown = (
        f"{name} {'x'.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in fields.items()
        if v not in (None, 1, [1, 1], [0, 0, 0, 0])
    )
    return f"{kind}({', '.join(shown)})"


def nearest(key: Key, known: Iterable[Key]) -> Key | None:
    """The key that differs least: in target or version first, then in the logarithms of the workload's numbers."""
    return min(known, key=lambda other: (_distance(key, other), repr(other)), default=None)


def _distance(key: Key, other: Key) -> float:
    far = 10.0 * (key.tvm != other.tvm) + 20.0 * (key.target != other.target)
    names = key.workload.keys() | other.workload.keys()
    return far + sum(_gap(key.workload.get(name), other.workload.get(name)) for name in names)


def _gap(a: Any, b: Any) -> float:
    if a == b:
        return 0.0
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return sum(_gap(x, y) for x, y in zip(a, b, strict=True))
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (a, b))
    return abs(math.log2((1 + a) / (1 + b))) if numbers and min(a, b) >= 0 else 5.0
