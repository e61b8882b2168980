"""What a folded BatchNorm leaves behind: bottlenecks that average 0 over the training data."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir import shapes
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.synthesize.centred import borne_out, centred
from planish.passes.synthesize.renormalise import renormalise

# p and q are bottlenecks that expanding convolutions read, q behind a residual Add; {} is how the second expands
NET = """<ir_version: 10, opset_import: ["" : 20]>
main (float[N,3,8,8] x) => (float[N,5,M,K] y)
   <float[4,3,1,1] w = seeded(0), float[4] a = seeded(7), float[8,4,1,1] v = seeded(1), float[8] b = seeded(2),
    float[4,8,1,1] u = seeded(3), float[4] c = seeded(4), float[5,4,{kernel},{kernel}] t = seeded(5),
    float[5] d = seeded(6)>
{{
   p = Conv (x, w, a)
   e = Conv (p, v, b)
   r = Relu (e)
   q = Conv (r, u, c)
   s = Add (p, q)
   f = Conv <pads = [{pad},{pad},{pad},{pad}]> (s, t{bias})
   y = Relu (f)
}}"""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def network(kernel: int = 1, pad: int = 0, bias: str = ", d") -> ir.Model:
    model = parse_model(NET.format(kernel=kernel, pad=pad, bias=bias))
    shapes.infer(model)
    return model


def weights(model: ir.Model, name: str) -> np.ndarray:
    contents = model.graph.initializers[name].const_value
    assert contents is not None
    return np.asarray(contents.numpy(), np.float64)


def found(model: ir.Model) -> set[str]:
    return {str(n.outputs[0].name) for n in model.graph if centred(n.outputs[0]) is not None}


def test_bottlenecks_that_only_convolutions_with_biases_read_are_centred() -> None:
    assert found(network()) == {"p", "q"}
    assert found(network(kernel=3)) == {"p", "q"}


@pytest.mark.parametrize("change", [{"kernel": 3, "pad": 1}, {"bias": ""}])
def test_padding_or_a_reader_without_bias_leaves_the_shift_a_meaning(change: dict[str, object]) -> None:
    assert found(network(**change)) == set()  # type: ignore[arg-type]


def test_a_shift_of_what_is_centred_can_be_taken_back_by_the_readers(rng: np.random.Generator) -> None:
    model, x = network(kernel=3), rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    before = execute(model, {"x": x})["y"]
    shift = np.array([1, -2, 0.5, 3])

    def move(name: str, by: np.ndarray) -> None:
        model.graph.initializers[name].const_value = ir.tensor((weights(model, name) + by).astype(np.float32))

    move("a", shift)
    move("b", -weights(model, "v").sum((2, 3)) @ shift)
    move("d", -weights(model, "t").sum((2, 3)) @ shift)
    np.testing.assert_allclose(execute(model, {"x": x})["y"], before, atol=1e-4)


def test_a_bias_that_undoes_the_mean_bears_out_the_claim_and_another_does_not(rng: np.random.Generator) -> None:
    expected = rng.standard_normal(16)
    assert borne_out(0.3 * rng.standard_normal(16), -expected)
    assert not borne_out(expected, np.zeros(16))


def test_renormalised_bottlenecks_average_zero_and_keep_their_spread(rng: np.random.Generator) -> None:
    model = network()
    usual = np.array([1.0, -2.0, 1.5])
    weight = weights(model, "w")[:, :, 0, 0]
    model.graph.initializers["a"].const_value = ir.tensor((-weight @ usual).astype(np.float32))
    x = rng.standard_normal((8, 3, 8, 8)) + 0.9 * usual[:, None, None]
    feeds = [{"x": part.astype(np.float32)} for part in np.split(x, 2)]
    before = np.concatenate([execute(model, f, ["p"])["p"] for f in feeds])
    assert np.abs(before.mean((0, 2, 3))).max() > 0.05
    renormalise(model, feeds)
    read = str(next(n for n in model.graph if n.outputs[0].name == "e").inputs[0].name)
    after = np.concatenate([execute(model, f, [read])[read] for f in feeds])
    np.testing.assert_allclose(after.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(after.std((0, 2, 3)), before.std((0, 2, 3)), rtol=1e-4)
