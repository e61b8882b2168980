"""`ir-opt`: text or ONNX in, text and the account of the passes out, exit codes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from planish.ir.text import load_text, print_model
from planish.passes.registry import names
from planish.tools.ir_opt import main, optimize_text

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
MODEL = HEADER + "main (float[2,3] x) => (float[2,3] y)\n{\n   same = Identity (x)\n   y = Relu (same)\n}\n"


def ir_opt(*arguments: object, text: str = "") -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=text)


def test_text_from_standard_input_is_printed_with_the_account_of_every_pass() -> None:
    result = ir_opt("--passes", "remove-no-ops,remove-unused", text=MODEL)
    assert result.exit_code == 0, result.output
    text, _, account = result.stdout.partition("// pass ")
    assert text == MODEL.replace("   same = Identity (x)\n", "").replace("same", "x")
    assert account.startswith("remove-no-ops: matched 1, changed 1, skipped: 0\n//   changed same")
    assert "// pass remove-unused: matched 0, changed 0, skipped: 0\n" in account


def test_the_output_is_input_again() -> None:
    once = optimize_text(MODEL, ["--passes", "remove-no-ops"])
    again = optimize_text(once, ["--passes", "remove-no-ops"])
    assert again.partition("//")[0] == once.partition("//")[0]
    assert "matched 0" in again


def test_without_passes_the_text_is_made_canonical() -> None:
    assert ir_opt(text=MODEL.replace("\n   ", " ")).stdout == MODEL


def test_an_onnx_file_and_its_text_give_the_same(tmp_path: Path) -> None:
    assert ir_opt(DIGITS, "-o", tmp_path / "digits.onnxtxt").exit_code == 0
    from_onnx = ir_opt(DIGITS, "--passes", "fold-bn", "--verify-each")
    from_text = ir_opt(tmp_path / "digits.onnxtxt", "--passes", "fold-bn", "--verify-each")
    assert from_onnx.exit_code == 0, from_onnx.output
    assert from_text.stdout == from_onnx.stdout
    assert "// pass fold-bn: matched 6, changed 6" in from_onnx.stdout


def test_the_result_is_written_as_text_or_as_onnx(tmp_path: Path) -> None:
    for name in ("out.onnxtxt", "out.onnx"):
        result = ir_opt(DIGITS, "--passes", "fold-bn", "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("// pass fold-bn: ")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    text = print_model(load_text(tmp_path / "out.onnxtxt"))
    assert "BatchNormalization" not in text
    assert (tmp_path / "out.onnxtxt").read_text() == text


def test_target_and_seed_reach_the_passes(tmp_path: Path) -> None:
    first = ir_opt(DIGITS, "--passes", "synthesize-inputs,activation-ranges", "--seed", 1).stdout
    assert first == ir_opt(DIGITS, "--passes", "synthesize-inputs,activation-ranges", "--seed", 1).stdout
    arm = ir_opt(DIGITS, "--passes", "synthesize-inputs,activation-ranges,quantize", "--target", "arm64")
    assert arm.exit_code == 0, arm.output
    assert "QuantizeLinear" in arm.stdout


@pytest.mark.parametrize(
    ("arguments", "text", "code", "says"),
    [
        ([], HEADER + "main () => () { y = Relu (z) }", 3, 'nothing defines the value "z"'),
        (["absent.onnx"], "", 3, "no such file"),
        (["absent.onnxtxt"], "", 3, "cannot be read"),
        (["--passes", "fold-bm"], MODEL, 2, "no pass called 'fold-bm'"),
        (["--target", "arm65"], MODEL, 2, "no target called 'arm65'"),
        (["--seed", "x"], MODEL, 2, "not a valid integer"),
        (["-o", "absent/out.onnx"], MODEL, 2, "cannot be written"),
        (["-o", "absent/out.onnxtxt"], MODEL, 2, "cannot be written"),
        (["--verify"], MODEL.replace("Relu", "Rely"), 4, "no operator Rely"),
        (["--verify-each"], MODEL.replace("Relu", "Rely"), 4, "no operator Rely"),
    ],
)
def test_errors_have_their_exit_code(
    arguments: list[str], text: str, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ir_opt(*arguments, text=text)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_an_invalid_text_is_printed_when_nobody_asks_to_verify_it() -> None:
    assert ir_opt(text=MODEL.replace("Relu", "Rely")).exit_code == 0


def test_every_pass_and_target_is_listed() -> None:
    lines = ir_opt("--list-passes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(names())
    assert all(len(line.split()) > 1 for line in lines), "a pass without a first line"
    assert "arm64/cortex-a76" in ir_opt("--list-targets").stdout.splitlines()
