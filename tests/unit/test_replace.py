"""Replacement: what a factory promises is what the graph computes, interfaces stay, jobs survive their workers."""

from __future__ import annotations

import itertools
import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish import optimize
from planish.errors import PlanishError, UsageError
from planish.ir import shapes
from planish.ir.cost import summary
from planish.ir.execute import execute
from planish.ir.layers import Layer, layer_of
from planish.ir.text import parse_model
from planish.ir.verify import verify
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.prune.evidence import observe
from planish.passes.replace.approximate_activations import fit
from planish.passes.replace.choose import FACTORIES
from planish.passes.replace.factory import Site
from planish.passes.replace.rewrite import alone, insert
from planish.passes.replace.shorten_blocks import regress

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
CONVOLUTIONS = [name for name in FACTORIES if name != "low-rank"]


def _conv(
    seed: int, kernel: tuple[int, int], stride: int, dilation: int, pads: list[int], relu: bool = False
) -> ir.Model:
    rng = np.random.default_rng(seed)
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,8,13,11] x) => (float[N,16,h,w] z)
    <float[16,8,{kernel[0]},{kernel[1]}] w = seeded({seed}), float[16] b = seeded({seed + 1})>
    {{
       y = Conv <strides = [{stride}, {stride}], dilations = [{dilation}, {dilation}], pads = {pads}> (x, w, b)
       z = {"Relu" if relu else "Sigmoid"} (y)
    }}"""
    model = parse_model(text)
    shapes.infer(model)
    weight = model.graph.initializers["w"]
    scale = rng.uniform(0.2, 2.0, (1, 8, 1, 1)).astype(np.float32)
    weight.const_value = ir.Tensor(np.asarray(weight.const_value.numpy() * scale), name="w")
    return model


def _site(model: ir.Model, feeds: list[dict[str, np.ndarray]] | None) -> Site:
    layer = layer_of(model.graph[0])
    assert isinstance(layer, Layer)
    found = observe(model, [layer], feeds, 100_000, np.random.default_rng(0)) if feeds else {}
    return Site(layer, found.get(layer.name))


def _samples(count: int = 6) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    smooth = rng.normal(size=(count, 8, 13, 11)).cumsum(2).cumsum(3)
    mixed = np.einsum("ij,njhw->nihw", rng.normal(size=(8, 8)), smooth)
    return [{"x": mixed.astype(np.float32) / 10}]


@given(
    kernel=st.sampled_from([(3, 3), (1, 1), (5, 3), (1, 3)]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    seed=st.integers(0, 50),
    relu=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_every_replacement_keeps_the_interface(
    kernel: tuple[int, int], stride: int, dilation: int, pads: list[int], seed: int, relu: bool
) -> None:
    model = _conv(seed, kernel, stride, dilation, pads, relu)
    feed = _samples(2)[0]
    expected = execute(model, feed)["z"]
    for name in CONVOLUTIONS:
        for candidate in list(FACTORIES[name](_site(model, None)))[:2]:
            copy = model.clone()
            layer = layer_of(copy.graph[0])
            assert layer is not None
            insert(copy.graph, layer, candidate.pieces)
            shapes.infer(copy)
            assert not verify(copy)
            assert {"y", "z"} <= {v.name for node in copy.graph for v in node.outputs}
            assert summary(copy).parameters < summary(model).parameters
            assert execute(copy, feed)["z"].shape == expected.shape


@pytest.mark.parametrize("name", [n for n in CONVOLUTIONS if n != "separable-pairs"])
def test_the_error_that_is_promised_is_the_one_on_the_observed_inputs(name: str) -> None:
    model = _conv(3, (3, 3), 1, 1, [0, 0, 0, 0])
    feeds = _samples()
    site = _site(model, feeds)
    wanted = execute(model, feeds[0], ["y"])["y"].astype(np.float64)
    spread = (wanted - wanted.mean((0, 2, 3), keepdims=True)) ** 2
    errors = []
    for candidate in FACTORIES[name](site):
        found = execute(alone(site.layer, candidate.pieces), {"x": feeds[0]["x"]})["y"]
        errors.append(float(((found - wanted) ** 2).sum() / spread.sum()))
        assert errors[-1] == pytest.approx(candidate.error, rel=0.1, abs=2e-3)
    assert errors and all(b <= a * 1.02 + 1e-6 for a, b in itertools.pairwise(errors)) == (name != "grouped")


def test_fitting_to_the_inputs_is_better_than_to_the_weights() -> None:
    model = _conv(3, (3, 3), 1, 1, [0, 0, 0, 0])
    feeds = _samples()
    seen, blind = _site(model, feeds), _site(model, None)
    wanted = execute(model, feeds[0], ["y"])["y"]

    def error(site: Site) -> float:
        pieces = next(iter(FACTORIES["separable"](site))).pieces
        return float(((execute(alone(site.layer, pieces), {"x": feeds[0]["x"]})["y"] - wanted) ** 2).mean())

    assert error(seen) < 0.7 * error(blind)


@pytest.mark.parametrize("sizes", ["13,11", "h,w"])
def test_padding_that_is_left_to_the_size_is_written_out_where_that_is_known(sizes: str) -> None:
    model = parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,32,{sizes}] x) => (float[N,64,{sizes}] y) <float[64,32,3,3] w = seeded(0)>
    {{ y = Conv <auto_pad = "SAME_UPPER"> (x, w) }}""")
    passes = 'replace{budget="macs=-30%" factories=separable observe=false}'
    x = np.random.default_rng(0).normal(size=(1, 32, 13, 11)).astype(np.float32)
    want = execute(model, {"x": x})["y"].shape
    record = PassManager(passes).run(model, Context()).records[0]
    assert execute(model, {"x": x})["y"].shape == want
    assert bool(record.changed) == (sizes == "13,11")
    assert sizes == "13,11" or "depends on the size of its input" in record.skips[0].reason


