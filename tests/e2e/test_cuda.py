"""Models compiled for NVIDIA GPUs without one: every kernel is built, and the artifact computes the reference's bits
when its own kernels are run on the CPU (an emulation: values, no speed, no compiled code)."""

import contextlib
import ctypes
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import planish
import pytest
from planish.backends.batch import fix_batch
from planish.backends.cuda.compile import compile_model
from planish.backends.cuda.emulator import emulate
from planish.backends.tvm.load import CompiledModel
from planish.ir.execute import execute
from planish.ir.reference import run
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.quantize.convert_float import ConvertFloat
from planish.targets.registry import resolve

pytestmark = pytest.mark.usefixtures("cuda_emulation")

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits.onnx"
RELU = parse_model('<ir_version: 10, opset_import: ["" : 20]> main (float[4,8] x) => (float[4,8] y) { y = Relu (x) }')
FLOAT = parse_model(
    """<ir_version: 10, opset_import: ["" : 20]>
    main (float[1,3,9,8] x) => (float[1,20] y)
    <float[6,3,3,3] w = seeded(0), float[6] b = seeded(1), float[6,20] v = seeded(2)>
    {
       c = Conv <pads = [1,1,1,1]> (x, w, b)
       r = Relu (c)
       p = GlobalAveragePool (r)
       f = Flatten (p)
       m = MatMul (f, v)
       y = Softmax (m)
    }"""
)


def _feeds(model: ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {str(v.name): rng.normal(0.3, 0.7, tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]


def _kinds(table: bytes) -> dict[str, str]:
    """Kernel -> kind of its products."""
    return {kernel["name"]: kernel["products"] for kernel in json.loads(table)}


def test_an_int8_model_equals_the_reference_and_uses_integer_instructions(tmp_path: Path) -> None:
    model, _ = fix_batch(planish.optimize(DIGITS, target="cuda/sm_86").model)
    compiled = compile_model(model, resolve("cuda/sm_86"), tmp_path)
    feeds = _feeds(model)
    got = emulate(tmp_path, feeds)
    for name, want in run(model, feeds).items():
        np.testing.assert_array_equal(got[name], want)
    assert compiled.notes[0].startswith("compiled, not executed, untuned: ")
    kinds = _kinds(compiled.files["kernels.json"])
    assert {kind for name, kind in kinds.items() if name.startswith("conv")} == {"tensor core"}
    assert {kind for name, kind in kinds.items() if name.startswith("dense")} == {"dp4a"}


def test_float32_and_float16_agree_with_onnx_runtime(tmp_path: Path) -> None:
    half = FLOAT.clone()
    ConvertFloat().run(half, Context())
    feeds = _feeds(FLOAT)
    (want,) = execute(FLOAT, feeds).values()
    for form, tolerance in ((FLOAT, 1e-6), (half, 2e-3)):
        compile_model(form, resolve("cuda/sm_80"), tmp_path / str(tolerance))
        (got,) = emulate(tmp_path / str(tolerance), feeds).values()
        assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
        assert form.graph.inputs[0].dtype == ir.DataType.FLOAT, "inputs keep their type"


def test_a_model_without_a_driver_returns_a_code_that_it_explains(tmp_path: Path) -> None:
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("there is a CUDA driver")
    compile_model(RELU, resolve("cuda/sm_80"), tmp_path)
    compiled = CompiledModel(tmp_path / "model.so")
    with pytest.raises(RuntimeError, match="2"):
        compiled(**_feeds(RELU))
    library = ctypes.CDLL(str(tmp_path / "model.so"))
    library.model_message.restype = ctypes.c_char_p
    assert b"libcuda.so.1" in library.model_message(2)


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="the arm64 extra links for Jetson boards")
def test_a_jetson_model_is_linked_for_its_own_processor(tmp_path: Path) -> None:
    compile_model(RELU, resolve("jetson-orin"), tmp_path)
    header = (tmp_path / "model.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == 183, "AArch64"
