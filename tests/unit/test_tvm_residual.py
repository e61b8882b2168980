"""Residual additions as the end of a convolution: which ones, and the bits of both operations one after the other."""

from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.residual import Residual, joined
from planish.ir.integer import plan
from planish.ir.reference import run
from planish.targets.registry import resolve
from planish.targets.target import Target

from ..arm64_emulation import emulated
from ..quantized_graph import QuantizedGraph, normal_feeds
from ..x86_targets import avx2, vnni


@dataclass(frozen=True)
class Block:
    """A convolution, 3×3 with padding or 1×1, whose result is added to a feature map: y = conv(x) + r, and ReLU or not.

    zeros: zero points of the convolution's result, of the map and of the sum, above the type's lowest level.
    """

    channels: int
    filters: int
    size: tuple[int, int]
    window: int
    zeros: tuple[int, int, int]
    relu: bool = False
    swapped: bool = False


BLOCKS = [
    Block(16, 32, (9, 8), 3, (120, 90, 64)),
    Block(64, 48, (14, 14), 1, (0, 255, 128), relu=True),
    Block(32, 24, (7, 7), 1, (128, 128, 128), swapped=True),
    Block(8, 10, (6, 5), 3, (31, 200, 1), relu=True),
    Block(3, 5, (5, 4), 3, (255, 0, 77)),
]


class _Graph(QuantizedGraph):
    """With the parts of a block."""

    def map(self, name: str, shape: tuple[int, ...], scale: float, zero: int) -> str:
        return self.encoded(self.input(name, shape), f"{name}_l", scale, zero)

    def conv(self, source: str, name: str, block: Block) -> str:
        w = self.weights(f"{name}_w", (block.filters, block.channels, block.window, block.window))
        c = self.node("Conv", [source, w], f"{name}_c", pads=[block.window // 2] * 4)
        return self.encoded(c, f"{name}_l", 0.1, block.zeros[0])

    def add(self, a: str, b: str, name: str, block: Block) -> str:
        total = self.node("Add", [a, b], f"{name}_sum")
        if block.relu:
            total = self.node("Relu", [total], f"{name}_r")
        return self.encoded(total, name, 0.13, block.zeros[2])


def _model(blocks: list[Block], activation: type[np.generic]) -> ir.Model:
    graph, outputs = _Graph(activation), []
    for i, block in enumerate(blocks):
        x = graph.map(f"x{i}", (1, block.channels, *block.size), 0.02, 100)
        r = graph.map(f"r{i}", (1, block.filters, *block.size), 0.05, block.zeros[1])
        c = graph.conv(x, f"c{i}", block)
        outputs.append(graph.add(*((r, c) if block.swapped else (c, r)), f"y{i}", block))
    return graph.model(outputs)


def _assert_equal(got: dict[str, np.ndarray], model: ir.Model, feeds: dict[str, np.ndarray]) -> None:
    for block, (name, want) in zip(BLOCKS, run(model, feeds).items(), strict=True):
        assert len(np.unique(want)) > 20
        np.testing.assert_array_equal(got[name], want, err_msg=str(block))


@pytest.mark.parametrize("target, activation", [
    (resolve("host"), np.uint8), (vnni(), np.int8), (avx2(), np.uint8),
], ids=["host", "vnni", "avx2"])  # fmt: skip
def test_the_bits_are_those_of_both_operations(target: Target, activation: type[np.generic], tmp_path: Path) -> None:
    if not target.features <= resolve("host").features:
        pytest.skip("this machine lacks the instructions")
    model = _model(BLOCKS, activation)
    feeds = normal_feeds(model)
    # threads share loops here however little they gain by it
    with mock.patch.object(parallel, "pays", lambda *_: True):
        compile_model(model, replace(target, threads=2), tmp_path)
    assert "model_add" not in (tmp_path / "model.c").read_text()
    _assert_equal(CompiledModel(tmp_path / "model.so")(**feeds), model, feeds)


@pytest.mark.parametrize("cpu", ["cortex-a53", "neoverse-n1", "neoverse-v1"])
def test_the_bits_are_the_same_on_arm64(cpu: str, tmp_path: Path) -> None:
    model = _model(BLOCKS, np.int8)
    feeds = normal_feeds(model)
    _assert_equal(emulated(model, cpu, feeds, tmp_path), model, feeds)


def _joined(graph: _Graph, outputs: list[str]) -> list[str]:
    """The convolutions that end with an addition, by name."""
    model = graph.model(outputs)
    kept = {str(value.name) for value in model.graph.outputs}
    found = [step for step in joined(list(plan(model)), kept) if isinstance(step, Residual)]
    return [residual.convolution.outputs[0].partition("_")[0] for residual in found]


def test_of_two_convolutions_the_later_one_ends_with_the_addition() -> None:
    graph, block = _Graph(np.uint8), BLOCKS[0]
    x = graph.map("x", (1, 16, 9, 8), 0.02, 100)
    first, second = graph.conv(x, "first", block), graph.conv(x, "second", block)
    assert _joined(graph, [graph.add(second, first, "y", block)]) == ["second"]


def test_a_convolution_that_others_read_is_stored() -> None:
    graph, block = _Graph(np.uint8), Block(16, 16, (9, 8), 3, (120, 90, 64))
    x = graph.map("x", (1, 16, 9, 8), 0.02, 100)
    c = graph.conv(x, "c", block)
    again = graph.conv(c, "again", block)
    assert _joined(graph, [graph.add(c, x, "y", block), again]) == []


def test_what_is_broadcast_is_no_residual() -> None:
    graph, block = _Graph(np.uint8), BLOCKS[0]
    x = graph.map("x", (1, 16, 9, 8), 0.02, 100)
    r = graph.map("r", (1, 32, 1, 1), 0.05, 90)
    assert _joined(graph, [graph.add(graph.conv(x, "c", block), r, "y", block)]) == []


def test_weights_with_zero_points_have_plain_loops_and_an_addition_of_their_own(tmp_path: Path) -> None:
    model = _model(BLOCKS[:1], np.uint8)
    zeros = model.graph.initializers["c0_w_z"]
    assert zeros.const_value is not None
    zeros.const_value = ir.tensor(zeros.const_value.numpy() + np.int8(3), name=zeros.name)
    feeds = normal_feeds(model)
    compile_model(model, resolve("host"), tmp_path)
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(**feeds)["y0"], run(model, feeds)["y0"])
