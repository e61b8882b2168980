"""The arm64 artifact runs without ARM hardware: its own model.so, and a static binary, under qemu-aarch64."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import planish
import pytest
from planish.backends.tvm import link
from planish.backends.tvm.compile import compile_model
from planish.ir.execute import execute
from planish.ir.reference import run
from planish.ir.shapes import fix_dimensions
from planish.targets.registry import resolve

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "models"
SYSROOT = Path("/usr/aarch64-linux-gnu")
pytest.importorskip("ziglang", reason="the arm64 extra links the artifact")

Arrays = dict[str, np.ndarray]


def _model(name: str) -> Path:
    path = ROOT / "examples" / "digits.onnx" if name == "digits" else MODELS / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def _emulator(*options: str) -> list[str]:
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if found is None:
        pytest.skip("qemu-user is not installed")
    return [found, *options]


def _run(command: list[str], directory: Path, feeds: Arrays, like: Arrays) -> Arrays:
    """Run the example program: raw inputs in, raw outputs back."""
    for i, array in enumerate(feeds.values()):
        array.tofile(directory / f"{i}.in")
    files = [*(f"{i}.in" for i in range(len(feeds))), *(f"{i}.out" for i in range(len(like)))]
    done = subprocess.run([*command, *files], cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {
        name: np.fromfile(directory / f"{i}.out", array.dtype).reshape(array.shape)
        for i, (name, array) in enumerate(like.items())
    }


def _run_library(directory: Path, cpu: str, feeds: Arrays, like: Arrays) -> Arrays:
    """The example program linked with the very model.so, loaded by the system's loader."""
    if not SYSROOT.is_dir():
        pytest.skip("libc6-arm64-cross is not installed")
    if not (directory / "runner").exists():
        link.link(resolve("arm64"), directory, ["main.c", "model.so"], "runner", ["-Wl,-rpath,$ORIGIN"])
    return _run([*_emulator("-cpu", cpu, "-L", str(SYSROOT)), "./runner"], directory, feeds, like)


def _feeds(model: ir.Model) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        str(v.name): rng.normal(0.3, 0.7, [d if isinstance(d, int) else 1 for d in v.shape or ()]).astype(np.float32)
        for v in model.graph.inputs
    }


@pytest.fixture(scope="module")
def optimized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The artifact directory that `optimize MODEL --target arm64` leaves, made once a model."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        path = _model(name)
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "out"
            planish.optimize(path, target="arm64", output=made[name])
        return made[name]

    return make


@pytest.mark.parametrize("name", ["digits", "resnet20_cifar10", "kws_dscnn"])
def test_the_int8_library_equals_the_reference(name: str, optimized: Callable[[str], Path]) -> None:
    directory = optimized(name)
    model = planish.capture(directory / "model.onnx")
    feeds = _feeds(model)
    want = run(model, feeds)
    got = _run_library(directory, "neoverse-n1", feeds, want)
    near = execute(model, feeds)
    for output, array in want.items():
        np.testing.assert_array_equal(got[output], array)
        assert np.corrcoef(array.ravel(), near[output].ravel())[0, 1] > 0.99, "ONNX Runtime computes the same network"


def test_a_static_binary_needs_nothing_on_the_board(optimized: Callable[[str], Path]) -> None:
    directory, target = optimized("digits"), resolve("arm64")
    sources = ["main.c", "model.c", "weights.S", "model.o"]
    link.link(target, directory, sources, "static", ["-static"], static=True)
    model = planish.capture(directory / "model.onnx")
    feeds = _feeds(model)
    want = run(model, feeds)
    for cpu in ("cortex-a76", "max"):
        got = _run([*_emulator("-cpu", cpu), "./static"], directory, feeds, want)
        for output, array in want.items():
            np.testing.assert_array_equal(got[output], array)


@pytest.mark.parametrize("name, cpu, threads", [("digits", "cortex-a53", 1), ("kws_dscnn", "cortex-a72", 2)])
def test_the_float_library_agrees_with_onnx_runtime(name: str, cpu: str, threads: int, tmp_path: Path) -> None:
    model = planish.capture(_model(name))
    feeds = _feeds(model)
    fix_dimensions(model, {key: array.shape for key, array in feeds.items()})
    compile_model(model, replace(resolve(f"arm64/{cpu}"), threads=threads), tmp_path)
    want = execute(model, feeds)
    got = _run_library(tmp_path, cpu, feeds, want)
    for output, array in want.items():
        assert np.abs(got[output] - array).max() <= 1e-4 * np.abs(array).max()
