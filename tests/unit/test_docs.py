"""The documentation says what is: the passes page is generated, links lead somewhere, pipelines parse."""

from __future__ import annotations

import re
import sys
import textwrap
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest
from planish.passes.manager import PassManager
from planish.passes.registry import names, parse
from planish.targets.registry import resolve
from planish.tools.docs import render

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_passes_page_is_what_the_passes_say() -> None:
    page = (ROOT / "docs" / "passes.md").read_text()
    assert page == render(), "run `python -m planish.tools.docs`"
    built_in = [name for name, place in names().items() if place.startswith(("foreign:", "planish."))]
    assert set(re.findall(r"^### `(.*)`$", page, re.MULTILINE)) == set(built_in)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pipelines_and_targets_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    for pipeline in [*re.findall(r"--passes \"([^\"]+)\"", text), *re.findall(r"--passes\s+\\?\s*'([^']+)'", text)]:
        assert parse(pipeline)
    for target in re.findall(r"--target ([a-z0-9/_-]+)", text):
        assert resolve(target)


def test_the_map_of_the_tvm_back_end_names_every_module_at_its_top() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(\w[\w*]*\.py)`", page[page.index("## The TVM back end") :].partition("\n## ")[0])
    modules = {path.name for path in (ROOT / "backends" / "tvm").glob("[!_]*.py")}
    assert not modules - set(named)
    everywhere = {path.name for path in (ROOT / "backends" / "tvm").rglob("*.py")}
    assert all(any(fnmatch(name, pattern) for name in everywhere) for pattern in named)


def _blocks(page: str) -> list[str]:
    """The indented code blocks of a page."""
    found = re.findall(r"(?:^    .*\n|^\n+(?=    ))+", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in found]


def test_the_example_of_writing_a_pass_does_what_its_golden_says(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = _blocks("writing-a-pass.md")
    (code,) = (block for block in blocks if "class DoubleNegation" in block)
    (golden,) = (block for block in blocks if "// RUN:" in block)
    module = ModuleType("planish.passes.cleanup.double_negation")
    module.__package__ = "planish.passes.cleanup"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, module.__dict__)
    model = ir.from_onnx_text("\n".join(line for line in golden.splitlines() if not line.startswith("//")))
    (record,) = PassManager([module.DoubleNegation()]).run(model).records
    assert (record.pass_name, record.matched, record.changed) == ("double-negation", 1, 1)
    reader = next(node for node in model.graph if node.op_type == "Relu")
    assert reader.inputs[0] is model.graph.inputs[0]
