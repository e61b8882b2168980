"""Inputs in float16 or bytes that the model casts to float32: made as floats, given in the type they are stored in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.graph import attribute

__all__ = ["BYTES", "as_floats", "as_stored"]

BYTES = (ir.DataType.UINT8, ir.DataType.INT8)
_TYPES = (*BYTES, ir.DataType.FLOAT16)

Feed = Mapping[str, npt.NDArray[np.generic]]


def as_floats(model: ir.Model) -> dict[str, ir.DataType]:
    """Give inputs that are only cast to float32 that type, in place; the types they had, by name."""
    kinds: dict[str, ir.DataType] = {}
    for value in model.graph.inputs:
        casts = [use.node for use in value.uses()]
        wide = casts and all(n.op_type == "Cast" and attribute(n, "to") == int(ir.DataType.FLOAT) for n in casts)
        if value.dtype in _TYPES and wide and value not in model.graph.outputs:
            kinds[str(value.name)] = value.dtype
            value.type = ir.TensorType(ir.DataType.FLOAT)  # types are shared between clones
    return kinds


def as_stored(feeds: Sequence[Feed], kinds: Mapping[str, ir.DataType]) -> list[Feed]:
    """The feeds with these inputs in the types they have, integers rounded and cut off at the ends of their range."""
    return [{name: _stored(x, kinds[name]) if name in kinds else x for name, x in feed.items()} for feed in feeds]


def _stored(x: npt.NDArray[np.generic], kind: ir.DataType) -> npt.NDArray[np.generic]:
    if kind not in BYTES:
        return x.astype(kind.numpy())
    ends = np.iinfo(kind.numpy())
    return np.asarray(np.clip(np.rint(x), ends.min, ends.max), kind.numpy())
