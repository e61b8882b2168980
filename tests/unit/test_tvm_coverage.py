"""Float operators of common networks, compiled, compute what ONNX Runtime's do; what cannot be is refused by name."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper as h
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.errors import ModelError
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.targets.registry import resolve

CUBE, MAP = (2, 4, 6), (1, 4, 6, 6)


@dataclass
class Case:
    """One operator: shapes of its inputs, attributes, constants behind the inputs (None: left out), its outputs."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[np.ndarray | None, ...] = ()
    outputs: int = 1
    dtype: str = "float32"


def _ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _resizes() -> Iterator[Case]:
    for mode in ("nearest", "linear", "cubic"):
        for coordinates in ("half_pixel", "align_corners"):
            options = {
                "mode": mode,
                "coordinate_transformation_mode": coordinates,
                "keep_aspect_ratio_policy": "stretch",
            }
            yield Case("Resize", ((1, 2, 4, 6),), options, (None, None, _ints(1, 2, 7, 9)))
    fractions = (None, np.array([1, 1, 0.6, 1.7], np.float32))  # sizes that are no multiples
    yield Case("Resize", ((1, 2, 8, 10),), {"mode": "linear"}, fractions)
    yield Case("Resize", ((1, 2, 8, 10),), {"mode": "nearest"}, fractions)
    yield Case("Resize", ((1, 2, 8, 10),), {"mode": "linear", "axes": [3, 2]}, (None, None, _ints(7, 5)))
    yield Case("Resize", ((1, 2, 8),), {"mode": "linear"}, (None, np.array([1, 1, 2], np.float32)))


def _cases() -> Iterator[Case]:
    yield from _resizes()
    for op in ("Celu", "Elu", "HardSigmoid", "Mish", "Selu", "Softplus", "Softsign", "ThresholdedRelu"):
        yield Case(op, (CUBE,))
    for op in ("Max", "Mean", "Min", "Sum"):
        yield Case(op, (CUBE, (4, 1), (6,)))
    yield Case("Max", ((2, 3), (2, 3)), dtype="int64")
    for op in ("ReduceLogSumExp", "ReduceL2", "ReduceProd", "ReduceSumSquare"):
        yield Case(op, (CUBE,), {"keepdims": 0}, (_ints(-1, 0),))
        yield Case(op, (CUBE,), {}, (_ints(1),))
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield Case("CumSum", (CUBE,), {"exclusive": exclusive, "reverse": reverse}, (_ints(1),))
    yield Case("CumSum", ((3, 5),), {}, (_ints(-1),), dtype="int64")
    yield Case("TopK", (CUBE,), {"axis": 1}, (_ints(3),), outputs=2)
    yield Case("TopK", ((3, 9),), {"largest": 0}, (_ints(4),), outputs=2)
    yield Case("ArgMax", (CUBE,), {"axis": 1})
    yield Case("ArgMin", (CUBE,), {"axis": -1, "keepdims": 0})
    yield Case("ScatterND", ((5, 6), (2, 6)), {}, (_ints([3], [1]),))
    yield Case("ScatterND", ((5, 6), (3,)), {}, (_ints([3, 1], [0, -1], [3, 1]),))
    yield Case("ScatterElements", ((5, 6), (2, 3)), {"axis": 1}, (_ints([3, 1, 0], [2, 5, -1]),))
    yield Case("Gather", ((5, 6),), {"axis": 1}, (_ints([3, -1], [0, 2]),))
    yield Case("GatherElements", ((5, 6),), {"axis": 1}, (_ints([3, -1], [0, 2], [1, 1], [2, 3], [4, 5]),))
    yield Case("GatherND", ((2, 5, 3),), {"batch_dims": 1}, (_ints([3], [1]),))
    yield Case("OneHot", ((2, 3),), {"axis": 1}, (_ints(4), np.array([0.5, 2], np.float32)), dtype="int64")
    yield Case("Trilu", ((4, 5),), {"upper": 0}, (np.array(1, np.int64),))
    yield Case("Expand", ((1, 4),), {}, (_ints(2, 3, 1),))
    yield Case("Tile", ((1, 4),), {}, (_ints(2, 3),))
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", (CUBE,), {"mode": mode}, (_ints(0, 1, 2, 0, 0, 1),))
    yield Case("Slice", (CUBE,), {}, (_ints(-1, 4), _ints(-100, 0), _ints(1, 2), _ints(-1, -2)))
    yield Case("ReverseSequence", (CUBE,), {"batch_axis": 0, "time_axis": 1}, (_ints(3, 2),))
    yield Case("Einsum", ((2, 3, 4, 5), (2, 6, 4, 5)), {"equation": "bihd,bjhd->bhij"})
    yield Case("ConvTranspose", (MAP,), {"strides": [2, 2], "output_shape": [12, 12]}, (_floats(4, 3, 3, 3),))
    yield Case("ConvTranspose", (MAP,), {"strides": [2, 2], "group": 2}, (_floats(4, 3, 2, 2), _floats(6)))
    yield Case("ConvTranspose", ((1, 4, 6),), {"strides": [2], "pads": [1, 0]}, (_floats(4, 3, 3),))
    yield Case("Conv", ((1, 4, 9),), {"group": 2, "pads": [1, 0]}, (_floats(6, 2, 3), _floats(6)))
    yield Case("Conv", ((1, 2, 5, 6, 7),), {"pads": [1, 0, 1, 1, 0, 1]}, (_floats(3, 2, 3, 3, 3),))
    yield Case("Conv", (MAP, (4, 4, 3, 3)), {"auto_pad": "SAME_LOWER", "strides": [2, 2]})
    yield Case("MaxPool", (MAP,), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
    yield Case("AveragePool", (MAP,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1})
    yield Case("LayerNormalization", (CUBE,), {"axis": 1}, (_floats(4, 6), _floats(4, 6)))
    yield Case("InstanceNormalization", (MAP,), {}, (_floats(4), _floats(4)))
    yield Case("LpNormalization", (MAP,), {"axis": 1})
    yield Case("LRN", (MAP,), {"size": 3})
    yield Case("Dropout", (CUBE,))
    yield Case("GridSample", ((1, 2, 4, 4), (1, 3, 3, 2)))


def _model() -> ir.Model:
    """All cases side by side."""
    nodes, inputs, outputs, constants = [], [], [], []
    for k, case in enumerate(_cases()):
        reads = [f"x{k}_{j}" for j in range(len(case.shapes))]
        kind = h.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
        inputs += [h.make_tensor_value_info(name, kind, shape) for name, shape in zip(reads, case.shapes, strict=True)]
        for j, array in enumerate(case.constants):
            reads.append("" if array is None else f"c{k}_{j}")
            constants += [] if array is None else [onnx.numpy_helper.from_array(array, reads[-1])]
        if case.op.startswith("Scatter"):  # data, indices, updates
            reads[1:] = [reads[2], reads[1]]
        results = [f"y{k}_{j}" for j in range(case.outputs)]
        outputs += [h.make_empty_tensor_value_info(result) for result in results]
        nodes.append(h.make_node(case.op, reads, results, name=f"case{k}", **case.attributes))
    graph = h.make_graph(nodes, "cases", inputs, outputs, constants)
    return ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))


