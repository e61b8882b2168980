"""Products of two activations read their factors, and write their results, through the transpositions around them.

Transpose(MatMul(Transpose(a), Transpose(b))), all but the product optional, becomes one node: Σₖ a·b with the axes in
the order in which a, b and the result lie. The transpositions, heads of an attention for the most part, are no kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, is_constant, static_shape

__all__ = ["PRODUCT", "converter", "in_place"]

PRODUCT = "ActivationProduct"  # the operator of such nodes
_FUSES_WHAT_FOLLOWS = 4  # relay's and relax's OpPatternKind.kOutEWiseFusable
_FLOATS = (ir.DataType.FLOAT, ir.DataType.BFLOAT16)


def in_place(nodes: Sequence[ir.Node], wanted: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes with such products in them; transpositions that nobody reads any more are left out."""
    made = {str(value.name): node for node in nodes for value in node.outputs}
    uses = Counter(str(value.name) for node in nodes for value in node.inputs if value is not None)
    uses.update(str(value.name) for value in wanted)
    after = {str(node.inputs[0].name): node for node in nodes if node.op_type == "Transpose" and node.inputs[0]}
    found: dict[str, ir.Node] = {}  # by the name of its result
    absorbed: set[str] = set()
    for node in nodes:
        if not _is_product(node, made):
            continue
        name = str(node.outputs[0].name)
        last = after.get(name) if uses[name] == 1 else None
        if last is not None and _order(last)[-1] != len(_order(last)) - 1:
            last = None  # columns would not lie beside each other
        product = _product(node, last, made)
        found[str(product.outputs[0].name)] = product
        absorbed |= set() if last is None else {name}
    kept = [found.get(str(node.outputs[0].name), node) for node in nodes if str(node.outputs[0].name) not in absorbed]
    read = {str(value.name) for node in kept for value in node.inputs if value is not None}
    read |= {str(value.name) for value in wanted}
    return [node for node in kept if node.op_type != "Transpose" or str(node.outputs[0].name) in read]


def _is_product(node: ir.Node, made: Mapping[str, ir.Node]) -> bool:
    """A MatMul of two computed matrices of floats."""
    if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return False
    shapes = [static_shape(value) for value in (*node.inputs, *node.outputs)]
    if any(shape is None or len(shape) < 2 for shape in shapes) or node.outputs[0].dtype not in _FLOATS:
        return False
    return not any(is_constant(_source(value, made)[0]) for value in node.inputs if value is not None)


def _source(value: ir.Value, made: Mapping[str, ir.Node]) -> tuple[ir.Value, list[int]]:
    """What a value is a transposition of, and the order of its axes."""
    node = made.get(str(value.name))
    rank = len(static_shape(value) or ())
    if node is None or node.op_type != "Transpose" or node.inputs[0] is None:
        return value, list(range(rank))
    return node.inputs[0], _order(node)


def _order(transpose: ir.Node) -> list[int]:
    rank = len(static_shape(transpose.outputs[0]) or ())
    given: Any = attribute(transpose, "perm")
    return [*range(rank)][::-1] if given is None else list(given)


def _product(node: ir.Node, last: ir.Node | None, made: Mapping[str, ir.Node]) -> ir.Node:
    a, b = node.inputs
    assert a is not None and b is not None
    rank = len(static_shape(node.outputs[0]) or ())
    (left, left_order), (right, right_order) = _source(a, made), _source(b, made)
    if right_order[-1] != len(right_order) - 1:
        right, right_order = b, list(range(len(right_order)))  # it is packed by the transposition
    order = list(range(rank)) if last is None else _order(last)
    value = (node if last is None else last).outputs[0]
    result = ir.Value(name=value.name, shape=value.shape, type=value.type)
    attributes = {"left": left_order, "right": right_order, "order": order}
    return ir.node(PRODUCT, [left, right], attributes=attributes, outputs=[result], name=node.name)


@dataclass(frozen=True)
class _Factor:
    """A factor of a product: axis d of the matrices is axis order[d] of the tensor that holds them."""

    tensor: Any
    order: tuple[int, ...]

    @property
    def shape(self) -> list[int]:
        return [int(self.tensor.shape[axis]) for axis in self.order]

    def __call__(self, batch: Sequence[Any], *place: Any) -> Any:
        """An element of one of the matrices, where one of size 1 stands for all along an axis; in float32."""
        count = len(self.order) - 2
        own = [0 if extent == 1 else i for extent, i in zip(self.shape, batch[len(batch) - count :], strict=False)]
        index = [*own, *place]
        return self.tensor(*(index[self.order.index(axis)] for axis in range(len(index)))).astype("float32")


def converter(builder: Any, inputs: Any, attributes: Any, parameters: Any) -> Any:
    """The Relax function of a node of `PRODUCT`; sums are float32, results what the factors are."""
    from tvm import relax, te

    left_order, right_order, order = (tuple(int(i) for i in attributes[name]) for name in ("left", "right", "order"))

    def product(a: Any, b: Any) -> Any:
        left, right = _Factor(a, left_order), _Factor(b, right_order)
        *_, rows, depth = left.shape
        batch = _broadcast(left.shape[:-2], right.shape[:-2])
        sizes = [*batch, rows, right.shape[-1]]
        k = te.reduce_axis((0, depth), name="k")

        def term(*index: Any) -> Any:
            *outer, m, n = (index[order.index(axis)] for axis in range(len(order)))
            return te.sum(left(outer, m, k) * right(outer, k, n), axis=k)

        return te.compute([sizes[axis] for axis in order], term, name="activation_product")

    pattern = {"op_pattern": _FUSES_WHAT_FOLLOWS}
    dtype = str(inputs[0].ty.dtype)
    sums = builder.emit_te(product, inputs[0], inputs[1], primfunc_name_hint="product", primfunc_attrs=pattern)
    return sums if dtype == "float32" else builder.normalize(relax.op.astype(sums, dtype))


def _broadcast(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """The batch axes of a product of matrices."""
    return list(np.broadcast_shapes(tuple(a), tuple(b)))
