"""What one run leaves behind: `report.json`, schema-versioned, and the tables printed from it."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import report_page
from .passes.fidelity import Fidelity
from .passes.manager import Outcome
from .targets.target import Target

if TYPE_CHECKING:
    from .backends.compiled import Compiled
    from .ir.cost import Summary

__all__ = ["SCHEMA", "Facts", "build", "write"]

SCHEMA = 1  # raised when a field changes its meaning or goes away
_PACKAGES = (
    "planish",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "apache-tvm",
    "apache-tvm-ffi",
    "torch",
)


@dataclass
class Facts:
    """Everything the report is built from."""

    source: Any
    seed: int
    target: Target
    pipeline: str
    outcome: Outcome
    fidelity: Fidelity
    before: Summary
    after: Summary
    compiled: Compiled | None = None
    not_compiled: str = ""
    files: dict[str, int] = field(default_factory=dict)
    placement: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def build(facts: Facts) -> dict[str, Any]:
    """The report as plain data."""
    compiled = facts.compiled
    return {
        "schema": SCHEMA,
        "input": _identify(facts.source),
        "target": {"name": facts.target.name, "features": sorted(facts.target.features)},
        "pipeline": facts.pipeline,
        "seed": facts.seed,
        "versions": _versions(),
        "before": asdict(facts.before),
        "after": asdict(facts.after),
        "passes": [record.to_json() for record in facts.outcome.records],
        "fidelity": _fidelity(facts.fidelity),
        "prediction": _prediction(facts.outcome),
        "placement": facts.placement,
        "compiled": None if compiled is None else _compiled(compiled),
        "not_compiled": facts.not_compiled,
        "files": facts.files,
        "notes": facts.notes + [note for record in facts.outcome.records for note in record.notes],
        "seconds": round(facts.seconds, 3),
    }


def write(content: dict[str, Any], directory: Path) -> None:
    """Write `report.json` into the directory, and `report.html` where the `report` extra is installed."""
    (directory / "report.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
    if report_page.available():
        (directory / "report.html").write_text(report_page.render(content), encoding="utf-8")


def _identify(source: Any) -> dict[str, Any]:
    source = source[0] if isinstance(source, tuple) else source
    if not isinstance(source, (str, Path)):
        return {"kind": type(source).__name__}
    path, digest = Path(source), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"kind": "file", "name": path.name, "bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _compiled(compiled: Compiled) -> dict[str, Any]:
    return {
        "arena_bytes": compiled.arena_bytes,
        "code_bytes": compiled.code_bytes,
        "weight_bytes": compiled.weight_bytes,
        "notes": compiled.notes,
        "seconds": round(compiled.seconds, 3),
        "tuning": compiled.tuning,
    }


def _fidelity(fidelity: Fidelity) -> dict[str, Any]:
    return {
        "unavailable": fidelity.unavailable,
        "inputs": fidelity.source,
        "samples": len(fidelity.feeds),
        "exact_tolerance": fidelity.tolerance,
        "outputs": [f.to_json() for f in fidelity.final],
    }


def _prediction(outcome: Outcome) -> dict[str, Any] | None:
    """What was last predicted about real data; `all_integer`: SQNR in dB had nothing been kept in float."""
    found: dict[str, Any] | None = None
    all_integer = None
    for record in outcome.records:
        all_integer = record.measures.get("predicted_sqnr", all_integer)
        found = record.measures.get("prediction", found)
    return None if found is None else found | {"all_integer": all_integer}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
