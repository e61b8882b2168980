"""The verifier: what must hold of a model between any two passes, as a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import VerificationError

__all__ = ["Violation", "check", "verify"]


@dataclass(frozen=True)
class Violation:
    """A rule that does not hold: its name, the node or value where it does not, and what is wrong there."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} ({self.where})"


def verify(model: ir.Model) -> list[Violation]:
    """Every rule that the model breaks, in the order of the table; empty when it is well formed."""
    found = []
    for name, (_, rule) in RULES.items():
        for where, message in rule(model):
            found.append(Violation(name, where, message))
    return found


def check(model: ir.Model, where: str) -> None:
    """Raise VerificationError with the first violation when there is any."""
    violations = verify(model)
    if violations:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        raise VerificationError(
            f"{violations[0].message}{more}",
            where=f"{where}, {violations[0].where}",
            hint=f"the rule {violations[0].rule!r} says: {RULES[violations[0].rule][0]}",
        )


Rule = Callable[[ir.Model], Iterator[tuple[str, str]]]


def _defined(model: ir.Model) -> Iterator[tuple[str, str]]:
    seen: set[int] = set()
    for graph in model.graphs():
        seen |= {id(v) for v in (*graph.inputs, *graph.initializers.values())}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and id(value) not in seen and value.producer() is None:
                yield f"node {node.name}", f"the input {value.name!r} is defined nowhere"


RULES: dict[str, tuple[str, Rule]] = {
    "defined": ("every value a node reads is an input, an initialiser or another node's output", _defined),
}
