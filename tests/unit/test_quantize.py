"""The quantize pass on graphs with something awkward in them: handled, or left float with the reason."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from planish.errors import UsageError
from planish.ir import metadata
from planish.ir.execute import execute
from planish.ir.fidelity import sqnr
from planish.ir.integer import IntegerOp, plan
from planish.ir.text import parse_model, print_model
from planish.passes.context import Context
from planish.passes.manager import Outcome, PassManager
from planish.targets.registry import resolve

PIPELINE = "synthesize-inputs,activation-ranges,quantize"


def build(
    body: str, weights: str, inputs: str = "float[N,3,16,16] x", outputs: str = "float[N,4,16,16] y", opset: int = 18
) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return parse_model(f"{header}\nmain ({inputs}) => ({outputs})\n<{weights}>\n{{\n{body}\n}}")


def conv_net(opset: int = 18) -> ir.Model:
    body = "c = Conv <pads = [1,1,1,1]> (x, w, b)\nr = Relu (c)\ny = Conv (r, v)"
    return build(body, "float[8,3,3,3] w = seeded(0), float[8] b = seeded(1), float[4,8,1,1] v = seeded(2)",
                 outputs="float[N,4,16,16] y", opset=opset)  # fmt: skip


def run(model: ir.Model, passes: str = PIPELINE, target: str = "arm64", **context: object) -> Outcome:
    return PassManager(passes).run(model, Context(target=resolve(target), **context))  # type: ignore[arg-type]


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def skipped(outcome: Outcome) -> dict[str, str]:
    return {skip.site: skip.reason for skip in outcome.records[-1].skips}


def picture(seed: int = 9) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)}


@pytest.mark.parametrize("target", ["arm64", "host"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_int8_keeps_the_function_at_any_opset(target: str, opset: int) -> None:
    model = conv_net(opset)
    reference = execute(model.clone(), picture())["y"]
    run(model, target=target)
    assert ops(model)["QuantizeLinear"] == 2
    assert model.opset_imports[""] >= 13
    assert sqnr(reference, execute(model, picture())["y"]) > 30


def test_the_types_are_those_of_the_target_and_the_option_overrides_them() -> None:
    def activation(model: ir.Model) -> ir.DataType:
        zeros = [n.inputs[2] for n in model.graph if n.op_type == "QuantizeLinear"]
        return zeros[0].dtype

    arm, host, chosen = conv_net(), conv_net(), conv_net()
    run(arm, target="arm64")
    run(host, target="arm64", passes=PIPELINE + "{activations=uint8}")
    run(chosen, target="host", passes=PIPELINE + "{activations=int8}")
    assert [activation(m) for m in (arm, host, chosen)] == [ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT8]


@pytest.mark.parametrize(("mode", "reason"), [("nearest", ""), ("linear", "no integer kernel for a linear Resize")])
def test_enlarging_between_layers_moves_integers_where_it_takes_neighbours(mode: str, reason: str) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    main (float[N,3,8,8] x) => (float[N,4,16,16] y)
       <float[4,3,3,3] w = seeded(0), float[4,4,3,3] v = seeded(1), float[4] s = {1, 1, 2, 2}>
    { c = Conv <pads = [1,1,1,1]> (x, w) r = Resize <mode = "MODE"> (c, , s) y = Conv <pads = [1,1,1,1]> (r, v) }"""
    model = parse_model(text.replace("MODE", mode))
    rng = np.random.default_rng(0)
    outcome = run(model, data=[{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)}])
    assert reason in skipped(outcome).get("r", "")
    steps = {step.node.op_type for step in plan(model) if isinstance(step, IntegerOp)}
    assert ("Resize" in steps) == (mode == "nearest")


