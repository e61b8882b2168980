"""Data-free int8 keeps the accuracy of real classifiers; what cannot be known stays float, with the reason."""

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from planish.passes.context import Context
from planish.passes.defaults import exact, int8
from planish.passes.manager import Outcome, PassManager
from planish.targets.registry import resolve
from planish.tools.bench.quantization import load_evaluate, metric

PACK = Path(__file__).resolve().parents[2] / ".." / "shared" / "models"

pytestmark = pytest.mark.skipif(not (PACK / "evaluate.py").exists(), reason="the model pack is not beside the project")

# model, task, samples; MobileNets on few: one takes half a minute per thousand pictures
CLASSIFIERS = [
    ("resnet20_cifar10", "cifar10", 1017),
    ("resnet8_cifar10", "cifar10_raw", 1017),
    ("kws_dscnn", "kws", 1000),
    ("lenet_mnist", "mnist", 2000),
    ("mobilenetv1_075", "imagenet_tf", 150),
    ("mobilenetv2_tf", "imagenet_tf", 150),
]


def quantized(name: str, target: str) -> tuple[ir.Model, Outcome]:
    model = ir.load(PACK / name / "model.onnx")
    context = Context(target=resolve(target))
    PassManager(exact()).run(model, context)
    return model, PassManager(int8()).run(model, context)


def measured(name: str, model: ir.Model, task: str, samples: int, directory: Path) -> tuple[Any, Any]:
    path = directory / "model.onnx"
    ir.save(model, path)
    evaluate = load_evaluate(PACK)
    before = metric(evaluate, PACK / name / "model.onnx", task, samples)
    after = metric(evaluate, path, task, samples)
    return next(iter(before.values())), next(iter(after.values()))


@pytest.mark.parametrize(("name", "task", "samples"), CLASSIFIERS, ids=[c[0] for c in CLASSIFIERS])
def test_top1_drops_at_most_one_and_a_half_points_on_arm64(name: str, task: str, samples: int, tmp_path: Path) -> None:
    model, outcome = quantized(name, "arm64")
    linear = [c for c in outcome.records[-2].changes if c.op in ("Conv", "Gemm")]
    assert len(linear) == sum(n.op_type in ("Conv", "Gemm") for n in model.graph)  # every layer runs on integers
    before, after = measured(name, model, task, samples, tmp_path)
    assert before - after <= 0.015


@pytest.mark.parametrize(("name", "task", "samples"), CLASSIFIERS[1:4], ids=[c[0] for c in CLASSIFIERS[1:4]])
def test_top1_drops_at_most_one_and_a_half_points_on_the_host(
    name: str, task: str, samples: int, tmp_path: Path
) -> None:
    before, after = measured(name, quantized(name, "host")[0], task, samples, tmp_path)
    assert before - after <= 0.015


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20_cifar10", "ImageNet mean and deviation"),
        ("resnet8_cifar10", "0…255"),
        ("lenet_mnist", "drawings, 0…1"),
        ("mobilenetv1_075", "−1…1"),
    ],
)
def test_the_scale_of_the_input_is_recovered(name: str, expected: str) -> None:
    model = ir.load(PACK / name / "model.onnx")
    context = Context()
    PassManager(exact()).run(model, context)
    (change,) = PassManager("synthesize-inputs").run(model, context).records[0].changes
    assert expected in change.detail.split(" or ")[0]


def test_a_face_detector_still_finds_the_faces(tmp_path: Path) -> None:
    before, after = measured("yunet_n", quantized("yunet_n", "arm64")[0], "faces_yunet", 0, tmp_path)
    assert before == 1.0 and after >= 0.95


def test_a_detector_of_speech_with_state_keeps_its_decisions(tmp_path: Path) -> None:
    model, outcome = quantized("silero_vad", "arm64")
    assert [c.op for c in outcome.records[-2].changes].count("Conv") >= 5
    before, after = measured("silero_vad", model, "vad", 500, tmp_path)
    assert before - after <= 0.01


def test_a_sentence_encoder_keeps_its_similarities(tmp_path: Path) -> None:
    model, outcome = quantized("all_minilm_l6_v2", "arm64")
    made = next(record for record in outcome.records if record.pass_name == "synthesize-inputs")
    assert made.changes[0].detail == "sentences of 32 random tokens"
    before, after = measured("all_minilm_l6_v2", model, "stsb", 128, tmp_path)
    assert before - after <= 0.01


def test_style_transfer_paints_the_same_picture(tmp_path: Path) -> None:
    _, after = measured("style_starry_night", quantized("style_starry_night", "arm64")[0], "style", 3, tmp_path)
    assert after >= 36
