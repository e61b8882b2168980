"""`optimize --tune` end to end: what is kept, what is reported, what is refused; arm64 with no board."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import choose, space
from planish.backends.tvm.tuning import emulator, mca
from planish.backends.tvm.tuning.candidates import Candidate, subject
from planish.backends.tvm.tuning.compare import compare
from planish.backends.tvm.tuning.cost import Failed, Measured
from planish.backends.tvm.tuning.cost_local import LocalTime
from planish.backends.tvm.tuning.cost_model import InstructionModel
from planish.backends.tvm.tuning.database import Database, Record
from planish.backends.tvm.tuning.keys import Key
from planish.errors import UsageError
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.targets.registry import resolve
from planish.targets.target import Target
from planish.tools.optimize import main
from planish.tools.tuning_db import main as tuning_db

from ..integer_layers import matmul

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def _optimize(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def _candidates(target: Target) -> list[Candidate]:
    """The kernel of a small product under every config, the default first."""
    program, _ = lower(matmul(12), target)
    ((kernel, choice),) = program.choices.items()
    found = subject(program, kernel)
    default = choose(choice.workload)
    configs = [default, *(config for config in space(choice.workload) if config != default)]
    return [Candidate(found, choice.scheduled(config)) for config in configs]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in int8; `-O0` leaves it as it is, so that runs spend their time on tuning."""
    directory = tmp_path_factory.mktemp("int8") / "out"
    passes = "synthesize-inputs,activation-ranges,prefer-faster,quantize"
    assert _optimize(DIGITS, "-o", directory, "--no-compile", "--passes", passes).exit_code == 0
    return directory / "model.onnx"


def test_a_tuned_model_is_reported_kept_and_found_again(int8: Path, tmp_path: Path) -> None:
    out, database = tmp_path / "out", tmp_path / "db"
    result = _optimize(int8, "-O0", "-o", out, "--tune", "--trials", 6, "--tuning-db", database)
    assert result.exit_code == 0, result.output
    tuning = json.loads((out / "report.json").read_text())["compiled"]["tuning"]
    assert tuning["cost"] == "local time" and tuning["unit"] == "s" and tuning["trials"] == 6
    assert tuning["kept"] in ("tuned", "untuned") and "6 trials" in tuning["stopped"]
    for row in tuning["workloads"]:
        assert row["cost"] == "local time"
        if row["value"] is not None:
            assert 0 < row["value"] <= row["default_value"] < 1e-2
    if tuning["kept"] == "tuned":
        assert tuning["tuned_s"] <= tuning["untuned_s"] and tuning["equal_bits"]
    assert "tuning by local time" in result.output
    records = [r for r in Database.open(database).records if not r.chosen]
    assert len(records) == 6

    winner = records[0]
    Database.open(database, write=True).append(
        [Record(winner.key, winner.config, winner.cost, winner.unit, winner.value, chosen=True)]
    )
    again = _optimize(int8, "-O0", "-o", tmp_path / "again", "--tuning-db", database)
    assert again.exit_code == 0, again.output
    read = json.loads((tmp_path / "again" / "report.json").read_text())["compiled"]["tuning"]
    assert read["trials"] == 0 and "database" in {row["source"] for row in read["workloads"]}
    assert any("the nearest is" in note for note in read["notes"])


