"""Gates: similarity, flips and bias by their identities, and pipelines that stop where they must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish import optimize
from planish.errors import VerificationError
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.recover.check_bias import CheckBias
from planish.passes.recover.check_decisions import CheckDecisions
from planish.passes.recover.disparity import (
    cev,
    confusion,
    error_changes,
    flip_rate,
    identified_exemplars,
    sde,
)
from planish.passes.recover.evidence import decisions
from planish.passes.recover.similarity import MEASURES, Covariances, linear_cka, pwcca, svcca

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"


def _covariances(x: np.ndarray, y: np.ndarray, chunks: int = 1) -> Covariances:
    c = Covariances(x.shape[1], y.shape[1])
    for a, b in zip(np.array_split(x, chunks), np.array_split(y, chunks), strict=True):
        c.add(a, b)
    return c


@given(seed=st.integers(0, 10_000), width=st.integers(1, 8), chunks=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_equal_maps_have_similarity_one_however_they_are_streamed(seed: int, width: int, chunks: int) -> None:
    x = np.random.default_rng(seed).normal(2.0, 3.0, (200, width))
    for measure in MEASURES.values():
        assert measure(_covariances(x, x, chunks)) == pytest.approx(1.0, abs=1e-9)
        other = np.random.default_rng(seed + 1).normal(size=(200, 3))
        once, streamed = measure(_covariances(x, other)), measure(_covariances(x, other, chunks))
        assert once == pytest.approx(streamed, abs=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_canonical_measures_do_not_see_an_invertible_linear_map(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(300, 5)), rng.normal(size=(300, 5))
    y += x
    mixed = y @ (np.linalg.qr(rng.normal(size=(5, 5)))[0] * rng.uniform(0.5, 2.0, 5)) + 7.0
    assert pwcca(_covariances(x, mixed)) == pytest.approx(pwcca(_covariances(x, y)), abs=1e-8)
    scaled = x * rng.uniform(0.1, 10.0, 5)  # what cross-layer equalisation does
    assert pwcca(_covariances(x, scaled)) == pytest.approx(1.0, abs=1e-8)
    rotated = x @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert svcca(_covariances(x, rotated)) == pytest.approx(1.0, abs=1e-8)
    assert linear_cka(_covariances(x, 3.0 * rotated)) == pytest.approx(1.0, abs=1e-8)


def test_cka_sees_the_scale_of_a_channel_and_the_loss_of_one() -> None:
    x = np.random.default_rng(0).normal(size=(500, 4))
    assert linear_cka(_covariances(x, x * [1, 1, 1, 30])) < 0.7
    assert linear_cka(_covariances(x, x[:, :2])) == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert linear_cka(_covariances(x, np.random.default_rng(1).normal(size=(500, 4)))) < 0.05


def test_svcca_is_the_mean_correlation_of_the_channels_when_they_are_independent() -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(size=(20_000, 2)), rng.normal(size=(20_000, 2))
    y = x * [0.8, 0.6] + noise * [0.6, 0.8]  # correlations 0.8 and 0.6
    assert svcca(_covariances(x, y)) == pytest.approx(0.7, abs=0.01)


def test_cev_and_sde_by_hand() -> None:
    baseline = np.array([[8, 2], [4, 6]])  # FPR .4 and .2; FNR .2 and .4
    compressed = np.array([[6, 4], [4, 6]])  # FPR .4 and .4; FNR .4 and .4
    changes = error_changes(baseline, compressed)
    np.testing.assert_allclose(changes, [[0.0, 100.0], [100.0, 0.0]])
    assert cev(changes) == pytest.approx(2500.0)
    assert sde(changes) == pytest.approx(100.0 / np.sqrt(2.0))
    assert cev(error_changes(baseline, baseline)) == sde(error_changes(baseline, baseline)) == 0.0


def test_a_class_without_errors_has_no_percentage() -> None:
    flawless = np.array([[5, 0, 0], [0, 4, 1], [0, 2, 3]])
    assert len(error_changes(flawless, np.array([[3, 2, 0], [0, 4, 1], [0, 2, 3]]))) == 2


def test_confusion_counts_rows_of_truth() -> None:
    assert confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist() == [[1, 1], [0, 1]]


def test_flips_and_exemplars() -> None:
    assert flip_rate(np.array([0, 1, 2, 3]), np.array([0, 1, 3, 3])) == 0.25
    dense = np.array([[0, 1, 2], [0, 1, 2], [1, 1, 2]])
    pruned = np.array([[0, 2, 2], [0, 2, 1], [0, 1, 1]])
    assert identified_exemplars(dense, pruned).tolist() == [1, 2]


def _biased() -> tuple[ir.Model, ir.Model, np.ndarray]:
    """A linear classifier, and one that never names class 2."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, dtype=np.float32)

    def model(bias: list[float]) -> ir.Model:
        text = f"""<ir_version: 10, opset_import: ["" : 20]>
        main (float[N,3] x) => (float[N,3] y)
        <float[3,3] w = {{1,0,0,0,1,0,0,0,1}}, float[3] b = {{{",".join(map(str, bias))}}}>
        {{ y = Gemm (x, w, b) }}"""
        return parse_model(text)

    labels = np.repeat(np.arange(3), 100)
    samples = (centres[labels] + rng.normal(0, 0.5, (300, 3))).astype(np.float32)
    return model([0, 0, 0]), model([0, 0, -9]), np.concatenate([samples, labels[:, None]], 1)


def test_a_biased_model_is_flagged() -> None:
    original, biased, table = _biased()
    samples, labels = table[:, :3].astype(np.float32), table[:, 3].astype(np.int64)
    context = Context(original=original, data=[{"x": samples}], everything=lambda: iter([({"x": samples}, labels)]))
    CheckBias(cev=50.0).run(original, context)
    with pytest.raises(VerificationError, match="CEV is"):
        CheckBias(cev=50.0).run(biased, context)
    with pytest.raises(VerificationError, match="SDE is"):
        CheckBias(sde=10.0).run(biased, context)
    CheckDecisions(at_most=0.0).run(original, context)
    with pytest.raises(VerificationError, match="decisions flipped"):
        CheckDecisions(at_most=0.2).run(biased, context)


def test_exemplars_are_what_most_versions_decide_otherwise(tmp_path: Path) -> None:
    original, biased, table = _biased()
    samples = table[:, :3].astype(np.float32)
    for name, model in (("biased", biased), ("same", original)):
        ir.save(model, tmp_path / f"{name}.onnx")

    def exemplars(*versions: str) -> list[int]:
        context = Context(original=original, data=[{"x": samples}])
        gate = CheckDecisions(versions=",".join(str(tmp_path / f"{name}.onnx") for name in versions))
        gate.run(biased, context)
        found: list[int] = context.record.measures["exemplars"]["samples"]
        return found

    before = decisions(original, [{"x": samples}])
    assert exemplars("biased", "same") == np.flatnonzero(before == 2).tolist()
    assert exemplars("same", "same") == []


def test_a_gate_stops_a_pipeline_and_leaves_nothing(tmp_path: Path) -> None:
    passes = "synthesize-inputs,prune{ratio=0.7},check-similarity{at-least=0.999}"
    with pytest.raises(VerificationError, match="cka to the original"):
        optimize(DIGITS, passes=passes, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = optimize(DIGITS, passes="synthesize-inputs,check-similarity{at-least=0.999 measure=svcca}")
    measured = next(r for r in result.report["passes"] if r["pass"] == "check-similarity")["measures"]["similarity"]
    scores = [value for key, value in measured.items() if key != "measure"]
    assert len(scores) > 5 and min(scores) > 0.999
