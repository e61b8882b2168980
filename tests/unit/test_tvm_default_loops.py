"""Default loops without a template: transposed copies in tiles, chains in one loop, sums in lanes and row by row."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.ir.text import parse_model
from planish.targets.registry import resolve

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
TARGET = replace(resolve("host"), threads=1)
Array = npt.NDArray[np.float32]


def _kernel(text: str) -> str:
    """The only kernel of a model, as it is scheduled by default."""
    (function,) = lower(prepared(parse_model(HEAD + text)), TARGET)[0].kernels.values()
    return str(function)


def _run(text: str, directory: Path, threads: int = 1, **feeds: Array) -> Array:
    compile_model(parse_model(HEAD + text), replace(TARGET, threads=threads), directory)
    return np.array(CompiledModel(directory / "model.so")(**feeds)["y"])


def _normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns", "tiled"), [(48, 80, True), (40, 12, True), (17, 64, False)])
def test_a_transposed_copy_brings_square_tiles_near(rows: int, columns: int, tiled: bool, tmp_path: Path) -> None:
    signature = f"main (float[2,3,{rows},{columns}] x) => (float[2,3,{columns},{rows}] y)"
    text = f"{signature} {{ y = Transpose <perm = [0,1,3,2]> (x) }}"
    assert _kernel(text).count("T.sblock(") == 1 + (1 + tiled)
    x = _normal(2, 3, rows, columns)
    np.testing.assert_array_equal(_run(text, tmp_path, x=x), x.transpose(0, 1, 3, 2))


def test_a_transposition_that_threads_share_gives_the_same_values(tmp_path: Path) -> None:
    text = "main (float[64,128,96] x) => (float[64,96,128] y) { t = Transpose <perm = [0,2,1]> (x)  y = Relu (t) }"
    x = _normal(64, 128, 96)
    np.testing.assert_array_equal(_run(text, tmp_path, threads=2, x=x), np.maximum(x.transpose(0, 2, 1), 0))


def test_a_chain_of_elementwise_operators_is_one_loop(tmp_path: Path) -> None:
    text = "main (float[5,64] x) => (float[5,64] y) { a = Abs (x)  b = Sqrt (a)  c = Add (b, x)  y = Mul (c, x) }"
    assert _kernel(text).count("T.sblock(") == 1 + 1
    x = _normal(5, 64)
    np.testing.assert_allclose(_run(text, tmp_path, x=x), (np.sqrt(np.abs(x)) + x) * x, rtol=1e-6)


def test_what_is_read_more_often_than_it_is_computed_is_not_repeated() -> None:
    text = "main (float[5,1] s, float[5,64] x) => (float[5,64] y) { e = Exp (s)  y = Mul (e, x) }"
    assert _kernel(text).count("T.exp(") == 1
    assert _kernel(text).count("T.sblock(") == 1 + 2


def _in_lanes(row: Array) -> np.float32:
    """16 sums side by side, added up in 4, then one after the other."""
    lanes, quarters, total = np.zeros(16, np.float32), np.zeros(4, np.float32), np.float32(0)
    for part in row.reshape(-1, 16):
        lanes += part
    for part in lanes.reshape(4, 4):
        quarters += part
    for quarter in quarters:
        total += quarter
    return total


@pytest.mark.parametrize("target", ["host", "arm64/neoverse-n1"])
def test_sums_along_memory_are_lanes_on_every_machine(target: str) -> None:
    text = HEAD + "main (float[6,64] x) => (float[6,64] y) { y = Softmax <axis = -1> (x) }"
    program = lower(prepared(parse_model(text)), resolve(target))[0]
    (choice,) = program.nests.values()
    assert len(re.findall(r"_rf\w* = T.sblock_alloc_buffer", str(choice.function))) == 2 * 2


def test_a_sum_has_the_order_that_its_lanes_give_it(tmp_path: Path) -> None:
    axes = "<int64[1] axes = {1}>"
    text = f"main (float[6,96] x) => (float[6,1] y) {axes} {{ y = ReduceSum (x, axes) }}"
    x = _normal(6, 96)
    np.testing.assert_array_equal(_run(text, tmp_path, x=x)[:, 0], [_in_lanes(row) for row in x])


@pytest.mark.parametrize("shape", [(3, 32, 384), (2, 7, 40), (1, 5, 33)])
def test_normalisations_agree_with_numpy_whatever_the_row(shape: tuple[int, ...], tmp_path: Path) -> None:
    size = "x".join(map(str, shape)).replace("x", ",")
    weights = f"<float[{shape[-1]}] scale = splat(1.5), float[{shape[-1]}] bias = splat(0.25)>"
    text = (
        f"main (float[{size}] x) => (float[{size}] y) {weights} "
        "{ y = LayerNormalization <axis = -1, epsilon = 0.00001> (x, scale, bias) }"
    )
    x = _normal(*shape)
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * 1.5 + 0.25
    found = _run(text, tmp_path / "1", x=x)
    np.testing.assert_allclose(found, want, atol=2e-5)
    assert found.tobytes() == _run(text, tmp_path / "2", threads=2, x=x).tobytes()
