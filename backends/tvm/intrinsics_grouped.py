"""Products of several groups at once: each lane of the sums reads the activations of its own group.

`C[i] += Σₖ A[i // share · depth + k] · B[i, k]` for `lanes` sums, of which `share` beside each other are filters of
one group. An instruction takes a vector of sums; its activations are words that are repeated, or put in order.
"""

# mypy: disable-error-code="valid-type"
# TVMScript declares buffers by calls in annotations.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

from .blocks import with_root

__all__ = ["FUSED", "MACHINES", "GroupedDot"]


@dataclass(frozen=True)
class _Machine:
    """vector: sums of an instruction; word: products that it adds up in each; types of what it reads and adds to.

    lane_words: words of a vector of which it takes one for all sums, by its place; 0 where it takes one from memory.
    """

    vector: int
    word: int
    activation: str
    weight: str = "int8"
    sums: str = "int32"
    lane_words: int = 0


# float32 numbers in a vector -> the instruction that multiplies and adds them
FUSED: Mapping[int, str] = {16: "fma16", 8: "fma8", 4: "fma4"}

# instruction -> what one takes
MACHINES: Mapping[str, _Machine] = {
    **{name: _Machine(lanes, 1, "float32", "float32", "float32") for lanes, name in FUSED.items()},
    "vpdpbusd": _Machine(16, 4, "uint8"),
    "vpmaddwd": _Machine(8, 2, "int16"),
    "sdot": _Machine(4, 4, "int8", lane_words=4),
    "smmla": _Machine(4, 4, "int8", lane_words=4),
    "smlal": _Machine(8, 1, "int8"),
}


