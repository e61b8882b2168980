"""Prediction and mixed precision: what noise of each layer adds up to, and the choices made from it."""

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from planish.driver import optimize
from planish.errors import UsageError, VerificationError
from planish.ir.cost import summary
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.quantize.calibration import constants, noise_allowed, predicted
from planish.passes.quantize.knapsack import Front, best_choices
from planish.passes.quantize.predict_fidelity import observed_db
from planish.passes.quantize.sensitivity import Noise, decibels, power
from planish.report_page import render
from planish.targets.registry import resolve
from planish.tools.bench.prediction import fit
from planish.tools.optimize import main

NET = """<ir_version: 10, opset_import: ["" : 18]>
main (float[N,3,16,16] x) => (float[N,10] y)
   <float[16,3,3,3] w = seeded(0), float[16] b = seeded(1), float[64,16,1,1] u = seeded(2), float[64] c = seeded(4),
    float[64,10] v = seeded(3), float[10] z = seeded(5)>
{
   k = Conv <pads = [1,1,1,1]> (x, w, b)
   r = Relu (k)
   d = Conv (r, u, c)
   e = Relu (d)
   p = GlobalAveragePool (e)
   f = Flatten (p)
   y = Gemm (f, v, z)
}"""


def quantized() -> tuple[ir.Model, Context]:
    model, context = parse_model(NET), Context(target=resolve("arm64"))
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    PassManager("synthesize-inputs,activation-ranges,quantize").run(model, context)
    return model, context


def test_shut_gates_are_the_float_model_and_open_ones_the_integer_model() -> None:
    model, context = quantized()
    feed = context.synthetic[0]
    noise = Noise(model, context.unrounded, [feed])
    exact, rounded = execute(context.unrounded.clone(), feed)["y"], execute(model.clone(), feed)["y"]
    assert noise.of([])["y"] == 0.0
    np.testing.assert_array_equal(noise._signals[0]["y"], exact)
    assert noise.total()["y"] == pytest.approx(power([exact], [rounded]), rel=1e-3)
    assert {site.kind for site in noise.sites} == {"weights", "activation"}


def test_noise_of_layers_adds_up_in_power() -> None:
    model, context = quantized()
    noise = Noise(model, context.unrounded, context.synthetic)
    alone = noise.by_layer()
    assert set(alone) == {"input x", "n0", "n2", "n4", "n5", "n6"}
    together = decibels(noise.total()["y"])
    assert (
        abs(decibels(sum(layer["y"] for layer in alone.values())) - together) < 5
    )  # errors of the five layers of so small a net are not quite independent


def test_the_knapsack_finds_what_trying_every_combination_finds() -> None:
    rng = np.random.default_rng(0)
    layers = [[(int(size), float(noise)) for size, noise in zip(rng.integers(1, 60, 3), rng.random(3), strict=True)]
              for _ in range(5)]  # fmt: skip
    for most in (60, 100, 150, 400):
        found = best_choices(layers, most)
        possible = [c for c in itertools.product(range(3), repeat=5) if Front(layers).size(c) <= most]
        if not possible:
            assert found is None
            continue
        best = min(sum(layers[i][j][1] for i, j in enumerate(c)) for c in possible)
        assert found is not None and Front(layers).size(found) <= most
        assert sum(layers[i][j][1] for i, j in enumerate(found)) == pytest.approx(best)


def test_the_front_falls_from_the_smallest_size_on() -> None:
    front = Front([[(4, 8.0), (8, 1.0)], [(40, 2.0), (80, 0.5)]])
    points = [(front.size(front.choices(s)), float(front.noise[s])) for s in front.points()]
    assert points == [(44, 10.0), (48, 3.0), (88, 1.5)]


def test_predictions_bring_their_errors_and_the_budget_is_their_inverse() -> None:
    near, far = (predicted("y", db, 0.0, False) for db in (40.0, 10.0))
    assert near.agreement > far.agreement and near.least <= near.agreement
    assert predicted("y", 30.0, None, False).agreement is None
    for drop in (0.01, 0.1):
        at_limit = predicted("y", decibels(noise_allowed(drop, False)), 0.0, False)
        assert 1 - at_limit.least == pytest.approx(drop, rel=1e-6)
    assert constants()["command"].startswith("python -m planish.tools.bench.prediction")


def test_of_made_inputs_those_that_are_decided_clearly_stand_for_real_ones() -> None:
    scores = np.zeros((8, 3))
    scores[:, 0] = [1, 1, 9, 1, 1, 9, 1, 1]
    rounded = scores + 0.1
    clear = decibels(power([scores[[2, 5]]], [rounded[[2, 5]]]))
    assert observed_db([scores[:4], scores[4:]], [rounded[:4], rounded[4:]], real=False) == pytest.approx(clear)
    assert observed_db([scores], [rounded], real=True) == pytest.approx(decibels(power([scores], [rounded])))
    assert observed_db([scores[:, :2]], [rounded[:, :2]], real=False) < clear - 1  # no scores: all of it counts


