"""PrimFuncs to CUDA source, and what is launched, with which arguments, for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import PlanishError
from ...targets.target import Target
from ..tvm.program import Interface
from . import environment

__all__ = ["Launch", "Source", "build"]

_PRELUDE = [Path(__file__).with_name(name) for name in ("prelude.cuh", "float16.cuh")]
_DEVICE = 2  # TVM's calling convention of a kernel
_AXES = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z")


@dataclass(frozen=True)
class Launch:
    """One kernel of a PrimFunc: `arguments` are positions in the PrimFunc's arguments, workspaces behind them.

    sizes: blocks in x, y, z, then threads in x, y, z.
    """

    symbol: str
    arguments: tuple[int, ...]
    sizes: tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Source:
    """The CUDA source of a program; PrimFunc -> its launches in order, and the bytes of its workspaces."""

    text: str
    launches: Mapping[str, tuple[Launch, ...]]
    interfaces: Mapping[str, Interface]


def build(kernels: Mapping[str, Any], target: Target) -> Source:
    """Lower scheduled PrimFuncs to one CUDA source; symbols are the PrimFuncs' names with TVM's suffixes."""
    tvm = environment.load()
    machine = environment.tvm_target(target)
    named = {
        name: function.with_attrs({"global_symbol": name, "tirx.noalias": True}) for name, function in kernels.items()
    }
    module = tvm.tirx.transform.BindTarget(machine)(tvm.IRModule(named))
    with machine:
        module = tvm.transform.Sequential(_lowering(tvm))(module)
        functions = {variable.name_hint: function for variable, function in module.functions.items()}
        device = {name: f for name, f in functions.items() if int(f.attrs.get("calling_conv", 0)) == _DEVICE}
        finish = [tvm.tirx.transform.LowerWarpMemory(), tvm.tirx.transform.StmtSimplify()]
        finish.append(tvm.tirx.transform.LowerIntrin())
        text = _generate(tvm, tvm.transform.Sequential(finish)(tvm.IRModule(device)), machine)
    found = {name: _launches(tvm, functions[name]) for name in kernels}
    return Source(
        _tidy(text),
        {name: launches for name, (launches, _) in found.items()},
        {name: Interface((), sizes, (0,) * len(sizes)) for name, (_, sizes) in found.items()},
    )


def _lowering(tvm: Any) -> list[Any]:
    """TVM's s_tir pipeline, up to kernels apart from the code that launches them."""
    block, flat = tvm.s_tir.transform, tvm.tirx.transform
    return [
        block.CanonicalizeLoop(),
        block.LowerCrossThreadReduction(),
        block.LowerInitBlock(),
        block.PlanAndUpdateBufferAllocationLocation(),
        block.ConvertBlocksToOpaque(),
        block.LiftThreadBinding(),
        block.CompactBufferAllocation(),
        block.UnifyThreadBinding(),
        block.LowerMatchBuffer(),
        block.StmtSimplify(),
        block.LowerOpaqueBlock(),
        flat.FlattenBuffer(),
        flat.BF16ComputeLegalize(),
        flat.NarrowDataType(32),
        block.LoopPartition(),
        flat.VectorizeLoop(True),
        block.InjectVirtualThread(),
        block.HoistIfThenElse(),
        flat.UnrollLoop(),
        block.RenormalizeSplitPattern(),
        flat.StmtSimplify(),
        flat.RemoveNoOp(),
        block.RewriteUnsafeSelect(),
        flat.CommonSubexprElim(),
        flat.VerifyMemory(),
        flat.AnnotateEntryFunc(),
        block.ThreadSync("shared"),
        block.ThreadSync("shared.dyn"),
        block.ThreadSync("warp"),
        block.InferFragment(),
        block.LowerThreadAllreduce(),
        block.MergeSharedMemoryAllocations(),
        flat.SplitHostDevice(),
        flat.BF16StorageLegalize(),
    ]


def _generate(tvm: Any, device: Any, machine: Any) -> str:
    """CUDA source of kernels; where there is a GPU, TVM would also compile it, with options of its own."""
    name, sources = "tvm_callback_cuda_compile", []
    original = tvm.get_global_func(name, allow_missing=True)

    def keep(source: str, _target: object = None) -> bytes:
        sources.append(source)
        return b"\0"

    tvm.register_global_func(name, keep, override=True)
    try:
        module = tvm.get_global_func("target.build.cuda")(device, machine)
    finally:
        if original is not None:
            tvm.register_global_func(name, original, override=True)
    return sources[0] if sources else str(module.inspect_source())


def _tidy(text: str) -> str:
    """The kernels behind our prelude in place of TVM's, which wants a toolkit's headers; without its declarations."""
    kernels = text[text.index('extern "C" __global__') :]
    kernels = re.sub(r"^extern \"C\" __global__ [^{]*\);\n", "", kernels, flags=re.MULTILINE)
    return "\n".join([*(part.read_text(encoding="utf-8") for part in _PRELUDE), kernels])


def _launches(tvm: Any, function: Any) -> tuple[tuple[Launch, ...], tuple[int, ...]]:
    """What the host part of a PrimFunc launches, and the bytes of what it allocates for that."""
    positions = {buffer: position for position, buffer in enumerate(function.params)}
    sizes: list[int] = []
    launches: list[Launch] = []
    for statement in _statements(tvm.tirx, function.body):
        if isinstance(statement, tvm.tirx.DeclBuffer):
            positions[statement.buffer] = positions[statement.data.args[0]]  # the same bytes under another shape
        elif isinstance(statement, tvm.tirx.AllocBuffer):
            buffer = statement.buffer
            positions[buffer] = len(function.params) + len(sizes)
            sizes.append(prod(int(extent) for extent in buffer.shape) * _itemsize(str(buffer.dtype)))
        elif isinstance(statement, tvm.tirx.Evaluate):
            launches.append(_launch(statement.value, positions))
        else:
            raise PlanishError(
                f"the schedule of a kernel leaves a {type(statement).__name__} on the host",
                where=f"CUDA back end, {function.attrs['global_symbol']}",
                hint="model.onnx runs in ONNX Runtime; please report the model",
            )
    return tuple(launches), tuple(sizes)


def _statements(tirx: Any, statement: Any) -> Iterator[Any]:
    """The statements of a host body, which is straight-line code."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            yield from _statements(tirx, part)
    elif isinstance(statement, tirx.AttrStmt):
        yield from _statements(tirx, statement.body)
    else:
        yield statement


def _launch(call: Any, positions: Mapping[Any, int]) -> Launch:
    symbol, *rest = call.args
    axes = [str(axis) for axis in call.attrs["launch_params"]]
    arguments, extents = rest[: len(rest) - len(axes)], rest[len(rest) - len(axes) :]
    found = dict(zip(axes, map(int, extents), strict=True))
    sizes = tuple(found.get(axis, 1) for axis in _AXES)
    assert len(sizes) == 6
    return Launch(str(symbol.value), tuple(positions[argument.args[0]] for argument in arguments), sizes)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