@dataclass(frozen=True)
class GroupedDot:
    """One such product; depth: channels of a group, whole words; times: the fewest groups that are whole vectors."""

    instruction: str
    share: int
    depth: int
    times: int = 1

    @property
    def machine(self) -> _Machine:
        return MACHINES[self.instruction]

    @property
    def lanes(self) -> int:
        """Filters: whole groups and whole vectors."""
        return lcm(self.share, self.machine.vector) * self.times

    @property
    def vectors(self) -> int:
        return self.lanes // self.machine.vector

    @property
    def groups(self) -> int:
        return self.lanes // self.share

    @property
    def name(self) -> str:
        """As a tensor intrinsic."""
        return f"planish.grouped.{self.instruction}.{self.share}x{self.depth}.{self.groups}"

    def words(self, vector: int, step: int) -> list[int]:
        """The word of activations that each lane of a vector reads in a step."""
        first, steps = vector * self.machine.vector, self.depth // self.machine.word
        return [(first + lane) // self.share * steps + step for lane in range(self.machine.vector)]

    @property
    def permutations(self) -> int:
        """Instructions that put words in order: all that are no repetition of one."""
        steps = self.depth // self.machine.word
        orders = [self.words(v, k) for v in range(self.vectors) for k in range(steps)]
        return sum(len(set(order)) > 1 for order in orders)

    def register(self) -> str:
        """Make it known to TVM; returns its name."""
        from tvm.s_tir import TensorIntrin

        TensorIntrin.register(self.name, *_definition(self), override=True)
        return self.name


def _definition(dot: GroupedDot) -> tuple[object, object]:
    from tvm.script import tirx as T

    machine, share, depth, lanes, sums = dot.machine, dot.share, dot.depth, dot.lanes, dot.machine.sums
    word, steps = machine.word, depth // machine.word
    read, factors = dot.groups * depth, (steps, lanes, word)

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def description(
        A: T.Buffer((read,), machine.activation, offset_factor=1),
        B: T.Buffer(factors, machine.weight, offset_factor=1),
        C: T.Buffer((lanes,), sums, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:read], B[0:steps, 0:lanes, 0:word])
            T.writes(C[0:lanes])
            for i, k in T.grid(lanes, depth):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vi // share * depth + vk], sums) * T.cast(
                        B[vk // word, vi, vk % word], sums
                    )

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def single(
        A: T.Buffer((read,), machine.activation, offset_factor=1),
        B: T.Buffer(factors, machine.weight, offset_factor=1),
        C: T.Buffer((lanes,), sums, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:read], B[0:steps, 0:lanes, 0:word])
            T.writes(C[0:lanes])
            for i in range(lanes):
                with T.sblock("update"):
                    vi = T.axis.spatial(lanes, i)
                    C[vi] = C[vi] + T.cast(A[vi // share], sums) * T.cast(B[0, vi, 0], sums)

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def implementation(
        A: T.Buffer((read,), machine.activation, offset_factor=1),
        B: T.Buffer(factors, machine.weight, offset_factor=1),
        C: T.Buffer((lanes,), sums, offset_factor=1),
    ) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:read], B[0:steps, 0:lanes, 0:word])
            T.writes(C[0:lanes])
            T.evaluate(0)

    # TVM drops the axis of a sum of one product.
    return single if depth == 1 else description, _with_stores(implementation, dot)


def _with_stores(function: Any, dot: GroupedDot) -> Any:
    """The function with a store for each vector of sums: scripts have no loop whose iterations differ."""
    from tvm import tirx

    a, b, c = function.params
    vector, stores = dot.machine.vector, []
    for v in range(dot.vectors):
        place = tirx.Ramp(tirx.IntImm("int32", v * vector), 1, vector)
        sums = c.vload([v * vector], dtype=f"{dot.machine.sums}x{vector}")
        for k in range(dot.depth // dot.machine.word):
            weights = b.vload([k, v * vector, 0], dtype=f"{dot.machine.weight}x{vector * dot.machine.word}")
            sums = _PRODUCTS[dot.instruction](sums, _ordered(dot, a, dot.words(v, k)), weights)
        stores.append(tirx.BufferStore(c, sums, [place]))
    body = stores[0] if len(stores) == 1 else tirx.SeqStmt(stores)
    return with_root(function, body=body)


def _ordered(dot: GroupedDot, activations: Any, words: Sequence[int]) -> Any:
    """A vector of words of activations, as numbers of their size: a repeated one, or the fewest loaded and permuted."""
    from tvm import tirx

    word, kind = dot.machine.word, dot.machine.activation

    def load(first: int, count: int) -> Any:
        loaded = activations.vload([first * word], kind + (f"x{word * count}" if word * count > 1 else ""))
        return loaded if word == 1 else tirx.reinterpret("int32" + (f"x{count}" if count > 1 else ""), loaded)

    first, last, total = min(words), max(words), dot.groups * dot.depth // word
    by_lane = dot.machine.lane_words in (total, 2 * total)
    if first == last and not by_lane:
        return tirx.Broadcast(load(first, 1), len(words))
    count = total if by_lane else min(total, 1 << (last - first).bit_length())
    first = min(first, total - count)
    # TVM wants as many lanes in as out; LLVM leaves out those that are not read.
    return tirx.Shuffle([load(first, count)] * -(-len(words) // count), [w - first for w in words])


def _call(name: str, result: str, *arguments: Any) -> Any:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(result, name, *arguments)


def _vpdpbusd(sums: Any, words: Any, weights: Any) -> Any:
    from tvm import tirx

    return _call("llvm.x86.avx512.vpdpbusd.512", "int32x16", sums, tirx.reinterpret("int8x64", words), weights)


def _vpmaddwd(sums: Any, words: Any, weights: Any) -> Any:
    from tvm import tirx

    wide = tirx.Cast("int16x16", weights)
    return sums + _call("llvm.x86.avx2.pmadd.wd", "int32x8", tirx.reinterpret("int16x16", words), wide)


def _sdot(sums: Any, words: Any, weights: Any) -> Any:
    """The second factor may be a word of a vector: then nothing is copied to all lanes first."""
    from tvm import tirx

    return _call("llvm.aarch64.neon.sdot", "int32x4", sums, weights, tirx.reinterpret("int8x16", words))


def _smlal(sums: Any, words: Any, weights: Any) -> Any:
    """16-bit factors, eight products in two halves."""
    from tvm import tirx

    wide = [tirx.Cast("int16x8", vector) for vector in (weights, words)]
    halves = [
        _call("llvm.aarch64.neon.smull", "int32x4", *(tirx.Shuffle([vector], half) for vector in wide))
        for half in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    return sums + tirx.Shuffle(halves, list(range(8)))


_PRODUCTS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    **dict.fromkeys(FUSED.values(), lambda sums, words, weights: sums + words * weights),
    "vpdpbusd": _vpdpbusd,
    "vpmaddwd": _vpmaddwd,
    "sdot": _sdot,
    "smmla": _sdot,
    "smlal": _smlal,
}
