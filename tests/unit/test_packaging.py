"""What is installed is what is in the tree: packages, data files, entry points, pinned versions, the two commands."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OUTSIDE = {"tests", "examples", "docs", "build", "dist", "out"}
# what the CUDA build of torch brings along; the CPU build has none of it
PLATFORM_ONLY = ("nvidia-", "cuda-", "triton")


def tree(pattern: str) -> list[Path]:
    """Files of the package that match, relative to the root; nothing hidden, generated or from outside it."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob(pattern))
    return sorted(
        path
        for path in found
        if path.parts[0] not in OUTSIDE
        and not any(part.startswith((".", "__pycache__")) or part.endswith(".egg-info") for part in path.parts)
    )


def pins() -> dict[str, str]:
    """Project name to pinned version."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt pins exact versions, one a line"
    return {canonicalize_name(name): version for name, version in pairs}


def declared() -> list[Requirement]:
    """Every requirement of pyproject.toml, extras included."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    texts = [*PROJECT["build-system"]["requires"], *project["dependencies"], *(r for extra in extras for r in extra)]
    return [r for r in map(Requirement, texts) if r.name != project["name"]]


def test_every_directory_with_modules_is_a_listed_package() -> None:
    directories = {path.parent for path in tree("*.py")}
    names = {".".join(("planish", *directory.parts)) for directory in directories}
    assert names == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all((ROOT / directory / "__init__.py").exists() for directory in directories)


def test_data_files_inside_packages_are_declared() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    declared_files = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in (ROOT / Path(*package.split(".")[1:])).glob(glob)
    }
    rooms = {Path(*name.split(".")[1:]) for name in PROJECT["tool"]["setuptools"]["packages"]} - {Path()}
    inside = {ROOT / path for path in tree("*") if path.parent in rooms and path.suffix != ".py"}
    assert {path for path in inside if path.is_file()} <= declared_files


@pytest.mark.parametrize("group", ["scripts", "torch_dynamo_backends"])
def test_entry_points_name_callables_that_exist(group: str) -> None:
    project = PROJECT["project"]
    points = project["scripts"] if group == "scripts" else project["entry-points"][group]
    for place in points.values():
        module, _, attribute = place.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_every_requirement_is_pinned_to_a_version_it_admits() -> None:
    for requirement in declared():
        version = pins().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} does not admit {version}"


def test_everything_the_requirements_need_in_turn_is_pinned() -> None:
    pinned, waiting, seen = pins(), declared(), set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
        )
        if name in seen or not wanted or (name.startswith(PLATFORM_ONLY) and name not in pinned):
            continue
        seen.add(name)
        assert name in pinned, f"{name} is not pinned"
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += map(Requirement, distribution.requires or [])
    assert set(pinned) <= seen, f"pinned and not needed: {set(pinned) - seen}"


def test_the_tvm_ffi_that_breaks_tensorize_is_excluded_from_the_requirements() -> None:
    (ffi,) = (r for r in declared() if r.name == "apache-tvm-ffi")
    assert str(ffi.specifier) == "==0.1.14.post1"
    assert not ffi.specifier.contains("0.1.15")


def test_the_readme_has_the_two_commands_and_ci_runs_the_second() -> None:
    commands = re.findall(r"^ *(python3 -m venv .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    first, second = commands
    assert first.endswith("optimize examples/digits.onnx --target arm64 -o out/")
    assert "/pytest" in second and "'.[all,dev]'" in second
    assert all("-c constraints.txt" in command for command in commands)
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    (pattern,) = re.findall(r"grep -m 1 -E '([^']*)' README.md", script.read_text())
    assert [command for command in commands if re.search(pattern, command)] == [second]


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(arguments: list[str]) -> None:
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    if not Path(ruff).exists():
        pytest.skip("ruff is not installed (extra: dev)")
    done = subprocess.run([ruff, *arguments, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_mypy_finds_nothing_in_strict_mode() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra: dev)")
    done = subprocess.run([sys.executable, "-m", "mypy", "-p", "planish"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
