"""How the right-hand factor of a product lies for the instruction that reads it: packed once, or in every run.

[.., filters / lanes, R, S, channels / depth, *inner]; `_INNER` says what is in the last axes. Zeros fill up channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..intrinsics_arm64 import DEEP_SDOT, SMLAL, SMMLA
from .grouped_workload import GroupedProduct
from .kernel import Kernel
from .located import Located, row_major
from .workload import Workload

__all__ = ["inner", "pack", "packed_in_every_run"]

Array = npt.NDArray[np.generic]

_SIGNS = {2: -0x7F80, 4: -0x7F7F7F80, 8: -0x7F7F7F7F7F7F7F80}  # the sign bits of all bytes of a word


@dataclass(frozen=True)
class _Inner:
    """The last axes of packed factors: their sizes in words, bytes of a word (channels behind each other), and the
    filter and the first channel that a word holds, within its group and step.
    """

    sizes: Callable[[Workload], tuple[int, ...]]
    bytes: Callable[[Workload], int]
    place: Callable[..., tuple[Any, Any]]


_DOT = _Inner(lambda p: (p.lanes,), lambda p: p.depth, lambda lane: (lane, 0))
# intrinsic -> layout, where it is not filter by filter
_LAYOUTS: Mapping[str | None, _Inner] = {
    SMLAL: _Inner(lambda p: (p.depth, p.lanes), lambda p: 1, lambda channel, lane: (lane, channel)),
    SMMLA: _Inner(lambda p: (2, 2), lambda p: p.depth, lambda pair, one: (pair * 2 + one, 0)),
    **{
        name: _Inner(lambda p: (p.depth // 4, p.lanes), lambda p: 4, lambda group, lane: (lane, group * 4))
        for name in DEEP_SDOT.values()
    },
}


def inner(p: Workload, o: Any, ci: Any) -> tuple[Any, ...]:
    """Where a filter and a channel of a step lie in the last axes."""
    if isinstance(p, GroupedProduct) and p.share:
        return p.inner(o, ci)
    lane = o % p.lanes
    if p.intrinsic == SMMLA:
        return lane // 2, lane % 2, ci
    if p.intrinsic in DEEP_SDOT.values():
        return ci // 4, lane, ci % 4
    return (ci, lane) if p.intrinsic == SMLAL else (lane, ci)


def pack(weight: Array, p: Workload) -> Array:
    """Constant weights [O, I, R, S], packed for the workload's intrinsic."""
    o, i, r, s = weight.shape
    full = np.zeros((p.padded_filters, p.padded_channels, r, s), np.int8)
    full[:o, :i] = weight
    layout = _LAYOUTS.get(p.intrinsic, _DOT)
    sizes, word = layout.sizes(p), layout.bytes(p)
    filters, channels = (np.asarray(a)[..., None] for a in np.broadcast_arrays(*layout.place(*np.indices(sizes))))
    channels = channels + np.arange(word)
    split = full.reshape(p.padded_filters // p.lanes, p.lanes, p.padded_channels // p.depth, p.depth, r, s)
    found = split.transpose(0, 4, 5, 2, 1, 3)[..., filters, channels]
    return np.ascontiguousarray(found[..., 0] if p.intrinsic == SMLAL else found)


def packed_in_every_run(kernel: Kernel, p: Workload, place: Located) -> Any:
    """An operand [..., K, N] of a product, packed by a kernel of its own: as an argument of `kernel`, int8.

    Its first axes are the product's images and rows. Unsigned bytes become signed ones, 128 less.
    """
    copy = type(kernel)(kernel.program, kernel.op, [place], kernel.target)
    layout = _LAYOUTS.get(p.intrinsic, _DOT)
    sizes, word = layout.sizes(p), layout.bytes(p)
    shape = (p.batch, p.size[0], p.padded_filters // p.lanes, 1, 1, p.padded_channels // p.depth, *sizes)
    whole = word > 1 and place.layout[-1] == len(place.shape) - 2 and p.channels % word == 0
    read = (_words if whole else _bytes)(copy, p, place, word)

    def element(n: Any, h: Any, group: Any, _r: Any, _s: Any, step: Any, *at: Any) -> Any:
        lane, first = layout.place(*at)
        # Filters behind the last one are never stored: any will do.
        o = group * p.lanes + lane
        o = o if p.filters == p.padded_filters else kernel.tirx.min(o, p.filters - 1)
        return read(image(place, n, h), step * p.depth + first, o)

    dtype = f"int{8 * word}"
    out = copy.te.compute(shape, element, name="out")
    found = copy.finish(out, Located("", shape, dtype, row_major(len(shape))))
    return kernel.argument(found.tensor, shape if p.intrinsic == SMLAL else (*shape, word), "int8", "w")


def image(place: Located, n: Any, h: Any) -> tuple[Any, ...]:
    """The first indices of an operand [..., rows, columns] for the product of row `h` of image `n`, by broadcasting."""
    axes = len(place.shape) - 2
    return tuple(0 if extent == 1 else i for extent, i in zip(place.shape[:axes], (n, h)[2 - axes :], strict=True))


def _words(copy: Kernel, p: Workload, place: Located, word: int) -> Callable[..., Any]:
    """All channels of a word at once, where they lie behind each other in memory."""
    dtype = f"int{8 * word}"
    data = copy.argument(place.tensor, (*place.stored[:-1], p.channels // word), dtype, "x0")
    signs = copy.tirx.const(_SIGNS[word], dtype)

    def read(front: tuple[Any, ...], k: Any, o: Any) -> Any:
        index = (*front, k // word, o)
        value = data(*(index[axis] for axis in place.layout))
        value = value ^ signs if place.dtype == "uint8" else value
        if p.channels == p.padded_channels:
            return value
        return copy.tirx.if_then_else(k < p.channels, value, copy.tirx.const(0, dtype))

    return read


def _bytes(copy: Kernel, p: Workload, place: Located, word: int) -> Callable[..., Any]:
    """Channels one by one, put together to words."""
    view, tirx = copy.operand(), copy.tirx
    dtype = f"int{max(8 * word, 32)}"

    def byte(front: tuple[Any, ...], k: Any, o: Any) -> Any:
        value = view(*front, k, o).astype("uint8").astype(dtype)
        value = value ^ 128 if place.dtype == "uint8" else value
        if p.channels == p.padded_channels:
            return value
        return tirx.if_then_else(k < p.channels, value, tirx.const(0, dtype))

    def read(front: tuple[Any, ...], k: Any, o: Any) -> Any:
        found = byte(front, k, o)
        for j in range(1, word):
            found = found | tirx.shift_left(byte(front, k + j, o), tirx.const(8 * j, dtype))
        return found.astype(f"int{8 * word}")

    return read
