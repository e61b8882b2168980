"""The operator table of the FX bridge: ONNX operator to torch function, and how its inputs want to be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from . import arithmetic, indexing, normalization, quantized, recurrent, resize, shapes, spatial

__all__ = ["OPERATORS", "Operator", "apply"]


@dataclass(frozen=True)
class Operator:
    """An ONNX operator in torch.

    function: takes the inputs in order and the attributes by name. It may also ask, by parameter name, for what is
        known of the node: `opset`, `outputs` (their number), `floating` (the first output's type), `rank` (of the
        first input), `bias_rank` (of the third), `scale_shape` (of the second), `levels` (of a quantized output).
    static: inputs that the function wants as Python numbers; where they are only known at run time, the whole call
        is recorded and the function gets the tensor.
    scalar: the same for inputs that hold one number; they may also be tensors.
    state: inputs that are never trained, though they are floating-point, such as statistics.
    several: the function returns one tensor for each output.
    """

    function: Callable[..., Any]
    static: tuple[str, ...] = ()
    scalar: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    several: bool = False


def _reduce(kernel: Callable[..., Any]) -> Operator:
    return Operator(arithmetic.reduction(kernel), static=("axes",))


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.det,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
    # functions of ours with nothing special about their inputs
    "ArgMax": indexing.arg_max,
    "ArgMin": indexing.arg_min,
    "AveragePool": spatial.average_pool,
    "BitShift": arithmetic.bit_shift,
    "Cast": shapes.cast,
    "CastLike": shapes.cast_like,
    "Celu": arithmetic.celu,
    "Concat": shapes.concat,
    "Conv": spatial.conv,
    "ConvInteger": quantized.conv_integer,
    "ConvTranspose": spatial.conv_transpose,
    "DepthToSpace": shapes.depth_to_space,
    "DequantizeLinear": quantized.dequantize_linear,
    "Div": arithmetic.div,
    "Einsum": arithmetic.einsum,
    "Elu": arithmetic.elu,
    "EyeLike": shapes.eye_like,
    "Flatten": shapes.flatten,
    "Gather": indexing.gather,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "Gelu": arithmetic.gelu,
    "Gemm": arithmetic.gemm,
    "GlobalAveragePool": spatial.global_average_pool,
    "GlobalMaxPool": spatial.global_max_pool,
    "GroupNormalization": normalization.group_normalization,
    "HardSigmoid": arithmetic.hard_sigmoid,
    "Identity": shapes.identity,
    "InstanceNormalization": normalization.instance_normalization,
    "IsInf": arithmetic.is_inf,
    "LRN": normalization.lrn,
    "LayerNormalization": normalization.layer_normalization,
    "LeakyRelu": arithmetic.leaky_relu,
    "LogSoftmax": arithmetic.log_softmax,
    "LpNormalization": normalization.lp_normalization,
    "LpPool": spatial.lp_pool,
    "MatMulInteger": quantized.mat_mul_integer,
    "Max": arithmetic.maximum,
    "MaxPool": spatial.max_pool,
    "Mean": arithmetic.mean,
    "MeanVarianceNormalization": normalization.mean_variance_normalization,
    "Min": arithmetic.minimum,
    "Mod": arithmetic.mod,
    "NonZero": indexing.non_zero,
    "OneHot": indexing.one_hot,
    "PRelu": arithmetic.p_relu,
    "QuantizeLinear": quantized.quantize_linear,
    "RMSNormalization": normalization.rms_normalization,
    "Range": shapes.range_,
    "ScatterElements": indexing.scatter_elements,
    "ScatterND": indexing.scatter_nd,
    "Selu": arithmetic.selu,
    "Shape": shapes.shape,
    "Shrink": arithmetic.shrink,
    "Size": shapes.size,
    "Softmax": arithmetic.softmax,
    "SpaceToDepth": shapes.space_to_depth,
    "Sum": arithmetic.total,
    "Swish": arithmetic.swish,
    "ThresholdedRelu": arithmetic.thresholded_relu,
    "Transpose": shapes.transpose,
}

OPERATORS: Mapping[str, Operator] = {
    **{name: Operator(function) for name, function in _PLAIN.items()},
    "BatchNormalization": Operator(normalization.batch_normalization, state=("input_mean", "input_var")),
    "Clip": Operator(arithmetic.clip, scalar=("min", "max"), state=("min", "max")),
    "ConstantOfShape": Operator(shapes.constant_of_shape, static=("input",)),
    "CumSum": Operator(arithmetic.cum_sum, static=("axis",)),
    "DynamicQuantizeLinear": Operator(quantized.dynamic_quantize_linear, several=True),
    "Dropout": Operator(arithmetic.dropout, scalar=("ratio", "training_mode"), several=True),
    "Expand": Operator(shapes.expand, static=("shape",)),
    "Pad": Operator(shapes.pad, static=("pads", "axes"), scalar=("constant_value",)),
    "Pow": Operator(arithmetic.power, scalar=("Y",)),
    "ReduceL1": _reduce(arithmetic.l1),
    "ReduceL2": _reduce(arithmetic.l2),
    "ReduceLogSum": _reduce(arithmetic.log_sum),
    "ReduceLogSumExp": _reduce(arithmetic.log_sum_exp),
    "ReduceMax": _reduce(arithmetic.largest),
    "ReduceMean": _reduce(arithmetic.averaged),
    "ReduceMin": _reduce(arithmetic.smallest),
    "ReduceProd": _reduce(arithmetic.product),
    "ReduceSum": _reduce(arithmetic.summed),
    "ReduceSumSquare": _reduce(arithmetic.sum_square),
    "GRU": Operator(recurrent.gru, several=True),
    "LSTM": Operator(recurrent.lstm, several=True),
    "RNN": Operator(recurrent.rnn, several=True),
    "Reshape": Operator(shapes.reshape, static=("shape",)),
    "Resize": Operator(resize.resize, static=("roi", "scales", "sizes")),
    "Slice": Operator(indexing.slice_, static=("starts", "ends", "axes", "steps")),
    "Split": Operator(shapes.split, static=("split",), several=True),
    "Squeeze": Operator(shapes.squeeze, static=("axes",)),
    "Tile": Operator(shapes.tile, static=("repeats", "tiles", "axis")),
    "TopK": Operator(indexing.top_k, static=("K",), several=True),
    "Trilu": Operator(shapes.trilu, static=("k",)),
    "Unsqueeze": Operator(shapes.unsqueeze, static=("axes",)),
    "Upsample": Operator(resize.upsample, static=("scales",)),
}


def apply(name: str, *inputs: Any, **attributes: Any) -> Any:
    """Run an operator on tensors: what FX records where an input that is usually constant is computed instead."""
    return OPERATORS[name].function(*inputs, **attributes)
