"""Kernels without a template: their schedules come from MetaSchedule's rules, and go through the database as traces."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm import kernels, parallel
from planish.backends.tvm.compile import compile_model, prepared
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.loop_nest import DEFAULT, LoopNest, Trace, replayed
from planish.backends.tvm.lower import lower
from planish.backends.tvm.program import Program
from planish.backends.tvm.tuning.candidates import Candidate
from planish.backends.tvm.tuning.cost import Measured, Outcome
from planish.backends.tvm.tuning.database import Database
from planish.backends.tvm.tuning.recall import recall
from planish.backends.tvm.tuning.traces import Traces
from planish.backends.tvm.tuning.tune import Budget, tune
from planish.backends.tvm.tuning.tuning import Tuning
from planish.ir.text import parse_model
from planish.targets.registry import resolve

TARGET = replace(resolve("host"), threads=1)
TEXT = """<ir_version: 10, opset_import: ["" : 20]>
main (float[1,64,60] x) => (float[1,64,60] y) { y = Softmax <axis = -1> (x) }"""


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return parse_model(TEXT)


@pytest.fixture(scope="module")
def program(model: ir.Model) -> Program:
    return lower(prepared(model), TARGET)[0]


@dataclass
class Statements:
    """A cost back end that counts loops: what has fewer of them is cheaper, or dearer by a negative `weight`."""

    weight: float = 1.0
    name: str = "table"
    unit: str = "cycles"
    exact: bool = True
    batch: int = 4

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        return [Measured(1000 + self.weight * str(c.function).count(" for "), "bits") for c in candidates]


def _tune(program: Program, directory: Path, cost: Statements, trials: int | None = None) -> Tuning:
    return tune(program, TARGET, cost, Database.open(directory, write=True), Budget(trials))


def test_every_trace_is_another_schedule_and_replays_to_the_same_one(program: Program) -> None:
    ((kernel, choice),) = program.nests.items()
    traces = Traces(choice.function, program.kernels[kernel], TARGET)
    known = {DEFAULT: 1.0}
    for _ in range(2):
        known |= dict.fromkeys(traces.proposals(known, 6, np.random.default_rng(0)), 1.0)
    texts = {str(choice.scheduled(trace)) for trace in known}
    assert len(texts) == len(known) > 8
    again = Traces(choice.function, program.kernels[kernel], TARGET)
    first = again.proposals({DEFAULT: 1.0}, 6, np.random.default_rng(0))
    assert first == list(known)[1:7], "the same seed makes the same traces"
    more = again.proposals(known, 6, np.random.default_rng(0))
    assert more and not set(more) & set(known)


def test_a_trace_out_of_the_database_gives_the_same_object(program: Program, tmp_path: Path) -> None:
    found = _tune(program, tmp_path, Statements(), trials=12)
    # a search that was cut short has no winner in the database: what it found best is made one
    database = Database.open(tmp_path, write=True)
    best = min((r for r in database.records if r.value is not None), key=lambda r: r.value or 0.0)
    database.append([replace(best, chosen=True)])
    ((workload, trace),) = recall(program, TARGET, Database.open(tmp_path)).configs.items()
    assert isinstance(workload, LoopNest) and trace == found.configs[workload] != DEFAULT
    (choice,) = program.nests.values()
    objects = []
    for i in range(2):
        library, _ = kernels.build({"k": choice.scheduled(trace)}, "p_", TARGET)
        library.write_to_file(str(tmp_path / f"{i}.o"), "o")
        objects.append((tmp_path / f"{i}.o").read_bytes())
    library, _ = kernels.build({"k": choice.scheduled(DEFAULT)}, "p_", TARGET)
    library.write_to_file(str(tmp_path / "default.o"), "o")
    assert objects[0] == objects[1] != (tmp_path / "default.o").read_bytes()


def test_traces_compute_the_bits_of_the_default_on_any_number_of_threads(tmp_path: Path) -> None:
    model = parse_model(TEXT.replace("1,64,60", "4,256,60"))
    (choice,) = lower(prepared(model), TARGET)[0].nests.values()
    traces = Traces(choice.function, choice.scheduled(DEFAULT), TARGET)
    some = traces.proposals({DEFAULT: 1.0}, 4, np.random.default_rng(1))
    assert all("T.parallel" in str(parallel.distribute(choice.scheduled(trace), 2)) for trace in some)
    x = np.random.default_rng(0).normal(0, 3, (4, 256, 60)).astype(np.float32)
    results = []
    for i, (trace, threads) in enumerate([(DEFAULT, 1), *((t, n) for t in some for n in (1, 2))]):
        target = replace(TARGET, threads=threads)
        compile_model(model, target, tmp_path / str(i), configs={choice.workload: trace})
        results.append(CompiledModel(tmp_path / str(i) / "model.so")(x=x)["y"])
    assert len({result.tobytes() for result in results}) == 1
    e = np.exp(x - x.max(-1, keepdims=True))
    np.testing.assert_allclose(results[0], e / e.sum(-1, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize(
    "trace", ["", "{", "[[],[]", '[[["GetSBlock",[],["nothing","main"],["b0"]]],[]]', '[[["RFactor",[],[],[]]],[]]']
)
def test_a_corrupt_trace_is_reported_and_skipped(program: Program, tmp_path: Path, trace: str) -> None:
    _tune(program, tmp_path, Statements(), trials=2)
    database = Database.open(tmp_path, write=True)
    database.append([replace(database.records[0], config={"trace": trace}, chosen=True)])
    found = recall(program, TARGET, Database.open(tmp_path))
    assert found.configs == {} and found.choices[0].source == "default"
    assert any("softmax" in note and "is skipped" in note for note in found.notes)
    (choice,) = program.nests.values()
    with pytest.raises(ValueError):
        replayed(choice.function, Trace(trace))


def test_a_kernel_that_nothing_beats_keeps_its_loops_and_says_so(program: Program, tmp_path: Path) -> None:
    class Spoilt(Statements):
        def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
            default = str(next(iter(program.kernels.values())))
            return [Measured(1.0 if str(c.function) == default else 2.0, "bits") for c in candidates]

    found = _tune(program, tmp_path, Spoilt(batch=32))
    assert found.configs == {} and found.choices[0].config == {"trace": "default"}
    assert found.choices[0].measured > 8 and found.choices[0].source == "measured"
    assert any("1 keep their own, nothing was 2 % faster" in note for note in found.notes)
    assert [json.loads(line)["config"] for line in (tmp_path / "records.jsonl").read_text().splitlines()][-1] == {
        "trace": "default"
    }
