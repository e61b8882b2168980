"""Shape inference over expressions: what it says holds for every size the inputs may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import UsageError
from planish.ir.dimension import Dimension, at_least, different, divide, symbol
from planish.ir.shapes import fix_dimensions, infer

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
SIZES = {"a": 3, "b": 5, "c": 8}


def model(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def value_at(size: Dimension, sizes: dict[str, int]) -> int:
    return int(eval(str(size).replace("~", ""), {"min": min}, dict(sizes)))


@st.composite
def dimensions(draw: st.DrawFn, depth: int = 3) -> Dimension:
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(st.integers(-4, 9), st.sampled_from([symbol(n) for n in SIZES])))
    left, right = draw(dimensions(depth=depth - 1)), draw(dimensions(depth=depth - 1))
    kind = draw(st.sampled_from("+-*/"))
    if kind == "/":
        return divide(left, draw(st.integers(1, 4))) or 1
    return left + right if kind == "+" else left - right if kind == "-" else left * right


@given(dimensions(), dimensions(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_expressions_compute_and_compare_like_the_numbers_they_stand_for(
    x: Dimension, y: Dimension, a: int, b: int, c: int
) -> None:
    sizes = {"a": a, "b": b, "c": c}
    left, right = value_at(x, sizes), value_at(y, sizes)
    assert value_at(x + y, sizes) == left + right
    assert value_at(x - y, sizes) == left - right
    assert value_at(x * y, sizes) == left * right
    floor = divide(x, 3)
    assert floor is not None and value_at(floor, sizes) == left // 3
    if at_least(x, y):
        assert left >= right
    if different(x, y):
        assert left != right
    if x == y:
        assert left == right


def test_equal_expressions_have_one_form() -> None:
    n, h = symbol("n"), symbol("h")
    assert n * h + h == h * (n + 1)
    assert divide(6 * n * h, 3 * h) == 2 * n
    assert divide(4 * n + 2, 2) == 2 * n + 1
    assert str(n * h * 2 - 1) == "2*h*n-1"


def all_models() -> list[str]:
    return sorted(str(f.relative_to(MODELS)) for f in MODELS.glob("*/model*.onnx"))


@pytest.mark.skipif(not MODELS.is_dir(), reason="the pack of pretrained models is not beside the project")
@pytest.mark.parametrize("name", all_models())
def test_inferred_shapes_are_those_the_runtime_sees(name: str) -> None:
    sizes = {"batch": 2, "frames": 5, "s16": 16, "s82": 20, "sequence": 576, "seq": 9, "height": 64, "width": 96}
    found = ir.load(MODELS / name)
    shapes = infer(found)
    tensors = [o for n in found.graph for o in n.outputs if isinstance(o.type, ir.TensorType) and o.name]
    proto = onnx.load(MODELS / name)
    del proto.graph.value_info[:]
    fetch = [t.name for t in tensors if shapes.shape(t) is not None][:400]
    kept = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in fetch if n not in kept)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    rng = np.random.default_rng(0)
    feeds = {}
    for value in found.graph.inputs:
        dims = [d if isinstance(d, int) else sizes[str(d.value)] for d in value.shape or ()]
        kind = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        feeds[value.name] = np.asarray(rng.integers(1, 2, dims) if kind.kind in "iu" else rng.normal(size=dims), kind)
    seen = dict(zip(fetch, session.run(fetch, feeds), strict=True))
    checked = 0
    for tensor in tensors:
        shape = shapes.shape(tensor)
        if tensor.name not in seen or shape is None or any("?" in str(d) for d in shape):
            continue
        assert tuple(value_at(d, sizes) for d in shape) == seen[tensor.name].shape, tensor.name
        checked += 1
    assert checked > len(tensors) * 0.6


def test_stale_shapes_in_the_file_are_replaced() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,4] x) => (float[N,4] y) <float[1,4] a> { a = Relu(x)  y = Neg(a) }""")
    infer(m)
    assert str(m.graph.node(0).outputs[0].shape) == "[N,4]"


def test_sizes_are_fixed_wherever_their_name_stands() -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,T] x, float[N,3] z) => (float[N,T] y) { y = Relu(x) }""")
    fix_dimensions(m, {"x": (2, 7)})
    assert [str(v.shape) for v in [*m.graph.inputs, *m.graph.outputs]] == ["[2,7]", "[2,3]", "[2,7]"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"q": (1,)}, "no input called 'q'"),
        ({"x": (1, 2, 3)}, "has 2 dimensions, not 3"),
        ({"x": (0, 3)}, "dimension 0 of input 'x' cannot be 0"),
        ({"z": (1, 4)}, "dimension 1 of input 'z' cannot be 4"),
        ({"x": (2, 7), "z": (5, 3)}, "would be both 2 and 5"),
    ],
)
def test_shapes_that_cannot_be_are_refused_in_three_parts(given: dict[str, tuple[int, ...]], what: str) -> None:
    m = model("""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,T] x, float[N,3] z) => (float[N,T] y) { y = Relu(x) }""")
    with pytest.raises(UsageError) as error:
        fix_dimensions(m, given)
    assert what in error.value.what and error.value.where and error.value.hint


def test_weights_are_not_read() -> None:
    def unread() -> ir.TensorProtocol:
        raise AssertionError("a weight was read")

    m = model("""<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,64] x) => (float[N,64] y) <float[64,64] w> { y = MatMul(x, w) }""")
    weight = ir.Value(name="w2", const_value=ir.LazyTensor(unread, ir.DataType.FLOAT, ir.Shape([64, 64])))
    weight.dtype, weight.shape = ir.DataType.FLOAT, ir.Shape([64, 64])
    m.graph.register_initializer(weight)
    m.graph.node(0).replace_input_with(1, weight)
    assert str(infer(m).shape(m.graph.outputs[0])) == "(N, 64)"
