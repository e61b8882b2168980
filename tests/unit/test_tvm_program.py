"""The static memory plan, shared constants and kernels, and outputs that are not computed."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from planish.backends.tvm.memory import place
from planish.backends.tvm.program import ALIGNMENT, Call, Interface, Part, Program


def _program(spans: list[tuple[int, int, int]], scratch: int = 0) -> Program:
    """Tensors of so many bytes, each written by the first call of its span and read by the last."""
    program = Program()
    steps = 1 + max(stop for _, _, stop in spans)
    names = [program.tensor(f"t{i}", (size,), "uint8") for i, (size, _, _) in enumerate(spans)]
    for step in range(steps):
        reads = tuple(name for name, (_, _, stop) in zip(names, spans, strict=True) if stop == step)
        writes = tuple(name for name, (_, start, _) in zip(names, spans, strict=True) if start == step)
        program.calls.append(Call("k", reads, writes))
    program.interfaces["k"] = Interface((Part("k"),), (scratch,) if scratch else ())
    return program


_SPANS = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 9), st.integers(0, 5)).map(lambda t: (t[0], t[1], t[1] + t[2])),
    min_size=1,
    max_size=20,
)


@given(_SPANS, st.sampled_from([0, 300]), st.sampled_from([1, 2]))
def test_tensors_alive_together_never_overlap(spans: list[tuple[int, int, int]], scratch: int, threads: int) -> None:
    program = _program(spans, scratch)
    offsets, workspaces, arena = place(program, threads)
    blocks = [(offsets[f"t{i}"], size, start, stop) for i, (size, start, stop) in enumerate(spans)]
    blocks += [(own[0], scratch, step, step) for step, own in enumerate(workspaces) if own]
    for (a, size_a, start_a, stop_a), (b, size_b, start_b, stop_b) in combinations(blocks, 2):
        if start_a <= stop_b and start_b <= stop_a:
            assert a + size_a <= b or b + size_b <= a
    assert all(offset % ALIGNMENT == 0 and offset + size <= arena for offset, size, _, _ in blocks)


def test_a_chain_needs_two_buffers_not_one_for_each_layer() -> None:
    spans = [(1024, step, step + 1) for step in range(10)]
    assert place(_program(spans))[2] == 2 * 1024


def test_halves_of_a_chain_lie_in_the_same_memory() -> None:
    """What the first of two threads writes lies before the middle of its buffer, for all sizes that take turns."""
    sizes = [4096, 512, 2048, 1024, 1024, 256]
    offsets, _, _ = place(_program([(size, step, step + 1) for step, size in enumerate(sizes)]), 2)
    for turn in (0, 1):
        assert len({offsets[f"t{i}"] + sizes[i] // 2 for i in range(turn, len(sizes), 2)}) == 1


def test_equal_constants_are_stored_once_but_types_are_kept_apart() -> None:
    program = Program()
    zeros = np.zeros(4, np.float32)
    assert program.constant(zeros) == program.constant(zeros.copy())
    assert program.constant(zeros) != program.constant(np.zeros(4, np.int32))
    assert program.constant(np.float32(1)) != program.constant(np.ones(1, np.float32)), "a scalar has no axis"


def test_an_output_that_is_an_input_or_repeated_is_copied() -> None:
    program = Program()
    x = program.tensor("x", (3,), "float32")
    program.inputs.append(program.tensors[x])
    y = program.tensor("y", (3,), "float32")
    program.calls.append(Call("k", (x,), (y,)))
    program.finish({"same": x, "y": y, "again": y})
    assert [call.kernel for call in program.calls] == ["k", None, None]
    assert len({tensor.name for tensor in program.outputs} | {x}) == 4


def test_a_view_keeps_its_source_alive() -> None:
    program = Program()
    a, b = program.tensor("a", (64,), "uint8"), program.tensor("b", (64,), "uint8")
    c = program.tensor("c", (64,), "uint8")
    program.calls.append(Call("k", (), (a,)))
    seen = program.view(a, (8, 8))
    program.calls.append(Call("k", (), (b,)))
    program.calls.append(Call("k", (b, seen), (c,)))
    offsets, _, _ = place(program)
    assert len({offsets[name] for name in (a, b, c)}) == 3
