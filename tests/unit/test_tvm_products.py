"""Products of two activations equal the reference to the bit, whatever their shapes, layouts and zero points."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.kernels import assembly, build_parts
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.targets.registry import resolve

from ..arm64_emulation import emulated
from ..quantized_graph import QuantizedGraph, normal_feeds


@dataclass(frozen=True)
class Product:
    """[batch, heads, m, k] · [batch, heads, k, n]; `left`, `right`: how the axes of an operand lie in its input;
    zeros: zero points of a, b and y, above the type's lowest level; real: the result stays float.
    """

    batch: tuple[int, int]
    m: int
    k: int
    n: int
    left: tuple[int, ...]
    right: tuple[int, ...]
    zeros: tuple[int, int, int]
    real: bool


_ORDERS = [(0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (0, 2, 3, 1)]
_SIZES = st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64]))
_ZEROS = st.one_of(st.integers(0, 255), st.sampled_from([0, 128]))
_PRODUCTS = st.builds(
    Product,
    batch=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    m=_SIZES,
    k=_SIZES,
    n=_SIZES,
    left=st.sampled_from(_ORDERS),
    right=st.sampled_from(_ORDERS),
    zeros=st.tuples(_ZEROS, _ZEROS, _ZEROS),
    real=st.booleans(),
)


def _model(products: list[Product], activation: type[np.generic]) -> ir.Model:
    """The products side by side; operands come through a Transpose, as the heads of an attention do."""
    graph, outputs = QuantizedGraph(activation), []
    for i, p in enumerate(products):
        names = []
        sides = (("a", (*p.batch, p.m, p.k), p.left, p.zeros[0]), ("b", (*p.batch, p.k, p.n), p.right, p.zeros[1]))
        for side, shape, order, zero in sides:
            name = f"{side}{i}"
            x = graph.input(f"{name}_x", tuple(shape[axis] for axis in order))
            x = graph.encoded(x, f"{name}_l", 0.02, zero)
            x = graph.node("Transpose", [x], f"{name}_t", perm=np.argsort(order).tolist())
            names.append(graph.encoded(x, name, 0.02, zero))
        product = graph.node("MatMul", names, f"c{i}")
        outputs.append(product if p.real else graph.encoded(product, f"y{i}", 0.1, p.zeros[2]))
    return graph.model(outputs)


def _equal(got: dict[str, np.ndarray], model: ir.Model, feeds: dict[str, np.ndarray], products: list[Product]) -> None:
    for product, (name, want) in zip(products, run(model, feeds).items(), strict=True):
        np.testing.assert_array_equal(got[name], want, err_msg=str(product))


@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(products=st.lists(_PRODUCTS, min_size=16, max_size=16))
def test_random_products_equal_the_reference(products: list[Product]) -> None:
    model = _model(products, np.uint8)
    assert not [step for step in plan(model) if isinstance(step, FloatNode)]
    feeds = normal_feeds(model)
    # threads share loops here however little they gain by it
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(parallel, "pays", lambda *_: True):
        compile_model(model, replace(resolve("host"), threads=2), Path(directory))
        _equal(CompiledModel(Path(directory) / "model.so")(**feeds), model, feeds, products)


HEADS = [
    Product((1, 3), 18, 32, 20, (0, 2, 1, 3), (0, 3, 1, 2), (100, 140, 90), True),  # Q·Kᵀ of heads beside each other
    Product((1, 3), 18, 20, 32, (0, 1, 2, 3), (0, 2, 1, 3), (0, 140, 90), False),  # P·V of them
    Product((1, 2), 7, 12, 9, (0, 2, 1, 3), (0, 3, 1, 2), (128, 128, 128), False),
]


@pytest.mark.parametrize(
    "cpu, instruction", [("cortex-a53", "smlal"), ("neoverse-n1", "sdot"), ("neoverse-v1", "smmla")]
)
def test_attention_equals_the_reference_on_arm64(cpu: str, instruction: str, tmp_path: Path) -> None:
    model = _model(HEADS, np.int8)
    feeds = normal_feeds(model)
    _equal(emulated(model, cpu, feeds, tmp_path), model, feeds, HEADS)
    target = resolve(f"arm64/{cpu}")
    program, _ = lower(prepared(model), target)
    products = {name: kernel for name, kernel in program.kernels.items() if name.startswith("matmul")}
    assert instruction in assembly(build_parts(products, "", target)[0])


@pytest.mark.parametrize("move", ["Transpose <perm = [0,2,3,1]>", "Identity"], ids=["channels last", "as it is"])
def test_dense_layers_on_feature_maps_have_the_template_in_either_layout(move: str, tmp_path: Path) -> None:
    """The MLP of a ConvNeXt block, between transpositions; and one along the last axis of a map."""
    back, channels = ("Transpose <perm = [0,3,1,2]>", 16) if "perm" in move else ("Identity", 4)
    model = parse_model(f"""<ir_version: 10, opset_import: ["" : 17]>
    main (float[1,8,4,4] x) => (float[1,16,4,4] y)
       <float[16,8,1,1] w = seeded(0), float[{channels},24] u = seeded(1), float[24] b = seeded(2),
        float[24,{channels}] v = seeded(3), float[16,16,1,1] q = seeded(4)>
    {{ c = Conv (x, w) t = {move} (c) h = MatMul (t, u) a = Add (h, b) r = Relu (a) o = MatMul (r, v)
       z = {back} (o) y = Conv (z, q) }}""")
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 8, 4, 4)).astype(np.float32)}
    PassManager("activation-ranges,quantize").run(model, Context(target=resolve("host"), data=[feeds]))
    infer(model)
    program, _ = lower(prepared(model), resolve("host"))
    assert len(program.configs) == 4, "every layer has a template"
    compile_model(model, resolve("host"), tmp_path)
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(**feeds)["y"], run(model, feeds)["y"])
