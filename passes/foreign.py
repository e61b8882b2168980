"""Passes of onnx_ir and rule sets of onnxscript inside our pipelines: same record, same bisection, same undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import PassBase

from .base import Pass
from .context import Context

__all__ = ["ForeignPass", "adopt"]


@dataclass(frozen=True)
class ForeignPass(Pass):
    """Run an `onnx_ir.passes.PassBase` or an `onnxscript` rewrite-rule set under our account.

    Such a pass reports only whether it changed the model, so one change is recorded, with the difference in node
    count. When it raises, the model is put back as it was and the failure is recorded as the reason for the skip:
    a library's trouble with one operator must not cost the user the rest of the pipeline.
    """

    title: str
    factory: Callable[[], object]
    name: ClassVar[str] = "foreign"

    def spec(self) -> str:
        return self.title

    def run(self, model: ir.Model, context: Context) -> None:
        trial = model.clone()
        try:
            modified, trial = _apply(self.factory(), trial)
        except Exception as error:
            cause = error.__cause__ or error
            context.record.skip(self.title, f"the library's pass failed: {type(cause).__name__}: {str(cause)[:200]}")
            return
        if not modified:
            return
        before, after = _size(model), _size(trial)
        if context.record.change(self.title, f"{before} → {after} nodes"):
            _replace_contents(model, trial)


def _apply(tool: object, model: ir.Model) -> tuple[bool, ir.Model]:
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    if isinstance(tool, PassBase):
        result = tool(model)
        return result.modified, result.model
    if isinstance(tool, (RewriteRule, RewriteRuleSet)):
        return tool.apply_to_model(model) > 0, model
    raise TypeError(f"{tool!r} is neither an onnx_ir pass nor an onnxscript rewrite rule")


def _size(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


def _replace_contents(model: ir.Model, other: ir.Model) -> None:
    model.graph = other.graph
    model.functions.clear()
    model.functions.update(other.functions)
    model.metadata_props.clear()
    model.metadata_props.update(other.metadata_props)


def adopt(tool: object) -> PassBase:
    """Our form of anything that rewrites a model: our passes as they are, foreign ones wrapped."""
    if isinstance(tool, Pass):
        return tool
    return ForeignPass(type(tool).__name__, lambda: tool)
