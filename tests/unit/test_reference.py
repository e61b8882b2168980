"""The numpy reference computes what `planish.ir.integer` writes down: against loops over Python integers."""

import itertools
from fractions import Fraction

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import UsageError
from planish.ir.integer import IntegerOp, Operand, plan
from planish.ir.integer.elementwise import short_multiplier
from planish.ir.kernels import KERNELS, convolve
from planish.ir.quantization import Encoding
from planish.ir.reference import Reference, execute_step, run
from planish.ir.text import parse_model
from planish.ir.windows import output_size, window_counts

NODE = ir.Node("", "Identity", [])


def _encoding(scale: float, zero: int, dtype: ir.DataType = ir.DataType.UINT8) -> Encoding:
    return Encoding(np.float32(scale).reshape(()), np.int32(zero).reshape(()), dtype)


def _op(kind: str, *encodings: Encoding, result: Encoding | None, **fields: object) -> IntegerOp:
    inputs = tuple(Operand(f"x{i}", e) for i, e in enumerate(encodings))
    return IntegerOp(kind, NODE, inputs, ("y",), result, **{"low": 0, "high": 255, **fields})


def _apply(op: IntegerOp, *operands: np.ndarray) -> np.ndarray:
    return KERNELS[op.kind](op, operands)[0]


def _requantized(acc: int, m: np.float32, zero: int, low: int = 0, high: int = 255) -> int:
    """The contract in rational numbers: acc rounded to float32, the product rounded to float32, then half to even."""
    product = Fraction(float(np.float32(acc))) * Fraction(float(m))
    return int(min(max(round(Fraction(float(np.float32(float(product))))) + zero, low), high))


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, object]:
    group = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [draw(st.integers(max(1, s - pads[i] - pads[i + 2]), s + 4)) for i, s in enumerate(spans)]
    return {
        "x": (draw(st.integers(1, 2)), group * inner, *size),
        "w": (group * outer, inner, *kernel),
        "attributes": {
            "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            "dilations": dilations,
            "pads": pads,
            "group": group,
        },
        "zero": draw(st.integers(0, 255)),
        "weight_zero": draw(st.integers(-128, 127)),
        "seed": draw(st.integers(0, 2**16)),
    }


