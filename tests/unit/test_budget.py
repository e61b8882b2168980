"""What `--budget` takes, what it refuses, and that the result keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planish.driver import optimize
from planish.errors import UsageError, VerificationError
from planish.ir.cost import summary
from planish.passes.budget import Budget, parse_budget, parse_budgets

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"


@pytest.mark.parametrize(
    "text, budget, allowed",
    [
        ("macs=-40%", Budget("macs", share=0.4), 60.0),
        (" params = -12.5% ", Budget("parameters", share=0.125), 87.5),
        ("size=0.5MB", Budget("size", limit=5e5), 5e5),
        ("size=2KiB", Budget("size", limit=2048.0), 2048.0),
        ("macs=3M", Budget("macs", limit=3e6), 3e6),
        ("drop=1%", Budget("drop", limit=0.01), 0.01),
    ],
)
def test_a_budget_is_a_share_less_or_a_limit(text: str, budget: Budget, allowed: float) -> None:
    assert parse_budget(text) == budget
    assert budget.allowed(100.0) == pytest.approx(allowed)
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    ["macs", "macs=-0%", "macs=-100%", "time=-10%", "macs=-a%", "drop=-1%", "latency=3", "latency=3ms", "macs=40%", ""],
)
def test_what_is_no_budget_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="not a budget") as caught:
        parse_budget(text)
    assert "macs=-40%" in str(caught.value)


def test_a_unit_is_named_once() -> None:
    assert parse_budgets(["macs=-40%,size=1MB"]).keys() == {"macs", "size"}
    with pytest.raises(UsageError, match="two budgets"):
        parse_budgets(["macs=-40%", "macs=1M"])


def test_the_named_pipeline_prunes_within_the_budget() -> None:
    result = optimize(DIGITS, target="arm64", level=1, budget="macs=-30%")
    assert result.original is not None
    before, after = summary(result.original).macs, summary(result.model).macs
    assert 0.5 * before < after <= 0.7 * before


def test_a_budget_that_cannot_be_kept_ends_the_run() -> None:
    with pytest.raises(VerificationError, match="macs=-99%"):
        optimize(DIGITS, target="arm64", level=0, budget="macs=-99%", passes="prune")
