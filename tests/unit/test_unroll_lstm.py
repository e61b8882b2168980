"""Unrolled LSTMs compute what ONNX Runtime's do, in every direction and with every output."""

import numpy as np
import pytest
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.passes.context import Context
from planish.passes.manager import PassManager


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("states", ["", ", , s, k"])
def test_it_equals_the_operator(direction: str, frames: int, states: str) -> None:
    d = 2 if direction == "bidirectional" else 1
    model = parse_model(f"""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[{frames},2,3] x, float[{d},2,4] s, float[{d},2,4] k)
      => (float[{frames},{d},2,4] y, float[{d},2,4] h, float[{d},2,4] c)
       <float[{d},16,3] w = seeded(0), float[{d},16,4] r = seeded(1), float[{d},32] b = seeded(2)>
    {{ y, h, c = LSTM <hidden_size = 4, direction = "{direction}"> (x, w, r, b{states}) }}
    """)
    rng = np.random.default_rng(0)
    feeds = {str(v.name): rng.normal(size=tuple(v.shape)).astype(np.float32) for v in model.graph.inputs}
    expected = execute(model, feeds)
    PassManager("unroll-lstm").run(model, Context())
    assert "LSTM" not in {node.op_type for node in model.graph}
    found = execute(model, feeds)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_other_cells_are_left_with_a_reason() -> None:
    model = parse_model("""
    <ir_version: 10, opset_import: ["" : 18]>
    main (float[2,1,3] x) => (float[2,1,1,4] y) <float[1,16,3] w = seeded(0), float[1,16,4] r = seeded(1)>
    { y = LSTM <hidden_size = 4, clip = 1.0> (x, w, r) }
    """)
    context = Context()
    PassManager("unroll-lstm").run(model, context)
    assert context.record.skipped == {"clipped cells": 1}
