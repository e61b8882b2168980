"""`CUDA`: how kernels are made for GPUs."""

from __future__ import annotations

from ..tvm.machine import Machine
from ..tvm.operators import OPERATORS, conv, direct
from .environment import tvm_target
from .kernel import CudaKernel
from .products import product
from .schedule import schedule

__all__ = ["CUDA"]

CUDA = Machine(
    kernel=CudaKernel,
    operators={
        **OPERATORS,
        "conv": lambda kernel: conv.conv(kernel, product),
        "dense": lambda kernel: conv.dense(kernel, product),
        "matmul": direct.any_matmul,
    },
    target=tvm_target,
    schedule=schedule,
    branches=False,
)
