"""What every clean-up pass must leave alone, and ONNX's own operator tests through all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from planish.ir.dimension import symbol
from planish.ir.text import parse_model
from planish.ir.verify import verify
from planish.passes import defaults
from planish.passes.cleanup.affine import scale_transposed_kernel
from planish.passes.cleanup.deduplicate_initializers import digest
from planish.passes.cleanup.fold_bn import scale_and_shift
from planish.passes.cleanup.fold_shapes import reshape_target
from planish.passes.cleanup.fuse_clip import compose
from planish.passes.cleanup.merge_transposes import expand_permutation
from planish.passes.context import Context
from planish.passes.manager import Outcome, PassManager

Array = npt.NDArray[np.generic]

# operators that a clean-up pass looks at, or looks through
# fmt: off
OPERATORS = [
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
    "ConvTranspose", "Div", "Dropout", "Expand", "Flatten", "GRU", "Gather", "Gemm", "HardSwish", "Identity", "If",
    "LSTM", "LayerNormalization", "Loop", "MatMul", "Max", "MaxPool", "Min", "Mul", "Pad", "Pow", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Scan", "Shape", "Slice", "Split", "Squeeze", "Sub",
    "Tile", "Transpose", "Unsqueeze", "Where",
]
# fmt: on


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def clean(m: ir.Model) -> Outcome:
    return PassManager(defaults.exact()).run(m)


def operators(m: ir.Model) -> list[str]:
    return [node.op_type for node in m.graph.all_nodes()]


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(m: ir.Model, **feeds: Array) -> list[Array]:
    return session(ir.to_proto(m)).run(None, feeds)  # type: ignore[no-any-return]


def test_weights_that_the_caller_may_override_are_not_constants() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,4,4] x, float[2,1,1,1] w, float[2] s, int64[2] t) => (float[2,16] y)
        <float[2,1,1,1] w = {1,2}, float[2] s = {1,1}, int64[2] t = {2,16}, float[2] k = {1,2}>
        { c = Conv(x, w)  b = BatchNormalization(c, k, s, s, s)  r = Relu(b)  y = Reshape(r, t) }"""
    m = model(text)
    clean(m)
    assert operators(m) == ["Conv", "BatchNormalization", "Relu", "Reshape"]
    assert [v.name for v in m.graph.inputs] == ["x", "w", "s", "t"]
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(1, 1, 4, 4)), "w": rng.normal(size=(2, 1, 1, 1)), "s": rng.uniform(1, 2, 2)}
    given = {k: v.astype(np.float32) for k, v in feeds.items()}
    np.testing.assert_array_equal(run(model(text), **given)[0], run(m, **given)[0])


def test_outputs_keep_their_names_order_and_types() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] same, float[N,4] a, float[N,4] b, int64[2] s, float[N,4] c)
        <float one = {1}>
        { same = Identity(x)  r = Relu(x)  a = Identity(r)  b = Mul(r, one)  s = Shape(r)  c = Relu(x) }""")
    clean(m)
    assert [o.name for o in m.graph.outputs] == ["same", "a", "b", "s", "c"]
    x = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)
    same, a, b, s, c = run(m, x=x)
    np.testing.assert_array_equal(same, x)
    for value in (a, b, c):
        np.testing.assert_array_equal(value, np.maximum(x, 0))
    assert s.tolist() == [2, 4] and s.dtype == np.int64


def test_an_output_that_is_an_input_stays_one() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] x, float[N,4] y) { r = Identity(x)  y = Relu(r) }""")
    clean(m)
    assert [v.name for v in m.graph.inputs] == ["x"]
    assert [v.name for v in m.graph.outputs] == ["x", "y"]
    x = np.array([[-1, 0, 1, 2]], np.float32)
    same, y = run(m, x=x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_a_computation_is_not_moved_into_a_loop() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,2,2] x, int64 n) => (float[1,1,2,2] y)
        <float[1,1,1,1] w = {2}, float half = {0.5}, bool go = {1}>
        {
            c = Conv(x, w)
            y = Loop (n, go, x) <body = b (int64 i, bool p, float[1,1,2,2] s) => (bool q, float[1,1,2,2] t)
                { q = Identity(p)  d = Mul(c, half)  t = Add(s, d) }>
        }""")
    clean(m)
    assert [node.op_type for node in m.graph] == ["Conv", "Loop"]
    x = np.ones((1, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(run(m, x=x, n=np.array(3))[0], 4 * x)


def test_a_normalisation_in_training_mode_takes_nothing_in() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2] x) => (float[N,2] y, float[N,2] z)
        <float[2] s = {1,2}, float two = {2}>
        { b, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s)  y = Mul(b, two)
          n, mean = LayerNormalization (x, s, s)  z0 = Mul(n, two)  z = Add(z0, mean) }""")
    clean(m)
    assert operators(m) == ["BatchNormalization", "Mul", "LayerNormalization", "Mul", "Add"]


