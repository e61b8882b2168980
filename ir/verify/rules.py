"""The verifier: what must hold of a model between any two passes, as a table of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ...errors import VerificationError
from . import quantized, structure
from .skeleton import skeleton
from .structure import Finding

__all__ = ["RULES", "Rule", "Violation", "check", "verify"]


@dataclass(frozen=True)
class Violation:
    """A rule that does not hold: its name, the node or value where it does not, and what is wrong there."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} ({self.where})"


@dataclass(frozen=True)
class Rule:
    """One rule: its name, what it says in a line, and the function that finds where it does not hold."""

    name: str
    statement: str
    find: Callable[[ir.Model], Iterator[Finding]]


def _onnx(model: ir.Model) -> Iterator[Finding]:
    try:
        onnx.checker.check_model(skeleton(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield _explain(str(error))
    except Exception as error:  # what cannot be serialised at all
        cause = error.__cause__ or error
        yield "model", f"it cannot be written as ONNX: {type(cause).__name__}: {str(cause)[:300]}"


# in order; a rule is asked only when all before it hold, since each may rely on them
RULES: tuple[Rule, ...] = (
    Rule("names", "every value has a name, and no other of its graph has the same", structure.names),
    Rule("defined", "what a node reads is computed before it, in its graph or one around it", structure.defined),
    Rule("initializers", "an initialiser holds what its type and shape say", structure.initializers),
    Rule("operators", "every operator exists in the opset that the model imports", structure.operators),
    Rule("quantizers", "scale and zero point fit the data, each other and the axis", quantized.quantizers),
    Rule("facts", "metadata of ours is JSON", quantized.facts),
    Rule("statistics", "per-channel statistics have one entry for each channel", quantized.statistics),
    Rule("encodings", "an encoding has valid scales and zero points, one for each slice", quantized.encodings),
    Rule("onnx", "the ONNX checker accepts the model, and inferred types and shapes agree with the stated", _onnx),
)


def verify(model: ir.Model) -> list[Violation]:
    """Where the first broken rule of the table does not hold; empty when the model is well formed."""
    for rule in RULES:
        violations = [Violation(rule.name, place, message) for place, message in rule.find(model)]
        if violations:
            return violations
    return []


def check(model: ir.Model, where: str) -> None:
    """Raise VerificationError with the first violation when there is any."""
    violations = verify(model)
    if violations:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        statement = next(rule.statement for rule in RULES if rule.name == first.rule)
        raise VerificationError(
            f"{first.message}{more}",
            where=f"{where}, {first.where}",
            hint=f"correct the model; the rule {first.rule!r} says: {statement}",
        )


# how the ONNX checker and its shape inference name the node
_CHECKED = re.compile(r"Bad node spec for node\. Name: (?P<name>.*?) OpType: (?P<op>\w+)")
_INFERRED = re.compile(
    r"\(op_type:(?P<op>\w+)(?:, node name: (?P<name>.*?))?\): (?:\[\w+\] )?(?P<what>.*?)(?= ?\(op_type:|$)"
)


def _explain(text: str) -> Finding:
    """Place and message of what the ONNX checker says, the first of several errors."""
    message = " ".join(text.split())
    if match := _CHECKED.search(message):
        message = message.partition(" ==> Context:")[0]
    elif match := _INFERRED.search(message):
        message = match["what"]
    if match is None:
        return "model", message[:400]
    return f"node {match['name'] or ''!r} ({match['op']})", message[:400]
