"""Real models for an Ethos-U: all on the NPU, LiteRT and the simulated model agree, and clear messages."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from planish.driver import optimize
from planish.errors import ModelError, UsageError
from planish.ir.execute import execute
from planish.targets.registry import resolve
from planish.tools.optimize import main

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra: ethos-u)")
pytest.importorskip("ethosu.vela", reason="ethos-u-vela is not installed (extra: ethos-u)")

from planish.backends.batch import fix_batch
from planish.backends.ethosu import environment
from planish.backends.ethosu.interpret import LiteRtModel, layer_errors

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "models"
# (model, target) -> cycles of a conversion by hand that Vela's estimate must not exceed
BARS = {
    ("resnet20_cifar10", "ethos-u55-256"): 442_758,
    ("resnet20_cifar10", "ethos-u65-512"): 197_603,
    ("resnet20_cifar10", "ethos-u85-256"): 273_443,
}
CASES = [*BARS, ("kws_dscnn", "ethos-u55-256"), ("digits", "ethos-u55-32")]


def _path(name: str) -> Path:
    path = ROOT / "examples" / "digits.onnx" if name == "digits" else MODELS / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"no model pack at {MODELS}")
    return path


@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_classifier_runs_on_the_npu_as_simulated(name: str, target: str, tmp_path: Path) -> None:
    result = optimize(_path(name), target=target, output=tmp_path / "out")
    report = result.report
    assert report["not_compiled"] == ""
    assert {place["where"] for place in report["placement"]} == {"NPU"}
    cycles = int(report["compiled"]["notes"][0].split(" cycles")[0].split()[-1])
    assert 0 < cycles <= BARS.get((name, target), cycles)
    assert (tmp_path / "out" / "model_vela.tflite").read_bytes()[4:8] == b"TFL3"
    model, _ = fix_batch(result.model)
    errors = layer_errors(model)
    assert {"conv", "dense"} <= set(errors) and max(errors.values()) <= 1
    runner = LiteRtModel(tmp_path / "out" / "model.tflite")
    value = model.graph.inputs[0]
    x = np.random.default_rng(0).normal(size=(16, *tuple(value.shape)[1:])).astype(np.float32)
    ours = np.concatenate([next(iter(runner({str(value.name): row[None]}).values())) for row in x])
    theirs = np.concatenate([next(iter(execute(model, {str(value.name): row[None]}).values())) for row in x])
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.9
    noise = np.square(ours - theirs).mean() / np.square(theirs).mean()
    assert noise < 0.01


def test_require_npu_names_the_first_node_that_is_left(tmp_path: Path) -> None:
    from planish.ir.text import parse_model

    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,4,8,8] x) => (float[1,4,8,8] y) <float[4,4,1,1] w = seeded(1), float[4] b = seeded(2)>
    { c = Conv (x, w)  y = InstanceNormalization (c, b, b) }
    """)
    with pytest.raises(ModelError, match=r"InstanceNormalization .* would run on the CPU: .*; quantize it"):
        optimize(model, target="ethos-u55-128", output=tmp_path / "out", require_npu=True)
    assert not (tmp_path / "out").exists()


def test_a_model_too_large_for_the_sram_is_refused(tmp_path: Path) -> None:
    arguments = [str(_path("digits")), "--target", "ethos-u55-64", "--sram", "1024", "--require-compiled"]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "KiB of SRAM, the target has 1" in done.output and "--sram" in done.output
    assert not (tmp_path / "out").exists()


def test_dynamic_shapes_and_control_flow_are_refused_with_a_hint(tmp_path: Path) -> None:
    from planish.ir.text import parse_model

    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,4,H,W] x) => (float[1,4,H,W] y) <float[4,4,1,1] w = seeded(1)> { y = Conv (x, w) }
    """)
    report = optimize(model, target="ethos-u55-128", output=tmp_path / "out").report
    assert "dynamic shape" in report["not_compiled"] and "--shape x:" in report["not_compiled"]


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(environment.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"ai-edge-litert is not installed") as caught:
        environment.schema()
    assert "planish[ethos-u]" in caught.value.hint


def test_every_member_has_a_target() -> None:
    members = [f"ethos-u55-{n}" for n in (32, 64, 128, 256)] + ["ethos-u65-256", "ethos-u65-512"]
    members += [f"ethos-u85-{n}" for n in (128, 256, 512, 1024, 2048)]
    assert {resolve(name).kind for name in members} == {"ethos-u"}
    with pytest.raises(UsageError, match="ethos-u55-200"):
        resolve("ethos-u55-200")
    with pytest.raises(UsageError):
        resolve("ethos-u55-256/fast")