def test_convolutions_in_three_dimensions_stay_float_with_the_reason() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    main (float[N,2,4,4,4] x) => (float[N,3,4,4,4] y) <float[3,2,3,3,3] w = seeded(0)>
    { y = Conv <pads = [1,1,1,1,1,1]> (x, w) }"""
    outcome = run(parse_model(text), data=[{"x": np.ones((1, 2, 4, 4, 4), np.float32)}])
    assert "three dimensions" in skipped(outcome)["y"]


@pytest.mark.parametrize("opset", [9, 13])
def test_a_layer_that_a_pass_kept_in_float_stays_there_when_the_opset_is_raised(opset: int) -> None:
    model = conv_net(opset)
    first = next(node for node in model.graph if node.op_type == "Conv")
    metadata.put(first, metadata.FLOAT, "kept by a pass")
    assert skipped(run(model))[str(first.outputs[0].name)] == "kept by a pass"


def test_upsample_of_an_old_model_moves_integers() -> None:
    model = parse_model("""<ir_version: 4, opset_import: ["" : 9]>
    main (float[1,3,8,8] x) => (float[1,4,16,16] y)
       <float[4,3,3,3] w = seeded(0), float[4,4,3,3] v = seeded(1), float[4] s = {1, 1, 2, 2}>
    { c = Conv <pads = [1,1,1,1]> (x, w) r = Upsample (c, s) y = Conv <pads = [1,1,1,1]> (r, v) }""")
    outcome = run(model, data=[{"x": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}])
    assert not skipped(outcome)
    assert "Resize" in {step.node.op_type for step in plan(model) if isinstance(step, IntegerOp)}


def test_same_input_same_bytes_and_the_users_model_is_read_only() -> None:
    first, second = conv_net(), conv_net()
    run(first), run(second)
    assert print_model(first) == print_model(second)


def test_without_evidence_nothing_changes() -> None:
    model = conv_net()
    before = print_model(model)
    outcome = run(model, "quantize")
    assert outcome.changed == 0 and print_model(model) == before
    assert skipped(outcome)["c"] == "no evidence for the range of x"


def test_samples_of_the_user_override_synthetic_inputs() -> None:
    model = conv_net()
    outcome = run(model, data=[picture()])
    assert outcome.records[0].skips[0].reason == "real samples were given"
    assert all("(samples)" in change.detail for change in outcome.records[1].changes)


def test_an_already_quantized_model_is_left_alone() -> None:
    model = conv_net()
    run(model)
    before = ops(model)
    again = run(model)
    assert ops(model) == before
    assert any("already quantized" in reason for reason in skipped(again).values())


def test_weights_shared_by_two_nodes_are_stored_once_and_keep_a_float_reader() -> None:
    body = """a = Conv <pads = [1,1,1,1]> (x, w)
    r = Relu (a)
    b = Conv <pads = [1,1,1,1]> (r, w)
    m = Mul (b, t)
    k = ReduceMax (w)
    y = Add (m, k)"""
    model = build(body, "float[3,3,3,3] w = seeded(0), float t = {0.5}", outputs="float[N,3,16,16] y")
    reference = execute(model.clone(), picture())["y"]
    run(model)
    assert sum(v.dtype == ir.DataType.INT8 and v.shape is not None and len(v.shape) == 4
               for v in model.graph.initializers.values()) == 1  # fmt: skip
    assert "w" in model.graph.initializers
    assert sqnr(reference, execute(model, picture())["y"]) > 25


def test_a_bias_that_is_not_constant_keeps_its_layer_float() -> None:
    model = build(
        "c = Conv (x, w, b)\ny = Relu (c)",
        "float[4,3,1,1] w = seeded(0)",
        inputs="float[N,3,16,16] x, float[4] b",
        outputs="float[N,4,16,16] y",
    )
    outcome = run(model, data=[picture() | {"b": np.ones(4, np.float32)}])
    assert skipped(outcome)["c"] == "bias is not constant"
    assert ops(model)["QuantizeLinear"] == 0


def test_nan_weights_keep_their_layer_float_and_a_dead_channel_does_not() -> None:
    model = conv_net()
    w = model.graph.initializers["w"].const_value.numpy().copy()
    w[0] = 0
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    v = model.graph.initializers["v"].const_value.numpy().copy()
    v[1, 2] = np.nan
    model.graph.initializers["v"].const_value = ir.Tensor(v, name="v")
    outcome = run(model)
    assert skipped(outcome)["y"] == "weights hold NaN or infinity"
    assert np.isfinite(execute(model, picture(), ["r"])["r"]).all()
    assert [c.site for c in outcome.records[-1].changes] == ["c"]


def test_movement_shares_one_encoding_so_that_integers_pass_unchanged() -> None:
    body = """c = Conv (x, w)
    a = Relu (c)
    d = Conv (x, u)
    j = Concat <axis = 1> (a, d)
    m = MaxPool <kernel_shape = [2,2], strides = [2,2]> (j)
    y = Conv (m, v)"""
    model = build(body, "float[4,3,1,1] w = seeded(0), float[4,3,1,1] u = seeded(1), float[2,8,1,1] v = seeded(2)",
                  outputs="float[N,2,8,8] y")  # fmt: skip
    run(model)
    scale = {
        n.inputs[0].name: float(n.inputs[1].const_value.numpy()) for n in model.graph if n.op_type == "QuantizeLinear"
    }
    assert scale["a"] == scale["d"] == scale["j"] == scale["m"]
    assert scale["x"] != scale["a"]


def test_integer_results_that_are_also_graph_outputs_keep_their_names() -> None:
    body = "c = Conv (x, w)\nr = Relu (c)\ny = Conv (r, v)"
    model = build(body, "float[4,3,1,1] w = seeded(0), float[2,4,1,1] v = seeded(1)",
                  outputs="float[N,4,16,16] r,float[N,2,16,16] y")  # fmt: skip
    reference = execute(model.clone(), picture())
    run(model)
    result = execute(model, picture())
    assert list(result) == ["r", "y"]
    assert min(sqnr(reference[name], result[name]) for name in result) > 30


def test_bisection_can_stop_between_two_layers() -> None:
    model = conv_net()
    answers = iter([True] + [False] * 20)
    context = Context(target=resolve("arm64"))
    PassManager("synthesize-inputs,activation-ranges").run(model, context)
    context.permit = lambda: next(answers)
    record = PassManager("quantize").run(model, context).records[0]
    assert record.changed == 1
    assert set(record.skipped) == {"beyond the bisection limit"}
    execute(model, picture())


def test_an_unknown_option_value_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="quantize"):
        PassManager("quantize{activations=int3}")
