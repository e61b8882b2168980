"""Callbacks around every pass of a manager: verify the IR, dump it, show progress. Measuring is in `fidelity`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from ..errors import OutputError, VerificationError
from ..ir.graph import weight_bytes
from .base import Pass
from .context import Context

__all__ = ["Dump", "Instrument", "Print", "Progress", "Verify"]

_REPRODUCER_BYTES = 64 << 20


class Instrument(Protocol):
    """Called before and after every pass of a manager, on the model in place."""

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None: ...

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None: ...


class Verify:
    """Check the IR after every pass that changed it; VerificationError names the pass that broke it."""

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        pass

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        from ..ir.verify import verify

        if not context.record.changes:
            return
        violations = verify(model)
        if violations:
            raise VerificationError(
                f"the pass left an invalid graph: {violations[0].message} ({len(violations)} violations in all)",
                where=f"pass {pass_.spec()}, {violations[0].where}",
                hint="find the rewrite with --bisect; leave the pass out with --passes until it is fixed",
            )


@dataclass
class Dump:
    """Write the IR before the first pass and after every one as `NNN_pass.onnxtxt` into `directory`.

    Up to 64 MiB of weights go beside the texts, each once, so that `ir-opt` runs the next pass from them.
    """

    directory: Path
    _count: int = 0

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        if not self._count:
            self._dump("input", model)

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        self._dump(context.record.pass_name, model)

    def _dump(self, name: str, model: ir.Model) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write(name, model)
        except OSError as error:
            raise OutputError(
                f"the IR cannot be dumped: {error.strerror or error}",
                where=str(error.filename or self.directory),
                hint="give --dump-ir a directory that can be written",
            ) from error

    def _write(self, name: str, model: ir.Model) -> None:
        from ..ir.text import print_model, save_text

        path = self.directory / f"{self._count:03d}_{re.sub(r'[^-0-9A-Za-z_]', '_', name)}.onnxtxt"
        if weight_bytes(model) <= _REPRODUCER_BYTES:
            save_text(model, path, shared=True)
        else:
            path.write_text(print_model(model), encoding="utf-8")
        self._count += 1


@dataclass
class Print:
    """Print the IR after the named passes (all of them when `names` holds `all`)."""

    names: Collection[str]
    write: Callable[[str], object]

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        pass

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        from ..ir.text import print_model

        if context.record.pass_name in self.names or "all" in self.names:
            self.write(f"// after {pass_.spec()}\n{print_model(model)}")


@dataclass
class Progress:
    """Tell `show` which pass runs and how many are done."""

    show: Callable[[str, int], object]
    _done: int = field(default=0, init=False)

    def before(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        self.show(context.record.pass_name, self._done)

    def after(self, pass_: Pass, model: ir.Model, context: Context) -> None:
        self._done += 1
        self.show(context.record.pass_name, self._done)
