"""The main job on the example: artifact, report, determinism, and the Python API that does the same."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import planish
import pytest
from click.testing import CliRunner
from planish.errors import VerificationError
from planish.passes.base import Pass
from planish.passes.context import Context
from planish.tools.optimize import main

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


def _digits() -> tuple[np.ndarray, np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    return (digits.images[:, None] / 16).astype(np.float32), digits.target


def _accuracy(model: Path) -> float:
    images, labels = _digits()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float((session.run(None, {"image": images})[0].argmax(1) == labels).mean())


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang", reason="the arm64 extra links the library")
    out = tmp_path_factory.mktemp("digits") / "out"
    result = CliRunner().invoke(main, [str(DIGITS), "--target", "arm64", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "before" in result.output and "after" in result.output
    return out


def test_the_main_job_leaves_a_working_artifact(arm64: Path) -> None:
    names = {p.name for p in arm64.iterdir()}
    assert {"model.onnx", "model.so", "model.h", "report.json", "pipeline.txt"} <= names
    assert (arm64 / "model.so").read_bytes()[18:20] == b"\xb7\x00", "an ELF file for AArch64"
    onnx.checker.check_model(arm64 / "model.onnx", full_check=True)


def test_the_digits_are_still_read_at_int8(arm64: Path) -> None:
    kinds = {node.op_type for node in onnx.load(arm64 / "model.onnx").graph.node}
    assert "QuantizeLinear" in kinds and "BatchNormalization" not in kinds
    assert _accuracy(arm64 / "model.onnx") >= _accuracy(DIGITS) - 0.015


def test_the_report_accounts_for_the_run(arm64: Path) -> None:
    report = json.loads((arm64 / "report.json").read_text())
    assert report["schema"] == 1
    assert report["target"]["name"] == "arm64/cortex-a76"
    assert report["after"]["weight_bytes"] < report["before"]["weight_bytes"] / 3
    assert report["fidelity"]["outputs"][0]["sqnr_db"] > 15
    assert report["versions"]["apache-tvm-ffi"] and report["input"]["sha256"]
    for record in report["passes"]:
        assert record["matched"] == record["changed"] + sum(record["skipped"].values())
        assert record["changed"] or record["why_nothing"]
    assert {p["dtype"] for p in report["placement"]} >= {"int8"}
    assert set(report["files"]) <= {p.name for p in arm64.iterdir()}


def test_the_pipeline_text_runs_again_and_gives_the_same_bytes(arm64: Path, tmp_path: Path) -> None:
    text = (arm64 / "pipeline.txt").read_text().strip()
    out = tmp_path / "again"
    result = CliRunner().invoke(main, [str(DIGITS), "--target", "arm64", "--passes", text, "-o", str(out)])
    assert result.exit_code == 0, result.output
    for name in ("model.onnx", "model.so"):
        assert (out / name).read_bytes() == (arm64 / name).read_bytes(), name


def test_exact_passes_keep_the_outputs(tmp_path: Path) -> None:
    images, _ = _digits()
    result = planish.optimize(DIGITS, level=1)
    before = ort.InferenceSession(DIGITS, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
    after = result.run(images)["logits"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    assert result.report["after"]["nodes"] < result.report["before"]["nodes"]
    assert result.artifact is None


def test_the_model_given_is_not_modified() -> None:
    model = planish.capture(DIGITS)
    before = [node.op_type for node in model.graph]
    planish.optimize(model, passes="fold-bn")
    assert [node.op_type for node in model.graph] == before


def test_weights_in_a_file_of_their_own_give_the_same_bytes(arm64: Path, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    onnx.save(onnx.load(DIGITS), model, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = (tmp_path / "w.bin").read_bytes()
    result = CliRunner().invoke(main, [str(model), "--target", "arm64", "--no-compile", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (arm64 / "model.onnx").read_bytes()
    assert (tmp_path / "w.bin").read_bytes() == before


def test_real_samples_are_used_when_given(tmp_path: Path) -> None:
    images, _ = _digits()
    np.savez(tmp_path / "few.npz", image=images[:16])
    result = planish.optimize(DIGITS, data=tmp_path / "few.npz")
    assert result.report["fidelity"]["inputs"] == "user's samples"
    assert result.report["fidelity"]["samples"] == 16


def test_an_exact_pass_that_lies_is_caught_and_bisected(tmp_path: Path) -> None:
    from planish.driver import Options, bisect

    lie = _negate_one_weight("deep_a.conv")
    with pytest.raises(VerificationError, match="exact pass changed output 'logits'"):
        planish.optimize(DIGITS, passes=["fold-bn", lie])
    number, outcome = bisect(DIGITS, Options(passes=["fold-bn", lie]))
    last = next(r for r in reversed(outcome.records) if r.changes)
    assert number == 8, "six folds, then the second rewrite of the lying pass"
    assert (last.pass_name, last.changes[-1].site) == ("lie", "deep_a.conv")


def _negate_one_weight(victim: str) -> Pass:
    """A pass that claims to be exact; it touches two convolutions and breaks the victim."""
    from dataclasses import dataclass
    from typing import ClassVar

    import onnx_ir as ir
    from planish.passes.context import Context

    @dataclass(frozen=True)
    class Lie(Pass):
        name: ClassVar[str] = "lie"

        def run(self, model: ir.Model, context: Context) -> None:
            for node in model.graph:
                if node.name in ("stem.conv", victim) and context.record.change(node) and node.name == victim:
                    weight = node.inputs[1]
                    assert weight is not None and weight.const_value is not None
                    weight.const_value = ir.Tensor(-weight.const_value.numpy(), name=weight.name)

    return Lie()


def test_dumped_ir_can_be_read_back(tmp_path: Path) -> None:
    from planish.ir.text import load_text

    arguments = [str(DIGITS), "--passes", "fold-bn", "--dry-run", "--dump-ir", str(tmp_path / "ir")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    dumps = sorted((tmp_path / "ir").glob("*.onnxtxt"))
    assert [p.name for p in dumps] == ["000_input.onnxtxt", "001_fold-bn.onnxtxt"]
    assert "BatchNormalization" in dumps[0].read_text()
    assert "BatchNormalization" not in dumps[1].read_text()
    assert [node.op_type for node in load_text(dumps[0]).graph] == [
        node.op_type for node in planish.capture(DIGITS).graph
    ]


def test_a_single_number_as_input_is_compared_too() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float y) { a = Identity(x) y = Add(a, x) }'
    )
    result = planish.optimize(model, level=1, compile=False)
    assert result.report["fidelity"]["unavailable"] == ""
    assert result.run({"x": np.float32(2)})["y"] == 4


@dataclass(frozen=True)
class _Damage(Pass):
    """Leave an operator that does not exist (`domain` "") or that ONNX Runtime does not have."""

    domain: str
    name: ClassVar[str] = "damage"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        for node in model.graph:
            if node.op_type == "Relu" and context.record.change(node, "made unknown"):
                node.op_type, node.domain = "NoSuch", self.domain
                model.opset_imports.setdefault(self.domain, 1)


@pytest.mark.parametrize(("domain", "says"), [("", "left an invalid graph"), ("com.microsoft", "does not after it")])
def test_a_pass_that_breaks_the_model_is_named_and_the_model_is_not_blamed(domain: str, says: str) -> None:
    with pytest.raises(VerificationError, match=says) as caught:
        planish.optimize(DIGITS, passes=[_Damage(domain)])
    assert "pass damage" in caught.value.where and "--bisect" in caught.value.hint
