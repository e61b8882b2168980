"""The golden tool: cases are split, run and compared in process, and `--accept` writes what will pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from planish.errors import PlanishError, UsageError
from planish.tools.golden import accept, main, read_cases, run_case

BODY = """<ir_version: 10, opset_import: ["" : 20]>
main (float[2,3] x) => (float[2,3] y)
   <float[40] w = seeded(0)>
{
   same = Identity (x)
   y = Add (same, w)
}
"""
RUN = "// RUN: ir-opt --passes remove-no-ops\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "remove_no_ops.onnxtxt"


def complaints(file: Path) -> list[str]:
    return [run_case(case) for case in read_cases(file)]


def test_a_case_passes_when_its_lines_are_found(file: Path) -> None:
    file.write_text(RUN + BODY + "// CHECK: y = Add (x, w)\n// CHECK-NOT: Identity\n// CHECK: skipped: 0\n")
    assert complaints(file) == [""]


@pytest.mark.parametrize(
    "checks",
    [
        "// CHECK: y = Sub\n",
        "// CHECK-NOT: Add\n",
        "// CHECK: skipped: 0\n// CHECK: y = Add\n",
        "// CHECK: {\n// CHECK-NEXT: }\n",
        "// CHECK-COUNT-2: Add\n",
        "// CHECK: skipped: 0\n// CHECK-NEXT: {{.*}}same\n// CHECK-NOT: same\n// CHECK-NEXT: more\n",
        "",
    ],
)
def test_a_case_fails_when_they_are_not(file: Path, checks: str) -> None:
    file.write_text(RUN + BODY + checks)
    (complaint,) = complaints(file)
    assert complaint
    assert "--- output of remove_no_ops.onnxtxt:1 ---" in complaint and "y = Add (x, w)" in complaint


def test_cases_are_separate_and_inherit_the_run_line(file: Path) -> None:
    second = BODY.replace("Add (same, w)", "Mul (same, w)")
    file.write_text(
        RUN + BODY + "// CHECK: y = Add (x\n// -----\n" + second + "// CHECK-NOT: Add\n// CHECK: y = Mul (x\n"
    )
    first, other = read_cases(file)
    assert (first.line, other.line) == (1, 11)
    assert first.arguments == other.arguments == ("--passes", "remove-no-ops")
    assert complaints(file) == ["", ""]


def test_a_complaint_and_a_parse_error_name_the_line_in_the_file(file: Path) -> None:
    file.write_text(RUN + BODY + "// CHECK: y = Add\n// -----\n" + BODY + "// CHECK: y = Sub\n")
    assert f"{file}:18: " in complaints(file)[1]
    file.write_text(RUN + BODY + "// CHECK: y = Add\n// -----\n" + BODY.replace("(same, w)", "(same, z)"))
    with pytest.raises(PlanishError) as caught:
        complaints(file)
    assert caught.value.where.startswith("remove_no_ops.onnxtxt, line 16, column 19")


def test_options_of_a_pass_may_hold_spaces(file: Path) -> None:
    file.write_text('// RUN: ir-opt --passes "fixpoint{steps=1}(remove-no-ops, remove-unused)" --seed 3\n' + BODY)
    (case,) = read_cases(file)
    assert case.arguments == ("--passes", "fixpoint{steps=1}(remove-no-ops, remove-unused)", "--seed", "3")


def test_an_expected_error_is_matched_and_its_absence_is_an_error(file: Path) -> None:
    file.write_text("// RUN: not ir-opt --passes absent\n" + BODY + "// CHECK: usage error: {{.*}}absent\n")
    assert complaints(file) == [""]
    file.write_text("// RUN: not ir-opt\n" + BODY + "// CHECK: Add\n")
    with pytest.raises(UsageError, match="expected to fail"):
        complaints(file)


def test_a_file_without_a_run_line_is_an_error(file: Path) -> None:
    file.write_text(BODY)
    with pytest.raises(UsageError, match="no RUN line"):
        list(read_cases(file))


def test_without_filecheck_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filecheck.matcher", None)
    file.write_text(RUN + BODY + "// CHECK: Add\n")
    with pytest.raises(UsageError) as caught:
        complaints(file)
    assert "planish[dev]" in caught.value.hint


def test_accept_writes_checks_that_pass_and_pin_the_output(file: Path) -> None:
    file.write_text(RUN + "// why this case is here\n" + BODY + "// CHECK: wrong\n// -----\n" + BODY)
    assert accept(file)
    assert complaints(file) == ["", ""]
    text = file.read_text()
    assert text.startswith(RUN + "// why this case is here\n" + BODY)
    assert text.count("y = Add (x, w)\n") == 2 and "wrong" not in text
    assert "float[40] w = blake2:{{[0-9a-f]+}}" in text, "hashes of weights are left open"
    assert not accept(file), "a second time nothing changes"
    file.write_text(text.replace("same = Identity (x)", "same = Neg (x)", 1))
    assert complaints(file)[0] and not complaints(file)[1]


def test_accept_quotes_what_filecheck_would_read_as_a_pattern(file: Path) -> None:
    body = BODY.replace("Add (same, w)\n", 'Add (same, w) !note = [["{{a}}"]]\n')
    file.write_text(RUN + body)
    accept(file)
    assert '// CHECK-NEXT{LITERAL}:    y = Add (x, w) !note = [["{{a}}"]]' in file.read_text()
    assert complaints(file) == [""]


def test_the_command_runs_and_accepts_files(file: Path) -> None:
    file.write_text(RUN + BODY + "// CHECK: y = Sub\n")
    failed = CliRunner().invoke(main, [str(file)])
    assert failed.exit_code == 1 and "Couldn't match" in failed.output
    assert CliRunner().invoke(main, ["--accept", str(file)]).output == f"rewrote {file}\n"
    passed = CliRunner().invoke(main, [str(file)])
    assert passed.exit_code == 0 and passed.output == "ok remove_no_ops.onnxtxt:1\n"
