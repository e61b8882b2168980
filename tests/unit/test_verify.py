"""Each rule of the verifier: what breaks it is found and named, what keeps it is left alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from planish.errors import VerificationError
from planish.ir import metadata
from planish.ir.capture import capture
from planish.ir.quantization import Encoding
from planish.ir.text import parse_model
from planish.ir.verify import RULES, Violation, check, verify
from planish.ir.verify.skeleton import skeleton

MODELS = sorted((Path(__file__).parents[2] / ".." / "shared" / "models").resolve().glob("*/*.onnx"))
HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "other" : 1, "my.ops" : 1]>\n'


def model_of(body: str, signature: str = "(float[1,4] x) => (float[1,4] y)") -> ir.Model:
    return parse_model(f"{HEADER}main {signature} {body}")


def only(model: ir.Model) -> Violation:
    violations = verify(model)
    assert violations, "nothing was found"
    return violations[0]


@pytest.mark.skipif(not MODELS, reason="the shared models are not beside the project")
@pytest.mark.parametrize("path", MODELS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_real_models_are_well_formed(path: Path) -> None:
    assert verify(capture(path)) == []


@pytest.mark.parametrize(
    "body",
    [
        "{ y = Relu (x) }",
        "{ y = com.microsoft.Gelu (x) }",
        "<bool c = {1}> { y = If (c) <then_branch = a () => (float[1,4] p) { p = Relu (x) }, "
        "else_branch = b () => (float[1,4] p) { p = Neg (x) }> }",
        '{ y = my.ops.Twice (x) } <domain: "my.ops", opset_import: ["" : 21]> Twice (a) => (b) { b = Add (a, a) }',
        "<float s = {0.5}, uint8 z = {7}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        "<float[1] s = {0.5}, uint8 z = {7}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
        "<float[4] s = splat(0.5), int8[4] z = splat(0)> "
        "{ q = QuantizeLinear <axis = -1> (x, s, z) y = DequantizeLinear <axis = 1> (q, s, z) }",
        "<int32[4] b = splat(7), float[4] s = splat(0.5)> { f = DequantizeLinear <axis = 0> (b, s) y = Add (x, f) }",
        "<int8[8,6] w = seeded(0), float[4,6] s = splat(1)> "
        "{ f = DequantizeLinear <axis = 0, block_size = 2> (w, s) t = Transpose (f) y = Identity (x) }",
    ],
)
def test_a_well_formed_graph_has_no_violation(body: str) -> None:
    assert verify(model_of(body)) == []


@pytest.mark.parametrize(
    ("body", "rule", "where", "says"),
    [
        ("{ y = Add (x, h) h = Relu (x) }", "defined", "'y' (Add)", "not in topological order"),
        ("{ h = Add (x, y) y = Relu (h) }", "defined", "'h' (Add)", "the graph has a cycle"),
        ("{ y = Frobnicate (x) }", "operators", "'y' (Frobnicate)", "no operator Frobnicate in opset 21"),
        ("{ y = Upsample (x) }", "operators", "'y' (Upsample)", "does not exist any more"),
        ("{ y = other.Relu (x) }", "operators", "'y' (Relu)", "domain 'other'"),
        ("{ y = unheard.Relu (x) }", "operators", "'y' (Relu)", "imports no opset of the domain 'unheard'"),
        ("{ y = Conv (x) }", "onnx", "'y' (Conv)", "input size 1 not in range"),
        ("{ y = Relu <a = 1> (x) }", "onnx", "'y' (Relu)", "Unrecognized attribute: a"),
        ("{ y = Flatten <axis = 0.5> (x) }", "onnx", "'y' (Flatten)", "Mismatched attribute type"),
        ("{ [n] y = MatMul (x, x) }", "onnx", "'n' (MatMul)", "Incompatible dimensions"),
        ("<float[1,5] h> { h = Relu (x) y = Relu (h) }", "onnx", "'h' (Relu)", "differ in dimension 1"),
        ("{ y = Cast <to = 7> (x) }", "onnx", "'y' (Cast)", "elem type differs"),
        (
            "<float[2] s = {1, 1}, int8[2] z = {0, 0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
            "quantizers",
            "'q' (QuantizeLinear)",
            "2 scales for 4 slices along axis 1",
        ),
        (
            "<float[4] s = splat(1)> { q = QuantizeLinear <axis = 2> (x, s) y = DequantizeLinear <axis = 2> (q, s) }",
            "quantizers",
            "'q' (QuantizeLinear)",
            "axis 2 is outside the 2 dimensions",
        ),
        (
            "<float s = {1}, int8[4] z = {0, 0, 0, 0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }",
            "quantizers",
            "'q' (QuantizeLinear)",
            "the scale has shape [] and the zero point [4]",
        ),
        (
            "<float s = {1}, int8 z = {0}, uint8 u = {0}, int8[1,4] q> "
            "{ q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, u) }",
            "quantizers",
            "'y' (DequantizeLinear)",
            "zero point is UINT8 and the integers are INT8",
        ),
        (
            "<int32[1,4] b = {1, 2, 3, 4}, float s = {1}, int32 z = {3}> { y = DequantizeLinear (b, s, z) }",
            "quantizers",
            "'y' (DequantizeLinear)",
            "int32 zero point is not 0",
        ),
        (
            "<float s = {0}> { q = QuantizeLinear (x, s) y = DequantizeLinear (q, s) }",
            "quantizers",
            "'q' (QuantizeLinear)",
            "not positive and finite",
        ),
        (
            "<float[1,4] s = splat(1)> { q = QuantizeLinear (x, s) y = DequantizeLinear (q, s) }",
            "quantizers",
            "'q' (QuantizeLinear)",
            "the scale has 2 dimensions",
        ),
        ('{ y = Relu (x) !made_by : "no json" }', "facts", "'y' (Relu)", "is not JSON"),
        (
            '<float[1,4] h !statistics = {"axis":1,"mean":[0,0,0],"std":[1,1,1]}> { h = Neg (x) y = Relu (h) }',
            "statistics",
            "value 'h'",
            "3 channels for 4 along axis 1",
        ),
        (
            '<float[1,4] h !statistics = {"axis":1,"mean":[0,0,0,0],"std":[1,1,1,-1]}> { h = Neg (x) y = Relu (h) }',
            "statistics",
            "value 'h'",
            "a std is negative",
        ),
        ("<float[1,4] h !statistics = {}> { h = Neg (x) y = Relu (h) }", "statistics", "value 'h'", "no mean and std"),
    ],
)
def test_a_broken_graph_is_found(body: str, rule: str, where: str, says: str) -> None:
    violation = only(model_of(body))
    assert violation.rule == rule, violation
    assert where in violation.where
    assert says in violation.message


def test_the_long_name_of_the_default_domain_is_known() -> None:
    text = '<ir_version: 10, opset_import: ["ai.onnx" : 13]> main (float[2] x) => (float[2] y) { y = Relu (x) }'
    assert verify(parse_model(text)) == []


def test_names_must_be_there_and_differ() -> None:
    model = model_of("{ h = Relu (x) y = Relu (h) }")
    model.graph.node(0).outputs[0].name = "x"
    assert only(model).message == "two values of one graph are named 'x'"
    model.graph.node(0).outputs[0].name = None
    assert only(model).message == "a value has no name"
    assert only(model).where == "node 'h' (Relu)"


def test_a_value_of_another_graph_or_of_a_removed_node_is_found() -> None:
    model, other = model_of("{ y = Add (x, x) }"), model_of("{ h = Neg (x) y = Relu (h) }")
    foreign = other.graph.node(0).outputs[0]
    model.graph.node(0).replace_input_with(1, foreign)
    assert "belongs to a graph it cannot see" in only(model).message
    other.graph.remove(other.graph.node(0))
    assert "a node that was removed" in only(model).message
    model.graph.node(0).replace_input_with(1, ir.Value(name="nowhere"))
    assert "'nowhere' is defined nowhere" in only(model).message


def test_a_subgraph_may_read_only_what_is_there_before_its_node() -> None:
    text = "<bool c = {1}> { y = If (c) <then_branch = a () => (float[1,4] p) { p = Add (x, h) }, "
    text += "else_branch = b () => (float[1,4] q) { q = Neg (x) }> h = Neg (x) }"
    assert only(model_of(text)).where == "node 'p' (Add)"


def test_an_output_that_nothing_computes_is_found() -> None:
    model = model_of("{ y = Relu (x) }")
    model.graph.outputs.append(ir.Value(name="ghost", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])))
    assert only(model).message == "nothing computes the graph output 'ghost'"


def test_an_initializer_holds_what_it_is_declared_as() -> None:
    model = model_of("<float[4] w = {1,2,3,4}> { y = Add (x, w) }")
    weight = model.graph.initializers["w"]
    weight.shape = ir.Shape([5])
    assert only(model).message == "the initialiser is declared [5] and holds [4]"
    weight.shape = ir.Shape(["N"])
    weight.dtype = ir.DataType.INT8
    assert only(model).message == "the initialiser is declared INT8 and holds FLOAT"


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        (Encoding(np.float32([1, 2, 3]), np.int32([0, 0, 0]), ir.DataType.INT8, 1), "3 scales for 4 along axis 1"),
        (Encoding(np.float32([1, 2]), np.int32([0, 0]), ir.DataType.INT8), "axis is None"),
        (Encoding(np.float32(1), np.int32([0]), ir.DataType.INT8, 0), "zero point (1,)"),
        (Encoding(np.float32(-1), np.int32(0), ir.DataType.INT8), "not positive and finite"),
        (Encoding(np.float32(1), np.int32(200), ir.DataType.INT8), "outside INT8"),
        (Encoding(np.float32([1]), np.int32([0]), ir.DataType.INT8, 4), "axis 4 is outside"),
    ],
)
def test_an_encoding_fits_its_value(encoding: Encoding, says: str) -> None:
    model = model_of("<float[1,4] h> { h = Neg (x) y = Relu (h) }")
    value = model.graph.node(0).outputs[0]
    Encoding(np.float32(1), np.int32(0), ir.DataType.INT8).attach(value)
    assert verify(model) == []
    encoding.attach(value)
    violation = only(model)
    assert (violation.rule, violation.where) == ("encodings", "value 'h'")
    assert says in violation.message


def test_an_encoding_of_an_unknown_type_is_found() -> None:
    model = model_of("{ y = Relu (x) }")
    metadata.put(model.graph.inputs[0], metadata.ENCODING, {"scale": 1, "zero_point": 0, "dtype": "INT9", "axis": None})
    assert "INT9" in only(model).message


def test_check_raises_with_place_rule_and_count() -> None:
    model = model_of("{ h = Frobnicate (x) y = Frob (h) }")
    with pytest.raises(VerificationError) as caught:
        check(model, "after fold-bn")
    assert caught.value.exit_code == 4
    assert caught.value.what == "there is no operator Frobnicate in opset 21 (and 1 more)"
    assert caught.value.where == "after fold-bn, node 'h' (Frobnicate)"
    assert "operators" in caught.value.hint
    check(model_of("{ y = Relu (x) }"), "anywhere")


def test_the_table_names_each_rule_once_and_states_it() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.statement and "\n" not in rule.statement for rule in RULES)


def test_a_model_beyond_protobuf_is_checked_without_reading_its_weights(tmp_path: Path) -> None:
    gigabytes = 3 << 30
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(gigabytes)  # a sparse file
    shape = ir.Shape([gigabytes // 4 // 4, 4])
    tensor = ir.ExternalTensor("w.bin", 0, gigabytes, ir.DataType.FLOAT, shape=shape, name="w", base_dir=tmp_path)
    model = model_of("<float[4] b = splat(1)> { t = Add (x, b) y = Identity (t) }")
    weight = ir.Value(name="w", const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    model.graph.register_initializer(weight)
    model.graph.insert_before(
        model.graph.node(0), ir.Node("", "MatMul", [weight, model.graph.node(0).inputs[1]], name="m")
    )
    start = time.monotonic()
    assert verify(model) == []
    assert tensor.raw is None, "the weights were read"
    assert skeleton(model).ByteSize() < 4096
    assert time.monotonic() - start < 60, "a sparse file of 3 GiB takes minutes to read"
    model.graph.node(0).replace_input_with(1, weight)
    assert "Incompatible dimensions" in only(model).message


def test_large_constants_of_subgraphs_and_nodes_are_left_out_too() -> None:
    body = "<bool c = {1}> { y = If (c) <then_branch = a () => (float[1,4] p) <float[2000,4] k = seeded(0)> "
    body += "{ m = ReduceMean <keepdims = 0> (k) p = Add (x, m) }, else_branch = b () => (float[1,4] q) "
    body += "<float[3000,4] k = seeded(1)> { n = Constant <value = float[5000] seeded(1)> () "
    body += "m = ReduceMean <keepdims = 0> (k) q = Add (x, m) }> }"
    model = model_of(body)
    proto = skeleton(model)
    assert verify(model) == []
    assert {i.name for i in proto.graph.input} == {"x", "n"}, "the two k have different shapes and stay"
    onnx.checker.check_model(proto, full_check=True)
