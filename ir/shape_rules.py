"""Shape rules: operator to the shape of its first output, over dimensions that may be expressions."""

from __future__ import annotations

from collections.abc import Callable

from .dimension import Dimension, Expression, at_least, divide, product
from .shape_question import Question, Shape, broadcast, normalised_axes, slice_bounds
from .shape_windows import conv_transpose, depth_to_space, global_pool, window

__all__ = ["RULES"]

Rule = Callable[[Question], Shape | None]


def _same(q: Question) -> Shape | None:
    return q.shape(0)


def _elementwise(q: Question) -> Shape | None:
    known = [s for s in q.shapes if s is not None]
    if len(known) != len(q.shapes):
        return None
    rank = max(map(len, known), default=0)
    result: list[Dimension] = []
    for axis in range(rank):
        size: Dimension | None = 1
        for shape in known:
            at = axis - (rank - len(shape))
            if at >= 0 and size is not None:
                size = broadcast(size, shape[at])
        result.append(q.unknown(axis) if size is None else size)
    return tuple(result)


def _gemm(q: Question) -> Shape | None:
    a, b = q.shape(0), q.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    return (a[1] if q.attr("transA", 0) else a[0], b[0] if q.attr("transB", 0) else b[1])


def _matmul(q: Question) -> Shape | None:
    a, b = q.shape(0), q.shape(1)
    if not a or not b:
        return None
    if len(a) == 1 or len(b) == 1:
        return (b[:-2] + b[-1:]) if len(a) == 1 and len(b) > 1 else a[:-1]
    rank = max(len(a), len(b)) - 2
    batch_a, batch_b = (1,) * (rank - len(a) + 2) + a[:-2], (1,) * (rank - len(b) + 2) + b[:-2]
    batch = [broadcast(m, n) for m, n in zip(batch_a, batch_b, strict=True)]
    return (*(q.unknown(i) if s is None else s for i, s in enumerate(batch)), a[-2], b[-1])


