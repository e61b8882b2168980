"""Float operators that TVM's importer does not have, or reads in another way than ONNX, in operators that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.graph import Array, attribute, constant, static_shape
from ...ir.transposed_convolution import Subpixel, subpixel
from .einsum import einsum
from .formula import Formula
from .loops import refuse
from .resizing import resize
from .weights import matrix

__all__ = ["rewritten"]

_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
_NUMBERS = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
# operators whose results have as many elements as their input says
_DATA_SIZED = {"Compress", "NonMaxSuppression", "NonZero", "Unique"}


def rewritten(node: ir.Node, version: int) -> list[ir.Node]:
    """Nodes that compute what a float node does; itself where TVM reads it well. ModelError where nothing can."""
    if node.domain not in ("", "ai.onnx"):
        return [node]
    if node.op_type in _DATA_SIZED:
        raise refuse(node, "how large its result is depends on the input's values")
    rule = _RULES.get(node.op_type)
    formula = Formula(node, version)
    result = None if rule is None else rule(formula, node)
    return [node] if result is None else formula.finish(result)


def _shape(value: ir.Value | None, node: ir.Node) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise refuse(node, "the shape of its input is not known")
    return shape


def _input(node: ir.Node, i: int) -> ir.Value:
    value = node.inputs[i]
    assert value is not None
    return value


def _known(node: ir.Node, i: int, what: str) -> Array:
    found = constant(node.inputs[i])
    if found is None:
        raise refuse(node, f"{what} is not constant")
    return found


def _celu(f: Formula, node: ir.Node) -> ir.Value:
    """max(0, x) + min(0, α·(exp(x/α) − 1))"""
    x, alpha = _input(node, 0), f.constant(attribute(node, "alpha", 1.0), "float32")
    fall = f.op("Mul", alpha, f.op("Sub", f.op("Exp", f.op("Div", x, alpha)), f.constant(1, "float32")))
    return f.op("Add", f.op("Relu", x), f.op("Min", f.constant(0, "float32"), fall))


def _constant(f: Formula, node: ir.Node) -> ir.Value | None:
    """What a graph gives out as it is stays a node, and TVM reads tensors only."""
    given = next((a for name, a in node.attributes.items() if name in _NUMBERS), None)
    return None if given is None else f.op("Identity", f.constant(given.value, _NUMBERS[given.name]))


def _dropout(f: Formula, node: ir.Node) -> ir.Value | None:
    """Nothing is dropped when a model runs."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        return None
    return f.op("Identity", _input(node, 0))


def _equal(f: Formula, node: ir.Node) -> ir.Value | None:
    """TVM compares truth values as floats, which LLVM refuses."""
    if node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.BOOL:
        return None
    return f.op("Equal", *(f.op("Cast", _input(node, i), to=int(ir.DataType.INT32)) for i in range(2)))


def _in_float32(f: Formula, node: ir.Node) -> ir.Value | None:
    """TVM has no test of bfloat16 for what is not a number."""
    x = _input(node, 0)
    if x.dtype != ir.DataType.BFLOAT16:
        return None
    return f.op(node.op_type, f.op("Cast", x, to=int(ir.DataType.FLOAT)))


def _lp_normalization(f: Formula, node: ir.Node) -> ir.Value:
    """x / ‖x‖ₚ along an axis"""
    p: Any = attribute(node, "p", 2)
    axis: Any = attribute(node, "axis", -1)
    return f.op("Div", _input(node, 0), f.reduce(f"ReduceL{p}", _input(node, 0), [axis]))


def _log_sum_exp(f: Formula, node: ir.Node) -> ir.Value | None:
    """m + log Σ exp(x − m) with the largest x as m"""
    rank = len(_shape(node.inputs[0], node))
    given: Any = attribute(node, "axes")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = _known(node, 1, "the list of its axes").tolist()
    if not given and attribute(node, "noop_with_empty_axes", 0):
        return None
    axes = [int(axis) % rank for axis in given or range(rank)]
    most = f.reduce("ReduceMax", _input(node, 0), axes)
    powers = f.op("Exp", f.op("Sub", _input(node, 0), most))
    made = f.op("Add", f.op("Log", f.reduce("ReduceSum", powers, axes)), most)
    if attribute(node, "keepdims", 1):
        return made
    return f.reshape(made, [d for axis, d in enumerate(_shape(node.inputs[0], node)) if axis not in axes])


