"""Operators that only move elements: the integers pass unchanged, in one encoding on both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..quantization import Encoding
from ..resampling import nearest_indices
from .encodings import known
from .site import Sink, Site, requantize
from .steps import IntegerOp, Operand, Refusal

__all__ = [
    "concat",
    "depth_to_space",
    "flatten",
    "gather",
    "identity",
    "move",
    "pad",
    "reshape",
    "resize",
    "slice_",
    "space_to_depth",
    "split",
    "transpose",
]


def move(site: Site, kind: str, attributes: dict[str, Any]) -> None:
    """One operand, one result; where nothing quantizes the result it keeps the operand's encoding."""
    x = site.operand(0)
    sink = site.sink(fuse=False)
    assert x.encoding is not None
    _emit(site, kind, (x,), sink, x.encoding if sink is None else sink.encoding, attributes)


def _emit(
    site: Site,
    kind: str,
    operands: tuple[Operand, ...],
    sink: Sink | None,
    encoding: Encoding,
    attributes: dict[str, Any],
) -> None:
    inputs = tuple(site.in_encoding(operand, encoding) for operand in operands)
    if sink is not None:
        site.emit(kind, inputs, sink, attributes=attributes)
        return
    name = site.result(0, encoding)
    covers = (*site.dequantizers(), site.node)
    site.steps.append(IntegerOp(kind, site.node, inputs, (name,), encoding, attributes=attributes, covers=covers))


def identity(site: Site) -> None:
    """Identity and Dropout of inference."""
    if len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise Refusal("the mask is used")
    _reshape_to(site, [d if isinstance(d, int) else -1 for d in _dims(site)])


def _dims(site: Site) -> list[Any]:
    value = site.input(0)
    if value is None or value.shape is None:
        raise Refusal("the rank of the operand is unknown")
    return list(value.shape)


def _reshape_to(site: Site, shape: list[int]) -> None:
    if shape.count(-1) > 1:
        raise Refusal("more than one dimension of the result is not static")
    move(site, "reshape", {"shape": tuple(shape)})


def reshape(site: Site) -> None:
    """Reshape, Squeeze, Unsqueeze: what the result's inferred shape says, else a constant target."""
    inferred = site.node.outputs[0].shape
    if inferred is not None:
        dims = [d if isinstance(d, int) else -1 for d in inferred]
        if dims.count(-1) <= 1:
            _reshape_to(site, dims)
            return
    target = site.integers(1, "shape") if site.node.op_type == "Reshape" else None
    if target is None:
        raise Refusal("the shape of the result is not static")
    if 0 in target and not site.attribute("allowzero", 0):
        dims = _dims(site)
        target = [(dims[i] if isinstance(dims[i], int) else -1) if n == 0 else n for i, n in enumerate(target)]
    _reshape_to(site, target)


def flatten(site: Site) -> None:
    """Flatten: the axes before `axis` become one, and those after it."""
    dims = _dims(site)
    axis = site.axis(site.attribute("axis", 1))
    halves = [dims[:axis], dims[axis:]]
    _reshape_to(site, [int(np.prod(h)) if all(isinstance(d, int) for d in h) else -1 for h in halves])


def transpose(site: Site) -> None:
    """Transpose by a constant permutation (reversed axes by default)."""
    perm = site.attribute("perm")
    move(site, "transpose", {"perm": tuple(int(p) for p in perm) if perm else tuple(reversed(range(site.rank(0))))})


def slice_(site: Site) -> None:
    """Slice with constant bounds on axes of known size."""
    starts, ends = site.integers(1, "starts"), site.integers(2, "ends")
    if starts is None or ends is None:
        raise Refusal("the bounds are not constant")
    axes = [site.axis(a) for a in site.integers(3, "axes") or range(len(starts))]
    steps = site.integers(4, "steps") or [1] * len(starts)
    sizes = site.sizes(0, axes)
    ranges = [slice(a, _open_end(b, s), s).indices(n) for a, b, s, n in zip(starts, ends, steps, sizes, strict=True)]
    attributes = {
        "axes": tuple(axes),
        "starts": tuple(first for first, _, _ in ranges),
        "sizes": tuple(len(range(*r)) for r in ranges),
        "steps": tuple(step for _, _, step in ranges),
    }
    move(site, "slice", attributes)


def _open_end(end: int, step: int) -> int | None:
    """Backwards, an end before the first element is written as a large negative number."""
    return None if step < 0 and end <= -(2**31) + 1 else end


