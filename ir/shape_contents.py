"""What small integer tensors hold, as expressions in the model's sizes: the arithmetic that computes shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from .dimension import Dimension, Expression, at_least, different, divide, product
from .shape_question import Contents, Question, normalised_axes
from .shape_rules import RULES

__all__ = ["CONTENTS", "LIMIT", "pack"]

LIMIT = 256  # elements; shapes, pads, axes and masks over shapes are smaller
Rule = Callable[[Question], "Contents | None"]


def pack(elements: Iterable[Any], shape: tuple[int, ...]) -> Contents:
    """An object array of the elements, row by row."""
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
    for i, element in enumerate(elements):
        flat[i] = element
    return flat.reshape(shape)


def _shape(q: Question) -> Contents | None:
    x = q.shape(0)
    if x is None:
        return None
    sizes = x[slice(q.attr("start", 0), q.attr("end"))]
    return pack(sizes, (len(sizes),))


def _size(q: Question) -> Contents | None:
    x = q.shape(0)
    return None if x is None else pack([product(x)], ())


def _same(q: Question) -> Contents | None:
    return q.contents[0]


def _cast(q: Question) -> Contents | None:
    """Whole numbers stay what they are in every numeric type; as a truth value only a known number is known."""
    x = q.contents[0]
    if x is None or q.attr("to") != ir.DataType.BOOL:
        return x if x is None else pack([int(e) if isinstance(e, bool) else e for e in x.flat], x.shape)
    return pack([bool(e) for e in x.flat], x.shape) if _numbers(x) else None


def _into_shape(q: Question) -> Contents | None:
    """Reshape, Squeeze, Unsqueeze, Flatten: the elements in the shape that the node's shape rule gives."""
    x, shape = q.contents[0], RULES[q.node.op_type](q)
    if x is None or shape is None or any(isinstance(s, Expression) for s in shape):
        return None
    sizes = tuple(int(s) for s in shape)  # type: ignore[arg-type]
    return x.reshape(sizes) if int(np.prod(sizes, dtype=np.int64)) == x.size else None


def _gather(q: Question) -> Contents | None:
    x, indices = q.contents[0], q.contents[1]
    if x is None or indices is None or not _numbers(indices):
        return None
    axis = q.attr("axis", 0) % max(x.ndim, 1)
    where = indices.astype(np.int64)
    if np.any(where < -x.shape[axis]) or np.any(where >= x.shape[axis]):
        return None
    taken: Contents = np.take(x, where, axis=axis)
    return taken if isinstance(taken, np.ndarray) else pack([taken], ())


def _slice(q: Question) -> Contents | None:
    x = q.contents[0]
    starts, ends = q.list(1, "starts"), q.list(2, "ends")
    if x is None or starts is None or ends is None:
        return None
    given = q.list(3, "axes") if q.has(3, "axes") else list(range(len(starts)))
    steps = q.list(4, "steps") if q.has(4, "steps") else [1] * len(starts)
    axes = None if given is None else normalised_axes(given, x.ndim)
    if axes is None or steps is None or not _all_numbers([*starts, *ends, *steps]):
        return None
    window = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        low = int(end) < -x.shape[axis]  # type: ignore[arg-type]
        window[axis] = slice(start, None if low and step < 0 else end, step)  # type: ignore[operator]
    cut: Contents = x[tuple(window)]
    return cut


def _concat(q: Question) -> Contents | None:
    if any(c is None for c in q.contents):
        return None
    return np.concatenate([c for c in q.contents if c is not None], axis=q.attr("axis", 1))


def _transpose(q: Question) -> Contents | None:
    x = q.contents[0]
    return None if x is None else np.transpose(x, q.attr("perm"))


def _expand(q: Question) -> Contents | None:
    x, target = q.contents[0], q.contents[1]
    if x is None or target is None or not _numbers(target):
        return None
    shape = np.broadcast_shapes(x.shape, tuple(int(t) for t in target))
    return None if np.prod(shape, dtype=np.int64) > LIMIT else np.broadcast_to(x, shape).copy()


def _constant_of_shape(q: Question) -> Contents | None:
    target = q.contents[0]
    if target is None or not _numbers(target) or np.prod(target, dtype=np.int64) > LIMIT:
        return None
    value = q.attr("value")
    fill = 0 if value is None else value.numpy().reshape(-1)[0]
    if not isinstance(fill, (int, np.integer, np.bool_)):
        return None
    shape = tuple(int(t) for t in target)
    return pack([fill.item() if isinstance(fill, np.generic) else fill] * int(np.prod(shape)), shape)


