"""Weights alone in few bits, and activations quantized as they come: how far results may be from float."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish.errors import UsageError
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.hqq import affine_groups, hqq

PACK = Path(__file__).resolve().parents[2] / ".." / "shared" / "models"


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, shape)


def error(w: np.ndarray, solved: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    levels, scale, zero = solved
    return np.abs(w - scale[:, None] * (levels - zero[:, None])).mean(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 15, 255]))
def test_hqq_is_never_further_from_a_group_than_its_range_is(seed: int, most: int) -> None:
    w = rows(seed, 12, 64)
    solved = hqq(w, most)
    assert (error(w, solved) <= error(w, affine_groups(w, most)) + 1e-12).all()
    assert solved[0].min() >= 0 and solved[0].max() <= most
    assert (solved[2] == np.rint(solved[2])).all() and solved[2].min() >= 0 and solved[2].max() <= most


def test_hqq_keeps_its_best_iterate_and_stops_when_the_error_grows() -> None:
    w = rows(3, 40, 32)
    errors = np.stack([error(w, hqq(w, 7, n)) for n in range(12)])
    assert (np.diff(errors, axis=0) <= 0).all()  # more iterations never end with more
    stopped = np.diff(errors, axis=0) == 0
    assert (stopped[1:] >= stopped[:-1]).all() and stopped[-1].any() and not stopped.all()  # and a row stays stopped


def test_hqq_gains_at_few_bits() -> None:
    w = rows(0, 64, 64)
    assert error(w, hqq(w, 3)).mean() < 0.98 * error(w, affine_groups(w, 3)).mean()


def test_a_group_of_zeros_is_zero() -> None:
    levels, scale, zero = hqq(np.zeros((2, 8)), 15)
    assert (scale == 1).all() and (levels == zero[:, None]).all()


GRAPHS = {
    "matmul": "main (float[5,8] x) => (float[5,6] y) <float[8,6] w = seeded(0)> { y = MatMul (x, w) }",
    "gemm": """main (float[5,8] x) => (float[5,6] y) <float[6,8] w = seeded(0), float[6] b = seeded(1)>
        { y = Gemm <transB = 1> (x, w, b) }""",
    "conv": """main (float[2,8,5,5] x) => (float[2,6,5,5] y) <float[6,4,3,3] w = seeded(0)>
        { y = Conv <group = 2, pads = [1,1,1,1]> (x, w) }""",
    "gru": """main (float[4,2,8] x) => (float[4,1,2,3] y) <float[1,9,8] w = seeded(0), float[1,9,3] r = seeded(1)>
        { y = GRU <hidden_size = 3> (x, w, r) }""",
    "shared": """main (float[5,8] x) => (float[5,8] y) <float[8,8] w = seeded(0)>
        { a = MatMul (x, w) b = Relu (a) y = MatMul (b, w) }""",
}
SHAPES = {"conv": (2, 8, 5, 5), "gru": (4, 2, 8)}


def model_of(name: str, opset: int = 17) -> ir.Model:
    return parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{GRAPHS[name]}')


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(
    ("options", "within"),
    [
        ("weights=int8", 0.01),
        ("weights=int8 method=nearest", 0.01),
        ("weights=int4", 0.2),
        ("weights=int4 group=4", 0.15),
        ("activations=dynamic", 0.025),
    ],
)
def test_results_stay_close_to_float(name: str, options: str, within: float) -> None:
    model = model_of(name)
    x = np.random.default_rng(3).standard_normal(SHAPES.get(name, (5, 8))).astype(np.float32)
    before = execute(model, {"x": x})["y"]
    record = PassManager(f"quantize-weights{{{options}}}").run(model, Context()).records[0]
    assert record.changed == (2 if name == "shared" else 1) and not record.skips
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    after = execute(model, {"x": x})["y"]
    assert 0 < np.linalg.norm(after - before) / np.linalg.norm(before) < within
    wanted = 21 if "int4" in options or "group" in options else 17
    assert model.opset_imports[""] == wanted


def test_a_shared_weight_is_stored_once() -> None:
    model = model_of("shared")
    PassManager("quantize-weights").run(model, Context())
    assert sum(node.op_type == "DequantizeLinear" for node in model.graph) == 1


def test_nan_weights_and_two_directions_are_left_with_the_reason() -> None:
    model = model_of("matmul")
    value = model.graph.initializers["w"]
    value.const_value = ir.Tensor(np.full((8, 6), np.nan, np.float32), name="w")
    record = PassManager("quantize-weights{weights=int4}").run(model, Context()).records[0]
    assert record.skipped == {"weights hold NaN or infinity": 1} and model.opset_imports[""] == 17
    two = parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        main (float[4,2,8] x) => (float[4,2,2,3] y) <float[2,9,8] w = seeded(0), float[2,9,3] r = seeded(1)>
        { y = GRU <hidden_size = 3, direction = "bidirectional"> (x, w, r) }"""
    )
    record = PassManager("quantize-weights").run(two, Context()).records[0]
    assert record.skipped == {"two directions: one scale per row of both has no standard form": 1}


def test_weights_that_are_quantized_already_are_left() -> None:
    model = model_of("matmul")
    passes = PassManager("quantize-weights,quantize-weights")
    first, second = passes.run(model, Context()).records
    assert first.changed == 1 and second.changed == 0
    assert second.skipped == {"weights are already quantized": 1}


def test_dynamic_products_take_8_bits_only() -> None:
    with pytest.raises(UsageError, match="dynamic activations take int8 weights"):
        PassManager("quantize-weights{activations=dynamic weights=int4}")
