"""Add, Sub and the functions of one variable read as integer operations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..functions import UNARY
from ..quantization import Encoding, integer_range
from .site import Sink, Site
from .steps import Operand, Refusal

__all__ = ["add", "short_multiplier", "sub", "table", "unary"]

Array = npt.NDArray[np.generic]

_BITS = 15  # with |x − z_x| < 2⁹ the product is exact in float32's 24 bits


def short_multiplier(ratio: float) -> np.float32:
    """The ratio rounded to 15 significant bits, so that its product with any 9-bit integer is exact in float32."""
    mantissa, exponent = np.frexp(np.float64(ratio))
    with np.errstate(over="ignore"):
        return np.float32(np.ldexp(np.rint(np.ldexp(mantissa, _BITS)), int(exponent) - _BITS))


def add(site: Site) -> None:
    """Add(DQ(a), DQ(b)) ▸ Q  ⇒  add; a float constant becomes the addend, in units of s_y."""
    _sum(site, (1.0, 1.0))


def sub(site: Site) -> None:
    """Sub(DQ(a), DQ(b)) ▸ Q  ⇒  add with a negative multiplier."""
    _sum(site, (1.0, -1.0))


def _sum(site: Site, signs: tuple[float, float]) -> None:
    sink = site.sink()
    if sink is None:
        raise Refusal("the result stays float")
    over = np.float64(sink.encoding.scale)
    operands: list[Operand] = []
    ratios: list[float] = []
    addend: npt.NDArray[np.float32] | None = None
    for i, sign in enumerate(signs):
        constant = site.constant(i) if site.weight(i) is None else None
        if constant is not None:
            with np.errstate(over="ignore"):
                addend = np.asarray(sign * constant.astype(np.float64) / over, np.float32)
            continue
        operand = site.operand(i, bits=site.arithmetic.bits)
        assert operand.encoding is not None
        operands.append(operand)
        ratios.append(sign * float(operand.encoding.scale) / float(over))
    if not operands:
        raise Refusal("no operand is quantized")
    wide = any(operand.is_wide for operand in operands)
    multipliers = [np.float32(ratio) if wide else short_multiplier(ratio) for ratio in ratios]
    if not np.isfinite(multipliers).all() or (addend is not None and not np.isfinite(addend).all()):
        raise Refusal("a constant or a ratio of scales is not finite")
    site.emit("add", tuple(operands), sink, multiplier=np.array(multipliers, np.float32), addend=addend)


def unary(site: Site) -> None:
    """f(DQ(x)) ▸ Q  ⇒  table[x], built from f by numpy in float64."""
    x, sink = site.operand(0, bits=site.arithmetic.bits), site.sink()
    if sink is None:
        raise Refusal("the result stays float")
    assert x.encoding is not None
    site.emit("unary", (x,), sink, table=table(site, x.encoding, sink))


def table(site: Site, encoding: Encoding, sink: Sink) -> Array:
    """`quantize(f(dequantize(q)))` for every level q, lowest first, clipped to the sink's levels."""
    low, high = integer_range(encoding.dtype)
    x = encoding.dequantize(np.arange(low, high + 1, dtype=np.int32)).astype(np.float64)
    parameters = [site.constant(i) for i in range(1, len(site.node.inputs))]
    given = {i: value for i, value in enumerate(site.node.inputs[1:]) if value is not None}
    if any(parameters[i] is None or parameters[i].size != 1 for i in given):  # type: ignore[union-attr]
        raise Refusal("a parameter is not a constant scalar")
    scalars = [None if p is None else float(p.reshape(-1)[0]) for p in parameters]
    with np.errstate(all="ignore"):
        y = UNARY[site.node.op_type](x, site.attribute, scalars).astype(np.float32)
    if np.isnan(y).any() and encoding.dtype == ir.DataType.INT16:
        y = _continued(y)  # a symmetric encoding has levels below 0 that the operand of a root never takes
    if np.isnan(y).any():
        raise Refusal("the function is not defined on every level of its operand")
    return np.clip(sink.encoding.quantize(y), sink.low, sink.high).astype(sink.encoding.dtype.numpy())


def _continued(y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Levels below the first on which a function is defined have its value there."""
    defined = np.flatnonzero(~np.isnan(y))
    if not len(defined):
        return y
    return np.where(np.arange(len(y)) < defined[0], y[defined[0]], y)
