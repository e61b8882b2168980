"""The pass manager: every pass is accounted for, foreign passes compose both ways, bisection stops where it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass, RemoveUnusedNodesPass
from onnxscript import rewriter
from planish.errors import ModelError, PlanishError, UsageError
from planish.ir.graph import initializer
from planish.passes.base import Pass
from planish.passes.context import Context
from planish.passes.fixpoint import Fixpoint
from planish.passes.foreign import ForeignPass, adopt
from planish.passes.manager import PassManager
from planish.passes.record import Record


def model_of(*operators: str) -> ir.Model:
    """A chain of unary operators on one vector."""
    values = ["x", *(f"v{i}" for i in range(1, len(operators))), "y"]
    lines = [f"{b} = {op} ({a})" for op, a, b in zip(operators, values, values[1:], strict=False)]
    text = f'<ir_version: 10, opset_import: ["" : 20]> main (float[2] x) => (float[2] y) {{ {" ".join(lines)} }}'
    return ir.from_onnx_text(text)


def operators_of(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@dataclass(frozen=True)
class Soften(Pass):
    """Relu(x)  ⇒  Softplus(x), one Relu a run when `once`; an Abs is a candidate it leaves alone."""

    name: ClassVar[str] = "soften"
    exact: ClassVar[bool] = False
    once: bool = False

    def run(self, model: ir.Model, context: Context) -> None:
        for node in model.graph:
            if node.op_type == "Abs":
                context.record.skip(node, "abs is not softened")
            elif node.op_type == "Relu" and context.record.change(node, "softened"):
                node.op_type = "Softplus"
                if self.once:
                    return


@dataclass(frozen=True)
class Broken(Pass):
    """Raise the given error."""

    error: Exception
    name: ClassVar[str] = "broken"

    def run(self, model: ir.Model, context: Context) -> None:
        raise self.error


class LosesTheModel(ir.passes.InPlacePass):
    """A foreign pass that destroys the graph and then fails."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for node in reversed(model.graph):
            model.graph.remove(node)
        raise RuntimeError("no kernel for Foo")


