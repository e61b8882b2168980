"""Block reconstruction: what its quantizers promise, and that trained blocks stay on their grids."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.quantization import Encoding
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager

torch = pytest.importorskip("torch")

NET = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[N,6,8,8] x) => (float[N,5,8,8] y)
   <float[16,6,1,1] w = seeded(0), float[16,1,3,3] d = seeded(1), float[16,16,1,1] u = seeded(2),
    float[5,16,3,3] v = seeded(3), float[5] b = splat(0.1)>
{
   c = Conv (x, w)
   r = Relu (c)
   e = Conv <group = 16, pads = [1,1,1,1]> (r, d)
   f = Relu (e)
   g = Conv (f, u)
   s = Add (g, f)
   t = Relu (s)
   y = Conv <pads = [1,1,1,1]> (t, v, b)
}
"""


def feed(samples: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    mix = rng.standard_normal((6, 6))
    return {"x": np.einsum("ij,njhw->nihw", mix, rng.standard_normal((samples, 6, 8, 8))).astype(np.float32)}


def after(passes: str) -> tuple[ir.Model, Context]:
    torch.set_num_threads(1)
    model, context = parse_model(NET), Context(data=[feed()])
    PassManager(passes).run(model, context)
    return model, context


def test_hardened_roundings_are_the_level_below_or_above() -> None:
    from planish.passes.quantize.learned_rounding import LearnedRounding

    start = np.random.default_rng(0).uniform(-7.9, 6.9, (8, 3, 3, 3))
    rounding = LearnedRounding(start, np.full(8, 0.1), np.full(8, -8.0), np.full(8, 7.0), 0)
    with torch.no_grad():
        rounding.v.add_(torch.randn_like(rounding.v, generator=None) * 3)
        soft = rounding.levels().numpy()
        rounding.hard = True
        hard = rounding.levels().numpy()
    assert set(np.unique(rounding.rounding().detach().numpy())) == {0.0, 1.0}
    below = np.floor(start)
    assert ((hard == below) | (hard == below + 1)).all()
    assert ((soft >= below) & (soft <= below + 1)).all() and (soft != hard).any()
    assert rounding.undecided(2.0).item() == 0


def test_a_rounding_starts_at_the_nearest_level() -> None:
    from planish.passes.quantize.learned_rounding import LearnedRounding

    start = np.random.default_rng(1).uniform(-7, 6, (4, 50))
    rounding = LearnedRounding(start, np.full(50, 0.1), np.full(50, -8.0), np.full(50, 7.0), 1)
    rounding.hard = True
    assert np.array_equal(rounding.levels().detach().numpy(), np.rint(start))


@pytest.mark.parametrize("signed", [False, True])
def test_a_step_is_fitted_to_the_first_values_and_has_the_levels_of_its_bits(signed: bool) -> None:
    from planish.passes.quantize.learned_rounding import LearnedStep

    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    x[0] = 12.0  # an outlier that 15 steps should not reach for
    x = x if signed else x.relu()
    step = LearnedStep(15)
    y = step(x).detach()
    low, high = step.range()
    assert len(torch.unique(y)) <= 16 and high < 9
    assert (low < 0) == signed and y.min() >= low - 1e-5 and y.max() <= high + 1e-5
    widest = (x.max() - x.min()) / 15
    assert (y - x).square().mean() < ((x / widest).round() * widest - x).square().mean()


def test_training_lowers_the_error_and_leaves_weights_on_their_grids() -> None:
    model, context = after("activation-ranges,reconstruct{weights=int3 activations=int3 steps=80}")
    details = [change.detail for change in context.record.changes]
    assert len(details) == 2
    errors = [[float(part.strip("%")) for part in detail.split("error ")[1].split(" → ")] for detail in details]
    assert all(later <= first for first, later in errors) and any(later < first for first, later in errors)
    for name in ("w", "d", "u", "v"):
        value = model.graph.initializers[name]
        encoding = Encoding.of(value)
        assert encoding is not None
        levels = value.const_value.numpy() / encoding.scale[:, None, None, None]
        assert np.abs(levels - np.rint(levels)).max() < 1e-3
        assert (np.ptp(np.rint(levels).reshape(len(levels), -1), axis=1) <= 7).all()


@pytest.mark.parametrize(
    ("weights", "activations", "rows", "levels"),
    [("int4", "int6", 16, 64), ("int3", "int4", 8, 16), ("int2", "int3", 4, 8), ("ternary", "int2", 3, 4)],
)
def test_few_bits_are_few_values_of_weights_and_activations(
    weights: str, activations: str, rows: int, levels: int
) -> None:
    options = f"weights={weights} activations={activations} steps=3"
    model, _ = after(f"activation-ranges,reconstruct{{{options}}},quantize{{weights={weights}}}")
    stored = [v.const_value.numpy() for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    kernels = [array for array in stored if array.ndim == 4]
    assert len(kernels) == 4 and all(len(np.unique(row)) <= rows for array in kernels for row in array)
    assert max(len(np.unique(row)) for array in kernels for row in array) == rows
    values = {v.name: v for node in model.graph for v in node.outputs}
    model.graph.outputs.extend(values[f"{name}_dequantized"] for name in ("r", "f", "t"))
    result = execute(model, feed())
    for name in ("r", "f", "t"):
        assert levels / 2 < len(np.unique(result[f"{name}_dequantized"])) <= levels
    assert len(np.unique(result["y"])) > 100


def test_the_same_seed_gives_the_same_weights() -> None:
    first, _ = after("activation-ranges,reconstruct{steps=5}")
    second, _ = after("activation-ranges,reconstruct{steps=5}")
    for name, value in first.graph.initializers.items():
        assert np.array_equal(value.const_value.numpy(), second.graph.initializers[name].const_value.numpy())


def test_without_inputs_nothing_is_trained() -> None:
    model, context = parse_model(NET), Context()
    PassManager("reconstruct").run(model, context)
    assert context.record.changed == 0 and "no inputs" in context.record.why_nothing()


def test_a_value_that_only_renames_another_keeps_8_bits() -> None:
    torch.set_num_threads(1)
    model, context = parse_model(NET.replace("r = Relu (c)", "r = Identity (c)")), Context(data=[feed()])
    PassManager("activation-ranges,reconstruct{activations=int4 steps=1},quantize{weights=int4}").run(model, context)
    assert any("2 values of fewer than 8 bits" in note for note in context.record.notes)


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-2.0, 0.0)])
def test_fewer_levels_lie_at_the_upper_end_of_the_type(low: float, high: float) -> None:
    encoding = Encoding.affine(low, high, ir.DataType.INT8, 15)
    levels = encoding.quantize(np.linspace(low, high, 1000, dtype=np.float32))
    assert len(np.unique(levels)) == 16 and levels.max() == 127 and levels.min() == 112
    lowest, highest = encoding.reach
    step = float(encoding.scale)
    assert abs(lowest - low) <= step / 2 + 1e-6 and abs(highest - high) <= step / 2 + 1e-6


