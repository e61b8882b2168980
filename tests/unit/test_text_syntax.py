"""What the text form accepts, how it spells things, and where it says an error is."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import random
import re
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from planish.errors import ModelError
from planish.ir import metadata
from planish.ir.text import load_text, parse_model, print_model, save_text
from planish.tools.golden import read_cases, run_case

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def model_of(body: str, values: str = "", signature: str = "(float[N] x) => (float[N] y)") -> ir.Model:
    return parse_model(f"{HEADER}main {signature} {values} {{ {body} }}")


def literal(text: str) -> np.ndarray:
    model = model_of("y = Relu (x)", f"<{text}>")
    (value,) = model.graph.initializers.values()
    assert value.const_value is not None
    return value.const_value.numpy()


def test_a_model_is_printed_one_node_a_line_with_sorted_attributes() -> None:
    model = model_of(
        'h = Conv <strides = [2, 2], pads = [1,1,1,1], auto_pad = "NOTSET"> (x, w) '
        "[last] y = LeakyRelu <alpha = 0.1> (h)",
        "<float[1,1,3,3] w = {1,2,3,4,5,6,7,8,9.5}, float[1,M] h>",
    )
    assert print_model(model) == (
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "main (float[N] x) => (float[N] y)\n"
        "<\n"
        "   float[1,1,3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9.5},\n"
        "   float[1,M] h\n"
        ">\n"
        "{\n"
        '   h = Conv <auto_pad = "NOTSET", pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)\n'
        "   [last] y = LeakyRelu <alpha = 0.1> (h)\n"
        "}\n"
    )


def test_what_is_printed_without_our_additions_is_official_syntax() -> None:
    model = model_of(
        'h, "" = Dropout (x, "", t) y = If (t) <then_branch = a () => (float[N] p) { p = Relu (h) }, '
        "else_branch = b () => (float[N] q) <float[1] one = {1}> { q = Add (h, one) }>",
        "<float r = {-0.0}, bool t = {1}, int64[2] i = {-1, 2}>",
        "(float[N] x, seq(float[2,?]) s, float[] u) => (float[N] y)",
    )
    proto = onnx.parser.parse_model(print_model(model))
    assert [node.op_type for node in proto.graph.node] == ["Dropout", "If"]
    assert print_model(ir.from_proto(proto)) == print_model(model)


def test_weights_are_hashed_with_type_and_shape_and_come_back_from_the_dictionary() -> None:
    model = model_of("y = Relu (x)", "<float[3,8] w = seeded(1), float[24] v = seeded(1), float[3,8] u = seeded(1)>")
    weights: dict[str, np.ndarray] = {}
    text = print_model(model, weights=weights)
    array = model.graph.initializers["w"].const_value.numpy()
    digest = hashlib.blake2b(b"FLOAT(3, 8)" + array.tobytes(), digest_size=12).hexdigest()
    assert text.count(f"blake2:{digest}") == 2, "w and u are equal, v has another shape"
    assert len(weights) == 2
    assert parse_model(text, weights).graph.initializers["w"].const_value.numpy().tobytes() == array.tobytes()
    with pytest.raises(ModelError, match="not in the weights"):
        parse_model(text)


def test_a_sidecar_is_byte_identical_and_mapped(tmp_path: Path) -> None:
    model = model_of("y = Relu (x)", "<float[40] w = seeded(1), bfloat16[40] b = seeded(2), int4[40] q = seeded(3)>")
    for name in ("a", "b", "a"):
        save_text(model, tmp_path / f"{name}.onnxtxt")
    assert (tmp_path / "a.onnxtxt.npz").read_bytes() == (tmp_path / "b.onnxtxt.npz").read_bytes()
    with np.load(tmp_path / "a.onnxtxt.npz") as archive:
        assert len(archive.files) == 3, "numpy reads it too"
    back = load_text(tmp_path / "a.onnxtxt")
    for name, value in model.graph.initializers.items():
        other = back.graph.initializers[name].const_value
        assert other.tobytes() == value.const_value.tobytes()
        base = other.numpy()
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, mmap.mmap)
    (tmp_path / "a.onnxtxt.npz").unlink()
    with pytest.raises(ModelError, match="not in the weights"):
        load_text(tmp_path / "a.onnxtxt")


def test_texts_of_a_directory_may_share_their_weights(tmp_path: Path) -> None:
    first = model_of("y = Relu (x)", "<float[4000] w = seeded(1), float[4000] v = seeded(2)>")
    second = model_of("y = Neg (x)", "<float[4000] w = seeded(1), float[4000] u = seeded(3)>")
    save_text(first, tmp_path / "000_input.onnxtxt", shared=True)
    alone = (tmp_path / "weights.npz").stat().st_size
    save_text(second, tmp_path / "001_pass.onnxtxt", shared=True)
    assert (tmp_path / "weights.npz").stat().st_size < 1.6 * alone, "w is there once"
    for name, model in (("000_input", first), ("001_pass", second)):
        back = load_text(tmp_path / f"{name}.onnxtxt")
        for key, value in model.graph.initializers.items():
            assert back.graph.initializers[key].const_value.tobytes() == value.const_value.tobytes()


def test_a_truncated_sidecar_is_a_model_error(tmp_path: Path) -> None:
    save_text(model_of("y = Relu (x)", "<float[40] w = seeded(1)>"), tmp_path / "a.onnxtxt", shared=True)
    (tmp_path / "weights.npz").write_bytes((tmp_path / "weights.npz").read_bytes()[:-30])
    with pytest.raises(ModelError, match="weights beside the text cannot be read"):
        load_text(tmp_path / "a.onnxtxt")


def test_a_model_without_large_weights_needs_no_sidecar(tmp_path: Path) -> None:
    save_text(model_of("y = Relu (x)"), tmp_path / "small.onnxtxt")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnxtxt"]


def test_an_external_tensor_is_closed_again_after_it_was_hashed(tmp_path: Path) -> None:
    model = model_of("y = Relu (x)", "<float[64] w = seeded(1), float[64] v = seeded(2)>")
    inside = print_model(model)
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    external = ir.load(tmp_path / "m.onnx")
    external.graph.initializers["v"].const_value.numpy()
    assert print_model(external) == inside
    tensors = {name: value.const_value for name, value in external.graph.initializers.items()}
    assert all(isinstance(t, ir.ExternalTensor) for t in tensors.values())
    assert tensors["w"].raw is None
    assert tensors["v"].raw is not None, "somebody else had it open"
    weights: dict[str, np.ndarray] = {}
    print_model(external, weights=weights)
    assert print_model(parse_model(inside, weights)) == inside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float[3] w = {nan, inf, -inf}", np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("float[2] w = {-0.0, 1e-45}", np.array([-0.0, 1e-45], np.float32)),
        ("double w = {0.1}", np.array(0.1)),
        ("float16[2] w = {0.1, 65504}", np.array([0.1, 65504], np.float16)),
        ("bfloat16[1] w = {1.1015625}", np.array([1.1015625], ml_dtypes.bfloat16)),
        ("int4[2] w = {-8, 7}", np.array([-8, 7], ml_dtypes.int4)),
        ("uint64[1] w = {18446744073709551615}", np.array([2**64 - 1], np.uint64)),
        ("bool[3] w = {0, true, 1}", np.array([False, True, True])),
        ("complex64[1] w = {1, -2}", np.array([1 - 2j], np.complex64)),
        ("float[2,0] w = {}", np.zeros((2, 0), np.float32)),
        ("float[] w = {1, 2}", np.array([1, 2], np.float32)),
        ("int8[2,3] w = splat(-3)", np.full((2, 3), -3, np.int8)),
        ("float[1] w = hex:0100c07f", np.array([0x7FC00001], np.uint32).view(np.float32)),
    ],
)
def test_a_literal_has_exactly_these_bits(text: str, expected: np.ndarray) -> None:
    found = literal(text)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    again = model_of("y = Relu (x)", f"<{text}>")
    (value,) = parse_model(print_model(again)).graph.initializers.values()
    assert value.const_value.numpy().tobytes() == expected.tobytes()


def test_strings_keep_every_byte() -> None:
    contents = [b"plain", b'quo"te\\', b"new\nline\ttab", b"\xff\x00\x80", "später ☃".encode()]
    tensor = ir.StringTensor(contents, shape=ir.Shape([5]), name="s")
    model = model_of("y = Relu (x)")
    model.graph.register_initializer(
        ir.Value(name="s", const_value=tensor, type=ir.TensorType(ir.DataType.STRING), shape=ir.Shape([5]))
    )
    text = print_model(model)
    assert "später ☃" in text and len([line for line in text.splitlines() if " s = " in line]) == 1
    assert parse_model(text).graph.initializers["s"].const_value.numpy().tolist() == contents


def test_seeded_weights_depend_on_the_seed_alone() -> None:
    first, second = literal("float[1000] w = seeded(7)"), literal("float[1000] w = seeded(8)")
    assert np.array_equal(first, literal("float[1000] v = seeded(7)")) and not np.array_equal(first, second)
    assert first.min() >= -1 and first.max() < 1 and abs(first.mean()) < 0.06
    assert hashlib.blake2b(first.tobytes(), digest_size=4).hexdigest() == "48e568de"
    bounded = literal("float[1000] w = seeded(7, 2, 3)")
    assert bounded.min() >= 2 and bounded.max() < 3
    levels = literal("int8[5000] w = seeded(7)")
    assert set(levels.tolist()) == set(range(-127, 128))
    assert set(literal("int64[500] w = seeded(7, 0, 3)").tolist()) == {0, 1, 2}


def test_large_tensors_of_one_value_are_written_as_such() -> None:
    model = model_of("y = Relu (x)", "<float[1000] w = splat(0.25), float[1000] z = splat(-0.0)>")
    text = print_model(model)
    assert "float[1000] w = splat(0.25)" in text and "float[1000] z = splat(-0)" in text
    assert print_model(parse_model(text)) == text


def test_our_facts_are_printed_as_json_and_those_of_others_are_not() -> None:
    model = model_of("y = Relu (x)")
    node = model.graph.node(0)
    metadata.put(node, metadata.MADE_BY, "fold-bn")
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "long"
    metadata.put(node.outputs[0], metadata.STATISTICS, {"mean": [0.5], "std": [1e-3], "axis": 0})
    model.graph.inputs[0].metadata_props["planish.note"] = "not JSON: {"
    text = print_model(model)
    assert 'y = Relu (x) !made_by = "fold-bn"' in text
    assert '(float[N] y !statistics = {"axis":0,"mean":[0.5],"std":[0.001]})' in text
    assert '(float[N] x !note : "not JSON: {")' in text
    assert "stack_trace" not in text
    back = parse_model(text)
    assert metadata.get(back.graph.outputs[0], metadata.STATISTICS)["std"] == [1e-3]
    assert back.graph.inputs[0].metadata_props == {"planish.note": "not JSON: {"}


def test_scale_and_zero_point_are_read_where_they_are_used() -> None:
    model = model_of(
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", "<float s = {0.5}, uint8 z = {128}>"
    )
    assert "q = QuantizeLinear (x, s, z)  # scale 0.5, zero point 128 uint8" in print_model(model)
    model = model_of(
        "y = DequantizeLinear <axis = 0> (q, s, z)",
        "<int8[3] q = {1,2,3}, float[3] s = {0.5, 2, 1}, int8[3] z = {0, 0, 0}>",
    )
    assert "(q, s, z)  # 3 scales 0.5 to 2.0, zero point 0 int8" in print_model(model)
    model = model_of("y = DequantizeLinear (x, t)", "", "(int8[N] x, float t) => (float[N] y)")
    assert "y = DequantizeLinear (x, t)\n" in print_model(model), "nothing is said of what is not constant"


def test_nodes_without_a_name_are_named_by_their_first_output() -> None:
    model = model_of("h = Relu (x) [tail] y = Relu (h)")
    assert [node.name for node in model.graph] == ["h", "tail"]


def test_values_without_a_name_get_one_that_is_free() -> None:
    first, second = ir.Value(name=None), ir.Value(name="v0", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Add", [first, second], num_outputs=1)
    node.outputs[0].name = "y"
    graph = ir.Graph([first, second], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
    first.name = None
    text = print_model(ir.Model(graph, ir_version=10))
    assert "g (v1, float[] v0) => (y)" in text and "y = Add (v1, v0)" in text


def test_a_subgraph_sees_the_values_around_it_even_those_defined_later() -> None:
    model = model_of(
        "y = If (late) <then_branch = a () => (float[N] p) { p = Add (x, late) }, "
        "else_branch = b () => (float[N] q) { q = Identity (x) }> late = Cast <to = 1> (x)"
    )
    (branch, late) = (model.graph.node(0), model.graph.node(1).outputs[0])
    inner = branch.attributes["then_branch"].value
    assert inner.node(0).inputs[1] is late
    assert branch.inputs[0] is late
    assert branch.attributes["else_branch"].value.node(0).inputs[0] is model.graph.inputs[0]


@pytest.mark.parametrize(
    ("signature", "listed"),
    [
        ("(float[N] x, float[2] w = {1, 2}) => (float[N] y)", ""),
        ("(float[N] x, float[2] w) => (float[N] y)", "<float[2] w = {1, 2}>"),
    ],
)
def test_an_input_may_have_a_default(signature: str, listed: str) -> None:
    model = model_of("y = Add (x, w)", listed, signature)
    assert model.graph.inputs[1] is model.graph.initializers["w"]
    assert print_model(parse_model(print_model(model))) == print_model(model)


def test_functions_keep_attributes_defaults_and_overloads() -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 20, "my.ops" : 1]>\n'
        "main (float[N] x) => (float[N] y)\n{\n   y = my.ops.Scale:fast <k = 2> (x)\n}\n"
        '<domain: "my.ops", opset_import: ["" : 20], overload: "fast">\n'
        "Scale <alpha = 0.5, k> (a) => (b)\n{\n   b = LeakyRelu <alpha: float = @alpha> (a)\n}\n"
    )
    model = parse_model(text)
    assert print_model(model) == text
    function = model.functions[("my.ops", "Scale", "fast")]
    assert function.attributes["k"].value is None and function.attributes["alpha"].value == 0.5


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("main (float x) => (float y) {}", 1, 1, "a header was expected"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (z)\n}", 3, 13, 'nothing defines the value "z"'),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (x)\n  y = Relu (x)\n}", 4, 3, '"y" is defined twice'),
        (HEADER + "main (float x) => (float y) {\n  x = Relu (x)\n}", 3, 3, '"x" is defined twice'),
        (HEADER + "main (float x => (float y) {}", 2, 15, "',' was expected between values, not '=>'"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu x\n}", 3, 12, "'(' was expected"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (x)\n", 4, 1, "the end of the text"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (x)\n} more", 4, 3, "follows the complete model"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu <a = []> (x)\n}", 3, 17, "empty list a needs a type"),
        (HEADER + 'main (float x) => (float y) {\n  y = Relu <a: int = "b"> (x)\n}', 3, 22, "of type string, not int"),
        (HEADER + 'main (float x) => (float y) {\n  y = Relu <a = [1, "b"]> (x)\n}', 3, 17, "mixes int and string"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu <a = @b> (x)\n}", 3, 18, "needs a type"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (x) !f = {1}\n}", 3, 21, "not JSON"),
        (HEADER + "main (float x) => (float y) {\n  y = Relu (x) $\n}", 3, 16, "unexpected character '$'"),
        (HEADER + "main (float x) => (float y)\n<float[3] w = {1, 2}> {}", 3, 15, 'contents of "w" are wrong'),
        (HEADER + "main (float x) => (float y)\n<int8[1] w = {200}> {}", 3, 14, "200 does not fit int8"),
        (HEADER + "main (float x) => (float y)\n<float[N] w = splat(1)> {}", 3, 15, "fixed shape"),
        (HEADER + "main (float x) => (float y)\n<float[2] w = random(1)> {}", 3, 15, "'random' is not a way"),
        (HEADER + "main (float x) => (float y)\n<float[2] w = splat(1, 2)> {}", 3, 15, "are wrong"),
        (HEADER + "main (float x) => (float y)\n<string[2] w = seeded(1)> {}", 3, 16, "not strings"),
        (HEADER + "main (float x) => (float y) {}", 2, 26, 'does not compute its output "y"'),
        (HEADER + "main (float[a b] x) => (float y) {}", 2, 15, "',' was expected between dimensions"),
        ("<ir_version: 10>\nmain () => () {}", 1, 1, "no opset_import"),
        ("<producer_name: 5>\nmain () => () {}", 1, 17, "producer_name in double quotes was expected"),
        ('<ir_version: 10, opset_import: ["" : 20], x: 1>\nmain () => () {}', 1, 43, "unknown header field 'x'"),
    ],
)
def test_an_error_names_its_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_model(text, file="case.onnxtxt")
    assert says in caught.value.what
    assert caught.value.where.startswith(f"case.onnxtxt, line {line}, column {column}"), caught.value.where
    assert caught.value.hint


EVERYTHING = """<ir_version: 10, opset_import: ["" : 20, "my.ops" : 1], producer_name: "p", metadata_props: ["a": "b"]>
main (float[N,3] x, seq(int8[2]) s !note = {"a":[1,2]}) => (float[N,3] y !note : "q")
<
   float[2,2] w = {1, 2.5, nan, -inf}, float[40] z = seeded(0, -1, 1), int4[3] q = splat(-3), string[1] t = {"a"},
   bool c = {1}, float[1] h1 = hex:0100c07f, uint8 zp = {3}, complex64[1] cc = {1, 2}, float[N,3] mid
