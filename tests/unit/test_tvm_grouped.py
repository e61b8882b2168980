"""Convolutions of several groups: the same bits whichever way their groups fill vectors, and how that is chosen."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.kernels import assembly, build
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.lower import lower
from planish.backends.tvm.operators.grouped_workload import GroupedProduct
from planish.backends.tvm.operators.workload import choose, space
from planish.backends.tvm.tuning.keys import describe
from planish.backends.tvm.tuning.tasks import tasks_of
from planish.ir.execute import execute
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.targets.registry import resolve
from planish.targets.target import Target

from ..arm64_emulation import emulated
from ..convolutions import Conv, pairs, side_by_side
from ..integer_layers import layer
from ..quantized_graph import normal_feeds
from ..x86_targets import avx2

_TILES, _WIDE = frozenset({"amx-tile", "amx-int8", "amx-bf16"}), ("avx512", "avxvnni", "amx")
_PADS = (1, 1, 1, 1)

_CONVS = st.builds(
    Conv,
    group=st.sampled_from([2, 3, 8, 16, 32]),
    channels=st.sampled_from([1, 2, 3, 4, 6, 8, 16, 24]),
    filters=st.sampled_from([1, 2, 3, 4, 6, 8, 16, 24]),
    size=pairs(5, 12),
    kernel=pairs(1, 3),
    strides=pairs(1, 2),
    dilations=pairs(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    zero=st.integers(0, 255),
)


def _machine(name: str) -> Target:
    """The host, or the same without what some hosts lack."""
    host = resolve("host")
    if name == "tiles" and "amx-int8" not in host.features:
        pytest.skip("this machine has no tile registers")
    if name != "avx2" and (host.instruction is None or host.instruction.name != "vpdpbusd"):
        pytest.skip("this machine has no VNNI")
    if host.instruction is None or not host.triple.startswith("x86_64"):
        pytest.skip("this machine has no AVX2")
    if name == "tiles":
        return host
    if name == "vnni":
        return replace(host, features=host.features - _TILES)
    features = frozenset(f for f in host.features if not f.startswith(_WIDE))
    mattr = [o for o in host.llvm["mattr"] if not o[1:].startswith(_WIDE)]  # type: ignore[attr-defined]
    return replace(host, features=features, instruction=avx2().instruction, llvm={**host.llvm, "mattr": mattr})


def _chosen(conv: Conv, target: Target) -> object:
    """The workload of a single convolution."""
    (workload,) = lower(side_by_side([conv], target.activation.numpy().type), target)[0].configs
    return workload


@pytest.mark.parametrize(
    "name, activation, threads", [("tiles", np.uint8, 2), ("vnni", np.int8, 2), ("avx2", np.uint8, 1)]
)
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(convs=st.lists(_CONVS, min_size=4, max_size=4))
def test_random_groups_equal_the_reference(
    tmp_path_factory: pytest.TempPathFactory, name: str, activation: type[np.generic], threads: int, convs: list[Conv]
) -> None:
    model, target, directory = side_by_side(convs, activation), _machine(name), tmp_path_factory.mktemp("model")
    # threads share loops here however little they gain by it
    with mock.patch.object(parallel, "pays", lambda *_: True):
        compile_model(model, replace(target, threads=threads), directory)
    feeds = normal_feeds(model)
    got = CompiledModel(directory / "model.so")(**feeds)
    for k, (result, want) in enumerate(run(model, feeds).items()):
        np.testing.assert_array_equal(got[result], want, err_msg=str(convs[k]))


# groups of (channels, filters) -> what takes the fewest instructions, by machine
_CHOICES: Mapping[tuple[int, int, int], Mapping[str, str]] = {
    (32, 4, 4): {
        "tiles": "planish.tdpbusd",
        "vnni": "planish.grouped.vpdpbusd.4x4.4",
        "avx2": "planish.grouped.vpmaddwd.4x4.2",
    },
    (8, 16, 16): {"tiles": "planish.tdpbusd", "vnni": "planish.vpdpbusd", "avx2": "planish.vpmaddwd"},
    (10, 24, 24): {"vnni": "planish.grouped.vpdpbusd.24x24.2", "avx2": "planish.vpmaddwd"},
}


@pytest.mark.parametrize("groups", _CHOICES)
def test_narrow_groups_share_vectors(groups: tuple[int, int, int]) -> None:
    for name, intrinsic in _CHOICES[groups].items():
        found = _chosen(Conv(groups[0], *groups[1:], (16, 16), (3, 3), (1, 1), (1, 1), _PADS, 100), _machine(name))
        assert found.intrinsic == intrinsic, name  # type: ignore[attr-defined]
        assert choose(found) in space(found)


def test_every_lane_multiplies() -> None:
    """One dot product for each tap, position and vector of groups of four; its words are put in order once a row."""
    target, positions = _machine("vnni"), 8
    model = side_by_side([Conv(32, 4, 4, (8, 8), (3, 3), (1, 1), (1, 1), _PADS, 100)], np.uint8)
    found = {k: f for k, f in lower(model, target)[0].kernels.items() if k.startswith("conv")}
    text = assembly(build(found, "", target)[0])
    assert text.count("\tvpdpbusd\t") in (positions, 3 * positions, 9 * positions), "one, three or all taps unrolled"


def test_a_batch_equals_the_reference(tmp_path: Path) -> None:
    model = side_by_side([Conv(8, 4, 4, (6, 9), (3, 3), (1, 1), (1, 1), _PADS, 100)], np.uint8)
    text = ir.to_proto(model)
    for value in (*text.graph.input, *text.graph.output):
        value.type.tensor_type.shape.Clear()
    del text.graph.value_info[:]
    for size in (3, 32, 6, 9):
        text.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    batch: ir.Model = ir.from_proto(text)
    infer(batch)
    compile_model(batch, resolve("host"), tmp_path)
    feeds = {"x0": np.random.default_rng(1).normal(0, 1.5, (3, 32, 6, 9)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in run(batch, feeds).items():
        np.testing.assert_array_equal(got[name], want)


def test_one_dimension_equals_the_reference(tmp_path: Path) -> None:
    model = layer(
        operator="Conv <group = 8, pads = [1,1]>",
        given="1,32,20",
        left="1,32,20",
        weights="32,4,3",
        activation="uint8",
    )
    compile_model(model, resolve("host"), tmp_path)
    feeds = {"x": np.random.default_rng(1).normal(0, 1.5, (1, 32, 20)).astype(np.float32)}
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(**feeds)["y"], run(model, feeds)["y"])


_ARM64 = [
    Conv(8, 4, 4, (6, 7), (3, 3), (1, 1), (1, 1), _PADS, 100),
    Conv(4, 2, 2, (5, 6), (3, 3), (2, 1), (1, 2), _PADS, 3),
    Conv(3, 16, 8, (5, 6), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 255),
    Conv(6, 1, 2, (5, 6), (3, 3), (1, 1), (1, 1), _PADS, 128),
    Conv(4, 12, 6, (5, 6), (3, 2), (1, 1), (1, 1), (0, 1, 1, 0), 7),
]


@pytest.mark.parametrize("cpu", ["neoverse-v1", "neoverse-n1", "cortex-a53"])
def test_groups_on_arm64_equal_the_reference(cpu: str, tmp_path: Path) -> None:
    model = side_by_side(_ARM64, np.int8)
    feeds = normal_feeds(model)
    got = emulated(model, cpu, feeds, tmp_path, static=True)
    for conv, (name, want) in zip(_ARM64, run(model, feeds).items(), strict=True):
        np.testing.assert_array_equal(got[name], want, err_msg=str(conv))


# groups, channels and filters of each, stride: whole vectors, narrower ones, lanes of several groups, and neither
_FLOATS = [(2, 5, 16, 1), (4, 8, 8, 2), (8, 4, 4, 1), (2, 24, 24, 1), (32, 1, 2, 1), (16, 2, 1, 2), (5, 3, 7, 1)]


@pytest.mark.parametrize("name", ["vnni", "avx2"])
def test_float_groups_equal_onnx_runtime_within_rounding(name: str, tmp_path: Path) -> None:
    rng, nodes, inputs, outputs, weights = np.random.default_rng(0), [], [], [], []
    for k, (group, channels, filters, stride) in enumerate(_FLOATS):
        weight = rng.normal(size=(group * filters, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{k}"))
        inputs.append(helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, (1, group * channels, 7, 8)))
        node = helper.make_node("Conv", [f"x{k}", f"w{k}"], [f"c{k}"], group=group, pads=_PADS, strides=[stride] * 2)
        nodes += [node, helper.make_node("Relu", [f"c{k}"], [f"y{k}"])]
        outputs.append(helper.make_empty_tensor_value_info(f"y{k}"))
    graph = helper.make_graph(nodes, "groups", inputs, outputs, weights)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    infer(model)
    target = _machine(name)
    configs = lower(model, target)[0].configs
    kinds = Counter(type(workload).__name__ for workload in configs)
    assert kinds["FloatGroupedProduct"] >= 3 and kinds["FloatProduct"] >= 1
    assert all(config in space(workload) for workload, config in configs.items())
    compile_model(model, target, tmp_path)
    feeds = normal_feeds(model)
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for result, want in execute(model, feeds).items():
        np.testing.assert_allclose(got[result], want, rtol=0, atol=1e-5 * abs(want).max(), err_msg=result)


def test_the_tuner_knows_them() -> None:
    """A workload has a key of plain numbers, a space, and a name for people."""
    target = _machine("vnni")
    program, _ = lower(side_by_side([Conv(32, 4, 4, (8, 8), (3, 3), (1, 1), (1, 1), _PADS, 100)], np.uint8), target)
    (task,) = (task for task in tasks_of(program, target) if isinstance(task.workload, GroupedProduct))
    assert len(space(task.workload)) > 1 and task.default in space(task.workload)
    stored = json.loads(json.dumps(task.key.workload))
    assert stored == task.key.workload and stored["kind"] == "GroupedProduct"
    assert "share 4" in describe(stored) and "blocks 8" in describe(stored)
