"""`quantize`: integer arithmetic where the target has it and the ranges are known, as standard Q/DQ ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...errors import UsageError
from ...ir import metadata
from ...ir.quantization import Encoding
from ...targets.registry import resolve
from ...targets.target import Target
from ..base import Pass
from ..context import Context
from .opset import PER_CHANNEL_OPSET, SIXTEEN_BIT_OPSET, raise_opset
from .placement import Placement, place, why_no_encoding
from .rewrite import Writer
from .weights import FORMATS, WeightFormat

__all__ = ["Quantize"]

_DTYPES = {"int8": ir.DataType.INT8, "uint8": ir.DataType.UINT8, "int16": ir.DataType.INT16}


@dataclass(frozen=True)
class Quantize(Pass):
    """Conv(x, W, b)  ⇒  Conv(DQ(Q(x)), DQ(W_q), DQ(b_q)), and likewise every operator that the target runs on integers

    activations: `int8` or `uint8`, per tensor and asymmetric; what `widen-activations` chose, else the target's
    own type, when not given. `int16`, symmetric, beside 8-bit weights where the target has such kernels.
    weights: symmetric levels of 8, 4, 3 or 2 bits or `ternary`, stored as int8: fewer than 8 bits are simulated, on
    int8 kernels; granularity: one scale per output `channel`, or per `tensor`.
    rounding: to the `nearest` level, or `squant`, which balances the errors; clipping: `mse` for the least error.
    correct_bias: subtract from each bias the mean that rounding the weights adds, where the input's mean is known.
    A value without evidence for its range (`activation-ranges`) stays float, and the record says so.
    """

    activations: Literal["int8", "uint8", "int16"] | None = None
    weights: Literal["int8", "int4", "int3", "int2", "ternary"] = "int8"
    granularity: Literal["channel", "tensor"] = "channel"
    rounding: Literal["nearest", "squant"] = "nearest"
    clipping: Literal["none", "mse"] = "none"
    correct_bias: bool = True
    name: ClassVar[str] = "quantize"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        target = context.target or resolve("host")
        chosen = metadata.get(model, metadata.ACTIVATIONS)
        wanted = target.activation if chosen is None else ir.DataType[chosen]
        dtype = _DTYPES[self.activations] if self.activations else wanted
        _check_type(dtype, target, f"pass {self.spec()}")
        if _nothing_to_do(model, target, context):
            return
        if reason := raise_opset(model, SIXTEEN_BIT_OPSET if dtype == ir.DataType.INT16 else PER_CHANNEL_OPSET):
            context.record.skip("model", reason)
            return
        placement = place(model, target, why_no_encoding)
        refused = [node for node in placement.integer if not context.record.change(node, f"{dtype.name.lower()}")]
        if refused:
            placement = place(model, target, why_no_encoding, dict.fromkeys(refused, "beyond the bisection limit"))
        for node, reason in placement.reasons.items():
            if node not in refused:
                context.record.skip(node, reason)
        encodings = _encodings(placement, dtype, target.fixed_encodings)
        form = WeightFormat(FORMATS[self.weights], self.granularity == "channel", self.rounding, self.clipping)
        writer = Writer(model.graph, self.name, form, self.correct_bias)
        writer.write(placement, encodings)
        context.float_weights |= writer.floats
        if self.weights != "int8":
            context.record.note(f"{self.weights} weights are held and multiplied as int8: no kernel for fewer bits")
        few = sum(e.levels is not None for e in encodings.values())
        if few:
            context.record.note(f"{few} values of fewer than 8 bits are clipped to part of the 8-bit grid: simulated")
        context.record.measures["quantized_values"] = len(placement.quantized)


def _check_type(dtype: ir.DataType, target: Target, where: str) -> None:
    """Refuse activations that this pass cannot make or the target cannot compute with."""
    if dtype not in _DTYPES.values():
        what = f"{target} has {dtype.name} activations, which this pass cannot make"
    elif dtype == ir.DataType.INT16 and "int16-activations" not in target.features:
        what = f"{target} has no kernels for 16-bit activations"
    else:
        return
    raise UsageError(what, where=where, hint="choose activations=int8 or activations=uint8")


def _nothing_to_do(model: ir.Model, target: Target, context: Context) -> bool:
    """Account for a model that keeps every node, before its opset is touched."""
    placement = place(model, target, why_no_encoding)
    if placement.integer:
        return False
    for node, reason in placement.reasons.items():
        context.record.skip(node, reason)
    return True


def _encodings(
    placement: Placement, dtype: ir.DataType, fixed: Mapping[tuple[str, ir.DataType], tuple[float, int]]
) -> dict[ir.Value, Encoding]:
    """One encoding per group of values that share it: what the target fixes, else over the union of their ranges."""
    encodings: dict[ir.Value, Encoding] = {}
    for value in placement.quantized:
        if value not in encodings:
            members = placement.groups[value]
            facts = [metadata.get(v, metadata.EVIDENCE) or {} for v in members]
            makers = {v.producer() for v in members} & set(placement.integer)
            wanted = {e for node in makers if node is not None and (e := fixed.get((node.op_type, dtype))) is not None}
            if len(wanted) == 1:
                scale, zero = wanted.pop()
                encoding = Encoding(np.asarray(scale, np.float32), np.asarray(zero, np.int32), dtype)
            else:
                low, high = min(f["low"] for f in facts), max(f["high"] for f in facts)
                levels = min((int(f["levels"]) for f in facts if "levels" in f), default=None)
                encoding = _encoding(low, high, dtype, levels)
            encodings |= dict.fromkeys(members, encoding)
    return encodings


def _encoding(low: float, high: float, dtype: ir.DataType, levels: int | None = None) -> Encoding:
    """Asymmetric in 8 bits or fewer; symmetric in 16, as kernels for them expect, over twice the range: a quarter of
    the levels is plenty, and the rest is room for what no made input reached.
    """
    if dtype == ir.DataType.INT16:
        return Encoding.symmetric(2 * max(abs(low), abs(high)), dtype)
    return Encoding.affine(low, high, dtype, levels)
