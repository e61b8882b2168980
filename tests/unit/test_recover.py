"""Training: gradients by their formulas, students that come back as what was trained, runs that can be resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish import optimize
from planish.ir.capture import capture
from planish.ir.execute import execute
from planish.ir.quantization import Encoding
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.passes.recover.inputs import Inputs, gather
from planish.targets.registry import resolve

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from planish.passes.recover import losses  # noqa: E402
from planish.passes.recover.checkpoint import Checkpoint  # noqa: E402
from planish.passes.recover.curriculum import CURRICULA, ModuleReplacing  # noqa: E402
from planish.passes.recover.distill import Distillation, Settings  # noqa: E402
from planish.passes.recover.fake_quantize import fake_quantize  # noqa: E402
from planish.passes.recover.loop import Plan, fit  # noqa: E402
from planish.passes.recover.student import Student  # noqa: E402

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
INT4 = "fold-bn,synthesize-inputs,activation-ranges,quantize{weights=int4},remove-unused"


def _quantized() -> tuple[ir.Model, Context]:
    model = capture(DIGITS)
    context = Context(target=resolve("arm64"), original=model.clone())
    PassManager(INT4).run(model, context)
    return model, context


# --- rounding -------------------------------------------------------------------------------------------------------


def test_rounding_forward_is_the_encoding() -> None:
    x = np.random.default_rng(0).normal(0, 2, (50, 7)).astype(np.float32)
    encoding = Encoding(np.float32(0.1), np.asarray(3, np.int32), ir.DataType.INT8)
    found = fake_quantize(torch.from_numpy(x), torch.tensor(0.1), (-131, 124))
    np.testing.assert_array_equal(found.numpy(), encoding.dequantize(encoding.quantize(x)))


def _gradients(x: list[float], **options: object) -> tuple[np.ndarray, float]:
    value = torch.tensor(x, requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantize(value, scale, (-2, 3), **options).sum().backward()  # type: ignore[arg-type]
    assert value.grad is not None
    return value.grad.numpy(), 0.0 if scale.grad is None else float(scale.grad)


def test_gradients_of_rounding_by_hand() -> None:
    x = [0.6, -0.2, 9.0, -9.0]  # x/s: 1.2, -0.4, clipped to 3, clipped to -2
    to_x, to_scale = _gradients(x)
    assert to_x.tolist() == [1, 1, 0, 0]
    share = (4 * 3) ** -0.5  # elements and levels
    assert to_scale == pytest.approx(share * ((1 - 1.2) + (0 + 0.4) + 3 - 2))  # LSQ
    assert _gradients(x, rule="pact")[1] == pytest.approx(share * (3 - 2))
    assert _gradients(x, rule="fixed")[1] == 0.0
    to_x, _ = _gradients(x, delta=0.1)
    np.testing.assert_allclose(to_x, [1 + 0.1 * 0.2, 1 - 0.1 * 0.4, 0, 0], rtol=1e-6)  # EWGS


# --- losses ---------------------------------------------------------------------------------------------------------


def test_losses_are_zero_for_equals_and_positive_otherwise() -> None:
    rng = torch.Generator().manual_seed(0)
    maps, others = (torch.randn(6, 4, 5, 5, generator=rng) for _ in range(2))
    for loss, _ in losses.FEATURES.values():
        assert float(loss(maps, maps)) == pytest.approx(0.0, abs=1e-7)
        assert float(loss(maps, others)) > 1e-6
    scores = torch.randn(6, 10, generator=rng)
    assert float(losses.divergence(scores, scores + 3.0, 4.0)) == pytest.approx(0.0, abs=1e-5)
    assert float(losses.relative_error(torch.full((8,), 0.5), torch.tensor([0.0, 1.0] * 4))) == pytest.approx(1.0)


def test_divergence_is_the_textbook_one() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0 * np.log(3.0), 0.0]])
    by_hand = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert float(losses.divergence(student, teacher, 2.0)) == pytest.approx(4.0 * by_hand, rel=1e-5)


# --- students -------------------------------------------------------------------------------------------------------


def test_an_untrained_student_leaves_the_model_as_it_was() -> None:
    model, _ = _quantized()
    assert Student.of(model).write_back() == []


def _perturbed(only_weights: bool) -> tuple[np.ndarray, np.ndarray, list[str], ir.Model]:
    """What a student computes after its parameters moved, and what the model does that it was written back to."""
    model, context = _quantized()
    student = Student.of(model, floats=context.float_weights)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in student.module.named_parameters():
            name = str(student.bridge.weights[path].name)
            if not only_weights or name.endswith("weight_levels_latent"):
                parameter.mul_(1.0 + 0.1 * torch.rand(parameter.shape, generator=generator))
    assert context.synthetic
    feed = dict(context.synthetic[0])
    with torch.no_grad():
        computed = student.module(*(torch.from_numpy(feed[name]) for name in student.bridge.inputs))[0].numpy()
    changed = student.write_back()
    return computed, execute(model, feed)[student.bridge.outputs[0]], changed, model


def test_weights_that_were_trained_come_back_exactly() -> None:
    computed, found, changed, model = _perturbed(only_weights=True)
    assert changed and all(name.endswith("weight_levels") for name in changed)
    np.testing.assert_allclose(found, computed, rtol=1e-5, atol=1e-5)
    levels = [v.const_value.numpy() for n, v in model.graph.initializers.items() if n.endswith("weight_levels")]
    assert levels and all(q.min() >= -8 and q.max() <= 7 for q in levels)


def test_channels_keep_the_windows_of_levels_they_had() -> None:
    model, context = capture(DIGITS), Context(target=resolve("arm64"))
    passes = "fold-bn,synthesize-inputs,activation-ranges,round-weights,quantize{weights=int4},remove-unused"
    PassManager(passes).run(model, context)
    before = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if n.endswith("weight_levels")}
    student = Student.of(model, floats=context.float_weights)
    with torch.no_grad():
        for path, parameter in student.module.named_parameters():
            if str(student.bridge.weights[path].name).endswith("weight_levels_latent"):
                parameter.mul_(3.0)
    student.write_back()
    for name, old in before.items():
        new, others = model.graph.initializers[name].const_value.numpy(), tuple(range(1, old.ndim))
        widest = (old.max(others) - old.min(others)).max()
        assert widest > 7 and (new.max(others).astype(int) - new.min(others) <= widest).all()
        assert (new != old).any() and np.abs(old).max() > 8  # some channel has a zero point of its own


def test_few_levels_stay_as_few_when_their_step_is_learned() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        main (float[N,4,6,6] x) => (float[N,4,6,6] y)
           <float[4,4,3,3] w = seeded(0), float[4,4,3,3] v = seeded(1), float[4] b = splat(0.1)>
        {
           c = Conv <pads = [1,1,1,1]> (x, w, b)
           y = Conv <pads = [1,1,1,1]> (c, v)
        }"""
    model, rng = parse_model(text), np.random.default_rng(0)
    feed = {"x": rng.standard_normal((8, 4, 6, 6)).astype(np.float32)}
    context = Context(data=[feed], target=resolve("arm64"))
    PassManager("activation-ranges,reconstruct{activations=int4 steps=2},quantize{weights=int4}").run(model, context)
    student = Student.of(model, floats=context.float_weights)
    with torch.no_grad():
        for path, parameter in student.module.named_parameters():
            if str(student.bridge.weights[path].name).startswith("c_scale"):
                parameter.mul_(0.7)
    wanted = student.module(torch.from_numpy(feed["x"]))[0].detach().numpy()
    assert any("c_scale" in name for name in student.write_back())
    found = execute(model, feed, ["c_quantized", "y"])
    assert len(np.unique(found["c_quantized"])) == 16
    np.testing.assert_allclose(found["y"], wanted, atol=0.02 * np.abs(wanted).max())