def _naive_sum(x: np.ndarray, w: np.ndarray, attributes: dict[str, tuple[int, ...]], n: int, m: int, at: tuple) -> int:
    """Σ over the group's channels and the kernel, positions outside of x left out."""
    per_group = w.shape[0] // attributes["group"]
    first = (m // per_group) * w.shape[1]
    total = 0
    for c, i, j in itertools.product(range(w.shape[1]), range(w.shape[2]), range(w.shape[3])):
        row = at[0] * attributes["strides"][0] + i * attributes["dilations"][0] - attributes["pads"][0]
        column = at[1] * attributes["strides"][1] + j * attributes["dilations"][1] - attributes["pads"][1]
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            total += int(x[n, first + c, row, column]) * int(w[m, c, i, j])
    return total


@given(convolutions())
def test_convolution_is_the_sum_the_contract_writes(case: dict) -> None:
    rng = np.random.default_rng(case["seed"])
    x, w = rng.integers(0, 256, case["x"], np.uint8), rng.integers(-128, 128, case["w"], np.int8)
    bias = rng.integers(-5000, 5000, w.shape[0]).astype(np.int32)
    m = rng.uniform(1e-4, 2e-2, w.shape[0]).astype(np.float32)
    zero, weight_zero, attributes = case["zero"], case["weight_zero"], case["attributes"]
    fields = {"weight": w, "weight_zero_point": np.asarray(weight_zero, np.int32), "bias": bias, "multiplier": m}
    op = _op(
        "conv", _encoding(0.1, zero), result=_encoding(0.2, 100), attributes=attributes, low=90, high=200, **fields
    )
    y = _apply(op, x)
    centred, weight = x.astype(int) - zero, w.astype(int) - weight_zero
    for n, c, i, j in itertools.product(*map(range, y.shape)):
        acc = _naive_sum(centred, weight, attributes, n, c, (i, j)) + int(bias[c])
        assert y[n, c, i, j] == _requantized(acc, m[c], 100, 90, 200)
    spatial = [
        output_size(x.shape[a + 2], w.shape[a + 2], *(attributes[k][a] for k in ("strides", "dilations")),
                    attributes["pads"][a], attributes["pads"][a + 2])
        for a in (0, 1)
    ]  # fmt: skip
    assert y.shape == (x.shape[0], w.shape[0], *spatial)


def test_sums_beyond_the_exact_range_of_float32_stay_exact() -> None:
    """1001 products of 255 · 127 sum to an odd number of 25 bits; float32 would lose the last one."""
    w, x = np.full((1001, 1), 127, np.int8), np.full((1, 1001), 255, np.uint8)
    bias = np.array([3 - 1001 * 255 * 127], np.int32)
    fields = {"weight": w, "weight_zero_point": np.zeros((), np.int32), "bias": bias}
    op = _op("dense", _encoding(1, 0), result=_encoding(1, 0), multiplier=np.array([1], np.float32), **fields)
    assert _apply(op, x)[0, 0] == 3


def test_the_accumulator_is_rounded_to_float32_before_it_is_scaled() -> None:
    acc = 2**24 + 1  # half-way between two float32 numbers: goes to the even one
    weight = np.array([[1]], np.int8)
    fields = {"weight": weight, "weight_zero_point": np.zeros((), np.int32), "bias": np.array([acc], np.int32)}
    op = _op("dense", _encoding(1, 0), result=None, multiplier=np.array([1], np.float32), **fields)
    assert _apply(op, np.zeros((1, 1), np.uint8))[0, 0] == 2**24


@given(st.integers(-300, 300), st.sampled_from([0.5, 0.25, 1.5, 0.125]), st.integers(0, 255))
def test_requantize_rounds_half_to_even(level: int, m: float, zero: int) -> None:
    x = np.array([np.clip(level, 0, 255)], np.uint8)
    op = _op("requantize", _encoding(1, 0), result=_encoding(1, zero), multiplier=np.float32(m).reshape(()))
    assert _apply(op, x)[0] == _requantized(int(x[0]), np.float32(m), zero)


@given(st.floats(1e-6, 1e6, allow_nan=False))
def test_products_with_a_short_multiplier_are_exact_in_float32(ratio: float) -> None:
    m = short_multiplier(ratio)
    assert abs(float(m) - ratio) <= ratio * 2.0**-15
    levels = np.arange(-255, 256, dtype=np.float32)
    np.testing.assert_array_equal((levels * m).astype(np.float64), levels.astype(np.float64) * np.float64(m))


@given(st.integers(0, 2**16), st.floats(0.01, 3), st.floats(0.01, 3))
def test_add_is_the_same_with_and_without_a_fused_multiply_add(seed: int, ratio_a: float, ratio_b: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, 64, np.uint8), rng.integers(0, 256, 64, np.uint8)
    m = np.array([short_multiplier(ratio_a), short_multiplier(-ratio_b)], np.float32)
    y = _apply(_op("add", _encoding(1, 11), _encoding(1, 77), result=_encoding(1, 128), multiplier=m), a, b)
    # one fused operation: the product is not rounded; float64 holds it and the sum exactly here
    left = (a.astype(np.float64) - 11) * np.float64(m[0])
    right = ((b.astype(np.float32) - np.float32(77)) * m[1]).astype(np.float64)
    fused = (left + right).astype(np.float32)
    np.testing.assert_array_equal(y, np.clip(np.rint(fused) + 128, 0, 255).astype(np.uint8))


def test_padding_of_an_average_counts_only_what_it_is_told_to() -> None:
    attributes = {"kernel": (3,), "strides": (2,), "dilations": (1,), "pads": (1, 2)}
    assert window_counts((5,), attributes, (1, 1), include_pad=False).tolist() == [2, 3, 2]
    assert window_counts((5,), attributes, (1, 1), include_pad=True).tolist() == [3, 3, 3]
    longer = attributes | {"pads": (1, 3)}
    assert window_counts((4,), longer, (1, 0), include_pad=True).tolist() == [3, 3, 1]


def test_convolve_works_in_one_and_three_spatial_dimensions() -> None:
    rng = np.random.default_rng(0)
    for rank in (1, 3):
        x = rng.integers(-9, 9, (2, 3, *[5] * rank)).astype(np.float64)
        w = rng.integers(-9, 9, (4, 3, *[2] * rank)).astype(np.float64)
        ones = (1,) * rank
        y = convolve(x, w, {"strides": ones, "dilations": ones, "pads": (0,) * (2 * rank), "group": 1})
        corner = (slice(None), slice(None), *[slice(0, 2)] * rank)
        expected = np.tensordot(x[corner], w, axes=(range(1, rank + 2), range(1, rank + 2)))
        np.testing.assert_array_equal(y[(slice(None), slice(None), *[0] * rank)], expected)


MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
main (float["n",3,6,6] x) => (float["n",4,6,6] y)
   <float s = {0.03}, uint8 z = {120}, float t = {0.2}, uint8 o = {30}, int8[4,3,3,3] W = seeded(1),
    float[4] ws = splat(0.01)>
{
   q = QuantizeLinear (x, s, z)
   a = DequantizeLinear (q, s, z)
   w = DequantizeLinear <axis = 0> (W, ws)
   c = Conv <pads = [1,1,1,1]> (a, w)
   r = Relu (c)
   p = QuantizeLinear (r, t, o)
   d = DequantizeLinear (p, t, o)
   y = Softmax <axis = 1> (d)
}
"""


def test_a_model_runs_with_any_batch_and_gives_what_is_fetched() -> None:
    model = parse_model(MODEL)
    reference = Reference(model, ["y", "p", "d", "q"])
    rng = np.random.default_rng(0)
    for batch in (1, 3, 1):
        x = rng.normal(0, 1, (batch, 3, 6, 6)).astype(np.float32)
        got = reference({"x": x})
        assert list(got) == ["y", "p", "d", "q"]
        assert got["y"].shape == (batch, 4, 6, 6)
        np.testing.assert_array_equal(got["d"], (got["p"].astype(np.int32) - 30).astype(np.float32) * np.float32(0.2))
        np.testing.assert_allclose(got["y"].sum(axis=1), 1, rtol=1e-5)
        assert got["p"].min() >= 30  # Relu


def test_the_model_is_not_changed_by_running_it() -> None:
    model = parse_model(MODEL)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    run(model, {"x": np.ones((1, 3, 6, 6), np.float32)}, ["q", "y"])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_step_runs_alone_on_given_integers() -> None:
    conv = next(s for s in plan(parse_model(MODEL)) if isinstance(s, IntegerOp) and s.kind == "conv")
    q = np.full((1, 3, 6, 6), 120, np.uint8)  # the zero point: nothing but the bias, which is 0
    assert (execute_step(conv, {"q": q})["p"] == 30).all()


@pytest.mark.parametrize(
    ("feeds", "fetch", "message"),
    [
        ({}, None, "input 'x' is missing"),
        ({"x": np.zeros((1, 3, 6, 6), np.float32), "k": np.zeros(1)}, None, "no input 'k'"),
        ({"x": np.zeros((1, 3, 6, 6), np.float32)}, ["r"], "value 'r' does not exist"),
    ],
)
def test_wrong_feeds_and_fetches_say_what_to_do(feeds: dict, fetch: list[str] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run(parse_model(MODEL), feeds, fetch)
    assert caught.value.where and caught.value.hint


def test_float_parts_may_hold_subgraphs_that_read_outer_values() -> None:
    branch = """
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[4] x, bool c) => (float[4] y)
       <float s = {0.1}, uint8 z = {128}>
    {
       q = QuantizeLinear (x, s, z)
       a = DequantizeLinear (q, s, z)
       r = If (c) <then_branch = then () => (float[4] t) { t = Neg (a) },
                   else_branch = other () => (float[4] e) { e = Add (a, a) }>
       y = Identity (r)
    }
    """
    model = parse_model(branch)
    x = np.array([0.1, -0.2, 0.3, 0.04], np.float32)
    taken = run(model, {"x": x, "c": np.array(True)})["y"]
    other = run(model, {"x": x, "c": np.array(False)})["y"]
    np.testing.assert_array_equal(other, -2 * taken)
    np.testing.assert_allclose(taken, [-0.1, 0.2, -0.3, 0], atol=1e-6)
