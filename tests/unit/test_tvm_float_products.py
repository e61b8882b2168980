"""Float products of two activations: any sizes, broadcast, read and written through the transpositions around them."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper as h
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.kernels import assembly, build_parts
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import choose, space
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.targets.registry import resolve

from ..arm64_emulation import emulated
from ..quantized_graph import normal_feeds


@dataclass(frozen=True)
class Product:
    """[…, m, k] · […, k, n] with their own batch axes; orders: of the axes of an operand in its input, and of y."""

    batches: tuple[tuple[int, int], tuple[int, int]]
    sizes: tuple[int, int, int]
    orders: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


_ORDERS = st.sampled_from([(0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (0, 2, 3, 1), (3, 0, 2, 1)])
_SIZE = st.one_of(st.integers(1, 40), st.sampled_from([1, 16, 17, 32]))
_BATCHES = st.sampled_from([((1, 3), (1, 3)), ((2, 1), (1, 3)), ((2, 3), (1, 1)), ((1, 1), (2, 2))])
_PRODUCTS = st.builds(
    Product, st.one_of(_BATCHES), st.tuples(_SIZE, _SIZE, _SIZE), st.tuples(_ORDERS, _ORDERS, _ORDERS)
)


def _model(products: list[Product]) -> ir.Model:
    """The products side by side, with transpositions around them, and an activation behind every other one."""
    nodes, inputs, outputs = [], [], []
    for i, p in enumerate(products):
        m, k, n = p.sizes
        for side, batch, matrix, order in zip("ab", p.batches, ((m, k), (k, n)), p.orders, strict=False):
            shape = (*batch, *matrix)
            inputs.append(h.make_tensor_value_info(f"{side}{i}", 1, [shape[axis] for axis in order]))
            nodes.append(h.make_node("Transpose", [f"{side}{i}"], [f"{side}t{i}"], perm=np.argsort(order).tolist()))
        nodes.append(h.make_node("MatMul", [f"at{i}", f"bt{i}"], [f"c{i}"]))
        nodes.append(h.make_node("Transpose", [f"c{i}"], [f"d{i}"], perm=p.orders[2]))
        nodes.append(h.make_node("Relu" if i % 2 else "Identity", [f"d{i}"], [f"y{i}"]))
        outputs.append(h.make_tensor_value_info(f"y{i}", 1, None))
    graph = h.make_graph(nodes, "products", inputs, outputs)
    model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    infer(model)
    return model


def _check(got: dict[str, np.ndarray], products: list[Product], feeds: dict[str, np.ndarray]) -> None:
    for i, p in enumerate(products):
        a, b = (feeds[f"{side}{i}"].astype(float).transpose(np.argsort(p.orders[s])) for s, side in enumerate("ab"))
        want, most = (np.matmul(*pair).transpose(p.orders[2]) for pair in ((a, b), (abs(a), abs(b))))
        want = np.maximum(want, 0) if i % 2 else want
        assert np.all(np.abs(got[f"y{i}"] - want) <= 3e-7 * (1 + p.sizes[1] ** 0.5) * most), p


@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(products=st.lists(_PRODUCTS, min_size=24, max_size=24))
def test_random_products_are_those_of_numpy(products: list[Product]) -> None:
    model = _model(products)
    feeds = normal_feeds(model, 1.0)
    # threads share loops here however little they gain by it
    shared = [mock.patch.object(parallel, "pays", lambda *_: True), mock.patch.object(parallel, "SMALLEST", 64)]
    with tempfile.TemporaryDirectory() as directory, shared[0], shared[1]:
        compile_model(model, replace(resolve("host"), threads=2), Path(directory))
        _check(CompiledModel(Path(directory) / "model.so")(**feeds), products, feeds)


HEADS = (0, 2, 1, 3)
ATTENTION = [
    Product(((1, 3), (1, 3)), (19, 8, 19), (HEADS, (0, 3, 1, 2), (0, 1, 2, 3))),  # Q·Kᵀ of heads beside each other
    Product(((1, 3), (1, 3)), (19, 19, 8), ((0, 1, 2, 3), HEADS, HEADS)),  # P·V of them
    Product(((1, 3), (1, 3)), (1, 150, 9), (HEADS, (0, 3, 1, 2), HEADS)),  # one query: a dot product for each key
]


def test_transpositions_of_heads_are_no_kernels_and_a_transposed_right_factor_is_one() -> None:
    program, _ = lower(prepared(_model(ATTENTION)), resolve("host"))
    assert sum("transpose" in str(call.kernel) for call in program.calls) == 1


@pytest.mark.parametrize("sizes", [(1, 150, 9), (23, 150, 1), (23, 85, 3), (5, 3, 2)], ids=str)
def test_too_few_rows_or_columns_for_vectors_are_dot_products(sizes: tuple[int, int, int], tmp_path: Path) -> None:
    """Of several vectors at a time, of single ones, and of the numbers that are left."""
    products = [Product(((1, 2), (1, 2)), sizes, (HEADS, order, (0, 1, 2, 3))) for order in ((0, 3, 1, 2), HEADS)]
    model = _model(products if sizes[0] > 1 else products[:1])
    feeds = normal_feeds(model, 1.0)
    program, _ = lower(prepared(model), resolve("host"))
    assert {type(work).__name__ for work in program.configs} == {"DotProducts"}
    made = {name for name in program.kernels if "product" in name}
    assert made and all(type(program.choices[name].workload).__name__ == "DotProducts" for name in made)
    compile_model(model, resolve("host"), tmp_path)
    _check(CompiledModel(tmp_path / "model.so")(**feeds), products[: len(model.graph.outputs)], feeds)


def test_a_product_that_is_read_twice_keeps_its_transposition(tmp_path: Path) -> None:
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> main (float[5,7] a, float[7,6] b) => (float[6,5] y, float[5,6] z) '
        "{ c = MatMul (a, b)  y = Transpose (c)  z = Neg (c) }"
    )
    feeds = normal_feeds(model, 1.0)
    compile_model(model, resolve("host"), tmp_path)
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    np.testing.assert_allclose(got["y"], (feeds["a"] @ feeds["b"]).T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got["z"], -(feeds["a"] @ feeds["b"]), rtol=0, atol=1e-5)


def test_every_config_computes_the_same_bits(tmp_path: Path) -> None:
    """Those of products of activations, and of a dense layer whose 17 positions no tile divides."""
    model = parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> main (float[17,21] a, float[21,35] b) => (float[17,48] y) '
        "<float[35,48] w = seeded(0)> { c = MatMul (a, b)  y = MatMul (c, w) }"
    )
    target, feeds = resolve("host"), normal_feeds(model, 1.0)
    chosen = lower(prepared(model), target)[0].configs
    assert sorted(type(w).__name__ for w in chosen) == ["FloatMatrixProduct", "FloatProduct"]
    found = []
    for i in (None, 0, -1, 5):
        configs = {w: choose(w) if i is None else space(w)[i] for w in chosen}
        compile_model(model, target, tmp_path / str(i), configs=configs)
        found.append(CompiledModel(tmp_path / str(i) / "model.so")(**feeds)["y"])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_attention_on_arm64(tmp_path: Path) -> None:
    model = _model(ATTENTION)
    feeds = normal_feeds(model, 1.0)
    _check(emulated(model, "neoverse-n1", feeds, tmp_path), ATTENTION, feeds)
    target = resolve("arm64/neoverse-n1")
    program, _ = lower(prepared(model), target)
    products = {name: kernel for name, kernel in program.kernels.items() if "product" in name}
    assert assembly(build_parts(products, "", target)[0]).count("\tfmla\tv") > 32


@pytest.mark.parametrize(
    "equation, a, b",
    [
        ("bihd, bjhd -> bhij", (2, 19, 3, 8), (2, 17, 3, 8)),
        ("abkl,klc->abc", (2, 3, 7, 4), (7, 4, 9)),
        ("xyab,ybc->xyac", (2, 3, 4, 5), (3, 5, 6)),
        ("j,ij->i", (7,), (5, 7)),
    ],
)
def test_einsum_is_a_product_of_matrices(equation: str, a: tuple[int, ...], b: tuple[int, ...], tmp_path: Path) -> None:
    node = h.make_node("Einsum", ["a", "b"], ["y"], equation=equation)
    inputs = [h.make_tensor_value_info(name, 1, shape) for name, shape in (("a", a), ("b", b))]
    graph = h.make_graph([node], "einsum", inputs, [h.make_tensor_value_info("y", 1, None)])
    model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    infer(model)
    feeds = normal_feeds(model, 1.0)
    assert any("product" in name for name in lower(prepared(model), resolve("host"))[0].kernels)
    compile_model(model, resolve("host"), tmp_path)
    got = CompiledModel(tmp_path / "model.so")(**feeds)["y"]
    np.testing.assert_allclose(got, np.einsum(equation, feeds["a"], feeds["b"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_few_columns_of_constant_weights(columns: int, tmp_path: Path) -> None:
    weights = np.random.default_rng(2).normal(size=(33, columns)).astype(np.float32)
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [h.make_tensor_value_info("x", 1, [7, 33])],
        [h.make_tensor_value_info("y", 1, [7, columns])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model: ir.Model = ir.from_proto(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9))
    feeds = normal_feeds(model, 1.0)
    compile_model(model, resolve("host"), tmp_path)
    got = CompiledModel(tmp_path / "model.so")(**feeds)["y"]
    np.testing.assert_allclose(got, feeds["x"] @ weights, rtol=0, atol=1e-5)
