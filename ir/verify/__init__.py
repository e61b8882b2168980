"""The verifier: what must hold of a model between any two passes."""

from .rules import RULES, Rule, Violation, check, verify

__all__ = ["RULES", "Rule", "Violation", "check", "verify"]
