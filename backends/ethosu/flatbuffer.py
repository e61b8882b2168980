"""`serialize`: a network as the bytes of a .tflite file, through the object API that ai-edge-litert carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...targets.tflite import Network, Operation, Tensor
from .environment import schema

__all__ = ["OPTIONS", "serialize"]

# builtin -> (its options table in the schema, the operator version its kernels need for these types)
OPTIONS: Mapping[str, tuple[str, int]] = {
    "ABS": ("AbsOptions", 2),
    "ADD": ("AddOptions", 2),
    "AVERAGE_POOL_2D": ("Pool2DOptions", 2),
    "BATCH_MATMUL": ("BatchMatMulOptions", 2),
    "CONCATENATION": ("ConcatenationOptions", 2),
    "CONV_2D": ("Conv2DOptions", 3),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3),
    "DEQUANTIZE": ("DequantizeOptions", 2),
    "DIV": ("DivOptions", 1),
    "ELU": ("", 1),
    "EXP": ("ExpOptions", 2),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 5),
    "GATHER": ("GatherOptions", 2),
    "GELU": ("GeluOptions", 2),
    "HARD_SWISH": ("HardSwishOptions", 1),
    "LEAKY_RELU": ("LeakyReluOptions", 2),
    "LOG": ("", 2),
    "LOGISTIC": ("", 2),
    "MAXIMUM": ("MaximumMinimumOptions", 2),
    "MAX_POOL_2D": ("Pool2DOptions", 2),
    "MEAN": ("ReducerOptions", 2),
    "MINIMUM": ("MaximumMinimumOptions", 2),
    "MIRROR_PAD": ("MirrorPadOptions", 2),
    "MUL": ("MulOptions", 2),
    "NEG": ("NegOptions", 1),
    "PAD": ("PadOptions", 2),
    "PADV2": ("PadV2Options", 2),
    "POW": ("PowOptions", 1),
    "QUANTIZE": ("QuantizeOptions", 2),
    "REDUCE_MAX": ("ReducerOptions", 2),
    "RELU": ("", 2),
    "RESHAPE": ("ReshapeOptions", 1),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", 3),
    "RSQRT": ("", 2),
    "SLICE": ("SliceOptions", 2),
    "SOFTMAX": ("SoftmaxOptions", 2),
    "SPLIT_V": ("SplitVOptions", 2),
    "SQRT": ("", 1),
    "SQUARED_DIFFERENCE": ("SquaredDifferenceOptions", 2),
    "STRIDED_SLICE": ("StridedSliceOptions", 2),
    "SUB": ("SubOptions", 2),
    "SUM": ("ReducerOptions", 2),
    "TANH": ("", 2),
    "TRANSPOSE": ("TransposeOptions", 2),
    "TRANSPOSE_CONV": ("TransposeConvOptions", 4),
}
# option -> the schema's enumeration that its text names
_ENUMS = {"padding": "Padding", "fusedActivationFunction": "ActivationFunctionType", "mode": "MirrorPadMode"}


def serialize(network: Network) -> bytes:
    """The flatbuffer; equal networks give equal bytes."""
    import flatbuffers

    writer = _Writer()
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(writer.model(network).Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Writer:
    """Tables under construction; buffer 0 is the empty one that tensors without data share."""

    def __init__(self) -> None:
        self.schema = schema()
        self.buffers = [self.schema.BufferT()]
        self.codes: dict[tuple[str, int], int] = {}

    def model(self, network: Network) -> Any:
        tensors = network.tensors()
        index = {tensor: i for i, tensor in enumerate(tensors)}
        graph = self.schema.SubGraphT()
        graph.name = b"main"
        graph.tensors = [self._tensor(tensor) for tensor in tensors]
        graph.operators = [self._operator(operation, index) for operation in network.operations]
        graph.inputs = [index[t] for t in network.inputs]
        graph.outputs = [index[t] for t in network.outputs]
        model = self.schema.ModelT()
        model.version, model.description = 3, b"planish"
        model.subgraphs, model.operatorCodes = [graph], [self._code(*key) for key in self.codes]
        model.metadata = [self._metadata(name, data) for name, data in network.metadata.items()]
        model.buffers = self.buffers
        return model

    def _metadata(self, name: str, data: bytes) -> Any:
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name.encode(), self._buffer(np.frombuffer(data, np.uint8))
        return entry

    def _buffer(self, data: Any) -> int:
        buffer = self.schema.BufferT()
        buffer.data = data
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _tensor(self, tensor: Tensor) -> Any:
        made = self.schema.TensorT()
        made.name, made.shape = tensor.name.encode(), list(tensor.shape)
        made.type = getattr(self.schema.TensorType, tensor.dtype.upper())
        made.buffer = 0
        if tensor.data is not None:
            raw = np.ascontiguousarray(tensor.data, np.dtype(tensor.dtype)).tobytes()
            made.buffer = self._buffer(np.frombuffer(raw, np.uint8))
        if tensor.scale is not None and tensor.zero_point is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = np.atleast_1d(np.asarray(tensor.scale, np.float32))
            zeros = np.broadcast_to(np.asarray(tensor.zero_point, np.int64), made.quantization.scale.shape)
            made.quantization.zeroPoint = zeros.copy()
            made.quantization.quantizedDimension = tensor.axis
        return made

    def _operator(self, operation: Operation, index: Mapping[Tensor, int]) -> Any:
        table, version = OPTIONS[operation.code]
        made = self.schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault((operation.code, version), len(self.codes))
        made.inputs = [-1 if t is None else index[t] for t in operation.inputs]
        made.outputs = [index[t] for t in operation.outputs]
        if table:
            made.builtinOptions = getattr(self.schema, f"{table}T")()
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, table)
            for name, value in operation.options.items():
                if name not in vars(made.builtinOptions):
                    raise AttributeError(f"{table} has no option {name}")
                setattr(made.builtinOptions, name, self._value(name, value))
        return made

    def _value(self, name: str, value: Any) -> Any:
        return getattr(getattr(self.schema, _ENUMS[name]), value) if name in _ENUMS else value

    def _code(self, code: str, version: int) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = getattr(self.schema.BuiltinOperator, code)
        made.deprecatedBuiltinCode, made.version = min(made.builtinCode, 127), version
        return made