>
{
   mid = Conv <pads = [1, 1], e: ints = [], n = "s", v = float[2] {1, 2}, p: type_proto = float[2,?]> (x, w, "")
   [lab] r, "" = If (c) <then_branch = g () => (float a) { a = my.ops.F:o <k = 1> (x) !made_by = "fold" },
      else_branch = g2 () => (float b) <float[2] k = {1, 2}> { b = Add (k, mid) }>
   y = Relu (mid)  # scale 0.5
}
<domain: "my.ops", opset_import: ["" : 20], overload: "o">
F <alpha: float = 0.5, k> (a) => (b) { b = LeakyRelu <alpha: float = @alpha> (a) }
"""
TOKENS = re.findall(r'\s+|"[^"]*"|[\w.]+|.', EVERYTHING)
STRANGE = [
    "\0",
    "é",
    "-1",
    "9" * 20,
    "[]",
    "{",
    "}",
    "<",
    '"',
    "\\",
    "!",
    "0x3",
    "inf",
    "float",
    "1e999",
    "seq(",
    "//",
    "#",
]


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_text_is_a_model_error_or_a_model(seed: int) -> None:
    rng, accepted = random.Random(seed), 0
    for _ in range(100):
        tokens = list(TOKENS)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(tokens))
            tokens[at : at + rng.randint(0, 2)] = rng.choices([*TOKENS, *STRANGE], k=rng.randint(0, 2))
        with contextlib.suppress(ModelError):
            print_model(parse_model("".join(tokens)))
            accepted += 1
    assert 0 < accepted < 100
    assert print_model(parse_model(EVERYTHING))


def test_space_before_an_error_costs_nothing() -> None:
    with pytest.raises(ModelError, match=r"unexpected character '\$'") as caught:
        parse_model(HEADER + "\n" * 5000 + "# comment\n" * 5000 + " " * 5000 + "$")
    assert "line 10002, column 5001" in caught.value.where


@pytest.mark.parametrize("name", ["absent.onnxtxt", "."])
def test_a_file_that_cannot_be_read_is_a_model_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_text(tmp_path / name)


def test_the_examples_of_the_documentation_are_what_is_printed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "text-form.md").read_text()
    model, golden = re.findall(r"((?:    (?:// RUN|<ir_version).*\n)(?:    .*\n)+)", page)
    text = textwrap.dedent(model)
    printed = print_model(parse_model(text))
    assert re.sub(r"blake2:\w+", "seeded(0)", printed) == text
    file = tmp_path / "example.onnxtxt"
    file.write_text(textwrap.dedent(golden))
    assert [run_case(case) for case in read_cases(file)] == [""]
