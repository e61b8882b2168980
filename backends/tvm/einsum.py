"""Einsum of two operands as a product of matrices between transpositions, through which that product reads and writes.

Labels are of the batch (both operands and the result), of rows (left and result), of columns (right and result), or
summed (both operands only); several of a kind are joined to one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from ...ir.graph import attribute, static_shape
from .formula import Formula

__all__ = ["einsum"]


def einsum(f: Formula, node: ir.Node) -> ir.Value | None:
    """The result of an Einsum, where a product of two matrices computes it; else None: TVM sums in plain loops then."""
    stated: Any = attribute(node, "equation", "")
    terms, arrow, result = str(stated).replace(" ", "").partition("->")
    operands = terms.split(",")
    shapes = [static_shape(value) for value in node.inputs]
    if not arrow or len(operands) != 2 or None in shapes or not all(map(_is_plain, (*operands, result))):
        return None
    left, right = operands
    pairs = [zip(term, shape or (), strict=False) for term, shape in zip(operands, shapes, strict=True)]
    named = [pair for operand in pairs for pair in operand]
    sizes = dict(named)
    broadcast = [len(term) for term in operands] != [len(shape or ()) for shape in shapes]
    broadcast = broadcast or any(sizes[label] != extent for label, extent in named)
    if broadcast or (set(left) ^ set(right)) - set(result) or set(result) - set(left + right):
        return None
    both = [label for label in left if label in right]
    batch, summed = [n for n in both if n in result], [n for n in both if n not in result]
    rows, columns = ([n for n in result if n in own and n not in both] for own in operands)
    if not summed or (not rows and not columns):
        return None
    a = _turned(f, node.inputs[0], left, [*batch, *rows, *summed], sizes)
    b = _turned(f, node.inputs[1], right, [*batch, *summed, *columns], sizes)
    groups = ([[n] for n in batch], [rows, summed], [summed, columns])
    a, b = (_shaped(f, value, [*groups[0], *own], sizes) for value, own in zip((a, b), groups[1:], strict=True))
    product = _typed(f.op("MatMul", a, b), [prod(sizes[n] for n in g) for g in [*groups[0], rows, columns]], a)
    split = _shaped(f, product, [[n] for n in (*batch, *rows, *columns)], sizes)
    return _turned(f, split, [*batch, *rows, *columns], result, sizes)


def _is_plain(labels: str) -> bool:
    """Letters, each once: no ellipsis, no diagonal."""
    return labels.isalpha() and len(set(labels)) == len(labels)


def _turned(f: Formula, value: Any, have: Sequence[str], want: Sequence[str], sizes: dict[str, int]) -> ir.Value:
    """The value with its axes in another order."""
    made: ir.Value = value
    if list(have) != list(want):
        order = [list(have).index(label) for label in want]
        made = _typed(f.op("Transpose", value, perm=order), [sizes[label] for label in want], value)
    return made


def _shaped(f: Formula, value: ir.Value, groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> ir.Value:
    """The value with each group of its axes, of any number of labels, as one axis."""
    shape = [prod(sizes[label] for label in group) for group in groups]
    return value if list(static_shape(value) or ()) == shape else _typed(f.reshape(value, shape), shape, value)


def _typed(value: ir.Value, shape: Sequence[int], like: ir.Value) -> ir.Value:
    value.shape, value.type = ir.Shape(shape), like.type
    return value