def _one_hot(f: Formula, node: ir.Node) -> ir.Value:
    """values[1] where an index equals a position along the new axis, else values[0]; negative indices count back."""
    shape = list(_shape(node.inputs[0], node))
    depth, values = int(_known(node, 1, "its depth").reshape(-1)[0]), _known(node, 2, "the pair of its values")
    axis = int(attribute(node, "axis", -1)) % (len(shape) + 1)  # type: ignore[call-overload]
    index = f.reshape(f.op("Cast", _input(node, 0), to=int(ir.DataType.INT64)), [*shape[:axis], 1, *shape[axis:]])
    zero, size = f.constant(0, "int64"), f.constant(depth, "int64")
    index = f.op("Where", f.op("Less", index, zero), f.op("Add", index, size), index)
    levels = np.arange(depth).reshape([-1, *[1] * (len(shape) - axis)])
    on, off = f.constant(values[1]), f.constant(values[0])
    return f.op("Where", f.op("Equal", index, f.constant(levels, "int64")), on, off)


def _resize(f: Formula, node: ir.Node) -> ir.Value | None:
    return resize(f, node, _shape(node.inputs[0], node))


def _conv(f: Formula, node: ir.Node) -> ir.Value | None:
    """In one dimension: as in two, of which one has size 1 and templates know the other"""
    shape, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    weight = constant(node.inputs[1])
    if shape is None or result is None or len(shape) != 3 or weight is None:
        return None
    options: dict[str, Any] = {name: [1, *(attribute(node, name) or [1])] for name in ("strides", "dilations")}  # type: ignore[misc]
    pads: Any = attribute(node, "pads") or [0, 0]
    options |= {"auto_pad": attribute(node, "auto_pad", "NOTSET"), "group": attribute(node, "group", 1)}
    if options["auto_pad"] == "NOTSET":
        options["pads"] = [0, pads[0], 0, pads[1]]
    operands = [f.reshape(_input(node, 0), [*shape[:2], 1, shape[2]]), f.constant(np.expand_dims(weight, 2))]
    operands += [v for v in node.inputs[2:] if v is not None]
    return f.reshape(f.op("Conv", *operands, **options), result)


def _conv_transpose(f: Formula, node: ir.Node) -> ir.Value | None:
    """A convolution and its places side by side; else the padding that makes the stated size, as ONNX derives it."""
    stated: Any = attribute(node, "output_shape")
    if not stated:
        found = subpixel(node)
        return None if isinstance(found, str) else _side_by_side(f, node, found)
    size, kernel = _shape(node.inputs[0], node)[2:], _shape(node.inputs[1], node)[2:]
    rank = len(size)
    strides, dilations = ([*(attribute(node, name) or [1] * rank)] for name in ("strides", "dilations"))  # type: ignore[misc]
    extra: Any = [*(attribute(node, "output_padding") or [0] * rank)]  # type: ignore[misc]
    begins, ends = [], []
    for d, wanted in enumerate(stated[-rank:]):
        full = strides[d] * (size[d] - 1) + (kernel[d] - 1) * dilations[d] + 1 + extra[d]
        total = full - wanted
        if total < 0:
            total, extra[d] = 0, extra[d] - total
        small, large = total // 2, total - total // 2
        upper = attribute(node, "auto_pad", "NOTSET") == "SAME_UPPER"
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    options = {"strides": strides, "dilations": dilations, "output_padding": extra, "pads": [*begins, *ends]}
    operands = [v for v in node.inputs if v is not None]
    return f.op("ConvTranspose", *operands, group=attribute(node, "group", 1), **options)


def _side_by_side(f: Formula, node: ir.Node, found: Subpixel) -> ir.Value:
    bias = [] if found.bias is None else [f.constant(found.bias)]
    made = f.op("Conv", _input(node, 0), f.constant(found.weight), *bias, pads=[found.pads] * 4)
    if found.block > 1:
        made = f.op("DepthToSpace", made, blocksize=found.block)
    for axis, (start, stop) in enumerate(found.keep if not found.whole else ()):
        made = f.cut(made, 2 + axis, start, stop)
    return made


