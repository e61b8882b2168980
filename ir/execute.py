"""Run a model in ONNX Runtime: the executor passes are measured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..errors import ModelError
from .bfloat16 import in_float32, uses_bfloat16
from .external import has_external, load_external
from .graph import weight_bytes

__all__ = ["Session", "execute"]

_PROTOBUF_LIMIT = 2**31 - (1 << 20)  # a protobuf message holds less than 2 GiB, graph included

Array = npt.NDArray[np.generic]


class Session:
    """A model loaded once and run many times, optimizations off so that every value is what the graph says.

    fetch: names of the values to return (any value of the main graph); graph outputs when None.
    threads: intra-op threads; 0 leaves it to the runtime.
    """

    def __init__(
        self, model: ir.Model, fetch: Sequence[str] | None = None, *, optimized: bool = False, threads: int = 0
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
        proto = ir.to_proto(in_float32(_in_memory(model)) if uses_bfloat16(model) else _in_memory(model))
        known = {output.name for output in proto.graph.output}
        self.fetch = list(fetch) if fetch is not None else [output.name for output in proto.graph.output]
        types = {v.name: v for v in proto.graph.value_info} | {v.name: v for v in proto.graph.input}
        for name in self.fetch:
            if name not in known:
                known.add(name)
                info = proto.graph.output.add()
                info.name = name
                if name in types:
                    info.type.CopyFrom(types[name].type)
        try:
            self._session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime does not accept the model: {str(error)[:400]}",
                where=model.graph.name or "main graph",
                hint="check the model with onnx.checker; if only a pass produced it, run with --bisect",
            ) from error

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        arrays = {name: np.asarray(x) if isinstance(x, np.generic) else x for name, x in feeds.items()}
        return dict(zip(self.fetch, self._session.run(self.fetch, arrays), strict=True))


def _in_memory(model: ir.Model) -> ir.Model:
    """The model with its external weights loaded, as a runtime that is given bytes wants it; at most 2 GiB."""
    size = weight_bytes(model)
    if size >= _PROTOBUF_LIMIT:
        raise ModelError(
            f"{size >> 20} MiB of weights are more than a model in memory may hold (2 GiB)",
            where=model.graph.name or "main graph",
            hint="run the written model.onnx from its file instead",
        )
    if not has_external(model):
        return model
    copy = model.clone()
    load_external(copy)
    return copy


def execute(model: ir.Model, feeds: Mapping[str, Array], fetch: Sequence[str] | None = None) -> dict[str, Array]:
    """Run the model once; see `Session`."""
    return Session(model, fetch)(feeds)
