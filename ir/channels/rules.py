"""The table of channel rules: one line per operator family; an operator that is not listed freezes what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from . import linear, movement, pointwise
from .labelling import Labelling
from .reshape import reshape

__all__ = ["RULES", "Rule"]

Rule = Callable[[ir.Node, Labelling], None]


def _family(rule: Rule, operators: str) -> dict[str, Rule]:
    return dict.fromkeys(operators.split(), rule)


RULES: Mapping[str, Rule] = {
    **_family(linear.conv, "Conv"),
    **_family(linear.conv_transpose, "ConvTranspose"),
    **_family(linear.gemm, "Gemm"),
    **_family(linear.matmul, "MatMul"),
    **_family(linear.normalization, "BatchNormalization InstanceNormalization"),
    **_family(linear.recurrent, "LSTM GRU RNN"),
    **_family(pointwise.layer_norm, "LayerNormalization RMSNormalization"),
    **_family(pointwise.quantize, "QuantizeLinear DequantizeLinear"),
    **_family(
        pointwise.pass_through,
        "Abs Acos Acosh Asin Asinh Atan Atanh Bernoulli BitShift BitwiseNot Cast Ceil Celu Clip Cos Cosh Dropout Elu "
        "Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu "
        "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
    ),
    **_family(
        pointwise.broadcast,
        "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod "
        "Mul Or PRelu Pow Sub Sum Where Xor",
    ),
    **_family(
        pointwise.spatial,
        "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool Resize Upsample GridSample",
    ),
    **_family(
        pointwise.reduce,
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare",
    ),
    **_family(pointwise.along_axis, "Softmax LogSoftmax Hardmax CumSum"),
    **_family(reshape, "Reshape Flatten"),
    **_family(movement.transpose, "Transpose"),
    **_family(movement.squeeze, "Squeeze Unsqueeze"),
    **_family(movement.concat, "Concat"),
    **_family(movement.split, "Split"),
    **_family(movement.slice_, "Slice"),
    **_family(movement.gather, "Gather"),
    **_family(movement.pad, "Pad"),
    **_family(movement.depth_to_space, "DepthToSpace SpaceToDepth"),
}