def test_operators_equal_onnx_runtime(tmp_path: Path) -> None:
    model, rng = _model(), np.random.default_rng(0)
    compile_model(model, resolve("host"), tmp_path)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        shape: Any = tuple(value.shape)  # type: ignore[arg-type]
        assert value.dtype is not None
        integers = value.dtype == ir.DataType.INT64
        feeds[str(value.name)] = rng.integers(-4, 4, shape) if integers else rng.normal(size=shape).astype(np.float32)
    got, cases = CompiledModel(tmp_path / "model.so")(**feeds), list(_cases())
    for name, want in execute(model, feeds).items():
        case = cases[int(name[1:].partition("_")[0])]
        assert got[name].dtype == want.dtype and np.unique(want).size > 1, case
        np.testing.assert_allclose(got[name], want, rtol=2e-5, atol=2e-5, err_msg=str(case))


def test_updates_at_computed_places_equal_onnx_runtime(tmp_path: Path) -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[5,6] x, int64[3,1] i, float[3,6] u, int64[2,3] j, float[2,3] v)
      => (float[5,6] rows, float[5,6] sums, float[5,6] cells, float[5,6] added)
    {
      rows = ScatterND (x, i, u)
      sums = ScatterND <reduction = "add"> (x, i, u)
      cells = ScatterElements <axis = 1> (x, j, v)
      added = ScatterElements <axis = 1, reduction = "add"> (x, j, v)
    }""")
    compile_model(model, resolve("host"), tmp_path)
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in (("x", (5, 6)), ("u", (3, 6)), ("v", (2, 3)))
    }
    feeds |= {"i": np.array([[3], [-1], [3]]), "j": np.array([[3, 1, 5], [2, -1, 2]])}
    got, want = CompiledModel(tmp_path / "model.so")(**feeds), execute(model, feeds)
    for name in ("sums", "added"):
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)
    np.testing.assert_array_equal(got["rows"][[0, 1, 2, 4]], want["rows"][[0, 1, 2, 4]])
    np.testing.assert_array_equal(got["rows"][3], feeds["u"][2], "the last update of a place")
    np.testing.assert_array_equal(got["cells"][0], want["cells"][0])


def test_attention_as_one_node_equals_onnx_runtime(tmp_path: Path) -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 23]>
    main (float[1,3,8] q, float[1,5,8] k, float[1,5,8] v, float[3,5] m) => (float[1,3,8] y, float[1,3,8] z)
    {
      y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v, m)
      z = Attention <q_num_heads = 4, kv_num_heads = 4, is_causal = 1> (y, q, q)
    }""")
    compile_model(model, resolve("host"), tmp_path)
    rng = np.random.default_rng(0)
    feeds = {str(v.name): rng.normal(size=tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in execute(model, feeds).items():
        np.testing.assert_allclose(got[name], want, atol=2e-6)


@pytest.mark.parametrize(
    "opset, upsample",
    [
        (9, '<float[4] s = {1, 1, 2, 2}> { y = Upsample <mode = "linear"> (x, s) }'),
        (7, '{ y = Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]> (x) }'),
        (8, "{ y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x) }"),
    ],
)
def test_upsample_of_old_models_is_read(opset: int, upsample: str, tmp_path: Path) -> None:
    header = f'<ir_version: 4, opset_import: ["" : {opset}]> main (float[1,2,3,4] x) => (float[1,2,6,8] y)'
    model = parse_model(f"{header} {upsample}")
    compile_model(model, resolve("host"), tmp_path)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)["y"]
    np.testing.assert_allclose(got, execute(model, feeds)["y"], atol=1e-6)


@pytest.mark.parametrize("text, why", [
    ("main (float[6] x) => (int64[1,n] y) { [it] y = NonZero (x) }", "depends on the input's values"),
    ("main (float[6] x, bool[6] c) => (float[n] y) { [it] y = Compress (x, c) }", "depends on the input's values"),
    ("main (float[6] x, int64[1] k) => (float[n] y, int64[n] i) { [it] y, i = TopK (x, k) }", "depends on the input"),
    ("main (float[1,2,8,8] x) => (float[1,2,4,4] y) <float[4] s = {1,1,0.5,0.5}>"
     '{ [it] y = Resize <mode = "linear", antialias = 1> (x, , s) }', "antialias"),
    ("main (float[6] x) => (float[n] y, int64[n] i) { [it] y, i = MaxPool <kernel_shape = [2]> (x) }", "MaxPool"),
])  # fmt: skip
def test_what_cannot_be_compiled_is_refused_by_name(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=why) as raised:
        compile_model(parse_model('<ir_version: 10, opset_import: ["" : 18]>\n' + text), resolve("host"), tmp_path)
    assert "'it'" in raised.value.where and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "e = Equal (x, one)\n n = Not (e)\n y = Cast <to = 6> (n)",
        "e = Less (x, one)\n n = Not (a)\n k = And (n, e)\n y = Cast <to = 6> (k)",
        "e = Equal (a, b)\n n = Xor (e, b)\n k = Or (n, a)\n y = Cast <to = 6> (k)",
    ],
    ids=["not", "and", "equal"],
)
def test_truth_values_are_0_and_1_in_vectors_too(body: str, tmp_path: Path) -> None:
    header = '<ir_version: 10, opset_import: ["" : 18]> main (int32[1,16] x, bool[1,16] a, bool[1,16] b)'
    model = parse_model(f"{header} => (int32[1,16] y) <int32 one = {{1}}> {{ {body} }}")
    compile_model(model, resolve("host"), tmp_path)
    rows = np.arange(16, dtype=np.int32)[None]
    feeds = {"x": rows % 3, "a": rows % 2 == 0, "b": rows > 5}
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(**feeds)["y"], execute(model, feeds)["y"])


def test_a_constant_that_is_given_out_is_compiled(tmp_path: Path) -> None:
    text = "main (float[2,3] x) => (float[2,3] y, int64[2] n) { y = Relu (x) n = Constant <value_ints = [2, 3]> () }"
    model = parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')
    compile_model(model, resolve("host"), tmp_path)
    assert CompiledModel(tmp_path / "model.so")(x=np.zeros((2, 3), np.float32))["n"].tolist() == [2, 3]
