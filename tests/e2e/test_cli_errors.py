"""Bad input gets a three-part message and the right exit code; nothing partial is left, what existed is untouched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result
from planish.tools.optimize import main

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def _optimize(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def _truncated(path: Path) -> Path:
    path.write_bytes(DIGITS.read_bytes()[:-1000])
    return path


def _text(body: str, opset: str = '"" : 20') -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        model = onnx.parser.parse_model(
            f"<ir_version: 9, opset_import: [{opset}]> g (float[1,4] x) => (float[1,4] y) {body}"
        )
        onnx.save(model, path)
        return path

    return make


def _cyclic(path: Path) -> Path:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> g (float[1,4] x) => (float[1,4] y) { a = Add(x, y) y = Relu(a) }'
    )
    onnx.save(model, path)
    return path


def _missing_weights(path: Path) -> Path:
    onnx.save(onnx.load(DIGITS), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()
    return path


def _short_weights(path: Path) -> Path:
    onnx.save(onnx.load(DIGITS), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    weights = path.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    return path


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _poem(path: Path) -> Path:
    path.write_text("The fog comes\non little cat feet.\n" * 20)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path, "no such file"),
        (_truncated, "protobuf"),
        (_directory, "directory"),
        (_empty, "empty"),
        (_poem, "ONNX model"),
        (_text("{ y = Frobnicate(x) }"), "Frobnicate"),
        (_text("{ y = other.Relu(x) }", '"" : 20, "other" : 1'), "other"),
        (_text("{ y = Relu(x) }", '"" : 5'), "opset 5"),
        (_cyclic, "cycl|topological|order"),
        (_missing_weights, "missing"),
        (_short_weights, "too short"),
    ],
)
def test_a_bad_model_is_a_model_error(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    source = make(tmp_path / "model.onnx")
    result = _optimize(source, "--target", "arm64", "-o", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert __import__("re").search(says, result.stderr), result.stderr
    assert "where:" in result.stderr and "next:" in result.stderr
    assert not (tmp_path / "out").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "no staging directory is left"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--passes", "fold-bm"], "did you mean fold-bn"),
        (["--passes", "fold-bn{fast=true}"], "no option 'fast'"),
        (["--passes", "fold-bn{"], "column"),
        (["--passes", "fold-bn", "--pipeline", "x.yaml"], "both given"),
        (["--pipeline", "absent.yaml"], "absent.yaml"),
        (["--target", "arm65"], "did you mean arm64"),
        (["--target", "arm64/cortex-a77"], "cortex-a76"),
        (["--shape", "image"], "is not a shape"),
        (["--shape", "picture:1,1,8,8"], "picture"),
        (["--shape", "image:1,1,9,8"], "9"),
        (["--shape", "image:1,8,8"], "image"),
        (["--data", "absent.npz"], "absent.npz"),
    ],
)
def test_a_wrong_call_is_a_usage_error(tmp_path: Path, arguments: list[str], says: str) -> None:
    result = _optimize(DIGITS, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "where:" in result.stderr and "next:" in result.stderr
    assert not list(tmp_path.iterdir())


def test_files_of_others_in_the_output_directory_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    result = _optimize(DIGITS, "-o", tmp_path)
    assert result.exit_code == 2
    assert "files of others" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _optimize(DIGITS, "-o", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_a_full_disk_leaves_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert _optimize(DIGITS, "-O1", "--no-compile", "-o", out).exit_code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planish.report.write", full)
    result = _optimize(DIGITS, "-O1", "--no-compile", "-o", out)
    assert result.exit_code == 2
    assert "disk is full" in result.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_nothing_to_change_is_exit_5_only_when_asked(tmp_path: Path) -> None:
    clean = tmp_path / "clean.onnx"
    _text("{ y = Relu(x) }")(clean)
    assert _optimize(clean, "-O1", "--dry-run").exit_code == 0
    result = _optimize(clean, "-O1", "--dry-run", "--require-change")
    assert result.exit_code == 5
    assert "no pass changed" in result.stderr


def test_a_budget_that_does_not_hold_is_exit_4_and_writes_nothing(tmp_path: Path) -> None:
    result = _optimize(DIGITS, "--target", "host", "--min-sqnr", "200", "--no-compile", "-o", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert "dB" in result.stderr and "--bisect" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seed", "-1"], "--seed"),
        (["--bisect-limit", "-1"], "--bisect-limit"),
        (["--min-sqnr", "nan"], "--min-sqnr"),
        (["--sram", "0"], "--sram"),
        (["--bisect", "--seed", "-1"], "--seed"),
        (["--print-ir-after", "fold_bn"], "its passes are: inline-functions"),
        (["--dump-ir", str(DIGITS)], "the IR cannot be dumped"),
        (["--dump-ir", "/proc/no/such"], "the IR cannot be dumped"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_exit_2(arguments: list[str], says: str) -> None:
    result = _optimize(DIGITS, "-O1", "--dry-run", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "  where: " in result.stderr and "  next:  " in result.stderr


def test_a_locale_of_few_characters_does_not_stop_a_result(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "planish.tools.optimize", str(DIGITS), "-O1", "--no-compile", "-o", "out"]
    ended = subprocess.run(command, env=os.environ | ascii_only, cwd=tmp_path, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "report.json").is_file()


def test_names_in_brackets_and_colons_are_shown_as_they_are(tmp_path: Path) -> None:
    odd = tmp_path / "[red]m:smile:.onnx"
    odd.write_bytes(DIGITS.read_bytes())
    assert "[red]m:smile:.onnx" in _optimize(odd, "-O1", "--dry-run").stdout


def test_an_interrupt_that_a_library_turns_into_another_error_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("planish.driver.preparation.captured_model", load)
    result = _optimize(DIGITS, "--dry-run")
    assert result.exit_code == 130, result.output
    assert "interrupted; nothing was written" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: int) -> None:
    big = tmp_path / "big.onnx"
    rng = np.random.default_rng(0)
    nodes = "".join(f"v{i + 1} = Add(v{i}, w{i}) " for i in range(3000))
    text = f'<ir_version: 9, opset_import: ["" : 20]> g (float[1,4] v0) => (float[1,4] v3000) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    for i in range(3000):
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=4).astype(np.float32), f"w{i}"))
    onnx.save(model, big)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "planish.tools.optimize", str(big), "-o", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=dict(os.environ))
    time.sleep(2.0)
    assert process.poll() is None, "the run must still be going on when it is interrupted"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "nothing was written" in errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx"]
