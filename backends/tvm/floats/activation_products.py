"""Products of two activations read their factors, and write their results, through the transpositions around them.

Transpose(MatMul(Transpose(a), Transpose(b))), all but the product optional, becomes one node: Σₖ a·b with the axes in
the order in which a, b and the result lie. The transpositions, heads of an attention for the most part, are no kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from ....ir.graph import attribute, is_constant, static_shape
from ....targets.target import Target
from .. import fusion
from . import bfloat16_packing, dot_products
from .bfloat16_product import Bfloat16MatrixPairs, Bfloat16MatrixProduct, matrix_product

__all__ = ["PRODUCT", "converter", "in_place"]

PRODUCT = "ActivationProduct"  # the operator of such nodes
_LEAST_COLUMNS = 4  # with fewer, rows and columns are read along what is summed
# what a node says of its right factor -> how it is packed; 0 where it is not
_PACKINGS: Mapping[int, type[Bfloat16MatrixProduct]] = {1: Bfloat16MatrixProduct, 2: Bfloat16MatrixPairs}
_FLOATS = (ir.DataType.FLOAT, ir.DataType.BFLOAT16)


def in_place(nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], target: Target) -> list[ir.Node]:
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
        product = _product(node, last, made, packs=_packing(node, target), thin=_is_thin(node, target))
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


def _packing(node: ir.Node, target: Target) -> int:
    """How the right factor of a product of bfloat16 is worth packing; 0 where it is not."""
    if node.outputs[0].dtype != ir.DataType.BFLOAT16:
        return 0
    (*_, channels), (*batch, width, columns) = (static_shape(v) or () for v in (node.inputs[0], node.outputs[0]))
    found = matrix_product(target, prod(batch), width, columns, channels)
    return next((number for number, kind in _PACKINGS.items() if type(found) is kind), 0)


def _is_thin(node: ir.Node, target: Target) -> bool:
    """Few rows of float32: a dot product for each result takes less time than the transposition of the right factor."""
    (*_, channels), (*_, width, _) = (static_shape(v) or () for v in (node.inputs[0], node.outputs[0]))
    return node.outputs[0].dtype == ir.DataType.FLOAT and dot_products.pays(target, width, channels)


def _product(node: ir.Node, last: ir.Node | None, made: Mapping[str, ir.Node], *, packs: int, thin: bool) -> ir.Node:
    """packs: how the right factor is packed by a kernel of its own, wherever it lies; thin: it is better not packed."""
    a, b = node.inputs
    assert a is not None and b is not None
    rank = len(static_shape(node.outputs[0]) or ())
    (left, left_order), (right, right_order) = _source(a, made), _source(b, made)
    if packs and left_order[-1] != len(left_order) - 1:  # tiles read channels that lie beside each other
        left, left_order = a, list(range(len(left_order)))
    if not packs and right_order[-1] != len(right_order) - 1 and not thin:
        right, right_order = b, list(range(len(right_order)))  # it is packed by the transposition
    order = list(range(rank)) if last is None else _order(last)
    value = (node if last is None else last).outputs[0]
    result = ir.Value(name=value.name, shape=value.shape, type=value.type)
    attributes = {"left": left_order, "right": right_order, "order": order, "packs": packs}
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
        """An element of one of the matrices, in float32."""
        index = [*_own(batch, self.shape[:-2]), *place]
        return self.tensor(*(index[self.order.index(axis)] for axis in range(len(index)))).astype("float32")


def converter(builder: Any, inputs: Any, attributes: Any, parameters: Any) -> Any:
    """The Relax function of a node of `PRODUCT`; sums are float32, results what the factors are."""
    from tvm import relax, te

    left_order, right_order, order = (tuple(int(i) for i in attributes[name]) for name in ("left", "right", "order"))
    shapes = [[int(t.ty.shape[axis]) for axis in o] for t, o in zip(inputs, (left_order, right_order), strict=False)]
    (*_, rows, depth), (*_, columns) = shapes
    batch = list(np.broadcast_shapes(tuple(shapes[0][:-2]), tuple(shapes[1][:-2])))
    sizes = [*batch, rows, columns]
    kind = _PACKINGS.get(int(attributes["packs"]))
    p = None if kind is None else kind(prod(batch), rows, columns, depth, (1, 1), (1, 1))
    second = inputs[1] if p is None else bfloat16_packing.words(builder, inputs[1], right_order, p)
    last = [int(extent) for extent in inputs[1].ty.shape][right_order[-2] + 1 :]
    if p is None and columns < _LEAST_COLUMNS and prod(last) > 1:
        axes = [axis for axis in range(len(right_order)) if axis != right_order[-2]] + [right_order[-2]]
        second = builder.emit(relax.op.permute_dims(second, axes))
        right_order = tuple(axes.index(axis) for axis in right_order)

    def product(a: Any, b: Any) -> Any:
        left, right = _Factor(a, left_order), _Factor(b, right_order)
        k = te.reduce_axis((0, depth), name="k")

        def term(*index: Any) -> Any:
            *outer, m, n = (index[order.index(axis)] for axis in range(len(order)))
            if p is None:
                return te.sum(left(outer, m, k) * right(outer, k, n), axis=k)
            own = _own(outer, shapes[1][:-2])
            return te.sum(left(outer, m, k) * bfloat16_packing.element(b, p, own, k, n), axis=k)

        return te.compute([sizes[axis] for axis in order], term, name="activation_product")

    pattern = {"op_pattern": fusion.WHAT_FOLLOWS}
    dtype = str(inputs[0].ty.dtype)
    sums = builder.emit_te(product, inputs[0], second, primfunc_name_hint="product", primfunc_attrs=pattern)
    return sums if dtype == "float32" else builder.normalize(relax.op.astype(sums, dtype))


def _own(batch: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """The index of one of an operand's matrices, where one stands for all along an axis of size 1."""
    return [0 if size == 1 else i for size, i in zip(sizes, batch[len(batch) - len(sizes) :], strict=True)]