class Rebuilds(ir.passes.FunctionalPass):
    """A foreign pass that returns a new model, with a newer IR version and a mark."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        result = model.clone()
        result.ir_version = 11
        result.metadata_props["mark"] = "rebuilt"
        return ir.passes.PassResult(result, modified=True)


def test_matched_is_changed_plus_the_skipped_of_each_reason() -> None:
    (record,) = PassManager([Soften()]).run(model_of("Relu", "Abs", "Relu", "Abs")).records
    assert (record.matched, record.changed, record.skipped) == (4, 2, {"abs is not softened": 2})
    assert [change.site for change in record.changes] == ["v1", "v3"]
    assert record.to_json()["matched"] == record.to_json()["changed"] + sum(record.to_json()["skipped"].values())


@pytest.mark.parametrize(
    ("operators", "why"),
    [
        (("Relu",), ""),
        (("Neg",), "no candidate in the model"),
        (("Abs",), "abs is not softened"),
        (("Abs", "Abs"), "abs is not softened (2×)"),
    ],
)
def test_a_pass_that_changes_nothing_says_why(operators: tuple[str, ...], why: str) -> None:
    (record,) = PassManager([Soften()]).run(model_of(*operators)).records
    assert record.why_nothing() == record.to_json()["why_nothing"] == why


@pytest.mark.parametrize("limit", range(6))
def test_with_a_rewrite_limit_exactly_the_first_n_rewrites_of_a_pipeline_happen(limit: int) -> None:
    model = model_of("Relu", "Identity", "Relu", "Identity", "Relu")
    budget = iter(range(limit))
    context = Context(permit=lambda: next(budget, None) is not None)
    outcome = PassManager([Soften(once=True), IdentityEliminationPass(), Fixpoint(9, (Soften(once=True),))]).run(
        model, context
    )
    softened, removed = min(limit, 1) + max(0, min(limit - 2, 2)), limit >= 2
    assert outcome.changed == min(limit, 4)
    assert operators_of(model).count("Softplus") == softened
    assert operators_of(model).count("Identity") == (0 if removed else 2)
    refused = sum(record.skipped.get("beyond the bisection limit", 0) for record in outcome.records)
    assert (refused > 0) == (limit < 4)


def test_a_fixpoint_runs_until_a_round_changes_nothing_and_every_round_has_its_record() -> None:
    outcome = PassManager([Fixpoint(9, (Soften(once=True),))]).run(model_of("Relu", "Relu"))
    assert [record.changed for record in outcome.records] == [1, 1, 0]
    outcome = PassManager([Fixpoint(1, (Soften(once=True),))]).run(model_of("Relu", "Relu"))
    assert [record.changed for record in outcome.records] == [1]


def test_a_fixpoint_takes_foreign_passes_and_reports_its_changes_to_onnx_ir() -> None:
    loop = Fixpoint(4, (IdentityEliminationPass(), Soften()))
    assert loop(model_of("Identity", "Relu")).modified
    assert not loop(model_of("Neg")).modified


def test_our_passes_run_inside_the_pass_manager_of_onnx_ir() -> None:
    model = model_of("Relu", "Identity", "Relu")
    theirs = ir.passes.PassManager([Soften(), IdentityEliminationPass(), PassManager([Soften()])])
    assert theirs(model).modified
    assert operators_of(model) == ["Softplus", "Softplus"]


def test_passes_of_onnx_ir_and_rules_of_onnxscript_run_inside_ours_with_a_record() -> None:
    rule = rewriter.RewriteRule(lambda op, x: op.Neg(op.Neg(x)), lambda op, x: op.Identity(x))
    model = model_of("Neg", "Neg", "Relu")
    manager = PassManager([rewriter.RewriteRuleSet([rule]), IdentityEliminationPass(), Soften(), rule])
    records = manager.run(model).records
    assert operators_of(model) == ["Softplus"]
    assert [record.changed for record in records] == [1, 1, 1, 0]
    assert [record.pass_name for record in records][:3] == ["RewriteRuleSet", "IdentityEliminationPass", "soften"]
    assert records[1].changes[0].detail == "2 → 1 nodes"


def test_a_foreign_pass_that_only_drops_weights_says_so() -> None:
    model = model_of("Relu")
    initializer(model.graph, "unread", np.zeros(3, np.float32))
    (record,) = PassManager([RemoveUnusedNodesPass()]).run(model).records
    assert record.changes[0].detail == "1 → 1 nodes, 1 → 0 initialisers"


def test_a_foreign_pass_that_fails_leaves_the_model_and_gives_the_reason() -> None:
    model = model_of("Relu", "Neg")
    failed, softened = PassManager([LosesTheModel(), Soften()]).run(model).records
    assert operators_of(model) == ["Softplus", "Neg"]
    assert failed.why_nothing() == "the library's pass failed: RuntimeError: no kernel for Foo"
    assert softened.changed == 1


def test_a_foreign_pass_that_returns_another_model_changes_the_one_it_was_given() -> None:
    model = model_of("Relu")
    PassManager([Rebuilds()]).run(model)
    assert (model.ir_version, model.metadata_props["mark"]) == (11, "rebuilt")


def test_a_foreign_pass_the_limit_refuses_leaves_no_trace() -> None:
    model = model_of("Identity", "Relu")
    (record,) = PassManager([IdentityEliminationPass()]).run(model, Context(permit=lambda: False)).records
    assert operators_of(model) == ["Identity", "Relu"]
    assert record.changed == 0 and record.matched == 1


def test_pipeline_text_managers_and_passes_mix() -> None:
    inner = PassManager([Soften(once=True)])
    manager = PassManager(["fold-bn", inner, Soften()])
    assert manager.spec() == "fold-bn,soften{once=true},soften"
    assert [record.changed for record in manager.run(model_of("Relu", "Relu", "Relu")).records] == [0, 1, 2]


@pytest.mark.parametrize("thing", [3, IdentityEliminationPass, object()])
def test_what_is_no_pass_is_refused_before_anything_runs(thing: object) -> None:
    with pytest.raises(UsageError, match="neither a pass nor a rewrite rule"):
        PassManager([Soften(), thing])


def test_the_same_foreign_pass_is_equal_to_itself_and_no_other() -> None:
    tool = CommonSubexpressionEliminationPass()
    assert adopt(tool) == adopt(tool) != adopt(CommonSubexpressionEliminationPass())
    assert ForeignPass("cse", CommonSubexpressionEliminationPass) == ForeignPass(
        "cse", CommonSubexpressionEliminationPass
    )


def test_an_unexpected_error_of_a_pass_names_the_pass_and_keeps_its_cause() -> None:
    with pytest.raises(PlanishError, match="ZeroDivisionError: by nothing") as caught:
        PassManager([Broken(ZeroDivisionError("by nothing"))]).run(model_of("Relu"))
    assert "pass broken" in caught.value.where and caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_for_the_user_keeps_its_class_and_its_place() -> None:
    with pytest.raises(ModelError) as caught:
        PassManager([Broken(ModelError("an odd node", where="node n3"))]).run(model_of("Relu"))
    assert caught.value.where == "node n3"
    with pytest.raises(ModelError) as caught:
        PassManager([Broken(ModelError("an odd node"))]).run(model_of("Relu"))
    assert "pass broken" in caught.value.where


def test_instruments_see_every_pass_before_and_after_in_nested_order() -> None:
    seen: list[str] = []

    class Watch:
        def __init__(self, mark: str) -> None:
            self.mark = mark

        def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
            seen.append(f"{self.mark} before {pass_.spec()} {len(operators_of(model))}")

        def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
            seen.append(f"{self.mark} after {context.record.spec} {len(operators_of(model))}")

    tool = IdentityEliminationPass()
    PassManager([tool], instruments=[Watch("a"), Watch("b")]).run(model_of("Identity", "Relu"))
    title = type(tool).__name__
    assert seen == [f"a before {title} 2", f"b before {title} 2", f"b after {title} 1", f"a after {title} 1"]


def test_a_record_is_written_as_plain_json_values() -> None:
    import json

    record = Record("soften", "soften{once=true}", exact=False)
    record.skip("somewhere", "no reason")
    record.note("a remark")
    written = json.loads(json.dumps(record.to_json()))
    assert written["skips"] == [{"site": "somewhere", "op": "", "reason": "no reason"}]
    assert (written["notes"], written["exact"], written["pass"]) == (["a remark"], False, "soften")
