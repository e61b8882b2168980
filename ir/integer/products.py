"""Conv, Gemm, MatMul, Mul as sums of integer products: y = rint(float32(Σ (x − z_x)(w − z_w) + b) · m) + z_y."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..graph import only_consumer
from ..quantization import Encoding, integer_range
from ..windows import conv_attributes
from .encodings import integer_constant, is_standard, known
from .site import Site, multiplier
from .steps import Operand, Refusal

__all__ = ["conv", "div", "gemm", "matmul", "mul", "product", "weight"]

Array = npt.NDArray[np.generic]
Int32 = npt.NDArray[np.int32]

_BIAS_LIMIT = 2**31 - 1  # stored in int32


def conv(site: Site) -> None:
    """Conv(DQ(x), DQ(w)[, b]) ▸ Q  ⇒  conv, one multiplier for each output channel."""
    x, w = site.operand(0), weight(site, 1)
    assert w.constant is not None
    if w.constant.ndim < 3:
        raise Refusal("the weight has no spatial axis")
    attributes = conv_attributes(site.node, site.spatial, w.constant.shape)
    product(site, "conv", x, w, channel_axis=0, bias=site.input(2), attributes=attributes)


def gemm(site: Site) -> None:
    """Gemm(DQ(x), DQ(w)[, b]) ▸ Q  ⇒  dense."""
    if site.attribute("transA", 0):
        raise Refusal("transA = 1")
    if site.attribute("alpha", 1.0) != 1.0 or (site.input(2) is not None and site.attribute("beta", 1.0) != 1.0):
        raise Refusal("alpha or beta is not 1")
    x, w = site.operand(0), weight(site, 1)
    if site.attribute("transB", 0):
        w = _swap(w)
    product(site, "dense", x, w, channel_axis=1, bias=site.input(2))


def matmul(site: Site) -> None:
    """MatMul(DQ(x), DQ(w)) [▸ Add(b)] ▸ Q  ⇒  dense; MatMul(DQ(a), DQ(b)) ▸ Q  ⇒  matmul."""
    w = site.weight(1)
    if w is not None and w.constant is not None and w.constant.ndim == 2:
        _dense_with_add(site, site.operand(0), weight(site, 1))
        return
    a, b = site.operand(0), site.operand(1)
    depth = _depth(site, a, b)
    if depth * _span(a.encoding) * _span(b.encoding) > site.arithmetic.limit:
        raise Refusal(f"a sum of {depth} products could overflow the accumulator")
    _scaled_product(site, "matmul", a, b)


def mul(site: Site) -> None:
    """Mul(DQ(a), DQ(b)) ▸ Q  ⇒  mul; a factor that is a float constant goes into the multiplier (requantize)."""
    for i in (0, 1):
        if site.weight(i) is None and (factor := site.constant(i)) is not None:
            scale_by(site, 1 - i, np.asarray(factor, np.float64))
            return
    bits = site.arithmetic.bits
    _scaled_product(site, "mul", site.operand(0, bits), site.operand(1, bits))


def div(site: Site) -> None:
    """Div(DQ(x), constant) ▸ Q  ⇒  requantize with the reciprocal in the multiplier."""
    divisor = site.constant(1)
    if divisor is None:
        raise Refusal("the divisor is not constant")
    with np.errstate(divide="ignore"):
        scale_by(site, 0, 1.0 / np.asarray(divisor, np.float64))


def scale_by(site: Site, i: int, factor: npt.NDArray[np.float64]) -> None:
    """x · factor ▸ Q  ⇒  requantize with m = float32(s_x · factor / s_y)."""
    x, sink = site.operand(i, site.arithmetic.bits), site.sink()
    assert x.encoding is not None
    if sink is None:
        raise Refusal("the result stays float")
    if factor.ndim and not _fits(factor.shape, site.input(i)):
        raise Refusal("the constant does not broadcast to the shape of the quantized operand")
    m = multiplier(x.encoding.scale, factor, over=sink.encoding.scale)
    site.emit("requantize", (x,), sink, multiplier=m.reshape(()) if m.size == 1 else m)


def _fits(shape: tuple[int, ...], value: ir.Value | None) -> bool:
    """The shape broadcasts to the value's without enlarging it."""
    if value is None or value.shape is None or len(shape) > len(value.shape):
        return False
    return all(n in (1, dim) for n, dim in zip(shape[::-1], tuple(value.shape)[::-1], strict=False))


def _scaled_product(site: Site, kind: str, a: Operand, b: Operand) -> None:
    assert a.encoding is not None and b.encoding is not None
    sink = site.sink()
    over = 1.0 if sink is None else sink.encoding.scale
    site.emit(kind, (a, b), sink, multiplier=multiplier(a.encoding.scale, b.encoding.scale, over=over))


