"""`Traces`: the schedules that MetaSchedule's rules generate for a kernel without a template, a few at a time.

Its rules and postprocessors make the space; the search, the measuring and the database are those of this package. A
point is a trace: steps, some of which sample a decision: a tile, a place to compute at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....targets.target import Target
from .. import environment
from ..blocks import is_data_parallel
from ..loop_nest import DEFAULT, Trace, replayed

__all__ = ["MOST", "Traces"]

MOST = 64  # traces of a kernel that are measured at most
_RANDOM = 0.25  # of each batch once there is something to start from
_PARENTS = 4  # the best so many have neighbours
_ATTEMPTS = 4  # for each point that is wanted: many decisions lead to the same loops
_WORK = 1.5  # times the statements that the default schedule executes: more are hardly faster, and take long to measure
_INNERMOST = 64  # iterations of an innermost loop, which may become a vector
_TILES = "SSRSRS"  # MetaSchedule's for CPUs: data-parallel and summed loops, split so often


class Traces:
    """The space of one PrimFunc. It is complete once `MOST` points were measured, or no new ones are found."""

    size = MOST

    def __init__(self, function: Any, default: Any, target: Target) -> None:
        self.function, self.target = function, target
        self._limit = _WORK * _executed(default.body)
        self._designs: list[Any] | None = None
        self._seen: set[int] = set()
        self._noted: set[Trace] = set()
        self._exhausted = False

    def config(self, fields: Mapping[str, Any]) -> Trace:
        """The trace of a record; ValueError says why it is none of this kernel's."""
        if fields.keys() != {"trace"} or not isinstance(fields["trace"], str):
            raise ValueError("its config is no trace")
        found = Trace(fields["trace"])
        if found != DEFAULT:
            replayed(self.function, found)
        return found

    def complete(self, known: Mapping[Trace, float]) -> bool:
        """Whether there is nothing left to measure."""
        return self._exhausted or len(known) > MOST

    def proposals(
        self, known: Mapping[Trace, float], count: int, rng: np.random.Generator, seeds: Sequence[Trace] = ()
    ) -> list[Trace]:
        """Up to `count` traces with loops of their own: neighbours of the best, a decision apart, and random ones."""
        count = min(count, MOST + 1 - len(known))
        if self._exhausted or count <= 0:
            return []
        if self._designs is None:
            self._designs = self._generated(int(rng.integers(1, 2**31 - 1)))
        for trace in known:
            self._note(trace)
        best = sorted((t for t in known if known[t] < np.inf and t != DEFAULT), key=lambda t: known[t])[:_PARENTS]
        parents = [self._steps(trace) for trace in best]
        found: list[Trace] = []
        for attempt in range(_ATTEMPTS * count):
            if len(found) == count:
                break
            mutate = bool(parents) and rng.random() >= _RANDOM
            source = parents[attempt % len(parents)] if mutate else self._designs[attempt % len(self._designs)]
            point = self._point(source, rng, mutate=mutate)
            if point is not None:
                found.append(point)
        self._exhausted = not found
        return found

    def _generated(self, seed: int) -> list[Any]:
        """Traces of the sketches that the rules make."""
        context = _context(_module(self.function), environment.llvm_target(self.target), seed)
        self._postprocessors = list(context.space_generator.postprocs)
        return [schedule.trace for schedule in context.generate_design_space()]

    def _steps(self, trace: Trace) -> Any:
        from tvm.s_tir import Schedule
        from tvm.s_tir.schedule import Trace as Steps

        sch = Schedule(self.function)
        Steps.apply_json_to_schedule(json.loads(trace.trace), sch)
        return sch.trace

    def _note(self, trace: Trace) -> None:
        """Remember the loops of a trace that was measured before."""
        if trace != DEFAULT and trace not in self._noted:
            self._noted.add(trace)
            self._seen.add(_hash(replayed(self.function, trace)))

    def _point(self, source: Any, rng: np.random.Generator, *, mutate: bool) -> Trace | None:
        """A schedule with all decisions of a trace made anew, or one of them; None where it brings nothing new."""
        from tvm.s_tir import Schedule
        from tvm.s_tir.schedule import Trace as Steps

        decided = list(source.decisions.items())
        kept = {}
        if mutate and decided:
            dropped = int(rng.integers(len(decided)))
            kept = dict(pair for i, pair in enumerate(decided) if i != dropped)
        sch = Schedule(self.function, seed=int(rng.integers(1, 2**31 - 1)))
        try:
            Steps(source.insts, kept).apply_to_schedule(sch, remove_postproc=True)
            sch.enter_postproc()
            if not all(process.apply(sch) for process in self._postprocessors):
                return None
        except Exception:  # whatever class of TVM's: decisions that do not go together
            return None
        made, digest = sch.mod["main"], _hash(sch.mod["main"])
        if digest in self._seen or _executed(made.body) > self._limit:
            return None
        self._seen.add(digest)
        found = Trace(json.dumps(_plain(sch.trace.simplified(False).as_json()), separators=(",", ":")))
        self._noted.add(found)
        return found