def pad(site: Site) -> None:
    """Pad: a constant is quantized to the encoding; zero becomes the zero point."""
    x = site.operand(0)
    rank = site.rank(0)
    given = site.integers(1, "pads")
    axes = [site.axis(a) for a in site.integers(3, "") or range(rank)]
    if given is None or min(given, default=0) < 0:
        raise Refusal("the pads are not constant, or negative")
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[axis + rank] = given[i], given[i + len(axes)]
    sink = site.sink(fuse=False)
    assert x.encoding is not None
    encoding = x.encoding if sink is None else sink.encoding
    attributes = {"pads": tuple(pads), "mode": site.attribute("mode", "constant"), "level": 0}
    if attributes["mode"] == "constant":
        value = np.asarray(_pad_value(site), np.float32).reshape(())
        level = encoding.quantize(value)
        if sink is None and encoding.dequantize(level) != value:
            raise Refusal("the padding is not a level of the operand, and the result stays float")
        attributes["level"] = int(level)
    _emit(site, "pad", (x,), sink, encoding, attributes)


def _pad_value(site: Site) -> Any:
    if site.input(2) is None:
        return site.attribute("value", 0.0)
    value = site.constant(2)
    if value is None or value.size != 1:
        raise Refusal("the padding value is not constant")
    return value


def concat(site: Site) -> None:
    """Concat: operands in other encodings are requantized to the result's."""
    operands = tuple(site.operand(i) for i in range(len(site.node.inputs)))
    sink = site.sink(fuse=False)
    first = operands[0].encoding
    assert first is not None
    if sink is None and not all(o.encoding is not None and o.encoding.same_as(first) for o in operands):
        raise Refusal("the operands have different encodings and the result stays float")
    attributes = {"axis": site.axis(site.attribute("axis"))}
    _emit(site, "concat", operands, sink, first if sink is None else sink.encoding, attributes)


def split(site: Site) -> None:
    """Split: each part that is quantized in another encoding is requantized behind it."""
    x = site.operand(0)
    axis = site.axis(site.attribute("axis", 0))
    sizes = site.integers(1, "split") or _equal_parts(site.sizes(0, [axis])[0], len(site.node.outputs))
    assert x.encoding is not None
    names, behind = [], []
    for i in range(len(site.node.outputs)):
        sink = site.sink(i, fuse=False)
        if sink is not None and sink.encoding.same_as(x.encoding):
            site.sinks.append(sink)
            names.append(sink.value)
            continue
        names.append(site.result(i, x.encoding))
        if sink is not None:
            site.sinks.append(sink)
            behind.append(requantize(site.node, Operand(names[i], x.encoding), sink.value, sink.encoding))
    covers = (*site.dequantizers(), site.node, *(q for sink in site.sinks for q in sink.quantizers))
    attributes = {"axis": axis, "sizes": tuple(sizes)}
    op = IntegerOp("split", site.node, (x,), tuple(names), x.encoding, attributes=attributes, covers=covers)
    site.steps.append(op)
    site.steps.extend(behind)


def _equal_parts(size: int, parts: int) -> list[int]:
    part = -(-size // parts)
    return [part] * (parts - 1) + [size - part * (parts - 1)]


def gather(site: Site) -> None:
    """Gather by constant indices."""
    axis = site.axis(site.attribute("axis", 0))
    indices = known(site.input(1))
    if indices is None:
        raise Refusal("the indices are not constant")
    at = indices.astype(np.int64)
    if (at < 0).any():
        at = np.where(at < 0, at + site.sizes(0, [axis])[0], at)
    move(site, "gather", {"axis": axis, "indices": at})


def depth_to_space(site: Site) -> None:
    """DepthToSpace in either order."""
    move(site, "depth_to_space", {"blocksize": int(site.attribute("blocksize")), "mode": site.attribute("mode", "DCR")})


def space_to_depth(site: Site) -> None:
    """SpaceToDepth."""
    move(site, "space_to_depth", {"blocksize": int(site.attribute("blocksize"))})


def resize(site: Site) -> None:
    """Resize to the nearest neighbour is a gather along each axis that changes size."""
    shape = [n if isinstance(n, int) else None for n in _dims(site)]
    indices = nearest_indices(site.node, shape, [site.constant(i) for i in range(len(site.node.inputs))])
    if isinstance(indices, str):
        raise Refusal(indices)
    move(site, "resize", {"axes": tuple(indices), "indices": tuple(indices.values())})
