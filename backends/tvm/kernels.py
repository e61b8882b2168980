"""PrimFuncs to one object file of plain C functions: `void name(const T *read, …, T *write, …, T *workspace, …)`.

TVM's own packed convention needs its runtime; here every argument is a bare pointer and large scratch buffers become
arguments, so that the object needs nothing but libm. For a target with several threads a kernel is several functions,
each with a range of iterations behind its pointers where threads share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...targets.target import Target
from . import environment, parallel
from .llvm_functions import with_functions
from .program import ALIGNMENT, Interface, Part

__all__ = ["STACK_LIMIT", "assembly", "build", "build_parts"]

STACK_LIMIT = 2048  # bytes; register tiles stay below, and LLVM turns them into registers only on the stack
_KEEP = "disable_lower_builtin"  # keeps TVM from turning an allocation into a call of its runtime
# A core that writes to the end of its scratch fetches lines behind it in advance, up to the end of a page: off another
# core, which then has to fetch them back.
_PAGE = 4096
_UNPACKED = 1  # any calling convention but the default keeps TVM from adding its packed wrapper


def build(kernels: Mapping[str, Any], prefix: str, target: Target) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """`build_parts` for one thread: one function a kernel, `prefix` + name, and the bytes of its workspaces."""
    library, interfaces = build_parts(kernels, prefix, replace(target, threads=1))
    return library, {name: interface.workspaces for name, interface in interfaces.items()}


def build_parts(kernels: Mapping[str, Any], prefix: str, target: Target) -> tuple[Any, dict[str, Interface]]:
    """Compile scheduled PrimFuncs; returns the LLVM module and how each kernel is called.

    Symbols are `prefix` + name, with the part's number behind where a kernel has several. The module is written with
    `write_to_file(path, "o")`.
    """
    tvm = environment.load()
    machine = environment.llvm_target(target)
    machine = machine.with_host(machine)
    named = {
        name: parallel.distribute(function, target.threads).with_attrs({"global_symbol": name, "tirx.noalias": True})
        for name, function in kernels.items()
    }
    module = tvm.tirx.transform.BindTarget(machine)(tvm.IRModule(named))
    narrow = {name for name, function in kernels.items() if "bfloat16" in str(function)}
    with machine:
        module = tvm.transform.Sequential(_lowering(tvm, bfloat16=bool(narrow)))(module)
    interfaces: dict[str, Interface] = {}
    plain: dict[str, Any] = {}
    for variable, function in module.functions.items():
        name = variable.name_hint
        unpacked, scratch = _unpack(tvm, function)
        if name in narrow:
            unpacked = tvm.tirx.transform.BF16StorageLegalize()(tvm.IRModule({variable: unpacked}))[name]
        parts = parallel.parts(tvm, unpacked)
        symbols = [f"{prefix}{name}_{k}" if len(parts) > 1 else f"{prefix}{name}" for k in range(len(parts))]
        for symbol, (part, _) in zip(symbols, parts, strict=True):
            plain[symbol] = with_functions(_aligned(tvm.tirx, part)).with_attr("global_symbol", symbol)
        called = tuple(Part(symbol, extent) for symbol, (_, extent) in zip(symbols, parts, strict=True))
        interfaces[name] = _interface(called, scratch, target.threads)
    transform = tvm.tirx.transform
    module = tvm.transform.Sequential([transform.LowerTVMBuiltin(), transform.LowerIntrin()])(tvm.IRModule(plain))
    return tvm.get_global_func("target.build.llvm")(module, machine), interfaces


def _aligned(tirx: Any, function: Any) -> Any:
    """The function with what its callers promise about pointers: Hexagon would read words byte by byte."""
    body = function.body
    for argument in function.params:
        if "handle" in str(argument.ty):
            body = tirx.AttrStmt(argument, "storage_alignment", tirx.IntImm("int32", ALIGNMENT), body)
    return function.with_body(body)


def _interface(parts: tuple[Part, ...], scratch: list[tuple[int, bool]], threads: int) -> Interface:
    """Scratch that every thread has for itself lies in pieces with a gap between them."""
    gap = _PAGE if threads > 1 else 0
    strides = tuple(-(-size // ALIGNMENT) * ALIGNMENT + gap if private else 0 for size, private in scratch)
    sizes = tuple(
        stride * (threads - 1) + size if stride else size for stride, (size, _) in zip(strides, scratch, strict=True)
    )
    return Interface(parts, sizes, strides)


def assembly(library: Any) -> str:
    """The assembly text of a built module."""
    return str(library.inspect_source("asm"))


def _lowering(tvm: Any, *, bfloat16: bool) -> list[Any]:
    """TVM's s_tir pipeline for a CPU, up to but without MakePackedAPI.

    bfloat16: some kernel has such numbers. LLVM's type for them crashes TVM's code generator: they are computed in
    float32 and stored as the upper halves of it.
    """
    block, flat = tvm.s_tir.transform, tvm.tirx.transform
    return [
        block.CanonicalizeLoop(),
        block.LowerInitBlock(),
        block.PlanAndUpdateBufferAllocationLocation(),
        block.ConvertBlocksToOpaque(),
        block.CompactBufferAllocation(),
        block.LowerMatchBuffer(),
        block.StmtSimplify(),
        block.LowerOpaqueBlock(),
        flat.FlattenBuffer(),
        flat.NarrowDataType(32),
        block.LoopPartition(),
        flat.VectorizeLoop(True),
        flat.StorageRewrite(),
        block.HoistIfThenElse(),
        flat.UnrollLoop(),
        block.RenormalizeSplitPattern(),
        flat.StmtSimplify(),
        flat.RemoveNoOp(),
        block.RewriteUnsafeSelect(),
        flat.CommonSubexprElim(),
        flat.VerifyMemory(),
        *([flat.BF16ComputeLegalize()] if bfloat16 else []),
    ]


def _unpack(tvm: Any, function: Any) -> tuple[Any, list[tuple[int, bool]]]:
    """Bare pointers for arguments; scratch above the stack limit moves from the body to trailing arguments.

    Returns with the bytes of each whether every thread wants its own: scratch inside a shared loop. What lies outside
    of shared loops of the same kernel is theirs together, so it never stays on the stack.
    """
    tirx = tvm.tirx
    arguments: list[Any] = []
    scratch: list[tuple[int, bool]] = []
    shared = any(parallel.is_parallel(tirx, nest) for nest in parallel.flat(tirx, function.body))

    def pointer(buffer: Any, suffix: str) -> Any:
        kind = tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)))
        arguments.append(tirx.Var(f"{buffer.name}{suffix}", kind))
        return tirx.DeclBuffer(buffer, data=arguments[-1])

    def place(buffer: Any, inside: bool) -> Any:
        size = prod(int(extent) for extent in buffer.shape) * _itemsize(str(buffer.dtype))
        if size <= STACK_LIMIT and (inside or not shared):
            return tirx.AllocBuffer(buffer, {_KEEP: tirx.IntImm("bool", 1)})
        scratch.append((size, inside))
        return pointer(buffer, "_workspace")

    declared = [pointer(buffer, "_pointer") for buffer in function.params]
    body = _with_allocations(tirx, function.body, place)
    plain = tirx.PrimFunc(arguments, tirx.SeqStmt([*declared, body]), function.ret_type, function.attrs)
    return plain.with_attr("calling_conv", _UNPACKED), scratch


def _itemsize(dtype: str) -> int:
    """Bytes of an element; TVM writes vectors as `float32x16`."""
    scalar, _, lanes = dtype.partition("x")
    if scalar == "bfloat16":
        return 2 * int(lanes or 1)
    return np.dtype(scalar).itemsize * int(lanes or 1)


def _with_allocations(tirx: Any, statement: Any, place: Callable[[Any, bool], Any], inside: bool = False) -> Any:
    """The statement with every AllocBuffer replaced by `place(buffer, inside of a loop that threads share)`."""
    if isinstance(statement, tirx.AllocBuffer):
        return place(statement.buffer, inside)
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_with_allocations(tirx, s, place, inside) for s in statement.seq])
    if isinstance(statement, tirx.For):
        inside = inside or parallel.is_parallel(tirx, statement)
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            statement.kind,
            _with_allocations(tirx, statement.body, place, inside),
            statement.thread_binding,
            statement.annotations,
            statement.step,
        )
    if isinstance(statement, tirx.AttrStmt):
        body = _with_allocations(tirx, statement.body, place, inside)
        return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)
    if isinstance(statement, tirx.IfThenElse):
        cases = [statement.then_case, statement.else_case]
        then, other = (None if case is None else _with_allocations(tirx, case, place, inside) for case in cases)
        return tirx.IfThenElse(statement.condition, then, other)
    return statement
