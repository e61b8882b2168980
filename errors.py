"""Errors a user meets: what happened, where, what to do next; each class carries its exit code."""

from __future__ import annotations

__all__ = [
    "ModelError",
    "NothingChangedError",
    "OutputError",
    "PlanishError",
    "UsageError",
    "VerificationError",
]


class PlanishError(Exception):
    """An error with its three parts: what happened, where (file, node, pass), and what to do next."""

    exit_code = 1
    title = "internal error"

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  next:  {self.hint}")
        return "\n".join(lines)


class UsageError(PlanishError):
    """The call is wrong: an unknown pass, option, target or shape (exit code 2)."""

    exit_code = 2
    title = "usage error"


class ModelError(PlanishError):
    """The model is invalid, unreadable or not supported (exit code 3)."""

    exit_code = 3
    title = "model error"


class OutputError(PlanishError):
    """The result cannot be written where it was asked for: no permission, no space, or in the way (exit code 2)."""

    exit_code = 2
    title = "output error"


class VerificationError(PlanishError):
    """A pass broke the model, or a fidelity budget does not hold; nothing was overwritten (exit code 4)."""

    exit_code = 4
    title = "verification failed"


class NothingChangedError(PlanishError):
    """No pass changed anything although a change was required (exit code 5)."""

    exit_code = 5
    title = "nothing changed"
