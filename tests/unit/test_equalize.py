"""Equalisation leaves a network's function alone and makes the ranges of neighbours equal."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.ir.execute import execute
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.defaults import exact
from planish.passes.manager import PassManager
from planish.passes.quantize.equalize import Equalize, channel_scales
from planish.passes.quantize.homogeneous import scalable

PACK = Path(__file__).resolve().parents[2] / ".." / "shared" / "models"

NETWORKS = {
    "depthwise": """
        a = Conv (x, w, b)
        r = Relu (a)
        d = Conv <group = 4, pads = [1,1,1,1]> (r, k, b2)
        q = LeakyRelu <alpha = 0.1> (d)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (q)
        y = Conv (p, v)
    """,
    "residual": """
        a = Conv (x, w, b)
        r = Relu (a)
        e = Conv (r, m, b2)
        s = Add (r, e)
        t = Relu (s)
        y = Conv (t, v)
    """,
    "concat": """
        a = Conv (x, w, b)
        r = Relu (a)
        d = Conv (x, w2)
        q = Relu (d)
        c = Concat <axis = 1> (r, q)
        y = Conv (c, v2)
    """,
    "head": """
        a = Conv (x, w, b)
        r = Relu (a)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        g = Gemm (f, h, hb)
        z = Relu (g)
        m1 = MatMul (z, h2)
        m2 = Add (m1, hb3)
        m3 = Relu (m2)
        y = Gemm <transB = 1> (m3, h3)
    """,
}
OUTPUTS = {"head": "float[2,3] y", "depthwise": "float[2,3,4,4] y"}


def network(name: str) -> ir.Model:
    output = OUTPUTS.get(name, "float[2,3,8,8] y")
    return parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        main (float[2,3,8,8] x) => ({output})
        <float[4,3,1,1] w = seeded(0), float[4] b = seeded(1), float[4,1,3,3] k = seeded(2), float[4] b2 = seeded(3),
         float[3,4,1,1] v = seeded(4), float[4,4,1,1] m = seeded(5), float[5,3,1,1] w2 = seeded(6),
         float[3,9,1,1] v2 = seeded(7), float[4,6] h = seeded(8), float[6] hb = seeded(9), float[6,5] h2 = seeded(10),
         float[5] hb3 = seeded(11), float[3,5] h3 = seeded(12)>
        {{ {NETWORKS[name]} }}"""
    )


def stretched(model: ir.Model) -> ir.Model:
    """The model with weights whose channels differ a hundredfold."""
    rng = np.random.default_rng(0)
    for value in model.graph.initializers.values():
        array = value.const_value.numpy()
        value.const_value = ir.Tensor(
            (array * 10 ** rng.uniform(-1, 1, array.shape[:1] + (1,) * (array.ndim - 1))).astype(np.float32),
            name=value.name,
        )
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_and_every_scalable_layer_changes(name: str) -> None:
    model = stretched(network(name))
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    before = execute(model, feeds)["y"]
    record = PassManager("equalize").run(model, Context()).records[0]
    after = execute(model, feeds)["y"]
    assert record.changed >= 2 if name != "residual" else record.changed == 1
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_the_ranges_of_neighbours_meet() -> None:
    rng = np.random.default_rng(2)
    one, two = np.abs(rng.standard_normal((2, 6, 6))) * 10 ** rng.uniform(-2, 2, (2, 6, 1))
    channel = np.arange(6)
    nowhere = np.full((6, 6), -1)
    layers = [(one, channel, nowhere), (two, np.arange(6, 12), np.tile(channel, (6, 1)))]
    s = channel_scales(layers, 12, [])
    np.testing.assert_allclose(s[:6], np.sqrt(one.max(1) / two.max(0)), rtol=0.005)
    assert (s[6:] == 1).all()
    frozen = channel_scales(layers, 12, [2])
    assert frozen[2] == 1 and (frozen[[0, 1, 3, 4, 5]] != 1).all()


def test_dead_channels_and_limits_keep_scales_finite() -> None:
    one, two = np.full((3, 1), 1.0), np.full((1, 3), 1e-12)
    one[0] = 0
    layers = [(one, np.arange(3), np.full((3, 1), -1)), (two, np.array([3]), np.arange(3)[None])]
    s = channel_scales(layers, 4, [], limit=100.0)
    assert s[0] == 1 and s[1:3] == pytest.approx([100.0, 100.0], rel=0.05)


def test_statistics_follow_their_channels() -> None:
    from planish.ir import metadata

    model = stretched(network("depthwise"))
    infer(model)
    value = next(v for n in model.graph for v in n.outputs if v.name == "a")
    metadata.put(value, metadata.STATISTICS, {"mean": [1.0] * 4, "std": [2.0] * 4, "axis": 1, "source": "test"})
    weight = next(n for n in model.graph if n.outputs[0] is value).inputs[1]
    before = weight.const_value.numpy().copy()
    Equalize()(model)
    ratio = (weight.const_value.numpy() / before)[:, 0, 0, 0]
    fact = metadata.get(value, metadata.STATISTICS)
    np.testing.assert_allclose(fact["mean"], ratio, rtol=1e-5)
    np.testing.assert_allclose(fact["std"], 2 * ratio, rtol=1e-5)


def test_an_input_that_is_no_weight_has_no_layers() -> None:
    model = parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        main (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul (x, w) }"""
    )
    infer(model)
    assert scalable(model).layers == []


@pytest.mark.skipif(not (PACK / "evaluate.py").exists(), reason="the model pack is not beside the project")
@pytest.mark.parametrize("name", ["resnet20_cifar10", "kws_dscnn", "resnet8_cifar10", "yunet_n"])
def test_a_real_network_computes_what_it_did(name: str) -> None:
    model = ir.load(PACK / name / "model.onnx")
    PassManager(exact()).run(model, Context())
    shapes = {"kws_dscnn": (2, 1, 49, 10), "yunet_n": (1, 3, 64, 64)}
    value = model.graph.inputs[0]
    feeds = {
        str(value.name): np.random.default_rng(0).standard_normal(shapes.get(name, (2, 3, 32, 32))).astype(np.float32)
    }
    before = execute(model, feeds)
    record = PassManager("equalize").run(model, Context()).records[0]
    after = execute(model, feeds)
    assert record.changed > 5
    for key, found in before.items():
        np.testing.assert_allclose(after[key], found, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(found).max())))


def test_a_bound_is_passed_by_the_channels_that_stay_below_it() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
        main (float[2,3,8,8] x) => (float[2,3,8,8] y)
        <float[4,3,1,1] w = seeded(0), float[3,4,1,1] v = seeded(4), float zero = {0}, float six = {6}>
        { a = Conv (x, w) r = Clip (a, zero, six) y = Conv (r, v) }"""
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    model = parse_model(text)
    weight = model.graph.initializers["w"]
    array = weight.const_value.numpy() * np.float32([20, 0.1, 0.01, 1e-3])[:, None, None, None]
    weight.const_value = ir.Tensor(array, name="w")
    before = execute(model, feeds)["y"]
    assert PassManager("equalize").run(model, Context(data=[feeds])).records[0].changed == 0
    record = PassManager("equalize{clips=true}").run(model, Context(data=[feeds])).records[0]
    after, scaled = execute(model, feeds)["y"], model.graph.initializers["w"].const_value.numpy()
    assert record.changed == 1 and not record.exact
    np.testing.assert_array_equal(scaled[0], array[0])  # it reaches the bound
    assert all(np.abs(scaled[c]).max() > 1.5 * np.abs(array[c]).max() for c in (1, 2, 3))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
