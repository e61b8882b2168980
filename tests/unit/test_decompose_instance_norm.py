"""InstanceNormalization in pieces equals the operator, also where the convolution before it was rescaled."""

import numpy as np
import pytest
from planish.ir.execute import execute
from planish.ir.graph import constant
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("rank", [3, 4])
def test_it_equals_the_operator(opset: int, rank: int) -> None:
    size = ",".join(["9", "7"][: rank - 2])
    model = parse_model(f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    main (float[2,4,{size}] x) => (float[2,4,{size}] y) <float[4] g = {{1,-2,0.5,3}}, float[4] b = seeded(1)>
    {{ y = InstanceNormalization <epsilon = 0.01> (x, g, b) }}
    """)
    feeds = {"x": np.random.default_rng(0).normal(1, 2, tuple(model.graph.inputs[0].shape)).astype(np.float32)}
    expected = execute(model, feeds)["y"]
    PassManager("decompose-instance-norm").run(model, Context())
    assert "InstanceNormalization" not in {node.op_type for node in model.graph}
    np.testing.assert_allclose(execute(model, feeds)["y"], expected, rtol=1e-4, atol=1e-5)


def test_channels_get_one_spread_and_the_result_stays() -> None:
    model = parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    main (float[1,3,12,12] x) => (float[1,4,12,12] y)
       <float[4,3,1,1] w = {1,0,0,0,100,0,0,0,0.01,3,3,3}, float[4] o = {1,2,3,4}, float[4] g = splat(1),
        float[4] b = splat(0)>
    { c = Conv (x, w, o)  y = InstanceNormalization <epsilon = 0.001> (c, g, b) }
    """)
    data = [{"x": np.random.default_rng(i).normal(size=(1, 3, 12, 12)).astype(np.float32)} for i in range(4)]
    expected = execute(model, data[0])["y"]
    PassManager("decompose-instance-norm").run(model, Context(data=data))
    np.testing.assert_allclose(execute(model, data[0])["y"], expected, rtol=1e-3, atol=1e-4)
    weight = constant(model.graph.initializers["w"])
    assert weight is not None
    norms = np.linalg.norm(weight.reshape(4, 3), axis=1)
    # the third channel spreads a ten-thousandth of the second: it is raised by no more than a thousand
    assert norms[[0, 1, 3]] == pytest.approx(1, rel=0.2) and norms[2] == pytest.approx(0.1, rel=0.2)


def test_a_convolution_that_others_read_is_left() -> None:
    model = parse_model("""
    <ir_version: 8, opset_import: ["" : 18]>
    main (float[1,3,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] c)
       <float[4,3,1,1] w = seeded(1), float[4] g = splat(1), float[4] b = splat(0)>
    { c = Conv (x, w)  y = InstanceNormalization (c, g, b) }
    """)
    before = constant(model.graph.initializers["w"])
    assert before is not None
    kept = np.array(before)
    PassManager("decompose-instance-norm").run(model, Context(data=[{"x": np.ones((1, 3, 8, 8), np.float32)}]))
    np.testing.assert_array_equal(constant(model.graph.initializers["w"]), kept)