def _hash(function: Any) -> int:
    import tvm_ffi

    return int(tvm_ffi.structural_hash(function))


def _module(function: Any) -> Any:
    import tvm

    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def _context(module: Any, target: Any, seed: int) -> Any:
    """A TuneContext with our rules, made without its constructor in Python.

    That one imports TVM's tensor intrinsics for every device, none of which is used here: 40 s of parsing.
    """
    from tvm.s_tir import meta_schedule as ms

    rule, postproc = ms.schedule_rule, ms.postproc
    reuse = rule.ReuseType(req="may", levels=[1, 2], scope="global")
    rules = [
        rule.InlineConstantScalars(),
        rule.AutoInline(
            into_producer=False,
            into_consumer=True,
            inline_const_tensor=True,
            disallow_if_then_else=True,
            require_injective=True,
            require_ordered=True,
            disallow_op=["tirx.exp", "tirx.erf", "tirx.tanh", "tirx.sqrt"],
        ),
        rule.MultiLevelTiling(_TILES, max_innermost_factor=_INNERMOST, reuse_write=reuse),
        _tile_results(),
        rule.ParallelizeVectorizeUnroll(
            max_jobs_per_core=-1,  # threads share loops as they do of any kernel: `parallel.py`
            max_vectorize_extent=_INNERMOST,
            unroll_max_steps=[],  # LLVM unrolls; TVM's marks would stand on loops that threads are to share
        ),
        rule.RandomComputeLocation(),
    ]
    processes = [postproc.DisallowDynamicLoop(), postproc.RewriteParallelVectorizeUnroll()]
    processes.append(postproc.RewriteReductionBlock())
    space = ms.space_generator.PostOrderApply(sch_rules=rules, postprocs=processes, mutator_probs={})
    context = ms.TuneContext.__new__(ms.TuneContext)
    context.__init_handle_by_constructor__(ms._ffi_api.TuneContext, module, target, space, None, "main", 1, seed, None)
    ms._ffi_api.TuneContextInitialize(context)
    return context


def _tile_results() -> Any:
    """Tiles of the last two loops of blocks that make a result without sums, which MetaSchedule has no rule for."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.schedule_rule import PyScheduleRule

    @derived_object
    class TileResults(PyScheduleRule):  # type: ignore[misc]
        def _initialize_with_tune_context(self, context: Any) -> None:
            """It knows no context."""

        def apply(self, sch: Any, block: Any) -> list[Any]:
            return [_tiled(sch, block)]

        def clone(self) -> Any:
            return TileResults()

    return TileResults()


def _tiled(sch: Any, block: Any) -> Any:
    loops = sch.get_loops(block)
    stated = sch.get(block)
    plain = len(loops) == len(stated.iter_vars) and is_data_parallel(stated)
    long = [loop for loop in loops if int(sch.get(loop).extent) > 1][-2:]
    if not plain or not long or sch.get_consumers(block):
        return sch
    pairs = [sch.split(loop, sch.sample_perfect_tile(loop, 2, _INNERMOST)) for loop in long]
    sch.reorder(*(outer for outer, _ in pairs), *(inner for _, inner in pairs))
    return sch


def _executed(statement: Any) -> int:
    """How often the statements of a scheduled PrimFunc are executed; a loop in vectors counts once."""
    from tvm import tirx

    if isinstance(statement, tirx.For):
        times = 1 if int(statement.kind) == int(tirx.ForKind.VECTORIZED) else int(statement.extent)
        return times * _executed(statement.body)
    if isinstance(statement, tirx.SeqStmt):
        return sum(_executed(inner) for inner in statement.seq)
    if hasattr(statement, "iter_values"):  # a block
        return _executed(statement.block.body)
    return 1


def _plain(data: Any) -> Any:
    """Numbers of TVM's as numbers of JSON."""
    from tvm import tirx

    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, tirx.IntImm):
        return int(data)
    return float(data) if isinstance(data, tirx.FloatImm) else data
