"""`-O1` on real models: the same outputs at every size, and no more nodes than any simplifier leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
from planish.ir import capture
from planish.passes import defaults
from planish.passes.manager import PassManager

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason="the pack of pretrained models is not beside the project")

# fewest nodes that onnxslim 0.1.98, onnxsim 0.8.1 and onnxscript 0.7.2 leave (tools/bench/nodes.py)
BEST_OF_PEERS = {
    "all_minilm_l6_v2/model.onnx": 317,
    "dtln_1/model.onnx": 36,
    "dtln_2/model.onnx": 68,
    "imdn_x2/model.onnx": 194,
    "kws_dscnn/model.onnx": 21,
    "kws_dscnn/model_bn.onnx": 21,
    "lenet_mnist/model.onnx": 8,
    "mobilenetv1_075/model.onnx": 56,
    "mobilenetv2_tf/model.onnx": 99,
    "nsnet2/model.onnx": 29,
    "resnet20_cifar10/model.onnx": 54,
    "resnet20_cifar10/model_bn.onnx": 54,
    "resnet8_cifar10/model.onnx": 21,
    "resnet8_cifar10/model_bn.onnx": 21,
    "silero_vad/model.onnx": 60,
    "style_starry_night/model.onnx": 66,
    "vit_mnist/model.onnx": 228,
    "yunet_n/model.onnx": 163,
}
SIZES = [
    {"batch": 1, "frames": 7, "s16": 16, "s82": 24, "sequence": 576, "seq": 9, "height": 64, "width": 96},
    {"batch": 3, "frames": 12, "s16": 20, "s82": 12, "sequence": 576, "seq": 17, "height": 128, "width": 64},
]


def feeds_of(model: ir.Model, sizes: dict[str, int], seed: int) -> dict[str, npt.NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        dims = [d if isinstance(d, int) else sizes[str(d.value)] for d in value.shape or ()]
        drawn = rng.integers(1, 2, dims) if dtype.kind in "iu" else rng.normal(size=dims)
        feeds[str(value.name)] = np.asarray(drawn, dtype)
    return feeds


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", sorted(BEST_OF_PEERS))
def test_exact_passes_keep_outputs_and_leave_no_redundancy(name: str) -> None:
    original, model = capture.capture(MODELS / name), capture.capture(MODELS / name)
    PassManager(defaults.exact()).run(model)
    assert sum(1 for _ in model.graph.all_nodes()) <= BEST_OF_PEERS[name]
    assert {node.domain for node in model.graph.all_nodes()} <= {"", "ai.onnx"}
    assert [v.name for v in model.graph.inputs] == [v.name for v in original.graph.inputs]
    assert [v.name for v in model.graph.outputs] == [v.name for v in original.graph.outputs]
    assert [str(v.shape) for v in model.graph.inputs] == [str(v.shape) for v in original.graph.inputs]
    before, after = session(original), session(model)
    for seed, sizes in enumerate(SIZES):
        feeds = feeds_of(original, sizes, seed)
        for expected, got in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
            assert expected.shape == got.shape and expected.dtype == got.dtype
            assert float(np.abs(expected - got).max()) <= 1e-4 * float(np.abs(expected).max() + 1e-9)
