"""Rules on quantization and on the facts passes leave: Q/DQ operands, encodings, statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from .. import metadata
from ..graph import constant
from ..quantization import Encoding, integer_range
from .structure import Finding, where

__all__ = ["encodings", "facts", "quantizers", "statistics"]

_LARGEST_SCALE = 1 << 20  # elements of a scale that are looked at


def quantizers(model: ir.Model) -> Iterator[Finding]:
    for node in model.graph.all_nodes():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not node.domain and len(node.inputs) >= 2:
            for problem in _operands(node):
                yield where(node), problem


def _operands(node: ir.Node) -> Iterator[str]:
    data, scale = node.inputs[0], node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if data is None or scale is None:
        yield "the data or the scale is missing"
        return
    if zero is not None:
        yield from _zero_point(node, data, scale, zero)
    yield from _axis(node, data, scale)
    levels = constant(scale, _LARGEST_SCALE)
    if levels is not None:
        values = np.asarray(levels, np.float32)
        if not (np.isfinite(values).all() and (values > 0).all()):
            yield f"the scale {scale.name!r} is not positive and finite"


def _zero_point(node: ir.Node, data: ir.Value, scale: ir.Value, zero: ir.Value) -> Iterator[str]:
    integer = node.outputs[0] if node.op_type == "QuantizeLinear" else data
    if zero.dtype is not None and integer.dtype is not None and zero.dtype != integer.dtype:
        yield f"the zero point is {zero.dtype.name} and the integers are {integer.dtype.name}"
    shapes = _counted(scale), _counted(zero)
    if None not in shapes and shapes[0] != shapes[1]:
        yield f"the scale has shape {scale.shape} and the zero point {zero.shape}"
    if zero.dtype == ir.DataType.INT32:
        offsets = constant(zero, _LARGEST_SCALE)
        if offsets is not None and np.any(offsets):
            yield "the int32 zero point is not 0"


def _counted(value: ir.Value) -> tuple[object, ...] | None:
    """Its shape; a single number may be a scalar or a list, as ONNX Runtime's quantizer writes those of biases."""
    shape = None if value.shape is None else tuple(value.shape)
    return () if shape == (1,) else shape


def _axis(node: ir.Node, data: ir.Value, scale: ir.Value) -> Iterator[str]:
    if scale.shape is None or data.shape is None or _block(node):
        return
    rank, dims = len(data.shape), tuple(scale.shape)
    if len(dims) == 0 or dims == (1,):
        return
    if len(dims) > 1:
        yield f"the scale has {len(dims)} dimensions; it may be one, or one for each slice along an axis"
        return
    attribute = node.attributes.get("axis")
    axis = 1 if attribute is None else int(attribute.value)
    if not -rank <= axis < rank:
        yield f"axis {axis} is outside the {rank} dimensions of {data.name!r}"
        return
    size = data.shape[axis]
    if isinstance(size, int) and isinstance(dims[0], int) and size != dims[0]:
        yield f"{dims[0]} scales for {size} slices along axis {axis}"


def _block(node: ir.Node) -> bool:
    attribute = node.attributes.get("block_size")
    return attribute is not None and bool(attribute.value)


def _sites(model: ir.Model) -> Iterator[tuple[str, ir.Node | ir.Value]]:
    """Nodes and values that carry metadata, each with its name in a message."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            if value.metadata_props:
                yield f"value {value.name!r}", value
        for node in graph:
            if node.metadata_props:
                yield where(node), node
            for value in node.outputs:
                if value.metadata_props:
                    yield f"value {value.name!r}", value


def facts(model: ir.Model) -> Iterator[Finding]:
    for place, site in _sites(model):
        for key, text in site.metadata_props.items():
            if key.startswith(metadata.PREFIX):
                try:
                    json.loads(text)
                except ValueError:
                    yield place, f"the metadata {key!r} is not JSON"


def statistics(model: ir.Model) -> Iterator[Finding]:
    for place, site in _sites(model):
        if isinstance(site, ir.Value) and metadata.STATISTICS in site.metadata_props:
            problem = _moments(site, metadata.get(site, metadata.STATISTICS))
            if problem:
                yield place, f"the statistics do not fit: {problem}"


def _moments(value: ir.Value, fact: Any) -> str:
    if not isinstance(fact, dict) or not {"mean", "std"} <= fact.keys():
        return "they have no mean and std"
    mean, std = np.asarray(fact["mean"], np.float64), np.asarray(fact["std"], np.float64)
    if mean.shape != std.shape or mean.ndim != 1:
        return f"mean has shape {mean.shape} and std {std.shape}"
    if not np.isfinite(mean).all() or not (std >= 0).all():
        return "a mean is not finite, or a std is negative"
    axis = fact.get("axis", 1)
    if value.shape is None:
        return ""
    if not -len(value.shape) <= axis < len(value.shape):
        return f"axis {axis} is outside the shape {value.shape}"
    size = value.shape[axis]
    return f"{mean.size} channels for {size} along axis {axis}" if isinstance(size, int) and size != mean.size else ""


def encodings(model: ir.Model) -> Iterator[Finding]:
    for place, site in _sites(model):
        if isinstance(site, ir.Value) and metadata.ENCODING in site.metadata_props:
            problem = _encoding(site)
            if problem:
                yield place, f"the encoding is wrong: {problem}"


def _encoding(value: ir.Value) -> str:
    try:
        encoding = Encoding.of(value)
        assert encoding is not None
        lowest, highest = integer_range(encoding.dtype)
    except (KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    scale, zero, axis = encoding.scale, encoding.zero_point, encoding.axis
    if scale.shape != zero.shape or scale.ndim != (axis is not None):
        return f"scale has shape {scale.shape}, zero point {zero.shape}, axis is {axis}"
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return "a scale is not positive and finite"
    if (zero < lowest).any() or (zero > highest).any():
        return f"a zero point is outside {encoding.dtype.name}"
    if axis is None or value.shape is None:
        return ""
    if not -len(value.shape) <= axis < len(value.shape):
        return f"axis {axis} is outside the shape {value.shape}"
    size = value.shape[axis]
    return f"{scale.size} scales for {size} along axis {axis}" if isinstance(size, int) and size != scale.size else ""
