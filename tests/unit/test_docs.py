"""The documentation says what is: the passes page is generated, links lead somewhere, pipelines parse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from planish.passes.registry import parse
from planish.targets.registry import resolve
from planish.tools.docs import render

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_passes_page_is_what_the_passes_say() -> None:
    page = (ROOT / "docs" / "passes.md").read_text()
    assert page == render(), "run `python -m planish.tools.docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pipelines_and_targets_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    for pipeline in re.findall(r"--passes \"([^\"]+)\"", text):
        assert parse(pipeline)
    for target in re.findall(r"--target ([a-z0-9/_-]+)", text):
        assert resolve(target)