def test_biases_and_steps_come_back_up_to_the_rounding_of_biases() -> None:
    computed, found, changed, _ = _perturbed(only_weights=False)
    assert any(name.endswith("_scale") for name in changed)
    # A bias becomes a multiple of s_x·s_w, which the student does not simulate. That turns the rounding of a few
    # activations, so both differ by about what 8 bits cost anyway: 30 dB of this network.
    noise = np.sqrt(np.mean((found - computed) ** 2) / np.mean(computed**2))
    assert noise <= 10 ** (-26 / 20)


def test_dorefa_starts_from_the_same_levels_and_uses_the_whole_range_whatever_it_learns() -> None:
    model, context = _quantized()
    student = Student.of(model, floats=context.float_weights, rule="fixed", squash=True)
    assert student.write_back() == []
    path, unit = next((p, u) for p, u in student._units.items() if u.largest is not None)
    with torch.no_grad():
        student.module.get_parameter(path).mul_(3.0)
    found = student._tensor(path).detach()
    over = [i for i, n in enumerate(unit.largest.shape) if n == 1]
    np.testing.assert_allclose(found.abs().amax(over, keepdim=True).numpy(), unit.largest, rtol=1e-5)
    assert any(name.endswith("weight_levels") for name in student.write_back())


def test_one_teacher_is_drawn_in_every_step_and_the_original_judges() -> None:
    original = capture(DIGITS)
    other = original.clone()
    bias = next(v for v in other.graph.initializers.values() if v.name and v.name.endswith("bias"))
    bias.const_value = ir.Tensor(bias.const_value.numpy() + 1.0, name=bias.name)
    context = Context(target=resolve("arm64"), original=original.clone())
    PassManager("synthesize-inputs").run(original, context)
    assert context.synthetic
    batch = Inputs(dict(context.synthetic[0]), None, "test")
    job = Distillation(Settings(batch=4), [original, other], Student.of(original), [])
    losses_seen = [float(job.loss(batch, step).detach()) for step in range(12)]
    again = [float(job.loss(batch, step).detach()) for step in range(12)]
    assert losses_seen == again and min(losses_seen) < 1e-4 < 1e-3 < max(losses_seen)
    assert job.held_out(batch) < 1e-6


