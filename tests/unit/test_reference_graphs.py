"""Graphs drawn at random, with Q/DQ where it pleases them: every step agrees with ONNX Runtime, every output exists."""

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from planish.ir.execute import Session
from planish.ir.integer import FloatNode, IntegerOp, plan
from planish.ir.reference import execute_step, run
from planish.ir.shapes import infer
from planish.ir.text import parse_model

# templates over float values a, b [2,4,6,6] that make r of the same shape; {n} is a number nobody else has
OPERATORS = [
    "w{n} = DequantizeLinear <axis = 0> (W, ws)\n r{n} = Conv <pads = [1,1,1,1]> ({a}, w{n}, bias)",
    "w{n} = DequantizeLinear <axis = 0> (W, ws)\n r{n} = Conv <pads = [1,1,1,1]> ({a}, w{n})",
    "r{n} = Add ({a}, {b})",
    "r{n} = Sub ({a}, {b})",
    "r{n} = Mul ({a}, {b})",
    "r{n} = Add ({a}, channel)",
    "r{n} = Mul (half, {a})",
    "r{n} = Relu ({a})",
    "r{n} = Clip ({a}, low, high)",
    "r{n} = Sigmoid ({a})",
    "r{n} = Softmax <axis = 1> ({a})",
    "r{n} = Identity ({a})",
    "r{n} = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({a})",
    "r{n} = Transpose <perm = [0,1,3,2]> ({a})",
    "t{n} = Pad ({a}, corner)\n r{n} = MaxPool <kernel_shape = [2,2]> (t{n})",
    "t{n} = Concat <axis = 1> ({a}, {b})\n r{n} = Slice (t{n}, two, six, one)",
    "t{n}, u{n} = Split <axis = 1, num_outputs = 2> ({a})\n r{n} = Concat <axis = 1> (u{n}, t{n})",
    "t{n} = GlobalAveragePool ({a})\n r{n} = Add (t{n}, {b})",
]
ENCODINGS = [(0.05, 128), (0.1, 100), (0.037, 30)]


@st.composite
def graphs(draw: st.DrawFn) -> ir.Model:
    lines, values, integers = (
        ["q0 = QuantizeLinear (x, s0, z0)", "d0 = DequantizeLinear (q0, s0, z0)"],
        ["x", "d0"],
        ["q0"],
    )
    for n in range(1, draw(st.integers(2, 8))):
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        lines.append(draw(st.sampled_from(OPERATORS)).format(n=n, a=a, b=b))
        kinds = draw(st.lists(st.sampled_from([0, 1, 2]), max_size=2))
        for i, k in enumerate(kinds):
            lines.append(f"q{n}_{i} = QuantizeLinear (r{n}, s{k}, z{k})")
            lines.append(f"d{n}_{i} = DequantizeLinear (q{n}_{i}, s{k}, z{k})")
            values.append(f"d{n}_{i}")
            integers.append(f"q{n}_{i}")
        if not kinds or draw(st.integers(0, 3)) == 0:
            values.append(f"r{n}")
    read = " ".join(lines)
    outputs = [v for v in values[1:] if f"({v}" not in read and f", {v}" not in read] or [values[-1]]
    outputs += draw(st.lists(st.sampled_from([*values[1:], *integers]), max_size=2))
    return _model(lines, list(dict.fromkeys(outputs)))


def _model(lines: list[str], outputs: list[str]) -> ir.Model:
    scales = ", ".join(f"float s{i} = {{{s}}}, uint8 z{i} = {{{z}}}" for i, (s, z) in enumerate(ENCODINGS))
    body = "\n".join(lines)
    model = parse_model(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[2,4,6,6] x) => ({", ".join(outputs)})
       <{scales}, int8[4,4,3,3] W = seeded(3), float[4] ws = {{0.001,0.004,0.002,0.003}},
        float[4] bias = {{1,-1,0,0.3}},
        float[1,4,1,1] channel = {{0.5,-0.7,0,1.3}}, float half = {{-0.5}}, float low = {{-0.6}}, float high = {{1.1}},
        int64[8] corner = {{0,0,1,0,0,0,0,1}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] six = {{6}}>
    {{
       {body}
    }}
    """)
    infer(model)
    return model


@given(graphs(), st.integers(0, 2**16))
@settings(max_examples=80)
def test_every_step_and_output_of_any_graph_agrees_with_the_runtime(model: ir.Model, seed: int) -> None:
    feeds = {"x": np.random.default_rng(seed).normal(0, 1.5, (2, 4, 6, 6)).astype(np.float32)}
    theirs = Session(model, [str(v.name) for node in model.graph for v in node.outputs], threads=1)(feeds) | feeds
    ours = run(model, feeds)
    for name in (str(v.name) for v in model.graph.outputs):
        assert ours[name].shape == theirs[name].shape and ours[name].dtype == theirs[name].dtype
    made = set(feeds) | set(model.graph.initializers)
    for step in plan(model):
        reads = step.inputs if isinstance(step, FloatNode) else [o.value for o in step.inputs if o.constant is None]
        assert made.issuperset(reads)  # the order can be executed
        made.update(step.outputs)
        if isinstance(step, IntegerOp) and theirs.keys() >= set(reads):
            for name, levels in execute_step(step, theirs).items():
                _agree(step, levels, theirs.setdefault(name, levels))  # a name of our own is judged by its readers


def _agree(step: IntegerOp, ours: np.ndarray, theirs: np.ndarray) -> None:
    if step.encoding is not None:
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
        return
    rounded_bias = 0.0 if step.multiplier is None else 0.5 * float(step.multiplier.max())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 + rounded_bias)
