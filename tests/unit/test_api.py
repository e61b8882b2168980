"""The public surface: these names and no others are what users may rely on."""

from __future__ import annotations

import planish
import pytest
from planish.errors import PlanishError

PUBLIC = [
    "Context",
    "ModelError",
    "NothingChangedError",
    "OutputError",
    "Pass",
    "PassManager",
    "PlanishError",
    "Result",
    "Target",
    "UsageError",
    "VerificationError",
    "capture",
    "fx_pass",
    "optimize",
]


def test_the_public_names_are_these() -> None:
    assert sorted(planish.__all__) == PUBLIC
    assert dir(planish) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_leads_to_a_documented_object(name: str) -> None:
    assert getattr(planish, name).__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        _ = planish.optimise


def test_every_error_has_its_exit_code_and_says_what_where_and_what_next() -> None:
    errors = [getattr(planish, name) for name in PUBLIC if name.endswith("Error")]
    assert all(issubclass(error, PlanishError) for error in errors)
    codes = {error.__name__: error.exit_code for error in errors}
    assert codes == {
        "ModelError": 3,
        "NothingChangedError": 5,
        "OutputError": 2,
        "PlanishError": 1,
        "UsageError": 2,
        "VerificationError": 4,
    }
    text = str(planish.ModelError("a node is odd", where="node n3", hint="export it again"))
    assert text.splitlines() == ["model error: a node is odd", "  where: node n3", "  next:  export it again"]