def test_ctrl_c_keeps_what_was_measured_and_writes_the_model(int8: Path, tmp_path: Path) -> None:
    out, records = tmp_path / "out", tmp_path / "db" / "records.jsonl"
    command = [sys.executable, "-m", "planish.tools.optimize", str(int8), "--tune", "-O0", "-o", str(out)]
    with subprocess.Popen([*command, "--tuning-db", str(records.parent)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(1800):
            if (records.exists() and records.stat().st_size) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    tuning = json.loads((out / "report.json").read_text())["compiled"]["tuning"]
    assert (out / "model.so").is_file()
    assert tuning["stopped"] == "interrupted"
    assert 0 < len(records.read_text().splitlines()) == tuning["trials"]


def test_a_layer_is_measured_alone_in_either_type() -> None:
    from planish.backends.tvm.tuning.backends import cost_for
    from planish.driver.layers import MeasuredLayers

    text = """<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,64,16,16] x) => (float[N,64,16,16] y) <float[64,64,3,3] w = seeded(0)>
    { a = Sin (x)  y = Conv <pads = [1,1,1,1]> (a, w) }"""
    model, target = parse_model(text), resolve("host")
    infer(model)
    layers = MeasuredLayers(target, cost_for(target))
    node = next(node for node in model.graph if node.op_type == "Conv")
    found = layers(node)
    assert found is not None and found.source == "local time" and found.unit == "s"
    assert 0 < found.quantize < 1e-8 and 0 < found.dequantize < found.quantize
    assert 0 < found.int8 < found.float32 < 1e-1, "9.4 million products: integers win wherever they have an instruction"
    assert layers(node) is found, "the same sizes are measured once"


def test_every_config_gives_the_same_bits_and_a_crash_costs_only_its_candidate() -> None:
    target = resolve("host")
    candidates = _candidates(target)
    found = LocalTime(target).measure(candidates)
    assert len({outcome.digest for outcome in found if isinstance(outcome, Measured)}) == 1
    broken = Candidate(candidates[0].subject, None)
    outcomes = LocalTime(target).measure([candidates[0], broken])
    assert isinstance(outcomes[0], Measured) and isinstance(outcomes[1], Failed)


@pytest.mark.skipif(bool(emulator.missing() or mca.missing()), reason=emulator.missing() or mca.missing())
def test_the_instruction_model_gives_the_same_figures_every_time() -> None:
    pytest.importorskip("ziglang", reason="the arm64 extra links the measuring program")
    target = resolve("arm64/neoverse-n1")
    candidates = _candidates(target)
    cost = InstructionModel(target)
    first, second = cost.measure(candidates), cost.measure(candidates[:1])
    assert cost.name == "QEMU + llvm-mca, neoverse-n1" and cost.unit == "cycles"
    assert all(isinstance(outcome, Measured) for outcome in first)
    values = [outcome.value for outcome in first if isinstance(outcome, Measured)]
    assert first[0].digest == second[0].digest
    assert first[0].value == pytest.approx(second[0].value, rel=0.01), "where the linker puts a kernel hardly matters"
    products = 12 * 32 * 64
    for value in values:  # sdot: sixteen products, two a cycle at best
        assert products / 32 < value < products
    assert max(values) > 1.2 * min(values), "tiles differ in what they load"


def test_what_takes_twice_as_long_is_estimated_at_twice_the_cycles() -> None:
    if why := mca.missing():
        pytest.skip(why)
    fmla = 0x4E20CC20  # fmla v0.4s, v1.4s, v0.4s: each waits for the one before
    once = mca.cycles([(fmla,)], "neoverse-n1")[(fmla,)]
    twice = mca.cycles([(fmla, fmla)], "neoverse-n1")[(fmla, fmla)]
    assert mca.disassemble([fmla])[fmla] == "fmla v0.4s, v1.4s, v0.4s"
    assert once > 1 and 1.9 < twice / once < 2.1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trials", "5"], "give --tune with it"),
        (["--tune", "--rpc", "localhost:1"], "--rpc and --key belong together"),
        (["--tune", "--rpc", "nowhere", "--key", "pi"], "HOST:PORT"),
        (["--tune", "--no-compile"], "nothing to tune"),
        (["--tune", "--time", "ten"], "not a time"),
        (["--tune", "--trials", "-1"], "--trials"),
        (["--tune", "--target", "ethos-u55-128"], "no kernels to tune"),
        (["--tune", "--target", "arm64/cortex-a77"], "cortex-a76"),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(tmp_path: Path, arguments: list[str], says: str) -> None:
    result = _optimize(DIGITS, "-o", tmp_path / "out", "--tuning-db", tmp_path / "db", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_database_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = _optimize(DIGITS, "-o", tmp_path / "out", "--tune", "--tuning-db", tmp_path / "file")
    assert result.exit_code == 2 and "tuning database cannot be written" in result.stderr
    assert "where:" in result.stderr and "--tuning-db" in result.stderr


@pytest.mark.parametrize("tool", ["qemu-aarch64", "llvm-mca"])
def test_a_missing_tool_is_named_with_what_installs_it(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith(tool) else which(name))
    monkeypatch.setattr(emulator, "_takes_plugins", lambda _: True)
    mca._tool.cache_clear()
    try:
        with pytest.raises(UsageError, match=tool) as caught:
            InstructionModel(resolve("arm64/neoverse-n1"))
    finally:
        mca._tool.cache_clear()
    assert "apt install" in caught.value.what and "--rpc" in caught.value.hint


def test_databases_are_merged_from_the_command_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        key = Key({"kind": "Workload", "filters": 8}, name, "v")
        Database.open(tmp_path / name, write=True).append([Record(key, {"n": 1}, "local time", "s", 1e-6, chosen=True)])
    arguments = ["merge", str(tmp_path / "a"), str(tmp_path / "b")]
    assert "1 records added" in CliRunner().invoke(tuning_db, arguments).output
    assert "0 records added" in CliRunner().invoke(tuning_db, arguments).output
    shown = CliRunner().invoke(tuning_db, ["show", str(tmp_path / "a")]).output
    assert shown.count("1 records") == 2 and "filters 8" in shown


def test_two_forms_of_a_model_are_compared_by_bits_and_by_time(tmp_path: Path) -> None:
    from planish.backends.tvm.compile import compile_model

    for seed, name in enumerate(("one", "other")):
        compile_model(matmul(12, seed), resolve("host"), tmp_path / name)
    paths = [tmp_path / name / "model.so" for name in ("one", "other")]
    same, different = compare(paths[0], paths[0], "model"), compare(*paths, "model")
    assert same.equal and not different.equal
    assert 0 < same.first < 1e-2 and 0.2 < same.first / same.second < 5
