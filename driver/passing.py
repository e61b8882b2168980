"""The passes of a run, with the instruments that its options ask for."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..errors import UsageError
from ..passes.context import Context
from ..passes.fidelity import Fidelity
from ..passes.instruments import Dump, Instrument, Print, Progress, Verify
from ..passes.manager import Outcome, PassManager
from .options import Options

__all__ = ["run_passes"]


def run_passes(
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