def test_a_cropped_transposed_convolution_gives_the_same_elements() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,H,W] x) => (float[N,3,A,B] y)
        <float[2,3,3,3] w, int64[2] from = {1,2}, int64[2] to = {-2,-1}, int64[2] axes = {2,3}>
        { c = ConvTranspose <strides = [2,2], output_padding = [1,1], pads = [1,0,0,1]> (x, w)
          y = Slice(c, from, to, axes) }"""
    before, after = model(text), model(text)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    for m in (before, after):
        value = ir.Value(name="kernel", const_value=ir.Tensor(kernel, name="kernel"))
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(kernel.shape)
        m.graph.register_initializer(value)
        m.graph.node(0).replace_input_with(1, value)
    clean(after)
    assert operators(after) == ["ConvTranspose"]
    for size in ((1, 2, 4, 5), (3, 2, 6, 3)):
        x = rng.normal(size=size).astype(np.float32)
        np.testing.assert_allclose(run(after, x=x)[0], run(before, x=x)[0], rtol=1e-5, atol=1e-6)


def test_values_captured_by_a_branch_are_readers() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,2,2] x, bool p) => (float[1,1,2,2] y)
        <float[1,1,1,1] w = {2}, float[1] s = {3}, float[1] z = {0}, float[1] o = {1}>
        {
            c = Conv(x, w)
            b = BatchNormalization <epsilon = 0.0> (c, s, z, z, o)
            y = If (p) <then_branch = t () => (float[1,1,2,2] u) { u = Relu(b) },
                        else_branch = e () => (float[1,1,2,2] v) { k = Identity(c)  v = Neg(k) }>
        }"""
    m = model(text)
    outcome = clean(m)
    assert any("2 readers" in s.reason for r in outcome.records if r.pass_name == "fold-bn" for s in r.skips)
    x = np.array([[[[-1, 2], [3, -4]]]], np.float32)
    for p in (True, False):
        np.testing.assert_array_equal(run(model(text), x=x, p=np.array(p))[0], run(m, x=x, p=np.array(p))[0])


def test_a_branch_whose_condition_is_known_is_inlined() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x) => (float[N,3] y)
        <int64 one = {1}, int64 three = {3}>
        {
            s = Shape(x)
            d = Gather(s, one)
            p = Equal(d, three)
            y = If (p) <then_branch = t () => (float[N,3] u) { u = Relu(x) },
                        else_branch = e () => (float[N,3] v) { v = Neg(x) }>
        }""")
    clean(m)
    assert operators(m) == ["Relu"]
    assert run(m, x=np.array([[-1, 0, 2]], np.float32))[0].tolist() == [[0, 0, 2]]


def test_nan_and_infinity_pass_through() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y, float[4] z, float[4] w)
        <float zero = {0}, float one = {1}, float two = {2}>
        { a = Mul(x, zero)  y = Add(a, one)  b = Clip(x, , )  z = Mul(b, two)  w = Sub(x, x) }"""
    m = model(text)
    clean(m)
    x = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    for before, after in zip(run(model(text), x=x), run(m, x=x), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_factor_that_is_not_finite_is_not_folded() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,2,2] x) => (float[1,1,2,2] y)
        <float[1,1,1,1] w = {2}, float[1] s = {3}, float[1] z = {0}>
        { c = Conv(x, w)  y = BatchNormalization <epsilon = 0.0> (c, s, z, z, z) }""")
    with np.errstate(divide="ignore", invalid="ignore"):
        outcome = clean(m)
    assert operators(m) == ["Conv", "BatchNormalization"]
    assert any(s.reason == "Conv: the constant is not finite" for r in outcome.records for s in r.skips)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 21])
def test_every_opset_gets_nodes_in_its_own_form(opset: int) -> None:
    total, squeeze = ("<axes = [1]> (x)", "<axes = [1]> (m)") if opset < 13 else ("(x, one)", "(m, one)")
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N,6,4] x) => (float[N,4] y, float[N,4,6] z)
        <int64[1] one = {{1}}>
        {{ m = ReduceSum {total}  y = Squeeze {squeeze}
          a = Transpose <perm = [0,2,1]> (x)  b = Relu(a)
          c = Transpose <perm = [0,2,1]> (b)  z = Transpose <perm = [0,2,1]> (c) }}"""
    m = model(text)
    clean(m)
    assert len(operators(m)) == 3
    onnx.checker.check_model(ir.to_proto(m), full_check=True)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    for before, after in zip(run(model(text), x=x), run(m, x=x), strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-6)


