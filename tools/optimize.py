"""`optimize MODEL --target T -o DIR`: the command line of the whole house."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import click

from ..errors import PlanishError, UsageError

__all__ = ["main"]

_INTERRUPTED = 130


class Duration(click.ParamType[float]):
    """A time as `90`, `90s`, `10m` or `2h`, in seconds."""

    name = "time"
    _UNITS: ClassVar[dict[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        number, unit = (value[:-1], value[-1]) if value[-1:] in self._UNITS else (value, "s")
        try:
            return float(number) * self._UNITS[unit]
        except ValueError:
            return self.fail(f"{value!r} is not a time; write 90s, 10m or 2h", param, ctx)


def _shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    result = {}
    for text in texts:
        name, separator, dims = text.rpartition(":")
        try:
            shape = tuple(int(d) for d in dims.split(","))
        except ValueError:
            shape = ()
        if not separator or not name or not shape or any(d < 1 for d in shape):
            raise UsageError(f"{text!r} is not a shape", where="--shape", hint="write NAME:1,3,224,224")
        result[name] = shape
    return result


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Artifact directory  [default: MODEL-TARGET]")
@click.option("--target", default="host", show_default=True, metavar="T[/CPU]", help="Machine the model will run on.")
@click.option("--passes", metavar="TEXT", help='Pipeline text: "fold-bn,quantize{weights=int8}".')
@click.option("--pipeline", type=click.Path(path_type=Path), metavar="FILE", help="Pipeline as a YAML file.")
@click.option("-O", "level", type=click.IntRange(0, 3), default=2, show_default=True, help="Named pipeline.")
@click.option(
    "--precision", metavar="TYPE", help="What -O2 computes in: int8, float32, bfloat16, float16.  [default: int8]"
)
@click.option("--shape", "shape_texts", multiple=True, metavar="NAME:DIMS", help="Fix an input's shape.")
@click.option("--data", type=click.Path(path_type=Path), metavar="PATH", help="Real samples: .npz, .npy, or a folder.")
@click.option("--normalize", metavar="HOW", help="Numbers of pictures: 0..1, -1..1, 0..255, 0..255-128, imagenet.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--budget", multiple=True, metavar="WHAT", help="Bound: macs=-40%, latency=-30%, parameters=, size=0.5MB, drop=1%."
)
@click.option(
    "--time-budget", type=Duration(), metavar="TIME", help="Time that training passes may take: 90s, 10m, 2h."
)
@click.option(
    "--checkpoints", type=click.Path(path_type=Path), metavar="DIR", help="Where training can be resumed from."
)
@click.option("--cluster", metavar="ray://HOST:PORT", help="Train blocks on a Ray cluster (`local`: one made here).")
@click.option("--min-sqnr", type=float, metavar="DB", help="Refuse a result whose outputs have less SQNR (exit 4).")
@click.option("--require-change", is_flag=True, help="Fail when no pass changes anything (exit 5).")
@click.option("--no-compile", is_flag=True, help="Write the ONNX file only.")
@click.option("--require-compiled", is_flag=True, help="Fail when no machine code can be emitted (exit 3).")
@click.option("--threads", type=int, default=1, show_default=True, help="Cores one run of the machine code may use.")
@click.option("--tune", is_flag=True, help="Search faster kernels by measuring; Ctrl-C keeps what was measured.")
@click.option("--trials", type=int, metavar="N", help="Measure at most N configs; 0: use the database only.")
@click.option("--time", type=Duration(), metavar="TIME", help="Time that tuning may take: 90s, 10m, 2h.")
@click.option(
    "--tuning-db",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What was measured; read even without --tune  [default with --tune: the user's cache]",
)
@click.option("--rpc", metavar="HOST:PORT", help="Tune on the boards of this TVM RPC tracker.")
@click.option("--key", metavar="NAME", help="What the tracker calls the boards.")
@click.option("--sram", type=int, metavar="BYTES", help="Fast memory of the target, where it is less or more.")
@click.option("--require-npu", is_flag=True, help="Fail when a node of an NPU's model runs on the CPU (exit 3).")
@click.option("--explain", is_flag=True, help="Print node by node where it runs, in what type, and why.")
@click.option("--dry-run", is_flag=True, help="Run the passes and print the tables; write nothing.")
@click.option("--dump-ir", type=click.Path(path_type=Path), metavar="DIR", help="Write the IR after every pass.")
@click.option("--print-ir-after", multiple=True, metavar="PASS", help="Print the IR after this pass (or `all`).")
@click.option("--time-passes", is_flag=True, help="Print the time of every pass.")
@click.option("--bisect", is_flag=True, help="Find the first rewrite that breaks the model.")
@click.option("--bisect-limit", type=int, metavar="N", help="Allow only the first N rewrites.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print every pass, and every candidate that was skipped.")
@click.version_option(package_name="planish")
def main(model: Path, output: Path | None, shape_texts: tuple[str, ...], **flags: Any) -> None:
    """Make MODEL small and fast for a target, without training data.

    \b
    Named pipelines:  -O0 nothing   -O1 exact clean-up   -O2, -O3 clean-up and data-free int8
    Exit codes:       0 ok   1 internal error   2 usage   3 model invalid or unsupported
                      4 verification or fidelity budget failed   5 nothing changed   130 interrupted
    """
    stop = _Interrupt()
    for stream in (sys.stdout, sys.stderr):  # a terminal of few characters must not stop a result
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _run(model, output, shape_texts, flags)
    except (Exception, KeyboardInterrupt) as error:
        if stop.asked or isinstance(error, KeyboardInterrupt):  # a library may make another error of it
            click.echo("interrupted; nothing was written", err=True)
            sys.exit(_INTERRUPTED)
        if flags["verbose"] and not isinstance(error, (PlanishError, MemoryError)):
            raise
        stated = _stated(error, model)
        click.echo(str(stated), err=True)
        sys.exit(stated.exit_code)


class _Interrupt:
    """Ctrl-C and SIGTERM end a run by KeyboardInterrupt; `asked` tells that one of them came."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, _signal: int, _frame: object) -> NoReturn:
        self.asked = True
        raise KeyboardInterrupt


