"""What convolutions of several groups are estimated to cost: what few channels leave of an instruction."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from planish.backends.tvm.floats.cost import node_cost
from planish.ir import shapes
from planish.ir.layer_cost import LayerCost, Machine, analytic
from planish.targets.registry import resolve

VNNI = Machine(lanes=16, products=64)


def convolution(groups: int, channels: int, multiplier: int = 1) -> ir.Node:
    """A 3×3 convolution of groups of so many channels on 28×28 positions."""
    shape = [groups * channels * multiplier, channels, 3, 3]
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, pads=[1, 1, 1, 1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, shape, bytes(4 * shape[0] * channels * 9), raw=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, groups * channels, 28, 28])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "layer", [x], [y], [weight])
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    shapes.infer(model)
    return next(iter(model.graph))


def costs(groups: int, channels: int, multiplier: int = 1) -> LayerCost:
    """Of such a convolution on a machine with VNNI."""
    return analytic(convolution(groups, channels, multiplier), VNNI)


def test_groups_of_a_word_multiply_four_times_as_fast_as_in_float() -> None:
    narrow, wide = costs(32, 4), costs(8, 16)
    assert narrow.int8 < narrow.float32 / 2
    assert wide.int8 / wide.float32 < narrow.int8 / narrow.float32, "more products behind each result"


def test_channels_that_fill_no_word_cost_as_much_as_those_that_do() -> None:
    three, four = costs(64, 3), costs(64, 4)  # with as many filters
    assert three.int8 / 3 == pytest.approx(four.int8 / 4, rel=0.05)
    assert three.float32 / 3 < 0.8 * four.float32 / 4


def test_a_channel_multiplier_leaves_one_product_of_each_word() -> None:
    assert costs(64, 1, multiplier=2).int8 > costs(32, 2).int8


def test_float_groups_that_share_vectors_cost_what_their_products_do() -> None:
    target = replace(resolve("host"), triple="x86_64-linux-gnu", features=frozenset({"avx512f"}))
    narrow, whole = (node_cost(target)(convolution(groups, 128 // groups)) for groups in (32, 8))
    assert narrow < 0.6 * whole, "a quarter of the products, in as many lanes"
