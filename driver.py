"""One model's way through the house: capture → passes → back end → artifact."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from . import report as reporting
from .errors import ModelError, NothingChangedError, PlanishError, UsageError, VerificationError
from .ir import metadata, shapes
from .ir.capture import capture
from .ir.cost import summary
from .passes import defaults, registry
from .passes.bisect import Limit, first_bad
from .passes.context import Context
from .passes.fidelity import Fidelity
from .passes.instruments import Dump, Instrument, Print, Progress, Verify
from .passes.manager import Outcome, PassManager
from .samples import load_samples
from .targets.registry import resolve
from .targets.target import Target

if TYPE_CHECKING:
    from .backends.compiled import Compiled

__all__ = ["Options", "Result", "bisect", "optimize"]

Array = npt.NDArray[np.generic]


@dataclass
class Options:
    """How a model is to be optimized; the fields are the options of the command line.

    passes: pipeline text, or a sequence of passes; pipeline: a YAML file; level: the named pipeline -O0 … -O3.
    shapes: fixed shapes of inputs; data: real samples (see `samples.load_samples`).
    min_sqnr: lowest SQNR in dB that an output of the result may have against the original.
    compile: emit machine code besides the ONNX file; require_compiled: fail when that is not possible.
    sram: bytes of fast memory the target has; require_npu: fail when a node of an NPU's model runs on the CPU.
    """

    target: str = "host"
    passes: str | Sequence[object] | None = None
    pipeline: str | Path | None = None
    level: int = 2
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    data: Any = None
    seed: int = 0
    min_sqnr: float | None = None
    require_change: bool = False
    compile: bool = True
    require_compiled: bool = False
    sram: int | None = None
    require_npu: bool = False
    dump_ir: Path | None = None
    print_ir_after: Sequence[str] = ()
    bisect_limit: int | None = None
    show: Callable[[str, int], object] | None = None
    write: Callable[[str], object] = print


@dataclass
class Result:
    """The optimized model, the report, and the directory with the artifact when one was asked for."""

    model: ir.Model
    report: dict[str, Any]
    artifact: Path | None = None
    original: ir.Model | None = None

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Run the optimized model in ONNX Runtime: named inputs (or the one input) to named outputs."""
        from .ir.execute import execute

        if not isinstance(inputs, Mapping):
            inputs = {str(self.model.graph.inputs[0].name): np.asarray(inputs)}
        return execute(self.model, inputs)


def optimize(model: Any, target: str = "host", output: str | Path | None = None, **options: Any) -> Result:
    """Optimize a model for a target and, when `output` is given, leave the artifact directory there.

    model: whatever `capture` takes, or a tuple (torch module, example inputs); options: the fields of `Options`.
    Raises the errors of `planish.errors`; the model given is never modified, `output` is written whole or not at all.
    """
    try:
        settings = Options(target=target, **options)
    except TypeError as error:
        raise UsageError(
            str(error), where="optimize", hint=f"options: {', '.join(Options.__dataclass_fields__)}"
        ) from error
    return run(model, settings, None if output is None else Path(output))


def run(source: Any, options: Options, output: Path | None = None) -> Result:
    """`optimize` with its options in one object."""
    from .backends.artifact import check_writable
    from .backends.explain import planned

    started = time.perf_counter()
    _check_options(options)
    target = _target(options)
    manager = _manager(options, target)
    if output is not None:
        check_writable(output)
    original = _capture(source, options)
    model = original.clone()
    context = _context(options, target, original)
    fidelity = Fidelity(options.seed, context.data or ())
    outcome = _run_passes(manager, model, context, options, fidelity)
    _check_budgets(outcome, fidelity, options)
    metadata.put(
        model, metadata.PREFIX + "pipeline", {"passes": manager.spec(), "seed": options.seed, "target": target.name}
    )
    facts = reporting.Facts(
        source, options.seed, target, manager.spec(), outcome, fidelity, summary(original), summary(model)
    )
    facts.notes = metadata.get(original, metadata.PREFIX + "capture") or []
    facts.placement = [asdict(place) for place in planned(model, target)]
    if output is None:
        facts.seconds = time.perf_counter() - started
        return Result(model, reporting.build(facts), None, original)
    from .backends.artifact import staged

    with staged(output) as stage:
        _write(model, target, options, facts, stage)
        facts.seconds = time.perf_counter() - started
        content = reporting.build(facts)
        reporting.write(content, stage)
    return Result(model, content, output, original)