def _stated(error: Exception, model: Path) -> PlanishError:
    """The error in its three parts."""
    if isinstance(error, PlanishError):
        return error
    if isinstance(error, MemoryError):
        return PlanishError("out of memory", where=str(model), hint="use -O1 --no-compile")
    what = f"{type(error).__name__}: {error}"
    return PlanishError(what, where=str(model), hint="run with -v and report the traceback")


def _run(model: Path, output: Path | None, shape_texts: tuple[str, ...], flags: dict[str, Any]) -> None:
    from ..driver import Options, bisect, run
    from . import display

    screen = display.Screen(quiet=flags["quiet"], verbose=flags["verbose"])
    with screen.progress() as bar:
        options = Options(
            target=flags["target"],
            passes=flags["passes"],
            pipeline=flags["pipeline"],
            level=flags["level"],
            precision=flags["precision"],
            shapes=_shapes(shape_texts),
            data=flags["data"],
            normalize=flags["normalize"],
            seed=flags["seed"],
            budget=flags["budget"],
            time_budget=flags["time_budget"],
            checkpoints=flags["checkpoints"],
            cluster=flags["cluster"],
            min_sqnr=flags["min_sqnr"],
            require_change=flags["require_change"],
            compile=not flags["no_compile"],
            require_compiled=flags["require_compiled"],
            threads=flags["threads"],
            tune=flags["tune"],
            trials=flags["trials"],
            time=flags["time"],
            tuning_db=flags["tuning_db"],
            rpc=flags["rpc"],
            key=flags["key"],
            sram=flags["sram"],
            require_npu=flags["require_npu"],
            dump_ir=flags["dump_ir"],
            print_ir_after=flags["print_ir_after"],
            bisect_limit=flags["bisect_limit"],
            show=bar.passes if bar else None,
            progress=bar.work if bar else None,
            write=screen.out,
        )
        if flags["bisect"]:
            number, outcome = bisect(model, options)
        else:
            where = None if flags["dry_run"] else output or Path(f"{model.stem}-{flags['target'].replace('/', '-')}")
            result = run(model, options, where)
    if flags["bisect"]:
        screen.bisection(number, outcome)
        return
    screen.summary(result)
    if flags["time_passes"]:
        screen.times(result)
    if flags["explain"]:
        screen.explain(result)


if __name__ == "__main__":
    main()
