"""model.so in the TVM runtime: from Python with the right values or a message, and the examples as they are written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planish import optimize

tvm = pytest.importorskip("tvm", reason="TVM is not installed")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "tvm_runtime"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The compiled example, an image, and its scores in ONNX Runtime."""
    result = optimize(ROOT / "examples" / "digits.onnx", output=tmp_path_factory.mktemp("made") / "out")
    assert result.artifact is not None
    image = np.linspace(0, 16, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    return result.artifact / "model.so", image, result.run(image)["logits"]


def test_the_library_is_a_module_of_tvm(built: tuple[Path, np.ndarray, np.ndarray]) -> None:
    library, image, expected = built
    module = tvm.runtime.load_module(str(library))
    arena = tvm.runtime.empty((module["arena_bytes"](),), "uint8")
    logits = tvm.runtime.empty((1, 10), "float32")
    module["run"](tvm.runtime.tensor(image), logits, arena)
    assert np.abs(logits.numpy() - expected).max() <= 0.02 * np.abs(expected).max()  # a level of the last layer


def test_what_does_not_fit_is_an_error_of_tvm(built: tuple[Path, np.ndarray, np.ndarray]) -> None:
    library, image, _ = built
    run = tvm.runtime.load_module(str(library))["run"]
    logits, small = tvm.runtime.empty((1, 10), "float32"), tvm.runtime.empty((8,), "uint8")
    arena = tvm.runtime.empty((1 << 20,), "uint8")
    good = tvm.runtime.tensor(image)
    with pytest.raises(TypeError, match="1 input"):
        run(good, logits)
    with pytest.raises(ValueError, match="an input is not dense"):
        run(tvm.runtime.tensor(image.astype(np.float64)), logits, arena)
    with pytest.raises(ValueError, match="an output is not dense"):
        run(good, tvm.runtime.empty((1, 11), "float32"), arena)
    with pytest.raises(ValueError, match="arena"):
        run(good, logits, small)


def test_the_examples_run(built: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    library, _, expected = built
    said = f"digit {expected.argmax()}"
    python = subprocess.run([sys.executable, EXAMPLES / "run.py", library], capture_output=True, text=True, check=True)
    assert python.stdout.strip() == said
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    import tvm_ffi

    home = Path(tvm_ffi.__file__).parent
    flags = ["-std=c++17", f"-I{home}/include", f"-L{home}/lib", f"-Wl,-rpath,{home}/lib", "-ltvm_ffi"]
    program = tmp_path / "run"
    subprocess.run([compiler, EXAMPLES / "run.cc", *flags, "-o", program], check=True, capture_output=True)
    assert subprocess.run([program, library], capture_output=True, text=True, check=True).stdout.strip() == said
