"""Channel rules of operators with weights: they end the channels of their input and begin those of their output."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph import attribute, constant, is_constant, static_shape
from .atoms import IntArray
from .labelling import Field, Labelling

__all__ = ["conv", "conv_transpose", "gemm", "matmul", "normalization", "recurrent"]


def _integer(node: ir.Node, name: str, default: int) -> int:
    value = attribute(node, name, default)
    assert isinstance(value, int)
    return value


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def conv(node: ir.Node, state: Labelling) -> None:
    """Conv(x[n,C,…], W[O,C/g,…], b[O]): C is tied to W's axis 1, O begins; g > 1 see `_grouped`."""
    _convolve(node, state, out_axis=0, in_axis=1)


def conv_transpose(node: ir.Node, state: Labelling) -> None:
    """ConvTranspose(x[n,C,…], W[C,O/g,…], b[O]): as Conv with the weight's first two axes exchanged."""
    _convolve(node, state, out_axis=1, in_axis=0)


def _convolve(node: ir.Node, state: Labelling, out_axis: int, in_axis: int) -> None:
    x, weight, bias = node.inputs[0], node.inputs[1], _input(node, 2)
    assert weight is not None
    state.freeze(x, f"{node.op_type} mixes it along a spatial axis", but=(1,))
    channels = state.alone(x, 1, f"{node.op_type} reads it together with another axis")
    rows = state.source(node, weight, out_axis, "out")
    if rows is None:
        if channels is not None:
            state.atoms.freeze(channels, f"weights of {node.op_type} are not constant")
        return
    group = _integer(node, "group", 1)
    if group == 1:
        if channels is not None:
            state.bind(node, weight, in_axis, channels, "in")
        made = rows
    else:
        made = _grouped(node, state, weight, channels, rows, group, in_axis)
    if bias is not None:
        state.bind(node, bias, 0, made, "out")
    output = node.outputs[0]
    state.put(output, [Field((1,), made)])


def _grouped(
    node: ir.Node,
    state: Labelling,
    weight: ir.Value,
    channels: IntArray | None,
    rows: IntArray,
    group: int,
    in_axis: int,
) -> IntArray:
    """Depthwise: input channel c and its outputs are one; grouped: the k-th channel of every group is one."""
    shape = static_shape(weight)
    assert shape is not None
    across = shape[in_axis]
    width = across if in_axis == 1 else across // group  # input channels per group
    if width == 1:
        # Conv lists a row per output; ConvTranspose a row per input, and per output of one group a column
        per_group = rows.reshape(group, -1) if in_axis == 1 else np.broadcast_to(rows, (group, rows.size))
        if channels is None:
            state.atoms.freeze(rows, "depthwise on a value whose channels cannot be removed")
        elif in_axis == 1:
            state.atoms.unify(per_group, channels[:, None])
        else:
            state.bind(node, weight, 0, channels, "in")
            if rows.size > 1:
                state.atoms.freeze(channels, "transposed depthwise convolution with a multiplier")
            return channels if rows.size == 1 else np.repeat(channels, rows.size)
        return rows
    if channels is not None:
        per_group = channels.reshape(group, width)
        state.atoms.unify(per_group, per_group[:1])
        state.bind(node, weight, in_axis, channels if in_axis == 0 else per_group[0], "in")
    if in_axis == 0:  # the weight lists the outputs of one group only
        return np.tile(rows, group)
    outputs = rows.reshape(group, -1)
    state.atoms.unify(outputs, outputs[:1])
    return rows


def gemm(node: ir.Node, state: Labelling) -> None:
    """Gemm(A[n,K], B[K,N], C[N]): K is tied to B's rows, N begins."""
    x, weight, bias = node.inputs[0], node.inputs[1], _input(node, 2)
    assert weight is not None
    transposed = bool(_integer(node, "transB", 0))
    if _integer(node, "transA", 0):
        state.freeze(x, "Gemm transposes it")
        return
    state.freeze(x, "Gemm mixes the batch axis", but=(1,))
    channels = state.alone(x, 1, "Gemm reads it together with another axis")
    rows = state.source(node, weight, 0 if transposed else 1, "out")
    if rows is None:
        if channels is not None:
            state.atoms.freeze(channels, "weights of Gemm are not constant")
        return
    if channels is not None:
        state.bind(node, weight, 1 if transposed else 0, channels, "in")
    if bias is not None:
        _bind_bias(node, state, bias, rows)
    state.put(node.outputs[0], [Field((1,), rows)])


def _bind_bias(node: ir.Node, state: Labelling, bias: ir.Value, rows: IntArray) -> None:
    shape = bias.shape
    if shape is None or any(not isinstance(d, int) for d in shape):
        state.atoms.freeze(rows, f"the shape of {bias.name} is not known")
    elif len(shape) and shape[-1] == rows.size and rows.size > 1:
        state.bind(node, bias, len(shape) - 1, rows, "out")


def matmul(node: ir.Node, state: Labelling) -> None:
    """MatMul(A[…,m,K], B[…,K,n]): K of both is one; a weight's free axis begins; batch axes (heads) are tied whole."""
    left, right = node.inputs
    assert left is not None and right is not None
    if left.shape is None or right.shape is None:
        for value in (left, right):
            state.freeze(value, "rank of a MatMul operand is not known")
        return
    if _is_weight(state, right) and len(right.shape) == 2:
        _project(node, state, left, right)
    elif _is_weight(state, left) or _is_weight(state, right) or min(len(left.shape), len(right.shape)) < 2:
        for value in (left, right):
            state.freeze(value, "MatMul with a batched or left-hand constant")
    else:
        _contract(node, state, left, right)


