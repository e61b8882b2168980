"""Kernels in parts for threads: outer loops marked parallel, then cut out as functions of a range of iterations.

A part is one loop nest of a kernel whose outer loop is parallel, of which threads run ranges and meet at a barrier
before the next part, or all that lies between two of them: what is small, or sums along its outer loop, stays whole and
runs on one thread. Ranges change which thread computes a result and nothing else, so results have the same bits for any
number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from math import prod
from typing import Any

from .blocks import is_summed, with_root
from .expressions import is_choice, operands

__all__ = ["SMALLEST", "distribute", "flat", "is_parallel", "parts", "pays"]

# Cycles of a loop that is shared. What one thread computes alone it fetches from the caches of those that wrote it, and
# they fetch its results: a concatenation of 4 µs took 9 so.
SMALLEST = 512
# Whether a model gains is judged by its larger loops, in instructions; each loses twice what was measured on two idle
# cores, 1 µs, by meeting and by results that move between the cores' caches.
_LARGE = 8192
_MEETING = 10000
_LEAST_GAIN = 0.2  # of a run, below which one thread runs all of it
_TILE = 8  # an instruction on tile registers takes as long as so many others
_LANES = 16  # innermost loops that nobody made vectors of: LLVM does, of bytes for the most part
_SHARES = 16  # iterations for each thread, so that unequal shares differ by little


def distribute(function: Any, threads: int) -> Any:
    """The scheduled PrimFunc with the outer data-parallel loops of each large loop nest as one parallel loop.

    Schedule.parallel is not used: it refuses loops around tensorized blocks.
    """
    from tvm.s_tir import Schedule

    if threads == 1:
        return function
    sch = Schedule(function)
    nests: list[Any] = []
    for block in sch.get_child_blocks(sch.get_sblock(function.body.block.name_hint)):
        loops = sch.get_loops(block)
        if not loops or any(sch.get(loops[0]).same_as(sch.get(other)) for other, _ in nests):
            continue
        shared = _shared(sch, loops, threads)
        nests.append((sch.fuse(*shared) if len(shared) > 1 else loops[0], bool(shared)))
    chosen = [sch.get(loop) for loop, shared in nests if shared]
    return _marked(sch.mod["main"], chosen) if chosen else function


def pays(kernels: Sequence[tuple[Any, int]], threads: int) -> bool:
    """Whether threads that share the loops of kernels are expected to end a run sooner; each with its calls a run."""
    whole = gain = 0.0
    for function, calls in kernels:
        shared = [_instructions(loop) for loop in _parallel(distribute(function, threads).body)]
        whole += calls * _instructions(function.body)
        gain += calls * sum(cycles * (1 - 1 / threads) - _MEETING for cycles in shared if cycles >= _LARGE)
    return gain > _LEAST_GAIN * whole


def _parallel(statement: Any) -> Iterator[Any]:
    """The loops that threads share, in a function that is scheduled or lowered."""
    from tvm import tirx

    if is_parallel(tirx, statement):
        yield statement
    elif isinstance(statement, tirx.SeqStmt):
        for inner in statement.seq:
            yield from _parallel(inner)
    elif hasattr(statement, "iter_values"):
        yield from _parallel(statement.block.body)
    elif isinstance(statement, tirx.For):
        yield from _parallel(statement.body)


def _marked(function: Any, chosen: list[Any]) -> Any:
    """The function with these outermost loops made parallel."""
    from tvm import tirx

    def mark(statement: Any) -> Any:
        if isinstance(statement, tirx.SeqStmt):
            return tirx.SeqStmt([mark(inner) for inner in statement.seq])
        if any(statement.same_as(loop) for loop in chosen):
            kind = tirx.ForKind.PARALLEL
            return tirx.For(statement.loop_var, statement.min, statement.extent, kind, statement.body)
        return statement

    return with_root(function, body=mark(function.body.block.body))


def _shared(sch: Any, loops: list[Any], threads: int) -> list[Any]:
    """The outermost loops to share: as few as give every thread enough iterations; none where that is not worth it."""
    nest = sch.get(loops[0])
    if _instructions(nest) < SMALLEST:
        return []
    summed = set(_summed(nest))
    found: list[Any] = []
    for loop in loops:
        stated = sch.get(loop)
        if int(stated.kind) != 0 or stated.loop_var in summed:
            break
        found.append(loop)
        if prod(int(sch.get(one).extent) for one in found) >= threads * _SHARES or not _is_loop(stated.body):
            break
    return found if prod(int(sch.get(loop).extent) for loop in found) >= threads else []


def _is_loop(statement: Any) -> bool:
    from tvm import tirx

    return isinstance(statement, tirx.For)


def _instructions(statement: Any) -> int:
    """About how many vector instructions a loop nest executes: the operations of its statements, but for indices."""
    from tvm import tirx

    if isinstance(statement, tirx.For):
        extent = int(statement.extent)
        if int(statement.kind) == int(tirx.ForKind.VECTORIZED):
            extent = 1
        elif _is_innermost(statement.body):
            extent = -(-extent // _LANES)
        return extent * _instructions(statement.body)
    if isinstance(statement, tirx.SeqStmt):
        return sum(_instructions(inner) for inner in statement.seq)
    if hasattr(statement, "iter_values"):  # a block, as it is scheduled
        return _instructions(statement.block.body)
    if isinstance(statement, tirx.Evaluate):
        return _TILE
    return max(1, _operations(statement.value)) if isinstance(statement, tirx.BufferStore) else 1


def _is_innermost(statement: Any) -> bool:
    """Nothing but a store, in a block or not."""
    from tvm import tirx

    inside = statement.block.body if hasattr(statement, "iter_values") else statement
    return isinstance(inside, tirx.BufferStore)


def _operations(value: Any, *, added: bool = False) -> int:
    """Operations of an expression, with loads and products that are `added` to something as parts of others.

    Conditions are not counted: they leave the inner loops.
    """
    from tvm import tirx

    inside = operands(value)[1 if is_choice(value) or isinstance(value, tirx.Select) else 0 :]
    own = 1 if inside and not (added and isinstance(value, tirx.Mul)) else 0
    return own + sum(_operations(part, added=isinstance(value, tirx.Add)) for part in inside)


def _summed(statement: Any) -> Iterator[Any]:
    """Loop variables over which some block under the statement sums."""
    from tvm import tirx

    if isinstance(statement, tirx.SeqStmt):
        for inner in statement.seq:
            yield from _summed(inner)
    elif isinstance(statement, tirx.For):
        yield from _summed(statement.body)
    elif hasattr(statement, "iter_values"):
        for axis, value in zip(statement.block.iter_vars, statement.iter_values, strict=True):
            if is_summed(axis):
                yield from tirx.analysis.undefined_vars(value)


def parts(tvm: Any, function: Any) -> list[tuple[Any, int | None]]:
    """The lowered function's shared loop nests and what lies between them, in order, and their shared extents.

    Each stands behind the declarations that it needs. A shared nest gets two trailing arguments, the first iteration
    and the one behind the last. Without one, the function stays whole.
    """
    tirx = tvm.tirx
    statements = list(flat(tirx, function.body))
    if not any(is_parallel(tirx, statement) for statement in statements):
        return [(function, None)]
    bound = list(takewhile(lambda s: isinstance(s, (tirx.AllocBuffer, tirx.DeclBuffer, tirx.Bind)), statements))
    declared = [s for s in statements[len(bound) :] if isinstance(s, (tirx.AllocBuffer, tirx.DeclBuffer))]

    def whole(body: list[Any], *more: Any) -> Any:
        sequence = tirx.SeqStmt([*bound, *declared, *body])
        return tirx.PrimFunc([*function.params, *more], sequence, function.ret_type, function.attrs)

    found: list[tuple[Any, int | None]] = []
    between: list[Any] = []
    for statement in statements[len(bound) :]:
        if isinstance(statement, (tirx.AllocBuffer, tirx.DeclBuffer)):
            continue
        if not is_parallel(tirx, statement):
            between.append(statement)
            continue
        setup: list[Any] = []  # what sets up the thread for the nest
        while between and isinstance(between[-1], tirx.Evaluate):
            setup.insert(0, between.pop())
        if between:
            found.append((whole(between), None))
        start, stop = (tirx.Var(name, "int32") for name in ("start", "stop"))
        body = tirx.For(statement.loop_var, start, stop - start, tirx.ForKind.SERIAL, statement.body)
        found.append((whole([*setup, body], start, stop), int(statement.extent)))
        between = []
    return [*found, (whole(between), None)] if between else found


def is_parallel(tirx: Any, statement: Any) -> bool:
    """The statement is a loop that threads share."""
    return isinstance(statement, tirx.For) and int(statement.kind) == int(tirx.ForKind.PARALLEL)


def flat(tirx: Any, statement: Any) -> Iterator[Any]:
    """The statements of nested sequences, in order."""
    if isinstance(statement, tirx.SeqStmt):
        for inner in statement.seq:
            yield from flat(tirx, inner)
    else:
        yield statement
