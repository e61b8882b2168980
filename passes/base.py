"""`Pass`: a frozen dataclass whose fields are its options and whose `run` edits the model in place."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from .context import Context

__all__ = ["Pass"]


@dataclass(frozen=True)
class Pass(InPlacePass):
    """A transformation of one model; subclasses set `name` and, when results may differ, `exact = False`.

    Composes both ways: it is an `onnx_ir.passes.InPlacePass`, so onnx_ir's own manager runs it.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True

    @abc.abstractmethod
    def run(self, model: ir.Model, context: Context) -> None:
        """Rewrite `model` in place and account for every candidate in `context.record`."""

    def call(self, model: ir.Model) -> PassResult:
        context = Context()
        record = context.begin(self.name, self.spec(), self.exact)
        self.run(model, context)
        return PassResult(model, modified=record.changed > 0)

    def spec(self) -> str:
        """The pass as pipeline text with the options that differ from their defaults: `fold-bn{strict=true}`."""
        from .pipeline import format_value

        options = [
            f"{f.name.replace('_', '-')}={format_value(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != _default(f)
        ]
        return self.name + (f"{{{' '.join(options)}}}" if options else "")

    def __str__(self) -> str:
        return self.spec()


def _default(field: dataclasses.Field[object]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
