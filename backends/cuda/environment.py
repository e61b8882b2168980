"""TVM with our intrinsics of GPUs, and its target for one of ours."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...targets.cuda import SHARED_BYTES
from ...targets.target import Target
from ..tvm import environment
from . import intrinsics

__all__ = ["load", "tvm_target"]


@cache
def load() -> Any:
    """The `tvm` module, with the intrinsics of `intrinsics` registered."""
    tvm = environment.load()
    intrinsics.register()
    return tvm


def tvm_target(target: Target) -> Any:
    """TVM's target; its host is never compiled for, the calls of the kernels are C of our own."""
    device = {
        "kind": "cuda",
        "arch": target.cpu,
        "max_num_threads": 1024,
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": SHARED_BYTES,
        "thread_warp_size": 32,
    }
    return load().target.Target(device, host={"kind": "llvm"})