def test_the_pipelines_of_few_bits_round_to_what_they_quantize_to() -> None:
    from planish.passes.defaults import few_bits

    for weights, activations in (("int4", "int8"), ("int3", "int3"), ("ternary", "int6")):
        chosen = {type(p).__name__: p for p in few_bits(weights, activations)}
        rounding = chosen["RoundWeights" if activations == "int8" else "Reconstruct"]
        assert rounding.weights == chosen["Quantize"].weights == weights
        assert ("Recover" in chosen) == (activations != "int8")


def test_a_run_that_was_stopped_goes_on_behind_its_last_block(tmp_path: Path) -> None:
    def bytes_after(context: Context) -> bytes:
        torch.set_num_threads(1)
        model = parse_model(NET)
        PassManager("reconstruct{activations=int4 steps=3 grain=layer},quantize").run(model, context)
        return ir.to_proto(model).SerializeToString(deterministic=True)

    def stop(what: str, share: float) -> None:
        if what == "reconstructing blocks" and share > 0.4:
            raise KeyboardInterrupt

    whole = bytes_after(Context(data=[feed()]))
    with pytest.raises(KeyboardInterrupt):
        bytes_after(Context(data=[feed()], checkpoints=tmp_path, progress=stop))
    assert len(list(tmp_path.glob("reconstruct-*.pt"))) == 1
    resumed = Context(data=[feed()], checkpoints=tmp_path)
    assert bytes_after(resumed) == whole
    assert not list(tmp_path.iterdir())