def bisect(source: Any, options: Options) -> tuple[int | None, Outcome]:
    """Number of the first rewrite after which the model is broken, and the records of the run that ends with it.

    Broken: the IR does not verify, ONNX Runtime refuses the model, an exact pipeline's outputs differ from the
    original's, or a lossy one's SQNR is below `min_sqnr` (10 dB when none is given). None when nothing breaks it.
    """
    _check_options(options)
    target = _target(options)
    original = _capture(source, options)
    reference = Fidelity(options.seed, _context(options, target, original).data or ())
    reference.start(original)
    if reference.unavailable:
        raise ModelError(
            f"the original cannot be executed: {reference.unavailable}",
            where="--bisect",
            hint="give --shape or --data that it runs on",
        )

    def attempt(limit: int | None) -> tuple[bool, Outcome, Limit]:
        model, permit = original.clone(), Limit(limit)
        context = _context(options, target, original)
        context.permit = permit
        manager = _manager(options, target)
        broken = _is_broken(manager, model, context, reference, options)
        return broken, manager.outcome, permit

    _, _, counter = attempt(None)
    number = first_bad(lambda limit: attempt(limit)[0], counter.asked)
    return number, attempt(number)[1]


def _is_broken(manager: PassManager, model: ir.Model, context: Context, reference: Fidelity, options: Options) -> bool:
    fidelity = Fidelity(options.seed, reference.feeds)
    try:
        outcome = _run_passes(manager, model, context, Options(seed=options.seed), fidelity)
    except PlanishError:
        return True
    lossy = any(not record.exact and record.changed for record in outcome.records)
    floor = options.min_sqnr if options.min_sqnr is not None else 10.0
    return lossy and any(f.sqnr_db < floor for f in fidelity.final)


def _check_options(options: Options) -> None:
    """Refuse numbers that mean nothing."""
    wanted: list[tuple[str, object, bool, str]] = [
        ("-O", options.level, options.level in range(4), "a level from 0 to 3"),
        ("--seed", options.seed, options.seed >= 0, "a number from 0"),
        ("--bisect-limit", options.bisect_limit, (options.bisect_limit or 0) >= 0, "a number from 0"),
        ("--sram", options.sram, options.sram is None or options.sram > 0, "a number of bytes above 0"),
        ("--min-sqnr", options.min_sqnr, not math.isnan(options.min_sqnr or 0.0), "a number of decibels"),
    ]
    for option, value, valid, hint in wanted:
        if not valid:
            raise UsageError(f"{value!r} is not a value that {option} can have", where=option, hint=f"give {hint}")


def _target(options: Options) -> Target:
    target = resolve(options.target)
    return target if options.sram is None else replace(target, cache_bytes=options.sram)


def _manager(options: Options, target: Target) -> PassManager:
    given = [options.passes is not None, options.pipeline is not None]
    if all(given):
        raise UsageError("--passes and --pipeline are both given", where="options", hint="give one of them")
    if options.pipeline is not None:
        return PassManager(registry.load_yaml(options.pipeline))
    if options.passes is not None:
        return PassManager(options.passes)
    return PassManager(defaults.for_level(options.level, target))


def _capture(source: Any, options: Options) -> ir.Model:
    model, examples = source if isinstance(source, tuple) else (source, None)
    captured = capture(model, examples)
    if options.shapes:
        shapes.fix_dimensions(captured, options.shapes)
    shapes.infer(captured)
    return captured


def _context(options: Options, target: Target, original: ir.Model) -> Context:
    data = None if options.data is None else load_samples(options.data, original)
    return Context(target=target, seed=options.seed, data=data, permit=Limit(options.bisect_limit))