def test_low_rank_of_a_low_rank_layer_is_exact() -> None:
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(32, 3)) @ rng.normal(size=(3, 40))).astype(np.float32)
    text = """<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,32] x) => (float[N,40] z) <float[32,40] w = seeded(0), float[40] b = seeded(1)>
    { y = MatMul (x, w)
      z = Add (y, b) }"""
    model = parse_model(text)
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    shapes.infer(model)
    x = rng.normal(size=(50, 32)).astype(np.float32)
    expected = execute(model, {"x": x})["z"]
    result = optimize(model, passes='replace{budget="parameters=-50%" factories=low-rank}')
    assert summary(result.model).parameters <= 0.5 * (32 * 40 + 40)
    np.testing.assert_allclose(result.run(x)["z"], expected, rtol=1e-3, atol=1e-3)


def test_a_budget_is_met_and_what_cannot_be_is_said() -> None:
    before = summary(optimize(DIGITS, passes="fold-bn").model).macs
    result = optimize(DIGITS, passes='fold-bn,synthesize-inputs,replace{budget="macs=-30%"}')
    assert summary(result.model).macs <= 0.7 * before
    refused = optimize(DIGITS, passes='fold-bn,replace{budget="macs=-99%"}').report["passes"][-1]
    assert refused["changed"] == 0 and "cannot be reached" in refused["why_nothing"]
    with pytest.raises(UsageError, match="no factory 'magic'"):
        optimize(DIGITS, passes="replace{factories=magic}")


def test_a_linear_branch_is_recovered_exactly() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(2.0, 1.0, (4000, 6)), rng.normal(size=(4, 6))
    found, offset = regress(x, x @ weight.T + 3.0, ridge=1e-9)
    np.testing.assert_allclose(found, weight, atol=1e-6)
    np.testing.assert_allclose(offset, 3.0, atol=1e-5)


def test_a_shortened_net_keeps_its_interface_and_the_budget() -> None:
    before = summary(optimize(DIGITS, passes="fold-bn").model).macs
    result = optimize(DIGITS, passes='fold-bn,synthesize-inputs,shorten-blocks{budget="macs=-15%"}')
    assert result.report["passes"][-1]["changed"] >= 1
    assert summary(result.model).macs <= 0.85 * before
    assert not verify(result.model)


def test_the_fitted_line_is_the_function_where_it_has_that_form() -> None:
    slope, missed = fit(lambda x: x * np.clip(0.3 * x + 0.5, 0.0, 1.0), 0.5, 2.0)
    assert slope == pytest.approx(0.3, abs=0.005) and missed < 1e-6
    _, wide = fit(np.cos, 0.0, 1.0)
    assert wide > 0.5


# --- training -------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from planish.passes.replace import pool  # noqa: E402
from planish.passes.replace.block_training import Job, Trained, train  # noqa: E402
from planish.passes.replace.pool import run_jobs  # noqa: E402