def test_truth_values_and_integers_beside_the_scores_are_compared_too() -> None:
    yes, no = np.array([[True, False, True]]), np.array([[True, True, True]])
    assert observed_db([yes], [no], real=False) == pytest.approx(10 * np.log10(2))
    assert observed_db([yes.astype(np.int64)], [yes.astype(np.int64)], real=False) == 200


def test_offsets_are_fitted_to_scores_and_to_other_outputs_apart() -> None:
    def row(number: int, measured: float, flips: float | None) -> dict[str, object]:
        outputs = {"y": {"observed": 30.0, "measured": measured, "measured_changed": flips}}
        return {"model": f"{number}", "inputs": "synthetic", "outputs": outputs}

    surer = [row(i, 34.0 + 0.1 * i, 0.01) for i in range(5)]
    found = fit([*surer, *(row(i, 30.0 + (-1) ** i * i, None) for i in range(5, 9))], "synthetic")
    assert found["scores_db"] == pytest.approx(4.2) and found["offset_db"] == 0.0


def test_a_budget_of_size_is_kept_by_what_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(parse_model(NET), path)
    result = optimize(path, "arm64", budget="size=2.4kB", compile=False)
    assert summary(result.model).weight_bytes <= 2400
    kinds = {v.dtype for v in result.model.graph.initializers.values()}
    assert ir.DataType.INT4 in kinds and ir.DataType.INT8 in kinds
    front = next(r["measures"]["front"] for r in result.report["passes"] if "front" in r["measures"])
    assert [p["bytes"] for p in front] == sorted(p["bytes"] for p in front)
    assert "Size against predicted noise" in render(result.report)


def test_a_budget_of_latency_leaves_in_float_what_gains_most(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(parse_model(NET), path)
    passes = 'fix-names,synthesize-inputs,activation-ranges,mix-precision{budget="latency=-%d%%"},quantize'
    kept = {}
    for share in (10, 40):
        report = optimize(path, "arm64/neoverse-n1", passes=passes % share, compile=False).report
        record = next(r for r in report["passes"] if r["pass"] == "mix-precision")
        kept[share] = {change["site"] for change in record["changes"]}
        assert "Time against predicted noise" in render(report)
    front = record["measures"]["front"]
    assert [p["sqnr_db"] for p in front] == sorted(p["sqnr_db"] for p in front) and front[-1]["time"] == 1
    assert set() < kept[40] < kept[10]
    with pytest.raises(VerificationError, match=r"int8 in every layer takes .* the budget is latency=-95%"):
        optimize(path, "arm64/neoverse-n1", passes=passes % 95, compile=False)
    with pytest.raises(UsageError, match="no float kernels"):
        optimize(path, "hexagon", passes=passes % 10, compile=False)


def test_a_drop_that_the_prediction_does_not_hold_is_refused_with_exit_4(tmp_path: Path) -> None:
    path, out = tmp_path / "net.onnx", tmp_path / "out"
    ir.save(parse_model(NET), path)
    arguments = [str(path), "-o", str(out), "--no-compile", "--quiet", "--target", "arm64"]
    passes = ["--passes", "synthesize-inputs,activation-ranges,quantize{weights=int2},predict-fidelity"]
    refused = CliRunner().invoke(main, [*arguments, *passes, "--budget", "drop=1%"])
    assert refused.exit_code == 4 and "may be lost at output 'y'" in refused.output and not out.exists()
    with pytest.raises(VerificationError, match="nothing was predicted"):
        optimize(path, "arm64", passes="synthesize-inputs,activation-ranges,quantize", budget="drop=1%", compile=False)


def test_the_report_predicts_outputs_and_layers(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(parse_model(NET), path)
    report = optimize(path, "arm64", compile=False).report
    prediction = report["prediction"]
    assert [o["output"] for o in prediction["outputs"]] == ["y"] and prediction["all_integer"]["y"] > 0
    assert sum(layer["share"] for layer in prediction["layers"]) == pytest.approx(1, abs=0.01)
    page = render(report)
    assert "Predicted on real data" in page and "Layers that cost most" in page


def test_the_report_says_what_samples_bought(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(parse_model(NET), path)
    samples = {"x": np.random.default_rng(1).uniform(0, 0.01, (8, 3, 16, 16)).astype(np.float32)}
    report = optimize(path, "arm64", data=samples, compile=False).report
    prediction = report["prediction"]
    assert prediction["inputs"] == "samples"
    assert prediction["outputs"][0]["sqnr_db"] > prediction["without_samples"]["y"]  # no prior is as dark as these
    assert any("what the samples bought" in note for note in report["notes"])
    assert "Without the samples" in render(report)