# --- the loop -------------------------------------------------------------------------------------------------------


def _regression(directory: Path | None, steps: int, stop_at: int | None = None) -> tuple[torch.nn.Module, object]:
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    data = Inputs({"x": x}, None, "test")
    wanted = torch.tensor([[1.0, -2.0, 0.5, 3.0]])

    def loss(batch: Inputs, step: int) -> object:
        if step == stop_at:
            raise KeyboardInterrupt
        sample = torch.from_numpy(batch.arrays["x"])
        return (module(sample) - sample @ wanted.T).square().mean()

    def judge() -> float:
        with torch.no_grad():
            return float(loss(data, -1))  # type: ignore[arg-type]

    groups = [{"params": list(module.parameters()), "lr": 0.05}]
    batches = data.batches(16, np.random.default_rng(3), augment=False)
    outcome = fit(module, groups, batches, loss, judge, Plan(steps), Checkpoint(directory, "t"), lambda *_: None)
    return module, outcome


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, outcome = _regression(None, 40)
    assert outcome.after < outcome.before  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        _regression(tmp_path, 40, stop_at=17)
    assert (tmp_path / "t.pt").exists()
    resumed, again = _regression(tmp_path, 40)
    assert again.resumed == 17  # type: ignore[attr-defined]
    assert not (tmp_path / "t.pt").exists()
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_torn_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "t.pt").write_bytes(b"PK torn")
    _, outcome = _regression(tmp_path, 5)
    assert outcome.resumed == 0  # type: ignore[attr-defined]


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_all_samples_are_drawn_once_an_epoch_with_their_labels() -> None:
    data = Inputs({"x": np.arange(12.0)[:, None]}, np.arange(12), "test")
    batches = data.batches(4, np.random.default_rng(0), augment=False)
    drawn = [next(batches) for _ in range(3)]
    assert sorted(np.concatenate([b.labels for b in drawn]).tolist()) == list(range(12))  # type: ignore[misc]
    assert all((b.arrays["x"][:, 0] == b.labels).all() for b in drawn)


