"""Matrix products with their bias and transposes: one Gemm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.graph import attribute, is_constant, only_consumer
from ...ir.shapes import Shapes, infer
from ..base import Pass
from ..context import Context
from .edit import become, standard_nodes

__all__ = ["FuseGemm"]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


@dataclass(frozen=True)
class FuseGemm(Pass):
    """MatMul(a, b) + c  ⇒  Gemm(a, b, c), rank 2;  Gemm(aᵀ, b)  ⇒  Gemm{transA}(a, b)

    c: any value that broadcasts to the product without enlarging it; a constant c that is added to a sum of two
    products goes to the inner one: (a·b + d·e) + c ⇒ Gemm(a, b, Gemm(d, e, c)).
    """

    name: ClassVar[str] = "fuse-gemm"

    def run(self, model: ir.Model, context: Context) -> None:
        shapes = infer(model)
        for node in standard_nodes(model):
            if shapes.version < 7:
                continue
            if node.op_type == "Add":
                _fuse_bias(node, shapes, context)
            if node.op_type == "Gemm" or (node.op_type == "MatMul" and _matrices(node, shapes)):
                _fuse_transposes(node, context)


def _matrices(node: ir.Node, shapes: Shapes) -> bool:
    return all(shapes.rank(v) == 2 for v in node.inputs[:2]) and node.outputs[0].dtype in _FLOATS


def _fuse_bias(node: ir.Node, shapes: Shapes, context: Context) -> None:
    pair: list[ir.Value] = [v for v in node.inputs if v is not None]
    candidates = [(p, b) for p, b in (pair, pair[::-1]) if _product(p, shapes)]
    # the product whose other operand is constant first: its bias can still be scaled later
    for product, bias in sorted(candidates, key=lambda c: not is_constant(c[1])):
        gemm = product.producer()
        assert gemm is not None
        if only_consumer(product) is not node or gemm.graph is not node.graph:
            context.record.skip(node, f"the {gemm.op_type} before it has other readers or is a graph output")
            continue
        inner = _open_end(gemm, bias, shapes)
        if inner is None and len(gemm.inputs) > 2 and gemm.inputs[2] is not None:
            continue  # it has a bias; fold-affine adds constants to a constant one
        if inner is None:
            if not _broadcasts(shapes.shape(bias), shapes.shape(product)):
                context.record.skip(node, "the addend does not broadcast to the product")
                continue
            if not context.record.change(node, f"bias of {gemm.op_type} {gemm.name or product.name}"):
                return
            node.name = gemm.name
            attributes: dict[str, Any] = {k: v for k, v in gemm.attributes.items() if k != "beta"}
            become(node, "Gemm", [gemm.inputs[0], gemm.inputs[1], bias], attributes)
            return
        if context.record.change(node, f"bias of {inner.op_type} {inner.name}, which {gemm.name} adds"):
            _give_bias(inner, bias)
            become(node, "Gemm", list(gemm.inputs), dict(gemm.attributes))
        return


def _product(value: ir.Value, shapes: Shapes) -> bool:
    """True for the output of a rank-2 MatMul, or of a Gemm whose bias is free or itself a product."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "MatMul":
        return _matrices(node, shapes)
    if node.op_type != "Gemm":
        return False
    return len(node.inputs) < 3 or node.inputs[2] is None or _inner(node, shapes) is not None


def _inner(gemm: ir.Node, shapes: Shapes) -> ir.Node | None:
    """The product that a Gemm adds, when it has no bias of its own and no other reader."""
    c = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    node = c.producer() if c is not None else None
    if c is None or node is None or only_consumer(c) is not gemm or attribute(gemm, "beta", 1.0) != 1.0:
        return None
    if node.op_type == "MatMul" and _matrices(node, shapes) and shapes.shape(c) == shapes.shape(gemm.outputs[0]):
        return node
    return None


def _open_end(gemm: ir.Node, bias: ir.Value, shapes: Shapes) -> ir.Node | None:
    """The inner product that takes the bias where the outer one is taken; None where the outer one is free."""
    if gemm.op_type == "MatMul" or len(gemm.inputs) < 3 or gemm.inputs[2] is None:
        return None
    inner = _inner(gemm, shapes)
    fits = is_constant(bias) and _broadcasts(shapes.shape(bias), shapes.shape(gemm.outputs[0]))
    return inner if fits else None


def _give_bias(inner: ir.Node, bias: ir.Value) -> None:
    become(inner, "Gemm", [inner.inputs[0], inner.inputs[1], bias])


def _broadcasts(shape: Any, target: Any) -> bool:
    if shape is None or target is None or len(shape) > 2:
        return False
    return all(s in (1, t) for s, t in zip(shape, target[2 - len(shape) :], strict=True))


def _fuse_transposes(node: ir.Node, context: Context) -> None:
    for index, flag in ((0, "transA"), (1, "transB")):
        value = node.inputs[index]
        transpose = value.producer() if value is not None else None
        if transpose is None or transpose.op_type != "Transpose" or attribute(transpose, "perm", (1, 0)) != (1, 0):
            continue
        if context.record.change(node, f"{flag} in place of Transpose {transpose.name}"):
            inputs = list(node.inputs)
            inputs[index] = transpose.inputs[0]
            attributes: dict[str, Any] = {k: v for k, v in node.attributes.items() if k != flag}
            become(node, "Gemm", inputs, {**attributes, flag: 1 - int(attribute(node, flag, 0))})  # type: ignore[call-overload]
