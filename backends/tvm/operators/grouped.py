"""Convolutions of several groups by the templates of those with one: a block of groups is like an image of its own.

Groups that fill no vector are put beside each other: with weights of 0 between them, or with lanes that read the
activations of their own group (`intrinsics_grouped`). Whatever takes the fewest instructions is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics import MATRIX_PRODUCT
from ..intrinsics_arm64 import SDOT
from ..intrinsics_grouped import MACHINES, GroupedDot
from . import tile
from .conv import chosen, product, without_template, workload
from .direct import spatial_size
from .epilogue import bias_offset, finisher, reach
from .grouped_workload import GroupedProduct
from .kernel import Kernel
from .located import Located, channels_last, inside
from .packing import pack
from .staging import sign_shift
from .workload import TILE_PRODUCT, Operands, Workload, folded_bias

__all__ = ["grouped", "instructions", "workloads"]

Array = npt.NDArray[np.generic]

_ORDER = (0, 1, 2, 4, 3)  # NHWC: the filters of a block beside each other, blocks beside each other
_WIDEST = 256  # channels and filters of a block whose groups are apart by zeros
_VECTORS = 6  # registers of sums for one position
_FINISH, _STORED = 4, 4  # dot products that take as long as finishing a vector of results, and as storing sums before
_STAGED = 16  # bytes that are staged in the time of a dot product


def grouped(kernel: Kernel) -> Located:
    """A 2-D convolution of several groups; see `conv`."""
    op, instruction = kernel.op, kernel.target.instruction
    assert op.weight is not None
    weight, group = op.weight, int(op.attributes["group"])
    if instruction is None or instruction.name not in MACHINES or group == weight.shape[0] == weight.shape[1] * group:
        return without_template(kernel)  # depthwise ones have a template of their own
    kernel.relay(0, channels_last(4))
    p = min(workloads(kernel, weight, group), key=lambda p: instructions(p, instruction.name))
    if p.share:
        _dot(p, instruction.name).register()
    n, filters = kernel.operands[0].shape[0], weight.shape[0]
    largest = reach(kernel, weight)
    bias, factors = _by_filter(kernel, p, weight, bias_offset(kernel, largest))
    packed = kernel.array(_packed(weight, p), "w")
    data, at, pitch = _operand(kernel, p)
    x = _BlockOperands(data, bias, factors, packed, at=at, pitch=pitch, blocks=p.blocks, filters=p.padded_filters)
    out = Located("", (n, filters, *spatial_size(kernel)), kernel.result_type, channels_last(4))
    return product(p)(kernel, p, x, finisher(kernel, largest, factors), out, _ORDER)


@dataclass(frozen=True)
class _BlockOperands(Operands):
    """Weights [block, …], biases [image, filter] and multipliers [block · filter]; filters: of a block, as packed."""

    blocks: int = 1
    filters: int = 0

    def weight(self, n: Any, h: Any, *index: Any) -> tuple[Any, ...]:
        return (n % self.blocks, *index)

    def start(self, n: Any, h: Any, o: Any) -> Any:
        return self.bias[(n, o)]

    def filter(self, n: Any, o: Any) -> Any:
        return n % self.blocks * self.filters + o


def workloads(kernel: Kernel, weight: Array, group: int) -> Iterator[GroupedProduct]:
    """Every way to compute the convolution; all give the same bits."""
    instruction, op = kernel.target.instruction, kernel.op
    assert instruction is not None
    n, _, *size = kernel.operands[0].shape
    filters, channels = weight.shape[0] // group, weight.shape[1]
    window = [op.attributes[name] for name in ("strides", "dilations", "pads")]
    if weight.shape[2:] == (1, 1) and tuple(window[0]) == (1, 1) and not any(window[2]):
        size = [1, prod(size)]  # one long row: more tiles divide it

    def one(joined: int) -> Workload:
        """A product of so many groups."""
        sizes = (n * group // joined, joined * channels, (size[0], size[1]), joined * filters)
        return workload(kernel, *sizes, weight.shape[2:], *window)

    for joined in (j for j in range(1, group + 1) if group % j == 0):
        if joined == 1 or joined * max(channels, filters) <= _WIDEST:
            p = chosen(kernel, one(joined))
            yield GroupedProduct(**p.__dict__, blocks=group // joined)
    for dot in _dots(instruction.name, filters, channels, group):
        p, machine = one(dot.groups), dot.machine
        lanes = {"lanes": dot.lanes, "depth": dot.depth, "channels": channels, "registers": p.registers // dot.vectors}
        own = {"share": filters, "vector": machine.vector, "word": machine.word}
        yield GroupedProduct(**{**p.__dict__, **lanes, **own, "intrinsic": dot.name}, blocks=group // dot.groups)


def _dots(instruction: str, filters: int, channels: int, group: int) -> Iterator[GroupedDot]:
    """Products of several groups at once: those that fill vectors, and those that one load of activations serves."""
    machine = MACHINES[instruction]
    depth = -(-channels // machine.word) * machine.word
    for times in (1, 2, 4):
        dot = GroupedDot(instruction, filters, depth, times)
        fills = times == 1 and filters % machine.vector != 0
        loads = dot.groups > 1 and depth == machine.word and machine.lane_words in (dot.groups, 2 * dot.groups)
        if (fills or loads) and group % dot.groups == 0 and dot.vectors <= _VECTORS and depth > 1:
            yield dot


def instructions(p: GroupedProduct, instruction: str) -> float:
    """What a convolution takes, counted in dot products of one vector by an integer instruction."""
    machine, positions, taps = MACHINES[instruction], p.batch * prod(p.out), prod(p.kernel)
    tiled, whole = p.intrinsic == TILE_PRODUCT, p.filters == p.padded_filters
    vectors = positions * -(-p.filters // machine.vector)
    around = float(vectors * (_FINISH if tiled or whole else _FINISH + _STORED))
    if p.padded_channels > p.channels:  # byte by byte
        around += p.batch * prod(p.size) * p.width
    elif _staged(p):
        around += p.batch * prod(p.size) * -(-p.width // _STAGED)
    if tiled:
        return tile.DOTS * tile.products(p) + around
    filters = 2 if p.intrinsic in MATRIX_PRODUCT.values() else 1  # a matrix product makes two positions
    products = positions * taps * p.padded_filters * p.padded_channels / (machine.vector * machine.word * filters)
    if p.share:
        # What is in order for a tap of the window is so for the next position's tap before.
        again = p.kernel[1] if p.strides[1] == p.dilations[1] == 1 else 1
        products += positions * taps * _dot(p, instruction).permutations / again
    elif p.intrinsic == SDOT:  # which has its activations copied to all lanes first, for as many vectors as there are
        products += positions * taps * p.padded_channels / p.depth
    return products + around


def _dot(p: GroupedProduct, instruction: str) -> GroupedDot:
    """The product of a workload whose lanes read the channels of their own group."""
    fewest = GroupedDot(instruction, p.share, p.depth)
    return replace(fewest, times=p.lanes // fewest.lanes)


def _staged(p: GroupedProduct) -> bool:
    """The operand cannot be read where it lies: borders, channels that are filled up, taps that tiles want together."""
    joined = p.intrinsic == TILE_PRODUCT and p.kernel[1] > 1
    return any(p.pads) or p.padded_channels > p.channels or joined


def _operand(kernel: Kernel, p: GroupedProduct) -> tuple[Any, Callable[..., tuple[Any, ...]], int | None]:
    """The operand as the instruction reads it, the index of an element, bytes between columns where there are others.

    Where it is staged, blocks lie behind each other.
    """
    tirx, (n, channels, *_) = kernel.tirx, kernel.operands[0].shape
    data = kernel.operand(0, (n, *p.size, channels)).data
    own, depth = channels // p.blocks, p.padded_channels

    def at(b: Any, h: Any, w: Any, c: Any) -> tuple[Any, ...]:
        return b // p.blocks, h, w, b % p.blocks * own + c

    converted = kernel.operands[0].dtype != p.dtype
    if not converted and not _staged(p):
        return data, at, p.strides[1] * channels
    shift, (top, left, bottom, right), (rows, columns) = sign_shift(kernel.operands[0].dtype, p), p.pads, p.size
    border = kernel.scalar(kernel.zero_point() + shift, p.dtype, "border")

    def element(b: Any, h: Any, w: Any, c: Any) -> Any:
        # channels of each group, or of the block, are filled up to whole words
        value = data(*at(b, h - top, w - left, c if depth == p.channels else c // depth * p.channels + c % depth))
        if converted:
            value = (value.astype("int32") + shift).astype(p.dtype)
        filled = [] if depth == p.channels else [c % depth < p.channels]
        conditions = [*filled, *inside(h, w, p.pads, p.size)]
        return tirx.if_then_else(tirx.all(*conditions), value, border) if conditions else value

    shape = (p.batch, rows + top + bottom, columns + left + right, p.width)
    return kernel.te.compute(shape, element, name="staged"), lambda *index: index, None


def _by_filter(kernel: Kernel, p: GroupedProduct, weight: Array, offset: int) -> tuple[Any, Any]:
    """Biases by image and filter, with −z_x·Σw + offset in them, and multipliers by block and filter."""
    zero = kernel.zero_point() + sign_shift(kernel.operands[0].dtype, p)
    assert kernel.op.multiplier is not None
    starts = (folded_bias(kernel, weight, zero).astype(np.int64) + offset).astype(np.int32)
    more = ((0, 0), (0, p.padded_filters - p.filters))
    biases, factors = (np.pad(a.reshape(p.blocks, -1), more) for a in (starts, kernel.op.multiplier))
    images = np.tile(biases, (p.batch // p.blocks, 1))
    return kernel.array(images, "bias"), kernel.array(factors.reshape(-1), "multiplier")


def _packed(weight: Array, p: GroupedProduct) -> Array:
    """Weights [O, I, R, S] as [block, …] of what the intrinsic reads."""
    _, channels, *window = weight.shape
    blocks = weight.reshape(p.blocks, p.filters, channels, *window)
    if not p.share:
        return np.stack([pack(_apart(block, p.channels), p) for block in blocks])
    full = np.zeros((p.blocks, p.filters, p.depth, *window), np.int8)
    full[:, :, :channels] = blocks
    steps = full.reshape(p.blocks, p.filters, p.depth // p.word, p.word, *window).transpose(0, 4, 5, 2, 1, 3)
    return np.ascontiguousarray(steps[:, None, :, :, None])  # one vector of filters, all channels in one step


def _apart(block: Array, channels: int) -> Array:
    """The groups of a block [O, I, R, S] with zeros between them, [O, channels, R, S]."""
    filters, own, *window = block.shape
    groups = channels // own
    full = np.zeros((groups, filters // groups, groups, own, *window), np.int8)
    for k, group in enumerate(block.reshape(groups, filters // groups, own, *window)):
        full[k, :, k] = group
    return full.reshape(filters, channels, *window)
