"""Sizes as numbers or polynomials in named sizes: equal text means equal size, whatever the names stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard, Union

__all__ = [
    "Dimension",
    "Expression",
    "at_least",
    "different",
    "divide",
    "is_minimum_with",
    "minimum",
    "opaque",
    "product",
    "symbol",
]

Monomial = tuple[str, ...]  # sorted names; () is the constant term
_SIGNED = "~"  # first letter of a name that may stand for a negative number


class Expression:
    """A polynomial with integer coefficients that is not a plain number; immutable and in one canonical form."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = dict(sorted(terms.items()))
        self._hash = hash(tuple(self.terms.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dimension) -> Dimension:
        terms = dict(self.terms)
        for monomial, factor in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return _collapse(terms)

    __radd__ = __add__

    def __neg__(self) -> Dimension:
        return _collapse({m: -f for m, f in self.terms.items()})

    def __sub__(self, other: Dimension) -> Dimension:
        return self + (-other)

    def __rsub__(self, other: Dimension) -> Dimension:
        return -self + other

    def __mul__(self, other: Dimension) -> Dimension:
        terms: dict[Monomial, int] = {}
        for m, f in self.terms.items():
            for n, g in _terms(other).items():
                key = tuple(sorted(m + n))
                terms[key] = terms.get(key, 0) + f * g
        return _collapse(terms)

    __rmul__ = __mul__

    def __str__(self) -> str:
        parts = []
        for monomial, factor in sorted(self.terms.items(), key=lambda item: (-len(item[0]), item)):
            names = "*".join(monomial)
            parts.append(str(factor) if not names else names if factor == 1 else f"{factor}*{names}")
        return "+".join(parts).replace("+-", "-")

    __repr__ = __str__


Dimension = Union[int, Expression]  # noqa: UP007  (a forward reference cannot stand in `int | "Expression"`)


def symbol(name: str) -> Expression:
    """The size that a model's input calls `name`; never negative."""
    return Expression({(name.lstrip(_SIGNED) or "dim",): 1})


def opaque(name: str, *, signed: bool = False) -> Expression:
    """A number nothing is known about but its name; `signed` when it may be negative."""
    return Expression({((_SIGNED if signed else "?") + name,): 1})


def product(sizes: tuple[Dimension, ...]) -> Dimension:
    """The product of sizes; 1 for none."""
    result: Dimension = 1
    for size in sizes:
        result = result * size
    return result


def at_least(a: Dimension, b: Dimension) -> bool:
    """True when a ≥ b for every value of the names; False when it is not known."""
    return all(factor >= 0 and not _may_be_negative(m) for m, factor in _terms(a - b).items())


def different(a: Dimension, b: Dimension) -> bool:
    """True when a ≠ b for every value of the names; False when it is not known."""
    return at_least(a, b + 1) or at_least(b, a + 1)


def minimum(a: Expression, b: Dimension) -> Dimension:
    """The smaller of two sizes, as a name of its own where it is not known which that is."""
    return Expression({(f"min({a},{b})",): 1})


def is_minimum_with(a: Dimension, b: Dimension) -> bool:
    """True for a = min(b, …)."""
    return isinstance(a, Expression) and str(a).startswith(f"min({b},") and len(a.terms) == 1


def divide(a: Dimension, b: Dimension, *, exact: bool = False) -> Dimension | None:
    """⌊a / b⌋; None when b is 0, or when `exact` and b is not known to divide a."""
    if _is_int(a) and _is_int(b):
        return None if b == 0 or (exact and a % b) else a // b
    if b == 0:
        return None
    whole, rest = _quotient(a, b)
    if not rest:
        return _collapse(whole)
    if exact or not _is_int(b) or b < 0:
        return None
    remainder = _collapse(rest)
    if _is_int(remainder):
        return _collapse(whole) + remainder // b
    sign = "" if at_least(remainder, 0) else _SIGNED
    return _collapse(whole) + Expression({(f"{sign}(({remainder})//{b})",): 1})


def _quotient(a: Dimension, b: Dimension) -> tuple[dict[Monomial, int], dict[Monomial, int]]:
    """Terms of a that a one-term b divides, already divided, and the terms that it does not."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return ({(): 1}, {}) if a == b else ({}, _terms(a))
    ((names, factor),) = divisor.items()
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, f in _terms(a).items():
        left: list[str] | None = list(monomial)
        for name in names:
            if left is not None and name in left:
                left.remove(name)
            else:
                left = None
        if left is not None and f % factor == 0:
            whole[tuple(left)] = f // factor
        else:
            rest[monomial] = f
    return whole, rest


def _is_int(size: Dimension) -> TypeGuard[int]:
    return not isinstance(size, Expression)


def _terms(size: Dimension) -> dict[Monomial, int]:
    if isinstance(size, Expression):
        return size.terms
    return {(): int(size)} if size else {}


def _collapse(terms: Mapping[Monomial, int]) -> Dimension:
    kept = {m: f for m, f in terms.items() if f}
    if not kept:
        return 0
    if list(kept) == [()]:
        return kept[()]
    return Expression(kept)


def _may_be_negative(monomial: Monomial) -> bool:
    return any(name.startswith(_SIGNED) for name in monomial)