def _transpose(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    return tuple(x[p] for p in (q.attr("perm") or range(len(x) - 1, -1, -1)))


def _reshape(q: Question) -> Shape | None:
    x, target = q.shape(0), q.list(1, "shape")
    if target is None:
        rank = q.shape(1)
        known = rank is not None and len(rank) == 1 and isinstance(rank[0], int)
        return tuple(q.unknown(i) for i in range(int(rank[0]))) if known and rank else None  # type: ignore[arg-type]
    result: list[Dimension] = []
    for i, size in enumerate(target):
        if size == 0 and not q.attr("allowzero", 0):
            result.append(x[i] if x is not None and i < len(x) else q.unknown(i))
        elif size == -1 or at_least(size, 1 if isinstance(size, int) else 0):
            result.append(size)
        else:
            result.append(q.unknown(i))
    if -1 in result:
        hole = result.index(-1)
        rest = product(tuple(s for i, s in enumerate(result) if i != hole))
        size = None if x is None else divide(product(x), rest, exact=True)  # type: ignore[assignment]
        result[hole] = q.unknown(hole) if size is None else size
    return tuple(result)


def _flatten(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    axis = q.attr("axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    return (product(x[:axis]), product(x[axis:]))


def _squeeze(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    if not q.has(1, "axes"):
        return None if any(isinstance(s, Expression) for s in x) else tuple(s for s in x if s != 1)
    given = q.list(1, "axes")
    axes = None if given is None else normalised_axes(given, len(x))
    return None if axes is None else tuple(s for i, s in enumerate(x) if i not in axes)


def _unsqueeze(q: Question) -> Shape | None:
    x, given = q.shape(0), q.list(1, "axes")
    if x is None or given is None:
        return None
    axes = normalised_axes(given, len(x) + len(given))
    if axes is None:
        return None
    rest = iter(x)
    return tuple(1 if i in axes else next(rest) for i in range(len(x) + len(axes)))


def _concat(q: Question) -> Shape | None:
    known = [s for s in q.shapes if s is not None]
    if not known or len(known) != len(q.shapes):
        return None
    axis = q.attr("axis", 1) % len(known[0])
    result = list(known[0])
    for i in range(len(result)):  # a number in one input settles what a name in another leaves open
        numbers = [s[i] for s in known if isinstance(s[i], int)]
        result[i] = numbers[0] if numbers and i != axis else result[i]
    total: Dimension = 0
    for s in known:
        total = total + s[axis]
    result[axis] = total
    return tuple(result)


def _slice(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    starts, ends = q.list(1, "starts"), q.list(2, "ends")
    given = q.list(3, "axes") if q.has(3, "axes") else list(range(len(x if starts is None else starts)))
    steps = q.list(4, "steps") if q.has(4, "steps") else None
    axes = None if given is None else normalised_axes(given, len(x))
    if axes is None:
        return tuple(q.unknown(i) for i in range(len(x)))
    result = list(x)
    for n, axis in enumerate(axes):
        size: Dimension | None = None
        step = steps[n] if steps is not None else (None if q.has(4, "steps") else 1)
        if starts is not None and ends is not None and isinstance(step, int):
            size = _slice_size(starts[n], ends[n], step, x[axis])
        result[axis] = q.unknown(axis) if size is None else size
    return tuple(result)


def _slice_size(start: Dimension, end: Dimension, step: int, size: Dimension) -> Dimension | None:
    if isinstance(start, int) and isinstance(end, int) and isinstance(size, int) and step:
        return len(range(*slice(start, None if step < 0 and end < -size else end, step).indices(size)))
    bounds = slice_bounds(start, end, step, size)
    return None if bounds is None else divide(bounds[1] - bounds[0] + step - 1, step)


def _gather(q: Question) -> Shape | None:
    x, indices = q.shape(0), q.shape(1)
    if x is None or indices is None:
        return None
    axis = q.attr("axis", 0) % len(x)
    return x[:axis] + indices + x[axis + 1 :]


def _gather_nd(q: Question) -> Shape | None:
    x, indices = q.shape(0), q.shape(1)
    if x is None or not indices or not isinstance(indices[-1], int):
        return None
    return indices[:-1] + x[q.attr("batch_dims", 0) + indices[-1] :]


def _expand(q: Question) -> Shape | None:
    x, target = q.shape(0), q.list(1, "shape")
    if x is None or target is None:
        return None
    rank = max(len(x), len(target))
    pairs = zip((1,) * (rank - len(x)) + x, (1,) * (rank - len(target)) + tuple(target), strict=True)
    sizes = [broadcast(a, b) for a, b in pairs]
    return tuple(q.unknown(i) if s is None else s for i, s in enumerate(sizes))


def _tile(q: Question) -> Shape | None:
    x, repeats = q.shape(0), q.list(1, "repeats")
    if x is None or repeats is None or len(x) != len(repeats):
        return None if x is None else tuple(q.unknown(i) for i in range(len(x)))
    return tuple(a * b for a, b in zip(x, repeats, strict=True))


def _pad(q: Question) -> Shape | None:
    x, pads = q.shape(0), q.list(1, "pads")
    if x is None:
        return None
    axes: list[int] | None = list(range(len(x)))
    if q.has(3, "axes"):
        given = q.list(3, "axes")
        axes = None if given is None else normalised_axes(given, len(x))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return tuple(q.unknown(i) for i in range(len(x)))
    result = list(x)
    for n, axis in enumerate(axes):
        result[axis] = result[axis] + pads[n] + pads[n + len(axes)]
    return tuple(result)


def _from_contents(q: Question) -> Shape | None:
    sizes = q.list(0, "shape")
    return None if sizes is None else tuple(sizes)


def _range(q: Question) -> Shape | None:
    start, limit, delta = (q.list(i, "") for i in range(3))
    if start == [0] and delta == [1] and limit is not None and at_least(limit[0], 0):
        return (limit[0],)
    return (q.unknown(0),)


def _reduce(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    keep = q.attr("keepdims", 1)
    if not q.has(1, "axes"):
        return x if q.attr("noop_with_empty_axes", 0) else ((1,) * len(x) if keep else ())
    given = q.list(1, "axes")
    axes = None if given is None else normalised_axes(given, len(x))
    if axes is None:
        return None
    if not axes:
        axes = [] if q.attr("noop_with_empty_axes", 0) else list(range(len(x)))
    return tuple(1 if i in axes else s for i, s in enumerate(x) if keep or i not in axes)


def _arg_reduce(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None:
        return None
    axis = q.attr("axis", 0) % len(x)
    return tuple(1 if i == axis else s for i, s in enumerate(x) if q.attr("keepdims", 1) or i != axis)


def _recurrent(q: Question) -> Shape | None:
    x = q.shape(0)
    if x is None or len(x) != 3 or q.attr("layout", 0) or "hidden_size" not in q.node.attributes:
        return None
    return (x[0], 2 if q.attr("direction", "forward") == "bidirectional" else 1, x[1], q.attr("hidden_size"))


_UNARY = """
Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh CumSum
DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity
InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear RMSNormalization Reciprocal Relu Round
ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh
ThresholdedRelu Trilu
"""
_BINARY = """
Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
Mod Mul Or Pow Sub Sum Where Xor
"""
_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), _same),
    **dict.fromkeys(_BINARY.split(), _elementwise),
    **dict.fromkeys(["Reduce" + r for r in _REDUCE.split()], _reduce),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], global_pool),
    **dict.fromkeys(["Conv", "MaxPool", "AveragePool"], window),
    **dict.fromkeys(["LSTM", "GRU", "RNN"], _recurrent),
    **dict.fromkeys(["ArgMax", "ArgMin"], _arg_reduce),
    "Concat": _concat,
    "ConstantOfShape": _from_contents,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": lambda q: q.shape(1),
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Size": lambda _q: (),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
