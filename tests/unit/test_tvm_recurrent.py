"""Compiled RNN, GRU and LSTM compute what ONNX Runtime's do, in every variant of the specification."""

from dataclasses import dataclass, field, replace
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

BATCH, WIDTH, HIDDEN = 2, 3, 16
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
BOTH = {"direction": "bidirectional"}


@dataclass
class Case:
    """A layer: its operator, number of frames and attributes; which optional inputs it has."""

    op: str
    frames: int = 4
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: str = "bias states"

    @property
    def directions(self) -> int:
        return 2 if self.attributes.get("direction") == "bidirectional" else 1


CASES = [
    Case("LSTM"),
    Case("LSTM", attributes=BOTH),
    Case("LSTM", frames=1, attributes=BOTH),
    Case("LSTM", attributes={"direction": "reverse"}, inputs=""),
    Case("LSTM", attributes={**BOTH, "clip": 0.4}, inputs="bias states peepholes"),
    Case("LSTM", attributes={"input_forget": 1}, inputs="bias states lengths"),
    Case("LSTM", attributes={"activations": ["HardSigmoid", "Softsign", "LeakyRelu"], "activation_alpha": [0.3]}),
    Case("GRU"),
    Case("GRU", attributes={"linear_before_reset": 1}),
    Case("GRU", attributes={**BOTH, "linear_before_reset": 1, "clip": 0.5}, inputs="bias states lengths"),
    Case("GRU", frames=1, inputs="states"),
    Case("GRU", attributes={"direction": "reverse"}, inputs="bias lengths"),
    Case("RNN", attributes=BOTH),
    Case("RNN", attributes={"activations": ["Relu"]}, inputs=""),
    Case("RNN", attributes={"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [1.3]}),
]


def _model() -> ir.Model:
    """All layers side by side."""
    rng = np.random.default_rng(0)
    nodes, inputs, outputs, constants = [], [], [], []

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weights(name: str, *shape: int) -> str:
        return constant(name, rng.normal(0, 0.4, shape).astype(np.float32))

    def given(name: str, *shape: int) -> str:
        inputs.append(h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    for k, case in enumerate(CASES):
        d, rows = case.directions, GATES[case.op] * HIDDEN
        reads = [given(f"x{k}", case.frames, BATCH, WIDTH), weights(f"w{k}", d, rows, WIDTH)]
        reads.append(weights(f"r{k}", d, rows, HIDDEN))
        reads.append(weights(f"b{k}", d, 2 * rows) if "bias" in case.inputs else "")
        reads.append(constant(f"l{k}", np.array([3, 1], np.int32)) if "lengths" in case.inputs else "")
        states = 2 if case.op == "LSTM" else 1
        reads += [given(f"s{k}_{j}", d, BATCH, HIDDEN) if "states" in case.inputs else "" for j in range(states)]
        if "peepholes" in case.inputs:
            reads.append(weights(f"p{k}", d, 3 * HIDDEN))
        results = [f"y{k}_{j}" for j in range(1 + states)]
        outputs += [h.make_empty_tensor_value_info(result) for result in results]
        nodes.append(h.make_node(case.op, reads, results, name=f"case{k}", hidden_size=HIDDEN, **case.attributes))
    graph = h.make_graph(nodes, "cases", inputs, outputs, constants)
    return ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9))


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return _model()


@pytest.mark.parametrize("threads", [1, 3])
def test_they_equal_onnx_runtime(
    model: ir.Model, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread, and with every kernel of every step shared out among three."""
    from planish.backends.tvm import parallel

    monkeypatch.setattr(parallel, "SMALLEST", 1)
    monkeypatch.setattr(parallel, "_SHARES", 1)
    compile_model(model, replace(resolve("host"), threads=threads), tmp_path)
    rng = np.random.default_rng(1)
    feeds = {str(v.name): rng.normal(size=tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    got, want = CompiledModel(tmp_path / "model.so")(**feeds), execute(model, feeds)
    for name, array in want.items():
        assert array.std() > 0.01
        message = f"{name}: {CASES[int(name[1:].partition('_')[0])]}"
        np.testing.assert_allclose(got[name], array, rtol=0, atol=2e-6, err_msg=message)


def test_layout_1_is_the_same_with_the_batch_first(tmp_path: Path) -> None:
    """ONNX Runtime has no layout 1."""
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[4,2,3] x, float[2,2,16] s, float[2,4,3] xb, float[2,2,16] sb)
      => (float[4,2,2,16] y, float[2,2,16] h, float[2,4,2,16] yb, float[2,2,16] hb)
      <float[2,48,3] w = seeded(0), float[2,48,16] r = seeded(1), float[2,96] b = seeded(2)>
    {
      y, h = GRU <hidden_size = 16, direction = "bidirectional"> (x, w, r, b, , s)
      yb, hb = GRU <hidden_size = 16, direction = "bidirectional", layout = 1> (xb, w, r, b, , sb)
    }""")
    compile_model(model, resolve("host"), tmp_path)
    rng = np.random.default_rng(2)
    x, s = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 2, 3), (2, 2, 16)))
    got = CompiledModel(tmp_path / "model.so")(x=x, s=s, xb=x.swapaxes(0, 1).copy(), sb=s.swapaxes(0, 1).copy())
    np.testing.assert_array_equal(got["yb"], got["y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got["hb"], got["h"].swapaxes(0, 1))


def test_computed_weights_are_refused_by_name(tmp_path: Path) -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[4,2,3] x, float[1,16,3] w) => (float[4,1,2,16] y) <float[1,16,16] r = seeded(1)>
    { [layer] y = RNN <hidden_size = 16> (x, w, r) }""")
    with pytest.raises(ModelError, match="weights are not constant") as raised:
        compile_model(model, resolve("host"), tmp_path)
    assert "layer" in raised.value.where


def test_weights_in_integers_stay_so(tmp_path: Path) -> None:
    """Per channel and per tensor, in recurrent and in dense layers; nothing is dequantized before it is read."""
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[4,2,3] x) => (float[4,1,2,16] y, float[4,2,24] d, float[8,24] g)
      <uint8[1,48,3] wq = seeded(0), float[48] ws = splat(0.004), uint8[48] wz = splat(128),
       int8[1,48,16] rq = seeded(1), float rs = {0.003}, float[1,96] b = seeded(2),
       uint8[3,24] dq = seeded(3), float[24] ds = splat(0.01), uint8[24] dz = splat(120), float[24] e = seeded(4)>
    {
      w = DequantizeLinear <axis = 1> (wq, ws, wz)
      r = DequantizeLinear (rq, rs)
      m = DequantizeLinear <axis = 1> (dq, ds, dz)
      y = GRU <hidden_size = 16, linear_before_reset = 1> (x, w, r, b)
      d = MatMul (x, m)
      shape = Constant <value_ints = [8, 3]> ()
      rows = Reshape (x, shape)
      g = Gemm (rows, m, e)
    }""")
    compile_model(model, resolve("host"), tmp_path)
    assert "dequantize" not in (tmp_path / "model.c").read_text()
    feeds = {"x": np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in execute(model, feeds).items():
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5, err_msg=name)
