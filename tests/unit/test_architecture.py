"""The rooms of the house: who may import whom, what is loaded when, and what every pass brings along."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from planish.passes import registry
from planish.passes.base import Pass
from planish.passes.foreign import ForeignPass, adopt
from planish.passes.pipeline import coerce_options, format_value, option_names, parse_text

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "golden"

# room -> rooms it may import besides itself; `errors` is open to all. Modules at the root are rooms of their own.
MAY_IMPORT = {
    "errors": set[str](),
    "ir": set[str](),
    "targets": {"ir"},
    "passes": {"ir", "targets"},
    "backends": {"ir", "targets"},
    "samples": {"ir", "targets", "pictures"},
    "pictures": {"passes"},  # the conventions that inputs are made by
    "report": {"ir", "targets", "passes", "backends", "report_page"},  # the driver's account of both
    "report_page": {"report"},
    "driver": {"ir", "targets", "passes", "backends", "samples", "report", "report_page"},
    "integrations": {"ir", "targets", "passes", "driver"},
    "__init__": {"ir", "targets", "passes", "driver", "integrations"},
    "tools": {"ir", "targets", "passes", "backends", "samples", "report", "driver", "integrations"},
}
# library -> the only places (a prefix of the path) that may import it
HEAVY = {
    "torch": (
        "ir/fx",
        "ir/torch",
        "integrations.py",
        "passes/prune/taylor.py",
        "passes/quantize/block_checkpoint.py",
        "passes/quantize/block_student.py",
        "passes/quantize/learned_rounding.py",
        "passes/quantize/reconstruct.py",
        "passes/quantize/train_block.py",
        "passes/recover/",
        "passes/replace/",
        "passes/synthesize/distill",
        "passes/synthesize/impressions.py",
        "passes/synthesize/matching.py",
        "tools/bench/",
    ),
    "tvm": ("backends/tvm/", "backends/cuda/", "backends/hexagon/", "tools/bench/"),
    "sklearn": (),
    "matplotlib": ("report", "tools/"),
    "onnxsim": ("tools/bench/",),
    "onnxslim": ("tools/bench/",),
}
# of them, those that import torch when they are loaded: by the pass that trains, when it runs
TRAINING = (
    "ir/fx",
    "passes/quantize/block_checkpoint.py",
    "passes/quantize/block_student.py",
    "passes/quantize/learned_rounding.py",
    "passes/quantize/train_block.py",
    "passes/recover/",
    "passes/replace/",
    "passes/synthesize/distillation.py",
    "passes/synthesize/impressions.py",
    "passes/synthesize/matching.py",
)
# libraries that take longer to load than `optimize --help` may take
SLOW = ("torch", "tvm", "onnxruntime", "onnxscript", "scipy", "sklearn", "matplotlib")


def modules() -> list[str]:
    """Every module of the package as a path from its root."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True)
    found = listed.stdout.decode().split() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py")]
    outside = ("tests", "examples", "build", ".venv", "docs")
    return sorted(m for m in found if Path(m).parts[0] not in outside and (ROOT / m).exists())


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Absolute name of everything a module imports, and whether that happens when the module is loaded."""
    tree = ast.parse((ROOT / module).read_text())
    parts = ("planish", *Path(module).with_suffix("").parts)
    package = parts[:-1]
    deferred = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.dump(outer.test))
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_load
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{stem}.{alias.name}", at_load


def room(name: str) -> str:
    """Room of a dotted name inside the package."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_the_rooms_it_may(module: str) -> None:
    own = Path(module).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[own] | {own, "errors"}
    wrong = [name for name, _ in imports(module) if name.split(".")[0] == "planish" and room(name) not in allowed]
    assert not wrong, f"{module} may not import {wrong}"


@pytest.mark.parametrize("module", modules())
def test_a_heavy_library_is_imported_only_where_it_belongs(module: str) -> None:
    used = {name.split(".")[0] for name, _ in imports(module)} & set(HEAVY)
    wrong = [library for library in used if not module.startswith(HEAVY[library])]
    assert not wrong, f"{module} may not import {wrong}"


def _loaded_after(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import planish",
        "import planish.tools.optimize, planish.tools.ir_opt",
        "from planish.tools.optimize import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from planish.tools.ir_opt import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_help_and_import_load_nothing_slow(code: str) -> None:
    assert not _loaded_after(code) & set(SLOW)


def test_loading_every_module_needs_no_torch_tvm_or_onnxruntime() -> None:
    light = [m for m in modules() if not m.startswith(("backends/tvm/", "tools/bench/"))]
    wrong = [
        (module, name)
        for module in light
        for name, at_load in imports(module)
        if at_load and name.split(".")[0] in ("torch", "tvm", "onnxruntime") and not module.startswith(TRAINING)
    ]
    assert not wrong


NAMES = sorted(registry.names())
BUILT_IN = [name for name in NAMES if registry.names()[name].startswith(("foreign:", "planish."))]


def _example(name: str) -> str:
    return "fixpoint(fold-bn)" if name == "fixpoint" else name


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_pass_has_its_golden(name: str) -> None:
    golden = GOLDENS / f"{name.replace('-', '_')}.onnxtxt"
    assert golden.exists(), f"tests/golden/{golden.name} is missing"
    runs = [line for line in golden.read_text().splitlines() if line.startswith("// RUN:")]
    assert any(name in line for line in runs)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_pass_loads_and_its_text_gives_it_back(name: str) -> None:
    passes = registry.parse(_example(name))
    assert registry.spec(passes) == _example(name)
    assert registry.parse(registry.spec(passes)) == passes


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_pass_is_a_frozen_dataclass_of_its_name_that_says_what_it_does(name: str) -> None:
    (pass_,) = registry.parse(_example(name))
    assert isinstance(pass_, Pass)
    if isinstance(pass_, ForeignPass):
        assert adopt(pass_.factory())
        return
    cls = type(pass_)
    assert cls.name == name
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring is the whole story"
    with pytest.raises(dataclasses.FrozenInstanceError):
        pass_.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_option_of_a_pass_can_be_written_in_pipeline_text(name: str) -> None:
    (pass_,) = registry.parse(_example(name))
    if isinstance(pass_, ForeignPass):
        return
    for option in option_names(type(pass_)):
        value = getattr(pass_, option.replace("-", "_"))
        (element,) = parse_text(f"{name}{{{option}={format_value(value)}}}")
        assert coerce_options(type(pass_), element.options) == {option.replace("-", "_"): value}
