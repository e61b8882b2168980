"""exp and erf of compiled code: vectors, no calls of the C library, as exact as float32 lets them be."""

import math

import numpy as np
import onnx
import planish
import pytest
from onnx import helper as h
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.targets.registry import resolve

FUNCTIONS = ("Exp", "Erf", "Sigmoid", "Tanh")
X = np.concatenate([np.linspace(-110, 95, 4000), np.linspace(-5, 5, 4091), [np.nan, np.inf, -np.inf, 0, 88.7]])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    x = X.astype(np.float32)
    info = h.make_tensor_value_info
    nodes = [h.make_node(name, ["x"], [name]) for name in FUNCTIONS]
    outputs = [info(name, onnx.TensorProto.FLOAT, x.shape) for name in FUNCTIONS]
    graph = h.make_graph(nodes, "functions", [info("x", onnx.TensorProto.FLOAT, x.shape)], outputs)
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    directory = tmp_path_factory.mktemp("functions")
    compile_model(planish.capture(proto), resolve("host"), directory)
    return CompiledModel(directory / "model.so")(x=x)


def test_exp_is_right_to_two_units_in_the_last_place(results: dict[str, np.ndarray]) -> None:
    x = X.astype(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        want = np.exp(x)
    normal = np.isfinite(want) & (want > 1e-37) & (want < 3e38)
    np.testing.assert_allclose(results["Exp"][normal], want[normal], rtol=1.5e-7)
    assert np.isinf(results["Exp"][x > 89]).all()
    assert (results["Exp"][x < -105] == 0).all()


def test_erf_and_what_follows_from_exp(results: dict[str, np.ndarray]) -> None:
    x = X.astype(np.float32).astype(np.float64)
    finite = np.isfinite(x)
    erf = np.array([math.erf(v) for v in x[finite]])
    np.testing.assert_allclose(results["Erf"][finite], erf, atol=2.5e-7, rtol=0)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(results["Sigmoid"][finite], 1 / (1 + np.exp(-x[finite])), atol=2e-7, rtol=0)
    np.testing.assert_allclose(results["Tanh"][finite], np.tanh(x[finite]), atol=2e-7, rtol=0)


def test_special_values(results: dict[str, np.ndarray]) -> None:
    exp, erf = results["Exp"][-5:-1], results["Erf"][-5:-1]
    np.testing.assert_array_equal(exp, np.array([np.nan, np.inf, 0, 1], np.float32))
    assert np.isnan(erf[0]) and erf[3] == 0
    np.testing.assert_allclose(erf[1:3], [1, -1], atol=2.5e-7)