def _run_passes(
    manager: PassManager, model: ir.Model, context: Context, options: Options, fidelity: Fidelity
) -> Outcome:
    instruments: list[Instrument] = [fidelity, Verify()]  # the last is asked first after a pass
    if options.dump_ir is not None:
        instruments.append(Dump(options.dump_ir))
    if options.print_ir_after:
        _check_names(options.print_ir_after, manager)
        instruments.append(Print(options.print_ir_after, options.write))
    if options.show is not None:
        instruments.append(Progress(options.show))
    manager.instruments = tuple(instruments)
    fidelity.start(model)
    return manager.run(model, context)


def _check_names(wanted: Sequence[str], manager: PassManager) -> None:
    """Refuse the name of a pass that the pipeline does not hold: nothing would ever be printed."""
    held = manager.names()
    for name in wanted:
        if name not in held and name != "all":
            raise UsageError(
                f"the pipeline has no pass {name!r}",
                where="--print-ir-after",
                hint=f"its passes are: {', '.join(held) or 'none'}; `all` prints after every one",
            )


def _check_budgets(outcome: Outcome, fidelity: Fidelity, options: Options) -> None:
    if options.require_change and not outcome.changed:
        reasons = "; ".join(f"{r.pass_name}: {r.why_nothing()}" for r in outcome.records)
        raise NothingChangedError(
            "no pass changed the model",
            where=reasons[:600] or "empty pipeline",
            hint="choose other passes or another model",
        )
    if options.min_sqnr is None:
        return
    if fidelity.unavailable:
        raise VerificationError(
            f"the fidelity budget cannot be checked: {fidelity.unavailable}",
            where="--min-sqnr",
            hint="give --shape or --data",
        )
    for result in fidelity.final:
        if result.sqnr_db < options.min_sqnr:
            raise VerificationError(
                f"output {result.output!r} has {result.sqnr_db:.1f} dB SQNR, the budget is {options.min_sqnr:.1f} dB",
                where="the whole pipeline",
                hint="--bisect finds the rewrite that costs it; -O1 keeps the outputs exact",
            )


def _write(model: ir.Model, target: Target, options: Options, facts: reporting.Facts, stage: Path) -> None:
    from .backends.onnx.writer import write

    for path in write(model, stage / "model.onnx"):
        facts.files[path.name] = path.stat().st_size
    (stage / "pipeline.txt").write_text(facts.pipeline + "\n", encoding="utf-8")
    if not options.compile:
        facts.not_compiled = "not asked for"
        return
    build = stage / "build"
    build.mkdir()
    try:
        facts.compiled = _compile(model, target, build, facts)
        for path in sorted(build.iterdir()):
            facts.files[path.name] = path.stat().st_size
            path.rename(stage / path.name)
        facts.placement = [asdict(place) for place in facts.compiled.placement]
        if options.require_npu:
            _check_npu(facts.compiled, target)
    except ModelError as error:
        facts.not_compiled = f"{error.what} ({error.where}); {error.hint}"
        if options.require_compiled or options.require_npu:
            raise
    finally:
        shutil.rmtree(build)


def _compile(model: ir.Model, target: Target, directory: Path, facts: reporting.Facts) -> Compiled:
    from .backends.batch import fix_batch
    from .backends.registry import compiler

    static, batches = fix_batch(model)
    if batches:
        names = ", ".join(batches)
        facts.notes.append(f"compiled for batch 1 ({names} has a free first dimension); --shape chooses another")
    try:
        return compiler(target.kind)(static, target, directory)
    except PlanishError:
        raise
    except Exception as error:  # the ONNX file is good without machine code; the user is told
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the compiler failed: {type(error).__name__}: {lines[-1][:300]}",
            where=f"target {target.name}",
            hint="model.onnx runs in ONNX Runtime; please report the model",
        ) from error


def _check_npu(compiled: Compiled, target: Target) -> None:
    """Refuse a result of which a node runs on the CPU."""
    for place in compiled.placement:
        if place.where == "CPU":
            raise ModelError(
                f"{place.op} {place.node} would run on the CPU: {place.reason}",
                where=f"--require-npu, target {target.name}",
                hint="change the model as the reason says, or leave --require-npu out",
            )