def _is_weight(state: Labelling, value: ir.Value) -> bool:
    found = state.of(value)
    return is_constant(value) or bool(found and found[0].role)  # a dequantized weight keeps its role


def _project(node: ir.Node, state: Labelling, x: ir.Value, weight: ir.Value) -> None:
    assert x.shape is not None
    last = len(x.shape) - 1
    channels = state.alone(x, last, "MatMul reads it together with another axis")
    if channels is not None:
        state.bind(node, weight, 0, channels, "in")
    rows = state.source(node, weight, 1, "out")
    rest = [f for f in state.of(x) if last not in f.axes]
    state.put(node.outputs[0], rest + ([] if rows is None else [Field((last,), rows)]))


def _contract(node: ir.Node, state: Labelling, left: ir.Value, right: ir.Value) -> None:
    """Scores = Q·Kᵀ and context = P·V: the contracted axis disappears, batch axes keep one channel per index."""
    assert left.shape is not None and right.shape is not None
    rank = max(len(left.shape), len(right.shape))
    batch: dict[int, IntArray] = {}
    free: list[Field] = []
    contracted: dict[int, list[IntArray | None]] = {}
    for value, inner, outer in ((left, rank - 1, rank - 2), (right, rank - 2, rank - 1)):
        assert value.shape is not None
        offset = rank - len(value.shape)
        for found in state.of(value):
            moved = found.move({a: a + offset for a in found.axes})
            heads = tuple(a for a in moved.axes if a < rank - 2)
            if len(heads) > 1 or (inner in moved.axes and not heads):
                if inner in moved.axes and moved.axes == (inner,):
                    contracted.setdefault(inner, []).append(moved.atoms)
                else:
                    state.atoms.freeze(moved.atoms, "MatMul over several batch axes")
                continue
            if heads:
                rows = moved.atoms.reshape(moved.atoms.shape[0], -1)
                state.atoms.unify(rows, rows[:, :1])
                known = batch.setdefault(heads[0], rows[:, 0])
                state.atoms.unify(known, rows[:, 0])
            elif moved.axes == (outer,):
                free.append(moved)
    _match_batch(state, (left, right), batch, rank)
    _match_contracted(state, contracted)
    state.put(node.outputs[0], [Field((a,), atoms) for a, atoms in batch.items()] + free)


def _match_batch(state: Labelling, operands: tuple[ir.Value, ir.Value], batch: dict[int, IntArray], rank: int) -> None:
    for value in operands:
        assert value.shape is not None
        for axis, atoms in batch.items():
            own = axis - (rank - len(value.shape))
            if own >= 0 and state.at(value, own) is None and value.shape[own] != 1:
                state.atoms.freeze(atoms, f"multiplied with {value.name}, whose heads cannot be removed")


def _match_contracted(state: Labelling, contracted: dict[int, list[IntArray | None]]) -> None:
    sides = [atoms for found in contracted.values() for atoms in found if atoms is not None]
    if len(contracted) == 2 and len(sides) == 2:
        state.atoms.unify(sides[0], sides[1])
    else:
        for atoms in sides:
            state.atoms.freeze(atoms, "contracted with a value whose channels cannot be removed")


def normalization(node: ir.Node, state: Labelling) -> None:
    """BatchNormalization and InstanceNormalization: one parameter of each kind per channel of axis 1."""
    x = node.inputs[0]
    state.freeze(x, f"{node.op_type} reads it together with another axis", but=(1,))
    channels = state.alone(x, 1, f"{node.op_type} reads it together with another axis")
    if channels is None:
        return
    for parameter in node.inputs[1:]:
        if parameter is not None:
            state.bind(node, parameter, 0, channels, "each")
    state.put(node.outputs[0], [Field((1,), channels)])


_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(node: ir.Node, state: Labelling) -> None:
    """LSTM, GRU, RNN: hidden unit h ends in R's column h and begins in row h of every gate of W, R and B."""
    x, w, r = node.inputs[:3]
    assert w is not None and r is not None
    bias, _, h0, c0, peephole = (_input(node, i) for i in (3, 4, 5, 6, 7))
    state.freeze(x, f"{node.op_type} reads time or batch", but=(2,))
    channels = state.alone(x, 2, f"{node.op_type} reads it together with another axis")
    if channels is not None:
        state.bind(node, w, 2, channels, "in")
    gates = _GATES[node.op_type]
    if not (is_constant(w) and is_constant(r)) or r.shape is None:
        if channels is not None:
            state.atoms.freeze(channels, f"weights of {node.op_type} are not constant")
        return
    hidden = state.source(node, r, 2, "in")
    assert hidden is not None
    if attribute(node, "layout", 0) or state.at(w, 1) is not None or state.at(r, 1) is not None:
        state.atoms.freeze(hidden, f"{node.op_type} with batch-first layout or shared weights")
        return
    for parameter, copies in ((w, gates), (r, gates), (bias, 2 * gates), (peephole, 3)):
        if parameter is not None:
            state.bind(node, parameter, 1, np.tile(hidden, copies), "out")
    for initial in (h0, c0):
        _initial_state(node, state, initial, hidden)
    places = ((3,), (2,), (2,))
    for output, (axis,) in zip(node.outputs, places, strict=False):
        if output.name:
            state.put(output, [Field((axis,), hidden)])


def _initial_state(node: ir.Node, state: Labelling, initial: ir.Value | None, hidden: IntArray) -> None:
    if initial is None:
        return
    known = state.at(initial, 2)
    if known is not None and known.axes == (2,):
        state.atoms.unify(known.atoms, hidden)
    elif is_constant(initial):
        contents = constant(initial)
        assert contents is not None
        state.bind(node, initial, 2, hidden, "each")
    else:
        state.atoms.freeze(hidden, f"the initial state {initial.name} is not a constant")
