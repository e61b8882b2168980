"""`Options`: how a model is to be optimized, with what the numbers may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError

__all__ = ["PRECISIONS", "Options", "check"]

PRECISIONS = ("int8", "float32", "bfloat16", "float16")


@dataclass
class Options:
    """How a model is to be optimized; the fields are the options of the command line.

    passes: pipeline text, or a sequence of passes; pipeline: a YAML file; level: the named pipeline -O0 … -O3.
    precision: what -O2 computes in, one of `PRECISIONS`, int8 when not given; what the target has.
    shapes: fixed shapes of inputs; data: real samples (see `samples.load_samples`);
    normalize: how its pictures are prepared.
    budget: what the result may cost, `macs=-40%` or several (see `passes.budget`).
    time_budget: seconds that training passes may take in all; checkpoints: directory they leave their state in;
    cluster: address of a Ray cluster that runs their independent jobs (`local` starts one on this machine).
    min_sqnr: lowest SQNR in dB that an output of the result may have against the original.
    compile: emit machine code besides the ONNX file; require_compiled: fail when that is not possible.
    threads: how many cores one run of the compiled model may use.
    tune: search faster kernels by measuring, for at most `trials` configs and `time` seconds, on boards `key` of the
    TVM RPC tracker `rpc` where one is given; tuning_db: directory of what was measured, also read without `tune`.
    sram: bytes of fast memory the target has; require_npu: fail when a node of an NPU's model runs on the CPU.
    """

    target: str = "host"
    passes: str | Sequence[object] | None = None
    pipeline: str | Path | None = None
    level: int = 2
    precision: str | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    data: Any = None
    normalize: str | None = None
    seed: int = 0
    budget: str | Sequence[str] = ()
    time_budget: float | None = None
    checkpoints: Path | None = None
    cluster: str | None = None
    min_sqnr: float | None = None
    require_change: bool = False
    compile: bool = True
    require_compiled: bool = False
    threads: int = 1
    tune: bool = False
    trials: int | None = None
    time: float | None = None
    tuning_db: Path | None = None
    rpc: str | None = None
    key: str | None = None
    sram: int | None = None
    require_npu: bool = False
    dump_ir: Path | None = None
    print_ir_after: Sequence[str] = ()
    bisect_limit: int | None = None
    show: Callable[[str, int], object] | None = None
    progress: Callable[[str, float], object] | None = None
    write: Callable[[str], object] = print


def check(options: Options) -> None:
    """Refuse numbers that mean nothing."""
    wanted: list[tuple[str, object, bool, str]] = [
        ("-O", options.level, options.level in range(4), "a level from 0 to 3"),
        ("--precision", options.precision, options.precision in (None, *PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
        ("--seed", options.seed, options.seed >= 0, "a number from 0"),
        ("--bisect-limit", options.bisect_limit, (options.bisect_limit or 0) >= 0, "a number from 0"),
        ("--threads", options.threads, 1 <= options.threads <= 64, "a number from 1 to 64"),
        ("--trials", options.trials, (options.trials or 0) >= 0, "a number from 0"),
        ("--time", options.time, (options.time or 1) > 0, "a time above 0, like 90s or 10m"),
        ("--sram", options.sram, options.sram is None or options.sram > 0, "a number of bytes above 0"),
        ("--time-budget", options.time_budget, (options.time_budget or 1) > 0, "a time above 0"),
        ("--min-sqnr", options.min_sqnr, not math.isnan(options.min_sqnr or 0.0), "a number of decibels"),
    ]
    for option, value, valid, hint in wanted:
        if not valid:
            raise UsageError(f"{value!r} is not a value that {option} can have", where=option, hint=f"give {hint}")
    if options.precision and (options.passes is not None or options.pipeline is not None or options.level < 2):
        raise UsageError(
            "a precision says what -O2 computes in, and another pipeline is given",
            where=f"--precision {options.precision}",
            hint="leave one of them out; in a pipeline of your own, `convert-float` makes floats of 16 bits",
        )
