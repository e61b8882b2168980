"""Pipeline text, YAML pipelines and the registry: what is written is what runs, and mistakes name their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir.passes.common import IdentityEliminationPass
from planish.errors import UsageError
from planish.passes import registry
from planish.passes.base import Pass
from planish.passes.context import Context
from planish.passes.fixpoint import Fixpoint
from planish.passes.pipeline import Element, format_value, parse_text
from planish.passes.registry import load_yaml, parse, spec
from planish.targets import registry as targets
from planish.tools.ir_opt import main as ir_opt


@dataclass(frozen=True)
class Probe(Pass):
    """A pass with an option of every type that pipeline text can hold."""

    name: ClassVar[str] = "probe"
    flag: bool = False
    count: int = 3
    rate: float = 0.5
    mode: Literal["channel", "tensor", 4] = "channel"
    label_text: str = "plain"
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[str, int] = ("a", 1)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")

    def run(self, model: ir.Model, context: Context) -> None:
        context.record.note("ran")


@dataclass(frozen=True)
class Strict(Pass):
    """A pass with an option that must be given."""

    size: int
    name: ClassVar[str] = "strict"

    def run(self, model: ir.Model, context: Context) -> None:
        context.record.note("ran")


PLUG_INS = {"probe": "Probe", "strict": "Strict", "drop-identity": "IdentityEliminationPass"}


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    points = [EntryPoint(name, f"{__name__}:{attribute}", "planish.passes") for name, attribute in PLUG_INS.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    registry.names.cache_clear()
    yield points
    registry.names.cache_clear()


_OPTIONS = {
    "flag": st.booleans(),
    "count": st.integers(0, 10**9),
    "rate": st.floats(allow_nan=False),
    "mode": st.sampled_from(["channel", "tensor", 4]),
    "label_text": st.text(),
    "limit": st.none() | st.integers(),
    "sizes": st.lists(st.integers(), max_size=4).map(tuple),
    "pair": st.tuples(st.text(), st.integers()),
}
_PROBES = st.fixed_dictionaries({}, optional=_OPTIONS).map(lambda options: Probe(**options))
_PASSES = st.recursive(
    _PROBES | st.builds(Strict, st.integers()),
    lambda inner: st.builds(Fixpoint, st.integers(1, 9), st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=5,
)


@given(st.lists(_PASSES, max_size=4))
def test_parsing_the_text_of_a_pipeline_gives_the_same_passes(passes: list[Pass]) -> None:
    assert parse(spec(passes)) == passes


_NAMES = st.from_regex(r"[a-z][a-z0-9-]*", fullmatch=True)
_VALUES = st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
_ELEMENTS = st.recursive(
    st.builds(Element, _NAMES, st.lists(st.tuples(_NAMES, _VALUES), max_size=3).map(tuple)),
    lambda inner: st.builds(Element, _NAMES, st.just(()), st.lists(inner, min_size=1, max_size=3).map(tuple)),
    max_leaves=5,
)


def _written(element: Element) -> str:
    options = " ".join(f"{key}={format_value(value)}" for key, value in element.options)
    inner = "" if element.inner is None else "(" + " , ".join(map(_written, element.inner)) + ")"
    return f" {element.name}{{ {options} }}{inner} "


@given(st.lists(_ELEMENTS, min_size=1, max_size=3))
def test_the_grammar_reads_back_any_elements_whatever_the_spaces(elements: list[Element]) -> None:
    assert parse_text(",".join(map(_written, elements))) == tuple(elements)


@given(st.text(alphabet='ab=,{}()[]" \\', max_size=20))
def test_any_text_either_parses_or_is_a_usage_error(text: str) -> None:
    try:
        elements = parse_text(text)
    except UsageError as error:
        assert "column" in error.where and error.hint
    else:
        assert parse_text(",".join(map(_written, elements))) == elements


def test_options_left_at_their_defaults_are_not_written() -> None:
    assert Probe().spec() == "probe"
    assert Probe(flag=True, label_text="two words").spec() == 'probe{flag=true label-text="two words"}'


def test_empty_text_is_the_empty_pipeline() -> None:
    assert parse("") == parse(" \n") == []


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("probe,", 7),
        ("probe{flag", 11),
        ("probe{count=}", 13),
        ("probe strict", 7),
        (",probe", 1),
        ('probe{label-text= "open}', 19),
        ("probe{sizes=[1,2", 17),
        ("probe{}}", 8),
    ],
)
def test_a_syntax_error_names_its_column(text: str, column: int) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.where.endswith(f"column {column}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probe{flag}", Probe(flag=True)),
        ("probe{flag=no}", Probe()),
        ("probe{mode=4}", Probe(mode=4)),
        ("probe{limit=none}", Probe()),
        ("probe{limit=7}", Probe(limit=7)),
        ("probe{sizes=8}", Probe(sizes=(8,))),
        ("probe{rate=1}", Probe(rate=1.0)),
        ("probe{label_text=x}", Probe(label_text="x")),
        ("probe{pair=[b,2]}", Probe(pair=("b", 2))),
    ],
)
def test_options_are_converted_by_the_type_of_their_field(text: str, expected: Probe) -> None:
    assert parse(text) == [expected]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("probe{count=many}", "'many' is not a valid value for option 'count'"),
        ("probe{count}", "True is not a valid value for option 'count'"),
        ("probe{rate}", "True is not a valid value"),
        ("probe{label-text=[a,b]}", "is not a valid value for option 'label-text'"),
        ("probe{flag=maybe}", "'maybe' is not a valid value"),
        ("probe{count=none}", "'none' is not a valid value"),
        ("probe{pair=[b]}", "is not a valid value for option 'pair'"),
        ("probe{mode=layer}", "'layer' is not a valid value"),
        ("probe{count=1 count=2}", "given twice"),
        ("probe{size=1}", "has no option 'size'"),
        ("probe{count=-1}", "count must not be negative"),
        ("strict", "size"),
        ("fixpoint{steps=0}(probe)", "steps must be at least 1"),
        ("fixpoint", "passes to repeat are missing"),
        ("fixpoint{passes=probe}", "has no option 'passes'"),
        ("probe(strict{size=1})", "takes no nested passes"),
        ("drop-identity{deep=true}", "takes no options"),
        ("prob", "no pass called 'prob'"),
    ],
)
def test_a_wrong_option_or_name_is_a_usage_error_with_a_hint(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        parse(text)
    assert caught.value.where and caught.value.hint


def test_the_choices_of_an_option_are_said_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse("probe{mode=layer}")
    assert caught.value.hint.count("one of") == 1


def test_an_unknown_name_suggests_the_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse("prob")
    assert "did you mean probe" in caught.value.hint


def test_yaml_says_the_same_as_text(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        """
        passes:
        - probe
        - probe: {flag: true, count: 9, sizes: [1, 2], limit: null, label_text: two words}
        - fixpoint: {steps: 2, passes: [probe, strict: {size: 3}]}
        - strict{size=4}
        """
    )
    text = 'probe,probe{flag count=9 sizes=[1,2] label-text="two words"},fixpoint{steps=2}(probe,strict{size=3})'
    assert load_yaml(file) == parse(text + ",strict{size=4}")


@pytest.mark.parametrize(
    "text",
    [
        "passes: 3",
        "probe",
        "- 3",
        "- probe: 3",
        "- probe: [1]",
        "- {probe: {}, strict: {}}",
        "- fixpoint: {passes: probe}",
        "- probe: {count: 4.5}",
        "- probe: {label_text: null}",
        "- 'probe,probe'",
        "- [",
    ],
)
def test_a_wrong_yaml_pipeline_is_a_usage_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_yaml(file)
    assert caught.value.where and caught.value.hint


def test_a_missing_or_binary_yaml_file_is_a_usage_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for file in (tmp_path / "absent.yaml", tmp_path, binary):
        with pytest.raises(UsageError, match="cannot be read"):
            load_yaml(file)


def test_a_plug_in_with_the_name_of_another_pass_is_an_error_that_names_both(plug_ins: list[EntryPoint]) -> None:
    plug_ins.append(EntryPoint("probe", "elsewhere:Probe", "planish.passes"))
    with pytest.raises(UsageError, match="two passes are both called 'probe'") as caught:
        registry.names()
    assert f"{__name__}:Probe" in caught.value.where and "elsewhere:Probe" in caught.value.where


@pytest.mark.parametrize("place", ["no_such_module_anywhere:Pass", f"{__name__}:NoSuchPass"])
def test_a_plug_in_that_cannot_be_loaded_is_an_error_only_when_it_is_used(
    plug_ins: list[EntryPoint], place: str
) -> None:
    plug_ins.append(EntryPoint("broken", place, "planish.passes"))
    assert parse("probe") == [Probe()]
    with pytest.raises(UsageError, match="'broken' cannot be loaded") as caught:
        parse("broken")
    assert caught.value.where == place


def test_a_plug_in_that_cannot_be_loaded_does_not_hide_the_others(plug_ins: list[EntryPoint]) -> None:
    plug_ins.append(EntryPoint("broken", "no_such_module_anywhere:Pass", "planish.passes"))
    listed = CliRunner().invoke(ir_opt, ["--list-passes"])
    assert listed.exit_code == 0, listed.output
    assert "(the pass 'broken' cannot be loaded: No module named" in listed.output and "fold-bn" in listed.output


def test_a_target_plug_in_is_loaded_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("board", "no_such_module_anywhere:resolve", "planish.targets")
    monkeypatch.setattr(targets, "entry_points", lambda group: [point])
    targets._families.cache_clear()
    try:
        assert targets.resolve("arm64").kind == "arm64" and "board" in targets.names()
        with pytest.raises(UsageError, match="the target 'board' cannot be loaded") as caught:
            targets.resolve("board/x")
        assert caught.value.where == point.value and caught.value.hint
    finally:
        targets._families.cache_clear()


def test_a_plug_in_may_be_a_pass_of_onnx_ir() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        main (float[2] x) => (float[2] z) { y = Identity (x) z = Relu (y) }"""
    )
    (pass_,) = parse("drop-identity")
    assert pass_(model).modified
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert str(pass_) == "drop-identity" and issubclass(IdentityEliminationPass, ir.passes.PassBase)
