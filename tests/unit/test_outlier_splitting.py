"""Splitting a channel leaves the function alone, and rounding both halves is rounding the whole."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.split_outliers import split


@given(st.integers(-(2**20), 2**20))
def test_half_up_rounding_of_the_halves_adds_up_to_that_of_the_whole(n: int) -> None:
    w = n / 1024  # exact in binary, halves and ties included
    assert np.floor((w - 0.5) / 2 + 0.5) + np.floor((w + 0.5) / 2 + 0.5) == np.floor(w + 0.5)


def test_half_even_rounding_of_the_halves_does_not_where_one_is_a_tie() -> None:
    w = 1.5
    assert np.rint((w - 0.5) / 2) + np.rint((w + 0.5) / 2) != np.rint(w)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_columns_that_read_a_channel_add_up_to_its_weights(seed: int, extra: int) -> None:
    columns = np.random.default_rng(seed).standard_t(2, (8, 5, 3))
    wide, source = split(columns, extra, 127)
    assert len(wide) == len(source) == 8 + extra
    total = np.zeros_like(columns)
    np.add.at(total, source, wide)
    np.testing.assert_allclose(total, columns, atol=1e-12)
    assert np.abs(wide).max() <= np.abs(columns).max()


def test_an_outlier_is_halved_first() -> None:
    columns = np.ones((6, 4))
    columns[2, 1] = 16.0
    wide, source = split(columns, 3, 127)
    assert source.tolist() == [0, 1, 2, 3, 4, 5, 2, 2, 2]
    assert np.abs(wide).max() < 4.2


@pytest.mark.parametrize(
    "graph",
    [
        "main (float[5,8] x) => (float[5,6] y) <float[8,6] w = seeded(0)> { y = MatMul (x, w) }",
        """main (float[5,8] x) => (float[5,6] y) <float[6,8] w = seeded(0), float[6] b = seeded(1)>
        { y = Gemm <transB = 1> (x, w, b) }""",
        "main (float[2,8,5,5] x) => (float[2,6,5,5] y) <float[6,8,3,3] w = seeded(0)> "
        "{ y = Conv <pads = [1,1,1,1]> (x, w) }",
    ],
)
def test_the_function_stays_and_the_largest_weight_shrinks(graph: str) -> None:
    model = parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + graph)
    value = model.graph.initializers["w"]
    weight = value.const_value.numpy().copy()
    weight.flat[7] = 30.0
    value.const_value = ir.Tensor(weight, name="w")
    shape = [int(d) for d in model.graph.inputs[0].shape]
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    before = execute(model, {"x": x})["y"]
    record = PassManager("split-outliers{expand=0.25}").run(model, Context()).records[0]
    after = execute(model, {"x": x})["y"]
    assert record.changed == 1
    used = next(n for n in model.graph if n.op_type != "Gather").inputs[1].const_value.numpy()
    assert np.abs(used).max() < 16
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
