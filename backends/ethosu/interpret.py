"""`LiteRtModel`: a .tflite of ours in LiteRT, called as the ONNX model is: float arrays by name, in ONNX's axes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import environment
from .lower import INTERFACE

__all__ = ["LiteRtModel"]

Array = npt.NDArray[np.generic]


class LiteRtModel:
    """Quantizes what it is given and dequantizes what it returns, where the file's inputs and outputs are integers.

    reference: TFLite's reference kernels, which define the rounding; else its optimized ones.
    keep: hold every tensor, so that `tensor` can be asked for after a call.
    """

    def __init__(self, source: bytes | Path, *, reference: bool = True, keep: bool = False) -> None:
        runtime = environment.interpreter()
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        kernels = runtime.OpResolverType
        self._interpreter: Any = runtime.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=kernels.BUILTIN_REF
            if reference
            else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=keep,
        )
        self._interpreter.allocate_tensors()
        sides = json.loads(_metadata(content)[INTERFACE])
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._inputs = list(zip(sides["inputs"], inputs, strict=True))
        self._outputs = list(zip(sides["outputs"], outputs, strict=True))
        self._tensors = {detail["name"]: detail for detail in self._interpreter.get_tensor_details()}

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One inference; float arrays in, float arrays out."""
        for side, detail in self._inputs:
            array = np.asarray(feeds[side["name"]]).transpose(side["axes"])
            self._interpreter.set_tensor(detail["index"], np.ascontiguousarray(_quantized(array, detail)))
        self._interpreter.invoke()
        found = {}
        for side, detail in self._outputs:
            array = _dequantized(self._interpreter.get_tensor(detail["index"]), detail)
            found[side["name"]] = array.transpose(np.argsort(side["axes"]))
        return found

    def tensor(self, name: str) -> Array:
        """The contents of a tensor as they lie there, after a call (needs `keep`)."""
        found: Array = self._interpreter.get_tensor(self._tensors[name]["index"])
        return found


def _quantized(array: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    if not scale:
        return array.astype(detail["dtype"])
    info = np.iinfo(detail["dtype"])
    levels = np.rint(array.astype(np.float32) / np.float32(scale)) + zero
    clipped: Array = np.clip(levels, info.min, info.max).astype(detail["dtype"])
    return clipped


def _dequantized(array: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    return (array.astype(np.int32) - zero).astype(np.float32) * np.float32(scale) if scale else array


def _metadata(content: bytes) -> dict[str, bytes]:
    schema: Any = environment.schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    return {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata or []}