def _dense_with_add(site: Site, x: Operand, w: Operand) -> None:
    """A MatMul and the constant Add behind it share one accumulator when nobody else reads the MatMul."""
    value = site.node.outputs[0]
    add = only_consumer(value)
    if add is None or add.graph is not site.node.graph or not is_standard(add, "Add"):
        product(site, "dense", x, w, channel_axis=1, bias=None)
        return
    other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
    bias = known(other)
    assert w.constant is not None
    if bias is None or not _is_bias(bias.shape, w.constant.shape[1]) or (bias.ndim > 1 and bias.ndim > site.rank(0)):
        product(site, "dense", x, w, channel_axis=1, bias=None)
        return
    site.tail = add
    product(site, "dense", x, w, channel_axis=1, bias=other)


def weight(site: Site, i: int) -> Operand:
    """The constant integers of an input, at most 8 bits wide, or a refusal."""
    w = site.weight(i)
    if w is None or w.constant is None or w.encoding is None:
        raise Refusal("the weight is not a constant of integers")
    if w.constant.dtype.itemsize > 1:
        raise Refusal(f"the weight has {w.encoding.dtype.name} levels")
    return w


def _swap(w: Operand) -> Operand:
    assert w.constant is not None and w.encoding is not None
    old = w.encoding
    axis = None if old.axis is None else 1 - old.axis
    return Operand(w.value, Encoding(old.scale, old.zero_point, old.dtype, axis), np.ascontiguousarray(w.constant.T))


def product(
    site: Site,
    kind: str,
    x: Operand,
    w: Operand,
    *,
    channel_axis: int,
    bias: ir.Value | None,
    attributes: dict[str, Any] | None = None,
) -> None:
    """Emit a product with constant weights whose output channels lie on `channel_axis`."""
    assert x.encoding is not None and w.encoding is not None and w.constant is not None
    if w.encoding.axis not in (None, channel_axis):
        raise Refusal("the weight has scales along the axis that is summed over")
    channels = w.constant.shape[channel_axis]
    scale = np.broadcast_to(np.float64(x.encoding.scale) * w.encoding.scale.astype(np.float64), (channels,))
    if not (scale > 0).all():
        raise Refusal("the product of the scales underflows")
    steps = _bias_steps(bias, scale)
    _check_accumulator(site.arithmetic.limit, x.encoding, w, channel_axis, steps)
    sink = site.sink()
    over = 1.0 if sink is None else sink.encoding.scale
    site.emit(
        kind,
        (x,),
        sink,
        weight=w.constant,
        weight_zero_point=w.encoding.zero_point,
        bias=steps,
        multiplier=multiplier(scale, over=over),
        attributes=attributes or {},
    )


def _bias_steps(bias: ir.Value | None, scale: npt.NDArray[np.float64]) -> Int32:
    """The bias as int32 multiples of s_x · s_w; one that is stored otherwise is rounded to them."""
    if bias is None:
        return np.zeros(scale.shape, np.int32)
    array = known(bias)
    if array is None:
        raise Refusal("the bias is not constant")
    if not _is_bias(array.shape, scale.size):
        raise Refusal("the bias differs along an axis other than the output channel's")
    stored = integer_constant(bias)
    if stored is not None and stored.constant is not None and stored.encoding is not None:
        ratio = stored.encoding.scale.astype(np.float64) / scale
        ratio = np.where(np.abs(ratio - 1.0) < 1e-6, 1.0, ratio)  # s_x · s_w was rounded to float32 when it was stored
        offset = stored.constant.astype(np.int64).reshape(-1) - stored.encoding.zero_point.reshape(-1)
        steps = np.rint(offset * ratio)
    else:
        steps = np.rint(array.astype(np.float64).reshape(-1) / scale)
    if not (np.abs(steps) <= _BIAS_LIMIT).all():
        raise Refusal("the bias does not fit int32 at scale s_x · s_w")
    return np.broadcast_to(steps, scale.shape).astype(np.int32)


def _is_bias(shape: tuple[int, ...], channels: int) -> bool:
    """One number, or one for each channel along the last axis."""
    size = int(np.prod(shape))
    return size in (1, channels) and (not shape or size == shape[-1])


def _check_accumulator(limit: int, x: Encoding, w: Operand, channel_axis: int, bias: Int32) -> None:
    """Σ |w − z_w| · (levels of x) + |b| bounds every partial sum, in any order, padding or not."""
    assert w.constant is not None and w.encoding is not None
    zero = w.encoding.zero_point
    shape = [1] * w.constant.ndim
    if zero.ndim:
        shape[channel_axis] = -1
    distance = np.abs(w.constant.astype(np.int64) - zero.reshape(shape))
    summed = tuple(a for a in range(w.constant.ndim) if a != channel_axis)
    if (distance.sum(axis=summed) * _span(x) + np.abs(bias.astype(np.int64)) > limit).any():
        raise Refusal("the sum of products could overflow the accumulator")


def _span(encoding: Encoding | None) -> int:
    assert encoding is not None
    low, high = integer_range(encoding.dtype)
    return high - low


def _depth(site: Site, a: Operand, b: Operand) -> int:
    """The number of products that are summed, from whichever operand's shape is known."""
    if a.constant is not None:
        return int(a.constant.shape[-1])
    if b.constant is not None:
        return int(b.constant.shape[-2 if b.constant.ndim > 1 else 0])
    return site.sizes(0, [-1])[0]