def _jobs(count: int) -> list[Job]:
    model = _conv(1, (3, 3), 1, 1, [1, 1, 1, 1])
    feeds = _samples(16)
    site = _site(model, feeds)
    candidate = next(iter(FACTORIES["separable"](site)))
    y = execute(model, feeds[0], ["y"])["y"]
    block = ir.to_proto(alone(site.layer, candidate.pieces)).SerializeToString()
    return [Job(f"block {i}", block, feeds[0]["x"], y, 60, seed) for i, seed in enumerate(range(count))]


def test_training_brings_a_block_closer_with_the_same_bits_every_time() -> None:
    (job,) = _jobs(1)
    assert Job.from_bytes(job.to_bytes()).to_bytes() == job.to_bytes()
    first, second = train(job), train(job)
    assert first.after < first.before
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_results_do_not_depend_on_workers_and_a_killed_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _jobs(2)
    seen: list[int] = []
    together = run_jobs(jobs, tmp_path / "two", 2, lambda done, _: seen.append(done))
    assert seen == [0, 1, 2]
    flag, python = tmp_path / "killed", tmp_path / "python"
    python.write_text(f'#!/bin/sh\nif [ ! -e {flag} ]; then touch {flag}; kill -9 $$; fi\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(python))
    alone_ = run_jobs(jobs, tmp_path / "one", 1, lambda *_: None)
    assert flag.exists()
    for a, b in zip(together, alone_, strict=True):
        assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing is left to be trained
    again = run_jobs(jobs, tmp_path / "one", 1, lambda *_: None)
    assert again[1].after == alone_[1].after


def test_workers_are_as_many_as_processors_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for gigabytes, workers in ((100.0, 8), (3.5, 3), (0.1, 1)):
        monkeypatch.setattr(pool, "_free_memory", lambda size=gigabytes: int(size * 2**30))
        assert pool.capacity() == workers
    monkeypatch.setattr(pool, "_free_memory", lambda: None)
    assert pool.capacity() == 8


def test_a_job_that_always_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PlanishError, match="failed 3 times") as caught:
        run_jobs(_jobs(1), tmp_path, 1, lambda *_: None)
    assert "block 0" in str(caught.value)


def test_jobs_run_on_a_ray_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    jobs = _jobs(2)
    here = run_jobs(jobs[:1], tmp_path / "here", 1, lambda *_: None)
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    there = run_jobs(jobs, tmp_path / "there", 2, lambda *_: None, "local")
    assert len(there) == 2
    assert all(np.array_equal(here[0].weights[name], there[0].weights[name]) for name in here[0].weights)


def test_training_lowers_the_error_of_a_replaced_model() -> None:
    passes = 'fold-bn,synthesize-inputs{samples=24},replace{budget="macs=-3%" train=10 correct=5 workers=1}'
    record = optimize(DIGITS, passes=passes).report["passes"][-1]
    errors = record["measures"]["training"]["held_out_error"]
    assert errors and all(after <= before for before, after in errors.values())


def test_a_layer_that_saw_fewer_samples_than_it_has_inputs_is_not_trained() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    main (float[N,32] x) => (float[N,40] z) <float[32,40] w = seeded(0)> { z = MatMul (x, w) }"""
    x = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
    passes = 'replace{budget="parameters=-50%" factories=low-rank train=5 correct=5}'
    record = optimize(parse_model(text), passes=passes, data={"x": x}).report["passes"][-1]
    assert record["changed"] == 1
    assert any("8 samples of 32 inputs are too few" in note for note in record["notes"])


def test_what_misses_too_much_after_training_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(_model: object, choices: list[object], *_: object) -> list[tuple[object, Trained]]:
        return [(choice, Trained({}, 0.9, 0.5, 1)) for choice in choices]

    monkeypatch.setattr("planish.passes.replace.replace.train_all", poor)
    passes = 'fold-bn,synthesize-inputs,replace{budget="macs=-20%" train=1 limit=0.3}'
    result = optimize(DIGITS, passes=passes)
    assert result.report["passes"][-1]["changed"] == 0
    assert any("misses 50 % after training" in reason for reason in result.report["passes"][-1]["skipped"])
    assert summary(result.model).macs == summary(optimize(DIGITS, passes="fold-bn").model).macs
