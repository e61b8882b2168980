"""Estimated cycles of float layers: what vectors, tiles and fusion make of a layer's multiply-accumulates."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from planish.backends.tvm.floats.cost import node_cost
from planish.ir import shapes
from planish.targets.registry import resolve

ARM64 = resolve("arm64/cortex-a76")  # vectors of 4


def convolution(channels: int, group: int = 1, tail: str | None = None) -> list[float]:
    """Cycles of a 3×3 convolution of `channels` on 16×16 positions, and of what follows it."""
    weight = [channels, channels // group, 3, 3]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], group=group, pads=[1, 1, 1, 1])]
    if tail:
        nodes.append(helper.make_node(tail, ["y"], ["z"]))
    zeros = helper.make_tensor("w", TensorProto.FLOAT, weight, bytes(4 * channels * channels // group * 9), raw=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 16, 16])
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "layer", [x], [y], [zeros])
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    shapes.infer(model)
    return [node_cost(ARM64)(node) for node in model.graph]


def test_twice_the_channels_are_four_times_the_cycles() -> None:
    assert convolution(64)[0] == pytest.approx(4 * convolution(32)[0], rel=0.15)


@pytest.mark.parametrize("channels, multiple", [(13, 16), (31, 32)])
def test_channels_that_fill_no_vector_cost_about_as_much_as_the_next_multiple(channels: int, multiple: int) -> None:
    products = channels / multiple  # of each result, which are filled up and cut behind
    assert convolution(channels)[0] == pytest.approx(products * convolution(multiple)[0], rel=0.1)


def test_channels_of_less_than_a_vector_are_computed_one_by_one() -> None:
    assert convolution(3)[0] > convolution(4)[0]


def test_a_depthwise_convolution_costs_less_than_a_full_one_but_not_by_all_its_products() -> None:
    assert convolution(32)[0] / 32 < convolution(32, group=32)[0] < convolution(32)[0] / 4


def test_an_activation_behind_a_convolution_is_free_and_another_layer_is_not() -> None:
    assert convolution(16, tail="Relu")[1] == 0.0
    assert convolution(16, tail="GlobalAveragePool")[1] > 0.0


def product(rows: int, depth: int, columns: int) -> float:
    """Cycles of a product of two computed matrices."""
    a, b = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("a", [rows, depth]), ("b", [depth, columns]))
    )
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "product", [a, b], [y])
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    shapes.infer(model)
    (node,) = model.graph
    return node_cost(ARM64)(node)


def test_rows_and_columns_that_nothing_divides_cost_little_more() -> None:
    assert product(196, 64, 196) < product(197, 64, 197) < 1.05 * product(200, 64, 200)


def test_a_single_column_costs_less_than_a_vector_of_them() -> None:
    assert product(128, 256, 1) < product(128, 256, 4)