def test_the_same_model_gives_the_same_bytes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,8,8] x) => (float[N,M] y)
        <float[3,3,1,1] w = {1,2,3,4,5,6,7,8,9}, float[3] s = {1,2,3},
         int64 z = {0}, int64[1] a = {0}, int64[1] r = {-1}>
        { c = Conv(x, w)  b = BatchNormalization(c, s, s, s, s)  h = Shape(b)  n = Gather(h, z)  u = Unsqueeze(n, a)
          t = Concat <axis = 0> (u, r)  y = Reshape(b, t) }"""
    first, second = model(text), model(text)
    clean(first)
    clean(second)
    assert ir.to_proto(first).SerializeToString(deterministic=True) == ir.to_proto(second).SerializeToString(
        deterministic=True
    )
    assert clean(first).changed == 0  # a second run finds nothing left


def test_a_batch_norm_is_its_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    x, (s, b, m), v = rng.normal(size=(5, 7)), rng.normal(size=(3, 7)), rng.uniform(0.1, 2, 7)
    a, c = scale_and_shift(s, b, m, v, 1e-3)
    np.testing.assert_allclose(a * x + c, (x - m) / np.sqrt(v + 1e-3) * s + b, rtol=1e-12)


def test_a_grouped_transposed_kernel_scales_by_output_channel() -> None:
    w, a = np.ones((4, 3, 2, 2), np.float32), np.arange(1.0, 7.0)
    scaled = scale_transposed_kernel(w, a, 2)
    np.testing.assert_array_equal(scaled[:2, :, 0, 0], [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(scaled[2:, :, 0, 0], [[4, 5, 6]] * 2)


def test_composed_clips_clip_alike() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=100) * 3
    for _ in range(50):
        inner, outer = np.sort(rng.normal(size=2)), np.sort(rng.normal(size=2))
        low, high = compose(tuple(inner), tuple(outer))
        np.testing.assert_array_equal(np.clip(np.clip(x, *inner), *outer), np.clip(x, low, high))


def test_an_expanded_permutation_moves_the_same_elements() -> None:
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    full = expand_permutation((2, 3, 4, 5), (6, 20), (1, 0), (4, 5, 2, 3))
    assert full == [2, 3, 0, 1]
    np.testing.assert_array_equal(x.transpose(full), x.reshape(6, 20).transpose(1, 0).reshape(4, 5, 2, 3))
    assert expand_permutation((2, 3, 4), (4, 6), (1, 0), (6, 4)) is None


def test_a_reshape_target_copies_what_it_can_and_infers_one() -> None:
    n, h = symbol("n"), symbol("h")
    assert reshape_target((n, h, 4), (n, h, 2, 2)) == [0, 0, 2, 2]
    assert reshape_target((n, h, 4), (n, 4 * h)) == [0, -1]
    assert reshape_target((n, h, 4), (n * h, 4)) == [-1, 4]
    assert reshape_target((n, h, 4), (h, n, 4)) is None
    assert reshape_target((n, 0), (0, n)) is None


def test_a_digest_sees_every_bit_and_the_type() -> None:
    a, b = np.zeros(5, np.float32), np.zeros(5, np.float32)
    b[3] = -0.0
    assert digest(ir.Tensor(a)) == digest(ir.Tensor(a.copy()))
    assert digest(ir.Tensor(a)) != digest(ir.Tensor(b))


def variants(proto: onnx.ModelProto, inputs: list[object]) -> Iterator[tuple[onnx.ModelProto, dict[str, object]]]:
    """The model as it is, and with every input but the first frozen into an initialiser."""
    feeds = dict(zip([v.name for v in proto.graph.input], inputs, strict=False))
    yield proto, feeds
    frozen = onnx.ModelProto()
    frozen.CopyFrom(proto)
    for value in list(frozen.graph.input)[1:]:
        given = feeds.get(value.name)
        if isinstance(given, np.ndarray) and value.type.HasField("tensor_type"):
            frozen.graph.initializer.append(onnx.numpy_helper.from_array(given, value.name))
            frozen.graph.input.remove(value)
            feeds = {k: v for k, v in feeds.items() if k != value.name}
    yield frozen, feeds


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_operator_tests_of_onnx_are_unchanged(operator: str, onnx_node_cases: dict[str, list[Any]]) -> None:
    compared = 0
    for case in onnx_node_cases[operator]:
        for proto, feeds in variants(case.model, list(case.data_sets[0][0])):
            try:
                expected = session(proto).run(None, feeds)
            except Exception:  # the runtime has no kernel for the type, or the operator is too new for it
                continue
            m = ir.from_proto(proto)
            clean(m)
            names = {v.name for v in m.graph.inputs}
            got = session(ir.to_proto(m)).run(None, {k: v for k, v in feeds.items() if k in names})
            compared += 1
            for before, after in zip(expected, got, strict=True):
                if isinstance(before, np.ndarray) and before.dtype.kind in "fiub":
                    assert before.shape == after.shape and before.dtype == after.dtype, case.name
                    limit = 2e-3 if before.dtype == np.float16 else 1e-5
                    np.testing.assert_allclose(after, before, rtol=limit, atol=limit / 10, err_msg=case.name)
    if not compared:
        pytest.skip("ONNX Runtime has no kernel for any of the cases")


@pytest.mark.parametrize("opset", [11, 13])
def test_folded_shapes_are_written_in_the_form_of_the_opset(opset: int) -> None:
    header = f'<ir_version: 6, opset_import: ["" : {opset}]> main (float[2,3] x) => (float[2,3] y, int64[2] s)'
    model = parse_model(header + "{ y = Relu (x) s = Shape (x) }")
    PassManager("fold-constants").run(model, Context())
    assert verify(model) == [] and "Shape" not in {node.op_type for node in model.graph}