def _range(q: Question) -> Contents | None:
    if any(c is None or not _numbers(c) for c in q.contents):
        return None
    numbers = range(*(int(c.reshape(-1)[0]) for c in q.contents if c is not None))
    return None if len(numbers) > LIMIT else pack(numbers, (len(numbers),))


def _elementwise(operation: Callable[..., Any]) -> Rule:
    def rule(q: Question) -> Contents | None:
        if any(c is None for c in q.contents):
            return None
        arrays = np.broadcast_arrays(*(c for c in q.contents if c is not None))
        if arrays[0].size > LIMIT:
            return None
        results = [operation(*row) for row in zip(*(a.reshape(-1) for a in arrays), strict=True)]
        return None if any(r is None for r in results) else pack(results, arrays[0].shape)

    return rule


def _multiply(q: Question) -> Contents | None:
    """Products; zeros where one factor is, whatever the other holds."""
    shape = RULES["Mul"](q)
    zeros = any(c is not None and c.size and not np.any(c != 0) for c in q.contents)
    if zeros and shape is not None and not any(isinstance(s, Expression) for s in shape):
        sizes = tuple(int(s) for s in shape)  # type: ignore[arg-type]
        return pack([0] * int(np.prod(sizes)), sizes) if np.prod(sizes) <= LIMIT else None
    return _elementwise(lambda a, b: a * b)(q)


def _quotient(a: Dimension, b: Dimension) -> Dimension | None:
    """Integer division truncates toward zero, which is the floor only where nothing is negative."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    positive = at_least(a, 0) and at_least(b, 0)
    return divide(a, b, exact=not positive)


def _modulo(a: Dimension, b: Dimension) -> Dimension | None:
    return a % b if isinstance(a, int) and isinstance(b, int) and b else None


def _equal(a: Dimension, b: Dimension) -> bool | None:
    return True if a == b else False if different(a, b) else None


def _less(a: Dimension, b: Dimension) -> bool | None:
    return True if at_least(b, a + 1) else False if at_least(a, b) else None


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _largest(a: Dimension, b: Dimension) -> Dimension | None:
    return a if at_least(a, b) else b if at_least(b, a) else None


def _smallest(a: Dimension, b: Dimension) -> Dimension | None:
    return b if at_least(a, b) else a if at_least(b, a) else None


def _select(condition: Any, a: Any, b: Any) -> Any:
    return (a if condition else b) if not isinstance(condition, Expression) else None


def _reduction(operation: Callable[[Any, Any], Any], initial: int) -> Rule:
    def rule(q: Question) -> Contents | None:
        """Only the reduction of a whole vector, which is how a number of elements is computed."""
        x = q.contents[0]
        if x is None or x.ndim != 1 or x.size == 0:
            return None
        axes = q.list(1, "axes") if q.has(1, "axes") else [0]
        if axes not in ([0], [-1]) or (not q.has(1, "axes") and q.attr("noop_with_empty_axes", 0)):
            return None
        return pack([reduce(operation, x, initial)], (1,) if q.attr("keepdims", 1) else ())

    return rule


def _numbers(contents: Contents) -> bool:
    return _all_numbers(contents.reshape(-1))


def _all_numbers(elements: Iterable[Any]) -> bool:
    return not any(isinstance(e, Expression) for e in elements)


CONTENTS: dict[str, Rule] = {
    "Abs": _elementwise(lambda a: a if at_least(a, 0) else abs(a) if isinstance(a, int) else None),
    "Add": _elementwise(lambda a, b: a + b),
    "And": _elementwise(lambda a, b: a and b),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_quotient),
    "Equal": _elementwise(_equal),
    "Expand": _expand,
    "Flatten": _into_shape,
    "Gather": _gather,
    "Greater": _elementwise(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _elementwise(lambda a, b: _negated(_less(a, b))),
    "Identity": _same,
    "Less": _elementwise(_less),
    "LessOrEqual": _elementwise(lambda a, b: _negated(_less(b, a))),
    "Max": _elementwise(lambda *many: reduce(lambda a, b: None if a is None else _largest(a, b), many)),
    "Min": _elementwise(lambda *many: reduce(lambda a, b: None if a is None else _smallest(a, b), many)),
    "Mod": _elementwise(_modulo),
    "Mul": _multiply,
    "Neg": _elementwise(lambda a: -a),
    "Not": _elementwise(lambda a: not a),
    "Or": _elementwise(lambda a, b: a or b),
    "Range": _range,
    "ReduceProd": _reduction(lambda a, b: a * b, 1),
    "ReduceSum": _reduction(lambda a, b: a + b, 0),
    "Reshape": _into_shape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _into_shape,
    "Sub": _elementwise(lambda a, b: a - b),
    "Transpose": _transpose,
    "Unsqueeze": _into_shape,
    "Where": _elementwise(_select),
}
