"""`Program`: a model as tensors and kernel calls in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .control import Block, Slice

__all__ = ["ALIGNMENT", "Call", "Choice", "Program", "Tensor"]

ALIGNMENT = 64
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Tensor:
    """A dense row-major array: its name in the program, its physical shape and numpy dtype name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Call:
    """One kernel call: reads `reads`, writes `writes`, in that order of arguments; `kernel` None copies reads[0]."""

    kernel: str | None
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A kernel that can be made in several ways: its workload, and the PrimFunc of the same arguments under any config.

    function: the PrimFunc without a schedule, where no template made the kernel.
    """

    workload: Any
    scheduled: Callable[[Any], Any]
    function: Any = None


@dataclass(frozen=True)
class Part:
    """One C function of a kernel: threads share `extent` iterations, given as a range; None: one thread runs it all."""

    symbol: str
    extent: int | None = None


@dataclass(frozen=True)
class Interface:
    """How a compiled kernel is called: its functions in order, all with the same pointers.

    workspaces: bytes of the scratch that each trailing pointer is for; strides: how far apart the threads' own pieces
    of it lie, 0 where they share it.
    """

    parts: tuple[Part, ...]
    workspaces: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()


@dataclass
class Program:
    """What is compiled: kernels are TVM PrimFuncs whose arguments are the reads, then the writes, then workspaces.

    views: a tensor that is another one under a new shape; slices: where in it, if it is a part only.
    blocks: calls that run several times or on a condition, inner ones first.
    interfaces: how each kernel is called, once it is compiled.
    configs: workload -> config of kernels that have a choice; given ones are used, the others are added.
    choices: kernel of a template -> how to make it under other configs; nests: the same of the other kernels.
    requires: what a process has to ask the operating system for before it runs: `tiles` (AMX).
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    slices: dict[str, Slice] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    kernels: dict[str, Any] = field(default_factory=dict)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    configs: dict[Any, Any] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    nests: dict[str, Choice] = field(default_factory=dict)
    requires: set[str] = field(default_factory=set)
    _by_hash: dict[int, list[str]] = field(default_factory=dict)
    _loops: int = 0

    def tensor(self, stem: str, shape: tuple[int, ...], dtype: str) -> str:
        """A new working tensor; its name starts with `stem`."""
        name, n = stem, 0
        while name in self.tensors:
            n += 1
            name = f"{stem}.{n}"
        self.tensors[name] = Tensor(name, tuple(int(d) for d in shape), dtype)
        return name

    def constant(self, array: Array) -> str:
        """A read-only tensor; equal contents are stored once."""
        array = np.asarray(array, order="C")
        digest = hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()
        name = f"const.{digest}.{array.dtype}.{'x'.join(map(str, array.shape))}"
        if name not in self.constants:
            self.constants[name] = array
            self.tensors[name] = Tensor(name, array.shape, str(array.dtype))
        return name

    def view(self, source: str, shape: tuple[int, ...], dtype: str | None = None) -> str:
        """The same bytes under another shape, and another type if given."""
        name = self.tensor(f"{source}.view", shape, dtype or self.tensors[source].dtype)
        self.views[name] = source
        return name

    def slice(self, source: str, shape: tuple[int, ...], part: Slice) -> str:
        """The bytes of a part of a tensor as a tensor of its type."""
        name = self.view(source, shape)
        self.slices[name] = part
        return name

    def copy(self, source: str, to: str) -> None:
        """Append a copy of all bytes of `to`."""
        self.calls.append(Call(None, (source,), (to,)))

    @contextmanager
    def loop(self, trips: int) -> Iterator[str]:
        """The calls appended inside run `trips` times; yields the variable that counts from 0."""
        self._loops += 1
        first, variable = len(self.calls), f"i{self._loops}"
        yield variable
        self.blocks.append(Block(first, len(self.calls), variable, trips))

    @contextmanager
    def branch(self, condition: str, taken: bool) -> Iterator[None]:
        """The calls appended inside run where the bool in a tensor is `taken`."""
        first = len(self.calls)
        yield
        self.blocks.append(Block(first, len(self.calls), condition=condition, taken=taken))

    def runs(self, kernel: str) -> int:
        """How often a run of the model calls a kernel, if it takes every branch."""
        return sum(
            prod(block.trips for block in self.blocks if block.first <= i < block.stop)
            for i, call in enumerate(self.calls)
            if call.kernel == kernel
        )

    def kernel(self, function: Any, stem: str) -> str:
        """Register a PrimFunc and return its symbol; a structurally equal one is shared."""
        import tvm_ffi

        key = int(tvm_ffi.structural_hash(function))
        for known in self._by_hash.get(key, []):
            if tvm_ffi.structural_equal(self.kernels[known], function):
                return known
        symbol = f"{_identifier(stem)}_{len(self.kernels)}"
        self.kernels[symbol] = function
        self._by_hash.setdefault(key, []).append(symbol)
        return symbol

    def call(
        self, function: Any, stem: str, reads: tuple[str, ...], writes: tuple[str, ...], choice: Choice | None = None
    ) -> None:
        """Append a call of a PrimFunc; `choice` where it can be made under other configs."""
        symbol = self.kernel(function, stem)
        self.calls.append(Call(symbol, reads, writes))
        if choice is not None:
            (self.choices if choice.function is None else self.nests).setdefault(symbol, choice)

    def storage(self, name: str) -> str:
        """The tensor whose bytes a tensor lives in."""
        while name in self.views:
            name = self.views[name]
        return name

    def finish(self, outputs: dict[str, str]) -> None:
        """Declare the model outputs (name -> tensor); one that is an input, a constant or a repeat is copied."""
        taken = {tensor.name for tensor in self.inputs} | set(self.constants)
        for name, tensor in outputs.items():
            storage = self.storage(tensor)
            shape, dtype = self.tensors[tensor].shape, self.tensors[tensor].dtype
            if storage in taken or self.tensors[storage].bytes != self.tensors[tensor].bytes:
                copy = self.tensor(f"output.{name}", shape, dtype)
                self.copy(tensor, copy)
                storage = copy
            taken.add(storage)
            self.outputs.append(Tensor(storage, shape, dtype))


def _identifier(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
