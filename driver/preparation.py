"""What a run starts from: the target, the pipeline, the captured model and the context of its passes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from ..backends.registry import COMPILERS
from ..backends.tvm.floats.cost import node_cost
from ..errors import UsageError
from ..ir import shapes
from ..ir.capture import capture
from ..passes import defaults, registry
from ..passes.bisect import Limit
from ..passes.budget import PRUNING_UNITS, Budget, parse_budgets
from ..passes.context import Context
from ..passes.manager import PassManager
from ..samples import chunks, load_samples
from ..targets.registry import resolve
from ..targets.target import Target
from .options import Options

__all__ = ["budgets", "captured_model", "context", "manager", "target"]


def target(options: Options) -> Target:
    found = replace(resolve(options.target), threads=options.threads)
    if options.threads > 1 and found.kind in COMPILERS:
        raise UsageError(
            f"code for {found.name} has no threads of its own",
            where=f"--threads {options.threads}",
            hint="leave it out; it is for CPUs: host, arm64",
        )
    return found if options.sram is None else replace(found, cache_bytes=options.sram)


def _check_precision(options: Options, target: Target) -> None:
    precision = options.precision or "int8"
    if precision in ("int8", "float32") or precision in target.features:
        return
    raise UsageError(
        f"there is no fast code in {precision} for {target.name}",
        where=f"--precision {precision}",
        hint="bfloat16 is for CPUs with AMX-BF16 or AVX512-BF16 and for cuda, float16 for cuda; others are for all",
    )


def manager(options: Options, target: Target) -> PassManager:
    given = [options.passes is not None, options.pipeline is not None]
    if all(given):
        raise UsageError("--passes and --pipeline are both given", where="options", hint="give one of them")
    if options.pipeline is not None:
        return PassManager(registry.load_yaml(options.pipeline))
    if options.passes is not None:
        return PassManager(options.passes)
    _check_precision(options, target)
    wanted = budgets(options).keys()
    prune = not PRUNING_UNITS.isdisjoint(wanted)
    precision = options.precision or "int8"
    return PassManager(
        defaults.for_level(options.level, target, prune=prune, mix="size" in wanted, precision=precision)
    )


def budgets(options: Options) -> dict[str, Budget]:
    """The budgets of the options, by unit."""
    return parse_budgets([options.budget] if isinstance(options.budget, str) else options.budget)


def captured_model(source: Any, options: Options) -> ir.Model:
    model, examples = source if isinstance(source, tuple) else (source, None)
    captured = capture(model, examples)
    if options.shapes:
        shapes.fix_dimensions(captured, options.shapes)
    shapes.infer(captured)
    return captured


def context(options: Options, target: Target, original: ir.Model) -> Context:
    context = Context(target=target, seed=options.seed, permit=Limit(options.bisect_limit), original=original)
    context.budgets = budgets(options)
    if target.kind not in COMPILERS:
        context.cost = node_cost(target)
    context.time_budget, context.checkpoints = options.time_budget, options.checkpoints
    context.cluster = options.cluster
    if options.data is not None:
        source = list(options.data) if isinstance(options.data, Iterator) else options.data  # it is read twice
        context.data = load_samples(source, original, normalize=options.normalize)
        context.everything = functools.partial(chunks, source, original, options.normalize)
    return context
