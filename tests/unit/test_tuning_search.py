"""The search finds the cheapest config, stops when told, goes on where it stopped, and trusts no wrong bits."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.workload import choose, space
from planish.backends.tvm.program import Program
from planish.backends.tvm.tuning.candidates import Candidate
from planish.backends.tvm.tuning.cost import Failed, Measured, Outcome, Unavailable
from planish.backends.tvm.tuning.database import Database
from planish.backends.tvm.tuning.recall import recall
from planish.backends.tvm.tuning.search import EXHAUSTIVE, proposals
from planish.backends.tvm.tuning.tune import Budget, tune
from planish.backends.tvm.tuning.tuning import Tuning
from planish.targets.registry import resolve

from ..integer_layers import conv

TARGET = resolve("arm64/neoverse-n1")


@pytest.fixture(scope="module")
def program() -> Program:
    """One convolution, as its template makes it; the kernels around it are left out."""
    return replace(lower(conv(), TARGET)[0], nests={})


@dataclass
class Table:
    """A cost back end that makes figures up from the text of a kernel, always the same ones."""

    name: str = "table"
    unit: str = "cycles"
    exact: bool = True
    batch: int = 4
    seen: list[float] = field(default_factory=list)
    outcome: Callable[[float], Outcome] = lambda value: Measured(value, "bits")

    def value(self, function: object) -> float:
        return 100.0 + zlib.crc32(str(function).encode()) % 1000

    def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
        values = [self.value(candidate.function) for candidate in candidates]
        self.seen += values
        return [self.outcome(value) for value in values]


def _tune(program: Program, directory: Path, cost: Table, budget: Budget = Budget(), **rest: object) -> Tuning:  # noqa: B008
    return tune(program, TARGET, cost, Database.open(directory, write=True), budget, **rest)  # type: ignore[arg-type]


def _values(program: Program, cost: Table) -> dict[object, float]:
    """What the table says of every config."""
    ((_, choice),) = program.choices.items()
    return {config: cost.value(choice.scheduled(config)) for config in space(choice.workload)}


def test_a_complete_search_finds_the_cheapest_config(program: Program, tmp_path: Path) -> None:
    found = _tune(program, tmp_path, Table())
    values = _values(program, Table())
    ((workload, config),) = found.configs.items()
    assert values[config] == min(values.values()) < values[choose(workload)]
    assert found.trials == len(values) and not found.stopped
    (row,) = found.choices
    assert (row.value, row.default_value) == (min(values.values()), values[choose(workload)])
    assert (row.cost, row.unit, row.source) == ("table", "cycles", "measured")


def test_nothing_is_measured_a_second_time(program: Program, tmp_path: Path) -> None:
    first, again = _tune(program, tmp_path, Table()), Table()
    second = _tune(program, tmp_path, again)
    assert again.seen == [] and second.trials == 0
    assert second.configs == first.configs
    assert second.choices[0].source == "database"
    assert recall(program, TARGET, Database.open(tmp_path)).configs == first.configs


def test_a_search_that_was_cut_short_goes_on_where_it_stopped(program: Program, tmp_path: Path) -> None:
    short = _tune(program, tmp_path, Table(), Budget(trials=6))
    assert short.trials == 6 and "6 trials" in short.stopped
    assert len(Database.open(tmp_path).records) == 6
    rest = Table()
    complete = _tune(program, tmp_path, rest)
    values = _values(program, Table())
    assert complete.trials == len(values) - 6 + 1, "the default is measured anew: its bits are what others must equal"
    assert values[next(iter(complete.configs.values()))] == min(values.values())


def test_stopping_keeps_what_was_measured(program: Program, tmp_path: Path) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    found = _tune(program, tmp_path, Table(), stop=stop)
    assert found.stopped == "interrupted"
    records = Database.open(tmp_path).records
    assert 0 < len(records) == found.trials < len(_values(program, Table()))
    best = min(record.value for record in records if record.value is not None)
    assert found.choices[0].value == best and found.choices[0].source == "stopped"


def test_a_config_with_other_bits_never_wins(program: Program, tmp_path: Path) -> None:
    values = _values(program, Table())
    cheapest = min(values.values())
    wrong = Table(outcome=lambda value: Measured(value, "other" if value == cheapest else "bits"))
    found = _tune(program, tmp_path, wrong)
    assert found.choices[0].value == sorted(values.values())[1]
    bad = [record for record in Database.open(tmp_path).records if record.value is None]
    assert len(bad) == 1 and "differ" in bad[0].why


def test_configs_that_cannot_be_measured_are_recorded_and_lose(program: Program, tmp_path: Path) -> None:
    values = _values(program, Table())
    cheapest = min(values.values())
    failing = Table(outcome=lambda v: Failed("it crashed") if v == cheapest else Measured(v, "bits"))
    assert _tune(program, tmp_path, failing).choices[0].value == sorted(values.values())[1]
    assert [r.why for r in Database.open(tmp_path).records if r.value is None] == ["it crashed"]


def test_a_back_end_that_dies_ends_the_search_with_what_there_is(program: Program, tmp_path: Path) -> None:
    class Dying(Table):
        def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
            if len(self.seen) >= 5:
                raise Unavailable("no board answers any more", where="--rpc", hint="check the boards")
            return super().measure(candidates, careful=careful)

    found = _tune(program, tmp_path, Dying())
    assert found.stopped == "no board answers any more"
    assert any("check the boards" in note for note in found.notes)
    assert len(Database.open(tmp_path).records) == 5


def test_noisy_figures_are_settled_in_one_final_run(program: Program, tmp_path: Path) -> None:
    """In the search a slow config looks fast by luck; the final beside the default finds out."""
    values = _values(program, Table())
    default = values[choose(next(iter(program.choices.values())).workload)]
    slow = max(values.values())

    class Noisy(Table):
        def measure(self, candidates: Sequence[Candidate], *, careful: bool = False) -> list[Outcome]:
            found = [self.value(candidate.function) for candidate in candidates]
            if careful:
                return [Measured(v if v == slow else default, "bits") for v in found]
            return [Measured(1.0 if v == slow else v, "bits") for v in found]

    found = _tune(program, tmp_path, Noisy(exact=False))
    assert found.configs == {}
    assert found.choices[0].value == found.choices[0].default_value == default


def test_a_miss_is_noted_with_the_nearest_record(program: Program, tmp_path: Path) -> None:
    _tune(program, tmp_path, Table())
    other = replace(lower(conv(filters=48), TARGET)[0], nests={})
    found = recall(other, TARGET, Database.open(tmp_path))
    assert found.configs == {} and found.choices[0].source == "default"
    assert any("filters 48" in note and "nearest is" in note and "filters 24" in note for note in found.notes)


@dataclass(frozen=True)
class _Point:
    x: int
    y: int


def test_a_large_space_is_searched_along_neighbours_and_not_whole() -> None:
    points = [_Point(x, y) for x in range(16) for y in range(16)]
    assert len(points) > EXHAUSTIVE
    rng = np.random.default_rng(0)
    known: dict[_Point, float] = {_Point(15, 15): 450.0}
    for _ in range(8):
        for point in proposals(points, known, 8, rng):
            assert point not in known
            known[point] = float(point.x**2 + point.y**2)
    assert len(known) == 65
    assert min(known.values()) <= 5, "a quarter of the space is enough to come near the valley"
    assert proposals(points, known, 4, rng, seeds=[_Point(0, 1)])[0] in (_Point(0, 1), *points)


def test_failed_configs_are_no_parents() -> None:
    points = [_Point(x, y) for x in range(16) for y in range(16)]
    known = {_Point(3, 3): math.inf}
    assert len(proposals(points, known, 4, np.random.default_rng(0))) == 4


def test_a_loop_that_the_end_of_a_page_cuts_is_counted_as_one_block() -> None:
    """Entered from above once and by its own branch nine times: two blocks fall into what lies on the next page."""
    from planish.backends.tvm.tuning.emulator import joined

    nop, add, back = 0xD503201F, 0x91000400, 0x54FFFFC1  # the last: b.ne to the word after the first
    runs = [(0, 1, (nop, add)), (4, 9, (add,)), (8, 10, (add, back))]
    assert joined(runs) == {(nop, add, add, back): 1, (add, add, back): 9}