def test_augmentation_moves_and_mirrors_pictures_only() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(16, 3, 16, 16)).astype(np.float32)
    context = Context(everything=lambda: iter([({"x": pictures}, None)]))
    data = gather(context)
    assert data is not None and data.labels is None
    batch = next(data.batches(16, rng, augment=True))
    assert batch.arrays["x"].shape == pictures.shape
    assert not any(np.array_equal(a, b) for a in batch.arrays["x"] for b in pictures[:4])
    made = gather(Context(synthetic=[{"x": np.full((1, 3, 16, 16), i, np.float32)} for i in range(8)]))
    assert made is not None
    mixed = next(made.batches(8, np.random.default_rng(0), augment=True)).arrays["x"]
    kinds = [(len(np.unique(x)), bool(np.isin(x, range(8)).all())) for x in mixed]
    assert (1, True) in kinds and (1, False) in kinds and (2, True) in kinds  # as it was, blended, pasted
    vectors = Inputs({"x": rng.normal(size=(8, 64))}, None, "test")
    plain = next(vectors.batches(8, np.random.default_rng(1), augment=True)).arrays["x"]
    assert {row.tobytes() for row in plain} == {row.tobytes() for row in vectors.arrays["x"]}


# --- the pass -------------------------------------------------------------------------------------------------------


def test_recovery_lowers_the_distance_of_an_int4_model() -> None:
    result = optimize(DIGITS, target="arm64", passes=f"{INT4},recover{{steps=30 batch=12}}", seed=1)
    record = result.report["passes"][-1]
    before, after = record["measures"]["training"]["held_out_loss"]
    assert record["changed"] == 1 and after < before
    operators = [node.op_type for node in result.model.graph]
    assert "QuantizeLinear" in operators and "Clip" not in operators


def test_recovery_that_cannot_help_says_so() -> None:
    result = optimize(DIGITS, passes="synthesize-inputs,recover{steps=3 batch=12}")
    record = result.report["passes"][-1]
    assert record["changed"] == 0
    assert "training did not help" in record["why_nothing"]


# --- module replacing -----------------------------------------------------------------------------------------------


def test_curricula_rise_to_one() -> None:
    for rate in CURRICULA.values():
        values = [rate(i / 20) for i in range(21)]
        assert values[0] == 0.5 and values[-1] == pytest.approx(1.0) and values == sorted(values)
    assert CURRICULA["log"](0.2) > CURRICULA["linear"](0.2)


def test_a_switched_block_is_the_originals() -> None:
    original = capture(DIGITS)
    context = Context(target=resolve("arm64"), original=original.clone())
    model = original.clone()
    PassManager('synthesize-inputs,replace{budget="macs=-40%" factories=low-rank-spatial}').run(model, context)
    assert context.synthetic
    feed = torch.from_numpy(dict(context.synthetic[0])[str(model.graph.inputs[0].name)])
    student = Student.of(model)
    wanted = execute(original, dict(context.synthetic[0]))["logits"]
    own = execute(model, dict(context.synthetic[0]))["logits"]
    replacing = ModuleReplacing(student.bridge, student.form, original, "linear", 0)
    assert len(replacing.switches) >= 3
    with torch.no_grad():
        np.testing.assert_allclose(student.module(feed)[0].numpy(), own, rtol=1e-3, atol=1e-4)
        for switch in replacing.switches:
            switch.new = False
        np.testing.assert_allclose(student.module(feed)[0].numpy(), wanted, rtol=1e-3, atol=1e-4)
        replacing.step(1.0)
        np.testing.assert_allclose(student.module(feed)[0].numpy(), own, rtol=1e-3, atol=1e-4)


def test_module_replacing_trains_what_was_replaced() -> None:
    replaced = 'fold-bn,synthesize-inputs,replace{budget="macs=-30%"}'
    passes = f"{replaced},recover{{steps=40 batch=12 learning-rate=2e-4 modules=log}}"
    record = optimize(DIGITS, passes=passes).report["passes"][-1]
    before, after = record["measures"]["training"]["held_out_loss"]
    assert after < before and not any("none is switched" in note for note in record["notes"])
