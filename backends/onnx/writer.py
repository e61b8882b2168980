"""Write the IR as a standard ONNX file that ONNX Runtime, TensorRT and OpenVINO accept."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedOpsetsPass

from ...ir import metadata
from ...ir.external import has_external, load_external
from ...ir.graph import weight_bytes

__all__ = ["EXTERNAL_ABOVE", "STREAMED_ABOVE", "write"]

# a protobuf holds at most 2 GiB; half of it leaves room for everything that is not a weight
EXTERNAL_ABOVE = 1 << 30
# weights that came from a file beside the model go back to one, tensor by tensor, unless all of them are small
STREAMED_ABOVE = 1 << 27


def write(model: ir.Model, path: Path, *, keep_metadata: bool = False) -> list[Path]:
    """Write `model` to `path`; returns the files.

    Weights stand beside it in `<name>.data` when they exceed 1 GiB, or 128 MiB where they were external already.
    The model itself is left as it is. Our metadata is dropped unless asked for; the IR version is the lowest that
    the opset allows, so that older runtimes still read the file.
    """
    copy = model.clone()
    RemoveUnusedOpsetsPass()(copy)
    if not keep_metadata:
        pipeline = copy.metadata_props.get(metadata.PREFIX + "pipeline")
        metadata.drop(copy)
        if pipeline is not None:
            copy.metadata_props[metadata.PREFIX + "pipeline"] = pipeline
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in copy.opset_imports.items()]
    copy.ir_version = max(4, onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True))
    if weight_bytes(copy) <= (STREAMED_ABOVE if has_external(copy) else EXTERNAL_ABOVE):
        load_external(copy)
        ir.save(copy, path)
        return [path]
    data = path.with_name(path.name + ".data")
    ir.save(copy, path, external_data=data.name)
    return [path, data]
