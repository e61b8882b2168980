"""The wheel holds the whole package and works outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="build is not installed (extra: dev)")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits.onnx"
OUTSIDE = ("tests", "examples", "docs", "build", "dist", "out")


def _run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that the checkout stays clean."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "tests", "docs", "build", "dist", "out")
    shutil.copytree(ROOT, place / "source", ignore=ignored)
    # setuptools is among the test requirements: no second environment, no download
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, "source", cwd=place)
    (wheel,) = place.glob("planish-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A directory outside the checkout with the package and its scripts, and nothing else of the checkout."""
    site = wheel.with_name("site")
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
    _run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=wheel.parent)
    return site


def test_the_wheel_holds_every_module_the_licence_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"planish/{path.relative_to(ROOT).as_posix()}"
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in OUTSIDE
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert "planish/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)


def test_the_installed_package_is_imported_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    code = "import planish, sys; print(planish.__file__); assert 'torch' not in sys.modules"
    assert _run(sys.executable, "-c", code, cwd=tmp_path, path=installed).startswith(str(installed))


@pytest.mark.parametrize("command", ["optimize", "ir-opt"])
def test_the_commands_answer_help_outside_of_the_checkout(installed: Path, tmp_path: Path, command: str) -> None:
    assert "Usage:" in _run(installed / "bin" / command, "--help", cwd=tmp_path, path=installed)


def test_the_installed_command_optimizes_a_model_outside_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    model = shutil.copy(EXAMPLE, tmp_path / "digits.onnx")
    _run(installed / "bin" / "optimize", model, "-O1", "-o", "result", cwd=tmp_path, path=installed)
    assert (tmp_path / "result" / "model.onnx").stat().st_size > 0
    assert (tmp_path / "result" / "report.json").exists()
