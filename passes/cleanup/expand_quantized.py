"""Operators that take and make integers (the QOperator format) as float operators between Q and DQ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant
from ..base import Pass
from ..context import Context
from ..quantize.opset import PER_CHANNEL_OPSET, raise_opset
from .edit import Editor, become

__all__ = ["ExpandQuantized"]

_MICROSOFT = "com.microsoft"
# operator -> places of its scales, where they are not those of two operands and a result
_SCALES: Mapping[str, tuple[int, ...]] = {
    "QGemm": (1, 4, 7),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool"), (1, 3)),
}


@dataclass(frozen=True)
class ExpandQuantized(Pass):
    """QLinearF(x, s_x, z_x, …, s_y, z_y)  ⇒  Q(F(DQ(x, s_x, z_x), …), s_y, z_y)

    F: Conv, MatMul; of ONNX Runtime's operators Add, Mul, Concat, Sigmoid, LeakyRelu, AveragePool, GlobalAveragePool
    and QGemm. A level may differ by one from ONNX Runtime's, whose kernels round sums in ways of their own.
    """

    name: ClassVar[str] = "expand-quantized"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        if not any((node.domain or "", node.op_type) in _RULES for node in model.graph):
            return
        if reason := raise_opset(model, PER_CHANNEL_OPSET):
            context.record.note(reason)
        edit = Editor(model)
        for node in list(model.graph):
            rule = _RULES.get((node.domain or "", node.op_type))
            if rule is None:
                continue
            if reason := _hindrance(node, edit.version):
                context.record.skip(node, reason)
            elif context.record.change(node, "between Q and DQ"):
                rule(_Expansion(node, edit))


def _hindrance(node: ir.Node, version: int) -> str:
    if version < 10:
        return f"opset {version} has no DequantizeLinear"
    if attribute(node, "channels_last", 0):
        return "its channels are last"
    scales = [constant(v) for v in _scales(node)]
    if any(scale is None for scale in scales):
        return "a scale is not constant"
    if version < 13 and any(scale.size > 1 for scale in scales if scale is not None):
        return f"opset {version} has one scale for a tensor, not one for a channel"
    if node.op_type == "QGemm" and attribute(node, "alpha", 1.0) != 1.0:
        return f"alpha is {attribute(node, 'alpha')}"
    return ""


def _scales(node: ir.Node) -> list[ir.Value]:
    """Operands that are scales, by their places: what computes one may state no type."""
    places = range(0, len(node.inputs), 3) if node.op_type == "QLinearConcat" else _SCALES.get(node.op_type, (1, 4, 6))
    return [value for i, value in enumerate(node.inputs) if i in places and value is not None]


class _Expansion:
    """Makes the nodes that one operator becomes."""

    def __init__(self, node: ir.Node, edit: Editor) -> None:
        self.node, self.edit = node, edit

    def input(self, i: int) -> ir.Value | None:
        return self.node.inputs[i] if i < len(self.node.inputs) else None

    def real(self, i: int, axis: int = 0) -> ir.Value:
        """DQ of operand i, whose scale and zero point follow it; axis: of several scales."""
        return self._dequantized(self.input(i), self.input(i + 1), self.input(i + 2), axis)

    def bias(self, i: int, x: int, w: int) -> list[ir.Value]:
        """DQ of the int32 operand i at the scale of the products of operands x and w; nothing where there is none."""
        value = self.input(i)
        if value is None:
            return []
        scales = [constant(self.input(k + 1)) for k in (x, w)]
        assert scales[0] is not None and scales[1] is not None
        product = np.asarray(np.multiply(scales[0], scales[1], dtype=np.float32))
        scale = self.edit.constant(f"{value.name}_scale", np.reshape(product, () if product.size == 1 else -1))
        return [self._dequantized(value, scale, None, 0)]

    def _dequantized(self, x: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, axis: int) -> ir.Value:
        levels = constant(scale)
        attributes = {"axis": axis} if levels is not None and levels.size > 1 else {}
        stem = f"{'' if x is None else x.name}_dequantized"
        return self.edit.insert(self.node, "DequantizeLinear", [x, scale, *([zero] if zero else [])], attributes, stem)

    def finish(self, op_type: str, operands: list[ir.Value], scale: int, *dropped: str) -> None:
        """The float operator, and Q by operands `scale` and the one behind it where there are any."""
        node, kept = self.node, {n: a for n, a in self.node.attributes.items() if n not in (*dropped, "channels_last")}
        node.domain = ""
        step, zero = self.input(scale), self.input(scale + 1)
        if step is None:
            become(node, op_type, operands, dict(kept))
            return
        made = self.edit.insert(node, op_type, operands, dict(kept), f"{node.outputs[0].name}_real")
        become(node, "QuantizeLinear", [made, step, *([zero] if zero else [])], {})


def _conv(e: _Expansion) -> None:
    e.finish("Conv", [e.real(0), e.real(3, axis=0), *e.bias(8, 0, 3)], 6)


def _matmul(e: _Expansion) -> None:
    e.finish("MatMul", [e.real(0), e.real(3, axis=-1)], 6)


def _gemm(e: _Expansion) -> None:
    axis = 0 if attribute(e.node, "transB", 0) else 1
    e.finish("Gemm", [e.real(0), e.real(3, axis=axis), *e.bias(6, 0, 3)], 7, "alpha")


def _concat(e: _Expansion) -> None:
    e.finish("Concat", [e.real(i) for i in range(2, len(e.node.inputs), 3)], 0)


def _binary(op_type: str) -> Callable[[_Expansion], None]:
    return lambda e: e.finish(op_type, [e.real(0), e.real(3)], 6)


def _unary(op_type: str) -> Callable[[_Expansion], None]:
    return lambda e: e.finish(op_type, [e.real(0)], 3)


_RULES: Mapping[tuple[str, str], Callable[[_Expansion], Any]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (_MICROSOFT, "QGemm"): _gemm,
    (_MICROSOFT, "QLinearAdd"): _binary("Add"),
    (_MICROSOFT, "QLinearMul"): _binary("Mul"),
    (_MICROSOFT, "QLinearConcat"): _concat,
    (_MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (_MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
    (_MICROSOFT, "QLinearAveragePool"): _unary("AveragePool"),
    (_MICROSOFT, "QLinearGlobalAveragePool"): _unary("GlobalAveragePool"),
}