def _reverse_sequence(f: Formula, node: ir.Node) -> ir.Value:
    """Element t of a sequence of length n is its element n − 1 − t where t < n"""
    shape = _shape(node.inputs[0], node)
    time, batch = (int(attribute(node, f"{name}_axis", d)) for name, d in (("time", 0), ("batch", 1)))  # type: ignore[call-overload]
    along = [[size if axis == own else 1 for axis, size in enumerate(shape)] for own in (time, batch)]
    steps = f.constant(np.arange(shape[time]).reshape(along[0]), "int64")
    length = f.reshape(_input(node, 1), along[1])
    back = f.op("Sub", f.op("Sub", length, f.constant(1, "int64")), steps)
    index = f.op("Where", f.op("Less", steps, length), back, steps)
    everywhere = f.op("Add", index, f.constant(np.zeros(shape), "int64"))
    return f.op("GatherElements", _input(node, 0), everywhere, axis=time)


def _scatter_nd(f: Formula, node: ir.Node) -> ir.Value | None:
    """With known indices: a gather from the data and the updates behind each other."""
    index = constant(node.inputs[1])
    if index is None or attribute(node, "reduction", "none") != "none":
        return None
    shape = _shape(node.inputs[0], node)
    depth = index.shape[-1]
    last = np.arange(np.prod(shape)).reshape(shape)
    place = index % np.array(shape[:depth])
    fresh = last.size + np.arange(np.prod(place.shape[:-1]) * np.prod(shape[depth:], dtype=np.int64))
    for where, source in zip(place.reshape(-1, depth), fresh.reshape(-1, *shape[depth:]), strict=True):
        last[tuple(where)] = source
    return _chosen(f, node, last)


def _scatter_elements(f: Formula, node: ir.Node) -> ir.Value | None:
    """With known indices: a gather from the data and the updates behind each other."""
    index = constant(node.inputs[1])
    if index is None or attribute(node, "reduction", "none") != "none":
        return None
    shape = _shape(node.inputs[0], node)
    axis = int(attribute(node, "axis", 0)) % len(shape)  # type: ignore[call-overload]
    last = np.arange(np.prod(shape)).reshape(shape)
    for source, where in enumerate(np.ndindex(index.shape)):
        target = [*where]
        target[axis] = int(index[where]) % shape[axis]
        last[tuple(target)] = last.size + source
    return _chosen(f, node, last)


def _chosen(f: Formula, node: ir.Node, index: Array) -> ir.Value:
    """Elements of the data and the updates by their index in both."""
    flat = [f.reshape(_input(node, i), [-1]) for i in (0, 2)]
    return f.op("Gather", f.op("Concat", *flat, axis=0), f.constant(index, "int64"), axis=0)


def _mat_mul(f: Formula, node: ir.Node) -> ir.Value | None:
    """x · DQ(W) = (x · (W − z)) ∘ s: the weights stay integers in memory."""
    weights = matrix(node.inputs[1])
    return None if weights is None else weights.product(f, _input(node, 0))


def _gemm(f: Formula, node: ir.Node) -> ir.Value | None:
    """x · DQ(W) + b alike, where the product has no other options"""
    weights = matrix(node.inputs[1])
    plain = [attribute(node, name, usual) == usual for name, usual in _GEMM.items()]
    if weights is None or not all(plain):
        return None
    made = weights.product(f, _input(node, 0))
    return made if len(node.inputs) < 3 or node.inputs[2] is None else f.op("Add", made, _input(node, 2))


_RULES: Mapping[str, Callable[[Formula, ir.Node], ir.Value | None]] = {
    "Celu": _celu,
    "Constant": _constant,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "Equal": _equal,
    "Einsum": einsum,
    "Gemm": _gemm,
    "IsInf": _in_float32,
    "IsNaN": _in_float32,
    "LpNormalization": _lp_normalization,
    "MatMul": _mat_mul,
    "OneHot": _one_hot,
    "ReduceLogSumExp": _log_sum_exp,
    "Resize": _resize,
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Upsample": _resize,
}
