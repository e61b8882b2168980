"""Multiply-accumulates, parameters and bytes: by hand on small graphs, against the recorded figures on real ones."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.cost import Cost, cost, cycles, macs, summary
from planish.ir.shapes import fix_dimensions, infer
from planish.ir.text import parse_model

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
LIST = MODELS / "MODELS.json"
RECORDED = json.loads(LIST.read_text()) if LIST.exists() else []


def _model(head: str, constants: str, body: str) -> ir.Model:
    model = parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\nmain {head}\n<{constants}>\n{{\n{body}\n}}')
    infer(model)
    return model


@pytest.mark.parametrize(
    ("head", "constants", "body", "expected"),
    [
        ("(float[2,3,8,8] x) => (y)", "float[4,3,3,3] w = seeded(0)", "y = Conv (x, w)", 2 * 4 * 6 * 6 * 27),
        ("(float[1,4,8,8] x) => (y)", "float[8,2,3,3] w = seeded(0)", "y = Conv <group = 2> (x, w)", 8 * 36 * 18),
        ("(float[1,3,4,4] x) => (y)", "float[3,5,2,2] w = seeded(0)", "y = ConvTranspose (x, w)", 3 * 16 * 5 * 4),
        ("(float[7,3] x) => (y)", "float[3,5] w = seeded(0)", "y = Gemm (x, w)", 7 * 3 * 5),
        ("(float[3,7] x) => (y)", "float[5,3] w = seeded(0)", "y = Gemm <transA = 1, transB = 1> (x, w)", 7 * 3 * 5),
        ("(float[2,6,3,4] x) => (y)", "float[4,5] w = seeded(0)", "y = MatMul (x, w)", 2 * 6 * 3 * 4 * 5),
        ("(float[9,1,3] x) => (y)", "float[1,16,3] w = seeded(0), float[1,16,4] r = seeded(1)",
         "y = LSTM <hidden_size = 4> (x, w, r)", 9 * 16 * (3 + 4)),
        ("(float[2,3,4] x) => (y)", "float[4,5] w = seeded(0)", 'y = Einsum <equation = "bij,jk->bik"> (x, w)', 120),
        ("(float[2,3] x) => (y)", "float z = {0}", "y = Add (x, z)", 0),
    ],
)  # fmt: skip
def test_multiply_accumulates_by_hand(head: str, constants: str, body: str, expected: int) -> None:
    (node,) = _model(head, constants, body).graph
    assert macs(node) == expected


def test_bytes_of_a_float_node() -> None:
    (node,) = _model(
        "(float[1,3,8,8] x) => (y)", "float[4,3,3,3] w = seeded(0), float[4] b = seeded(1)", "y = Conv (x, w, b)"
    ).graph
    assert cost(node) == Cost(4 * 36 * 27, 112, 448, 4 * (192 + 144), False)


def test_bytes_of_a_quantized_node_are_those_of_its_integers() -> None:
    body = """
        q = QuantizeLinear (x, s, z)
        a = DequantizeLinear (q, s, z)
        w = DequantizeLinear <axis = 0> (W, ws)
        c = Conv (a, w)
        p = QuantizeLinear (c, s, z)
        y = DequantizeLinear (p, s, z)
    """
    constants = "float s = {0.1}, uint8 z = {9}, int8[4,3,3,3] W = seeded(0), float[4] ws = splat(0.1)"
    model = _model("(float[1,3,8,8] x) => (y)", constants, body)
    conv = next(n for n in model.graph if n.op_type == "Conv")
    assert cost(conv) == Cost(4 * 36 * 27, 108, 108, 192 + 144, False)
    total = summary(model)
    assert (total.nodes, total.parameters, total.macs) == (1, 108, 4 * 36 * 27)
    assert total.weight_bytes == 108 + 16 + 4 + 1
    assert total.per_op == {"Conv": 1}


def test_a_dimension_that_is_not_static_counts_as_one_and_says_so() -> None:
    model = _model('(float["n",3,8,8] x) => (y)', "float[4,3,3,3] w = seeded(0)", "y = Conv (x, w)")
    assert summary(model).assumed and cost(model.graph.node(0)).assumed
    assert summary(model).macs == 4 * 36 * 27
    fix_dimensions(model, {"x": (2, 3, 8, 8)})
    infer(model)
    assert not summary(model).assumed
    assert summary(model).macs == 2 * 4 * 36 * 27


def test_cycles_are_those_of_the_tighter_limit() -> None:
    node = Cost(macs=6400, parameters=0, weight_bytes=100, activation_bytes=300, assumed=False)
    assert cycles(node, macs_per_cycle=64, bytes_per_cycle=16) == 100
    assert cycles(node, macs_per_cycle=64, bytes_per_cycle=2, overhead=7) == 207


@pytest.mark.skipif(not RECORDED, reason="no pack of models beside the project")
@pytest.mark.parametrize("entry", RECORDED, ids=[e["name"] for e in RECORDED])
def test_figures_of_real_models_are_the_recorded_ones(entry: dict) -> None:
    model = ir.load(MODELS / entry["name"] / "model.onnx")
    fix_dimensions(model, entry["mac_input"])
    infer(model)
    found = summary(model)
    outside_branches = sum(macs(node) for node in model.graph)  # the record leaves the branches of an If out
    assert np.isclose(outside_branches / 1e6, entry["mmacs"], atol=0.005)
    assert found.macs >= outside_branches
    others = sum(v.const_value.size for v in model.graph.initializers.values() if not v.dtype.is_floating_point())
    assert entry["params"] - others <= found.parameters <= entry["params"]
