"""PrimFuncs to one object file of plain C functions: `void name(const T *read, …, T *write, …, T *workspace, …)`.

TVM's own packed convention needs its runtime; here every argument is a bare pointer and large scratch buffers become
arguments, so that the object needs nothing but libm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ...targets.target import Target
from . import environment

__all__ = ["STACK_LIMIT", "assembly", "build"]

STACK_LIMIT = 2048  # bytes; register tiles stay below, and LLVM turns them into registers only on the stack
_KEEP = "disable_lower_builtin"  # keeps TVM from turning an allocation into a call of its runtime
_UNPACKED = 1  # any calling convention but the default keeps TVM from adding its packed wrapper


def build(kernels: Mapping[str, Any], prefix: str, target: Target) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Compile scheduled PrimFuncs; returns the LLVM module and the workspace bytes of each kernel.

    Symbols are `prefix` + name. The module is written with `write_to_file(path, "o")`.
    """
    tvm = environment.load()
    machine = environment.llvm_target(target)
    machine = machine.with_host(machine)
    named = {
        name: function.with_attrs({"global_symbol": prefix + name, "tirx.noalias": True})
        for name, function in kernels.items()
    }
    module = tvm.tirx.transform.BindTarget(machine)(tvm.IRModule(named))
    with machine:
        module = tvm.transform.Sequential(_lowering(tvm))(module)
    workspaces: dict[str, tuple[int, ...]] = {}
    plain = {}
    for variable, function in module.functions.items():
        plain[variable.name_hint], workspaces[variable.name_hint] = _unpack(tvm, function)
    transform = tvm.tirx.transform
    module = tvm.transform.Sequential([transform.LowerTVMBuiltin(), transform.LowerIntrin()])(tvm.IRModule(plain))
    return tvm.get_global_func("target.build.llvm")(module, machine), workspaces


def assembly(library: Any) -> str:
    """The assembly text of a built module."""
    return str(library.inspect_source("asm"))


def _lowering(tvm: Any) -> list[Any]:
    """TVM's s_tir pipeline for a CPU, up to but without MakePackedAPI."""
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
    ]


def _unpack(tvm: Any, function: Any) -> tuple[Any, tuple[int, ...]]:
    """Bare pointers for arguments; scratch above the stack limit moves from the body to trailing arguments."""
    tirx = tvm.tirx
    arguments: list[Any] = []
    sizes: list[int] = []

    def pointer(buffer: Any, suffix: str) -> Any:
        kind = tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)))
        arguments.append(tirx.Var(f"{buffer.name}{suffix}", kind))
        return tirx.DeclBuffer(buffer, data=arguments[-1])

    def place(buffer: Any) -> Any:
        size = prod(int(extent) for extent in buffer.shape) * _itemsize(str(buffer.dtype))
        if size <= STACK_LIMIT:
            return tirx.AllocBuffer(buffer, {_KEEP: tirx.IntImm("bool", 1)})
        sizes.append(size)
        return pointer(buffer, "_workspace")

    declared = [pointer(buffer, "_pointer") for buffer in function.params]
    body = _with_allocations(tirx, function.body, place)
    plain = tirx.PrimFunc(arguments, tirx.SeqStmt([*declared, body]), function.ret_type, function.attrs)
    return plain.with_attr("calling_conv", _UNPACKED), tuple(sizes)


def _itemsize(dtype: str) -> int:
    """Bytes of an element; TVM writes vectors as `float32x16`."""
    scalar, _, lanes = dtype.partition("x")
    return np.dtype(scalar).itemsize * int(lanes or 1)


def _with_allocations(tirx: Any, statement: Any, place: Callable[[Any], Any]) -> Any:
    """The statement with every AllocBuffer replaced by `place(buffer)`."""
    if isinstance(statement, tirx.AllocBuffer):
        return place(statement.buffer)
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_with_allocations(tirx, s, place) for s in statement.seq])
    if isinstance(statement, tirx.For):
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            statement.kind,
            _with_allocations(tirx, statement.body, place),
            statement.thread_binding,
            statement.annotations,
            statement.step,
        )
    if isinstance(statement, tirx.AttrStmt):
        body = _with_allocations(tirx, statement.body, place)
        return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)
    if isinstance(statement, tirx.IfThenElse):
        cases = [statement.then_case, statement.else_case]
        then, other = (None if case is None else _with_allocations(tirx, case, place) for case in cases)
        return tirx.IfThenElse(statement.condition, then, other)
    return statement
