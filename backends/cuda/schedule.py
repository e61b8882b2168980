"""Loop schedules of PrimFuncs for GPUs: one thread a result, or threads that share a reduction."""

from __future__ import annotations

from math import prod
from typing import Any

from ...targets.target import Target
from ..tvm.blocks import extents
from . import environment

__all__ = ["bind_results", "schedule"]

_THREADS = 256
_SHARED_REDUCTION = 64  # products of a sum from which on threads share it, where results are few
_FEW_RESULTS = 1 << 14  # results that leave most of a GPU's threads without work


def schedule(function: Any, target: Target) -> Any:
    """A scheduled copy of the PrimFunc of float operators, by TVM's rules for GPUs."""
    return _rules(function, target)


def bind_results(function: Any, target: Target) -> Any:
    """A scheduled copy of an integer operation: `out`, and at most one reduction `acc` before it."""
    from tvm.s_tir import Schedule

    sch = Schedule(function)
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    reductions = [block for block in blocks if extents(sch, block, summed=True)]
    out = sch.get_sblock("out")
    sizes = extents(sch, out, summed=False)
    terms = prod(extents(sch, reductions[0], summed=True)) if reductions else 0
    if terms >= _SHARED_REDUCTION and prod(sizes) < _FEW_RESULTS:
        return _rules(function, target)
    for block in blocks:
        if block not in reductions and sch.get(block).name_hint != "out":
            sch.compute_inline(block)
    loops = sch.get_loops(out)
    thread = _bind(sch, sch.fuse(*loops) if loops else sch.add_unit_loop(out))
    for block in reductions:
        sch.compute_at(block, thread, preserve_unit_loops=True)
        sch.set_scope(block, 0, "local")
    return sch.mod["main"]


def _bind(sch: Any, loop: Any) -> Any:
    block, thread = sch.split(loop, [None, min(_THREADS, int(sch.get(loop).extent))])
    sch.bind(block, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    return thread


def _rules(function: Any, target: Target) -> Any:
    """TVM's rules, the first that applies; they raise on some shapes, and then the ones that take anything serve."""
    tvm = environment.load()
    from tvm.s_tir import dlight

    gpu = dlight.gpu
    module = tvm.IRModule({"main": function.with_attr("dlight.do_not_tensorize", 1)})
    with environment.tvm_target(target):
        try:
            best = (gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())
            scheduled = dlight.ApplyDefaultSchedule(*best)(module)
        except (ValueError, RuntimeError, AssertionError):
            scheduled = dlight.ApplyDefaultSchedule(gpu.Fallback())(module)
    return scheduled["main"].without_attr("tirx.is_scheduled")
