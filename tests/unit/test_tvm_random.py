"""Convolutions of random shapes, strides, pads, dilations, groups and zero points equal the reference to the bit."""

import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.ir.integer import FloatNode, plan
from planish.ir.reference import run
from planish.targets.registry import resolve

from ..convolutions import Conv, pairs, side_by_side
from ..quantized_graph import normal_feeds

_CONVS = st.builds(
    Conv,
    group=st.sampled_from(["one", "one", "one", "two", "depthwise"]),
    channels=st.one_of(st.integers(1, 20), st.sampled_from([32, 64, 96])),
    filters=st.one_of(st.integers(1, 20), st.sampled_from([16, 32, 48])),
    size=pairs(5, 24),
    kernel=pairs(1, 3),
    strides=pairs(1, 3),
    dilations=pairs(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    zero=st.integers(0, 255),
)


@pytest.mark.parametrize("activation, threads", [(np.uint8, 1), (np.int8, 2)])
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(convs=st.lists(_CONVS, min_size=12, max_size=12))
def test_random_convolutions_equal_the_reference(activation: type[np.generic], threads: int, convs: list[Conv]) -> None:
    model = side_by_side(convs, activation)
    assert not [step for step in plan(model) if isinstance(step, FloatNode)]
    feeds = normal_feeds(model)
    # threads share loops here however little they gain by it
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(parallel, "pays", lambda *_: True):
        compile_model(model, replace(resolve("host"), threads=threads), Path(directory))
        got = CompiledModel(Path(directory) / "model.so")(**feeds)
    for k, (name, want) in enumerate(run(model, feeds).items()):
        np.testing.assert_array_equal(got[name], want, err_msg=str(convs[k]))


def test_sums_far_beyond_the_levels_saturate(tmp_path: Path) -> None:
    model = side_by_side([Conv("one", 64, 32, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 37)], np.uint8)
    scale = model.graph.initializers["y0_s"]
    scale.const_value = ir.tensor(np.float32(1e-9), name="y0_s")  # a level is much less than the unit of the sums
    compile_model(model, resolve("host"), tmp_path)
    feeds = {"x0": np.random.default_rng(1).normal(0, 1.5, (1, 64, 8, 8)).astype(np.float32)}
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in run(model, feeds).items():
        assert len(np.unique(want)) == 2, "both ends"
        np.testing.assert_array_equal(got[name], want)


def test_a_model_too_small_for_two_threads_runs_on_one(tmp_path: Path) -> None:
    model = side_by_side([Conv("one", 16, 16, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 100)], np.uint8)
    compiled = compile_model(model, replace(resolve("host"), threads=2), tmp_path)
    assert "one thread runs the model: it is too small to gain from more" in compiled.notes
    assert b"#define MODEL_THREADS 1\n" in compiled.files["model.h"]
    feeds = {str(v.name): np.ones(tuple(v.shape), np.float32) for v in model.graph.inputs}  # type: ignore[arg-type]
    got = CompiledModel(tmp_path / "model.so")(**feeds)
    for name, want in run(model, feeds).items():
        np.testing.assert_array_equal(got[name], want)
