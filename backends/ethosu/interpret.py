"""`LiteRtModel`: a .tflite of ours in LiteRT, called as the ONNX model is: float arrays by name, in ONNX's axes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir.reference import execute_step
from . import environment
from .flatbuffer import serialize
from .lower import INTERFACE, Lowered, lower
from .prepare import prepared
from .site import Located

__all__ = ["LiteRtModel", "layer_errors"]

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


def layer_errors(model: ir.Model, seed: int = 0) -> dict[str, int]:
    """For each kind of operation, the largest difference in levels between LiteRT's reference kernels and the plan's.

    Every layer is compared on equal operands: those that LiteRT computed on a random input. Shapes must be static.
    """
    lowered = lower(prepared(model))
    runner = LiteRtModel(serialize(lowered.network), keep=True)
    runner(_drawn(lowered, np.random.default_rng(seed)))

    def levels(place: Located) -> Array:
        return runner.tensor(place.tensor.name).transpose(np.argsort(place.axes))

    worst: dict[str, int] = {}
    for step in lowered.steps:
        operands = {o.value: levels(lowered.values[o.value]) for o in step.inputs if o.constant is None}
        expected = execute_step(step, operands)
        for name in step.outputs:
            got = levels(lowered.values[name]).astype(np.int64)
            difference = int(np.abs(got - expected[name].astype(np.int64)).max(initial=0))
            worst[step.kind] = max(worst.get(step.kind, 0), difference)
    return worst


def _drawn(lowered: Lowered, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs over the whole range of their encodings; N(0, 1) where an input is float."""
    feeds: dict[str, Array] = {}
    for tensor in lowered.network.inputs:
        place = lowered.values[tensor.name]
        values: Array = rng.standard_normal(place.shape)
        if tensor.scale is not None and tensor.zero_point is not None:
            info = np.iinfo(tensor.dtype)
            levels = rng.integers(info.min, info.max, place.shape, endpoint=True)
            values = (levels - tensor.zero_point) * tensor.scale
        feeds[tensor.name] = values.astype(np.float32)
    return feeds


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
