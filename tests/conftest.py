"""Settings and material for the whole suite."""

import shutil
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and slow at times; the same examples every run, so that a failure is one for everybody.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def onnx_node_cases() -> dict[str, list[Any]]:
    """ONNX's own single-operator conformance cases, by operator.

    Collected once and without a filter: `onnx` keeps one global list, which a filter would leave incomplete for all.
    """
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in collect_testcases(None) if case.model is not None and case.data_sets]
    found: dict[str, list[Any]] = {}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and not nodes[0].domain:
            found.setdefault(nodes[0].op_type, []).append(case)
    return found


@pytest.fixture(scope="session")
def cuda_emulation() -> None:
    """Skips where CUDA kernels cannot be compiled and run on the CPU."""
    from planish.backends.cuda.compiler import toolchain
    from planish.errors import PlanishError

    try:
        toolchain("sm_80")
    except PlanishError as error:
        pytest.skip(f"{error.what} ({error.hint})")
    if shutil.which("g++") is None:
        pytest.skip("the emulation needs g++")
