"""Passes of onnx_ir and rule sets of onnxscript inside our pipelines: same record, same bisection, same undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir
from onnx_ir.passes import PassBase

from ..errors import UsageError
from ..ir.graph import forget_removed_readers
from .base import Pass
from .context import Context

__all__ = ["ForeignPass", "adopt", "provide"]


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
        tool = _checked(self.factory())
        trial = model.clone()
        try:
            modified, trial = _apply(tool, trial)
        except Exception as error:
            cause = error.__cause__ or error
            context.record.skip(self.title, f"the library's pass failed: {type(cause).__name__}: {str(cause)[:200]}")
            return
        if not modified:
            return
        forget_removed_readers(trial)
        if context.record.change(self.title, _difference(model, trial)):
            _replace_contents(model, trial)


@dataclass(frozen=True)
class _Given:
    """A factory that always gives the one tool there is, so that passes around the same tool are equal."""

    tool: object

    def __call__(self) -> object:
        return self.tool


def _checked(tool: object) -> object:
    if isinstance(tool, PassBase):
        return tool
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    if isinstance(tool, (RewriteRule, RewriteRuleSet)):
        return tool
    raise UsageError(
        f"{tool!r} is neither a pass nor a rewrite rule",
        where="the passes of a pipeline",
        hint="give a planish or onnx_ir pass (an instance, not its class), or an onnxscript rewrite rule or rule set",
    )


def _apply(tool: Any, model: ir.Model) -> tuple[bool, ir.Model]:
    if isinstance(tool, PassBase):
        result = tool(model)
        return result.modified, result.model
    return tool.apply_to_model(model) > 0, model


def _difference(before: ir.Model, after: ir.Model) -> str:
    """Number of nodes, and of initialisers where that is another one: `5 → 4 nodes, 3 → 2 initialisers`."""
    nodes, weights = zip(*map(_sizes, (before, after)), strict=True)
    text = f"{nodes[0]} → {nodes[1]} nodes"
    return text if weights[0] == weights[1] else f"{text}, {weights[0]} → {weights[1]} initialisers"


def _sizes(model: ir.Model) -> tuple[int, int]:
    return sum(1 for _ in model.graph.all_nodes()), sum(len(graph.initializers) for graph in model.graphs())


def _replace_contents(model: ir.Model, other: ir.Model) -> None:
    model.graph = other.graph
    model.ir_version = other.ir_version
    model.functions.clear()
    model.functions.update(other.functions)
    model.metadata_props.clear()
    model.metadata_props.update(other.metadata_props)


def provide(title: str, found: object) -> ForeignPass:
    """The pass that a table or plug-in offers under a name: a pass, a rule set, or a callable that makes one."""
    if isinstance(found, PassBase) or not callable(found):
        return ForeignPass(title, _Given(_checked(found)))
    return ForeignPass(title, found)


def adopt(tool: object) -> Pass:
    """Our form of anything that rewrites a model: our passes as they are, foreign ones wrapped."""
    if isinstance(tool, Pass):
        return tool
    return ForeignPass(type(tool).__name__, _Given(_checked(tool)))
