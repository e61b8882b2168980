"""`parse(print(m)) ≡ m`: on every shared model, and on random graphs with every construct of the IR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planish.ir import metadata
from planish.ir.text import load_text, parse_model, print_model, save_text

MODELS = sorted((Path(__file__).parents[2] / ".." / "shared" / "models").resolve().glob("*/*.onnx"))
needs_models = pytest.mark.skipif(not MODELS, reason="the shared models are not beside the project")

DTYPES = [d for d in ir.DataType if d not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]


# What a model is, apart from documentation and the metadata of others: plain data that can be compared.


def described(model: ir.Model) -> dict[str, Any]:
    functions = {
        f.identifier(): (_graph(f.graph) | {"name": ""}, _attributes(f.attributes)) for f in model.functions.values()
    }
    header = (model.ir_version, model.producer_name or "", model.producer_version or "", model.model_version or 0)
    return {"header": header, "props": dict(model.metadata_props), "graph": _graph(model.graph), "functions": functions}


def _graph(graph: ir.Graph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "opsets": dict(graph.opset_imports),
        "facts": _facts(graph),
        "inputs": [_value(v) for v in graph.inputs],
        "outputs": [_value(v) for v in graph.outputs],
        "initializers": [(v.name, _tensor(v.const_value), _facts(v)) for v in graph.initializers.values()],
        "nodes": [_node(node) for node in graph],
    }


def _node(node: ir.Node) -> tuple[Any, ...]:
    name = node.name or next((v.name for v in node.outputs if v.name), "")
    inputs = [None if v is None else v.name for v in node.inputs]
    operator = (node.domain, node.op_type, node.overload)
    return name, operator, inputs, [_value(v) for v in node.outputs], _attributes(node.attributes), _facts(node)


def _attributes(attributes: Any) -> dict[str, Any]:
    return {a.name: (a.ref_attr_name, a.type, _plain(a.value)) for a in attributes.values()}


def _plain(value: Any) -> Any:
    match value:
        case ir.Graph():
            return _graph(value)
        case ir.TypeAndShape():
            return _type(value.type, value.shape)
        case ir.TensorProtocol():
            return _tensor(value)
        case float():
            return np.float32(value).tobytes()
        case tuple() | list():
            return [_plain(v) for v in value]
    return value


def _value(value: ir.Value) -> tuple[Any, ...]:
    if value.const_value is not None:
        return (value.name,)
    return value.name, _type(value.type, value.shape), _facts(value)


def _type(type_: Any, shape: Any) -> tuple[Any, ...]:
    return repr(type_), None if shape is None else tuple(getattr(d, "value", d) for d in shape)


def _tensor(tensor: Any) -> tuple[Any, ...]:
    contents = tensor.numpy().tolist() if tensor.dtype == ir.DataType.STRING else tensor.tobytes()
    return tensor.dtype, tuple(tensor.shape.numpy()), contents


def _facts(site: Any) -> dict[str, str]:
    return {k: v for k, v in site.metadata_props.items() if k.startswith(metadata.PREFIX)}


# The real ones


@needs_models
@pytest.mark.parametrize("path", MODELS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_shared_model_comes_back(path: Path, tmp_path: Path) -> None:
    model, weights = ir.load(path), dict[str, Any]()
    text = print_model(model, weights=weights)
    back = parse_model(text, weights)
    assert print_model(back) == text == print_model(model)
    assert described(back) == described(model)
    save_text(model, tmp_path / "model.onnxtxt")
    assert (tmp_path / "model.onnxtxt").read_text() == text
    assert described(load_text(tmp_path / "model.onnxtxt")) == described(model)


@needs_models
@pytest.mark.parametrize("path", MODELS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_one_bit_of_a_weight_changes_one_line(path: Path) -> None:
    model = ir.load(path)
    before = print_model(model).splitlines()
    weight = max(model.graph.initializers.values(), key=lambda v: v.const_value.size)
    flipped = weight.const_value.numpy().copy()
    flipped.view(np.uint8).reshape(-1)[7] ^= 1
    weight.const_value = ir.Tensor(flipped, name=weight.name)
    after = print_model(model).splitlines()
    assert len(after) == len(before)
    assert [a.split(" = ")[0] for a, b in zip(after, before, strict=True) if a != b] == [
        b.split(" = ")[0] for a, b in zip(after, before, strict=True) if a != b
    ]
    assert sum(a != b for a, b in zip(after, before, strict=True)) == 1


# Random ones

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6) | st.sampled_from(
    ["float", "seq", "inf", "/conv/1", "a.b", 'quo"te', "x", "v0", "new\nline", "//", "#", "true"]
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
FLOATS = st.floats(width=32, allow_nan=False) | st.just(float("nan"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> ir.TensorProtocol:
    shape = draw(SHAPES)
    if draw(st.integers(0, 9)) == 0:
        size = int(np.prod(shape, dtype=int))
        texts = draw(st.lists(st.binary(max_size=5), min_size=size, max_size=size))
        return ir.StringTensor(texts, shape=ir.Shape(shape))
    dtype = draw(st.sampled_from(DTYPES))
    bits = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (*shape, dtype.numpy().itemsize), np.uint8)
    levels = bits % (1 << dtype.bitwidth) if dtype.bitwidth < 8 else bits % 2 if dtype == ir.DataType.BOOL else bits
    array = levels.view(dtype.numpy()).reshape(shape)
    if dtype in (ir.DataType.INT4, ir.DataType.INT2):  # held sign-extended
        array = (levels.astype(np.int8) - (1 << (dtype.bitwidth - 1))).astype(dtype.numpy()).reshape(shape)
    if array.size and draw(st.booleans()):
        array = np.full(shape, array.reshape(-1)[0])
    return ir.Tensor(array, dtype=dtype)


@st.composite
def types(draw: st.DrawFn) -> tuple[Any, Any]:
    type_: Any = ir.TensorType(draw(st.sampled_from(list(ir.DataType)[1:])))
    for wrapper in draw(st.lists(st.sampled_from([ir.SequenceType, ir.OptionalType]), max_size=2)):
        type_ = wrapper(type_)
    shape = draw(st.none() | st.lists(st.none() | st.integers(0, 9) | NAMES, max_size=3))
    return draw(st.sampled_from([type_, type_, None])), None if shape is None else ir.Shape(shape)


def _typed(draw: st.DrawFn, value: ir.Value) -> ir.Value:
    value.type, value.shape = draw(types())
    if value.type is None:
        value.shape = None
    if draw(st.integers(0, 3)) == 0:
        _annotate(draw, value)
    return value


def _annotate(draw: st.DrawFn, site: Any) -> None:
    metadata.put(site, metadata.PREFIX + draw(NAMES), draw(JSON))
    if draw(st.booleans()):
        site.metadata_props[metadata.PREFIX + "raw"] = draw(TEXTS)


def _attribute(draw: st.DrawFn, name: str, visible: list[ir.Value], fresh: Any, depth: int) -> ir.Attr:
    kinds = ["INT", "FLOAT", "STRING", "TENSOR", "TYPE_PROTO", *(["GRAPH"] if depth else [])]
    kind = draw(st.sampled_from(kinds))
    make = {
        "INT": lambda: draw(st.integers(-(2**63), 2**63 - 1)),
        "FLOAT": lambda: draw(FLOATS),
        "STRING": lambda: draw(TEXTS),
        "TENSOR": lambda: draw(tensors()),
        "TYPE_PROTO": lambda: ir.TypeAndShape(*draw(types())),
        "GRAPH": lambda: _draw_graph(draw, visible, fresh, depth - 1),
    }[kind]
    how = draw(st.integers(0, 5))
    if how == 0 and kind != "GRAPH":  # onnx_ir walks no graph that is a reference
        return ir.RefAttr(name, draw(NAMES), ir.AttributeType[kind])
    if how == 1:
        items = [make() for _ in range(draw(st.integers(0, 3)))]
        return ir.Attr(name, ir.AttributeType[kind + "S"], items)
    return ir.Attr(name, ir.AttributeType[kind], make())


def _draw_graph(
    draw: st.DrawFn, outer: list[ir.Value], fresh: Any, depth: int, opsets: Any = None, weights: int = 3
) -> ir.Graph:
    inputs = [_typed(draw, ir.Value(name=fresh())) for _ in range(draw(st.integers(0, 2)))]
    initializers = []
    for _ in range(draw(st.integers(0, weights))):
        tensor, name = draw(tensors()), fresh()
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        tensor.name = name
        initializers.append(value)
    visible, nodes = [*outer, *inputs, *initializers], []
    for _ in range(draw(st.integers(0, 4))):
        read = [draw(st.sampled_from([None, *visible])) for _ in range(draw(st.integers(0, 3)))]
        written = [_typed(draw, ir.Value(name=fresh())) for _ in range(draw(st.integers(1, 2)))]
        if draw(st.integers(0, 5)) == 0:
            written.append(ir.Value(name=""))
        names = draw(st.lists(NAMES, max_size=3, unique=True))
        node = ir.Node(
            draw(st.sampled_from(["", "my.ops", "odd-domain.x"])),
            draw(st.sampled_from(["Relu", "Op", "odd op"])),
            read,
            [_attribute(draw, n, visible, fresh, depth) for n in names],
            overload=draw(st.sampled_from(["", "", "over"])),
            outputs=written,
            name=draw(st.none() | NAMES),
        )
        if draw(st.integers(0, 3)) == 0:
            _annotate(draw, node)
        nodes.append(node)
        visible += [v for v in written if v.name]
    mine = [v for v in visible if v not in outer and v not in initializers]
    outputs = draw(st.lists(st.sampled_from(mine), max_size=2, unique_by=id)) if mine else []
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=initializers, name=draw(NAMES), opset_imports=opsets)
    return graph


@st.composite
def models(draw: st.DrawFn) -> ir.Model:
    taken: set[str] = set()

    def fresh() -> str:
        name = draw(NAMES)
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    graph = _draw_graph(draw, [], fresh, depth=2, opsets={"": 20, "my.ops": 1})
    functions = []
    for name in draw(st.lists(NAMES, max_size=2, unique=True)):
        body = _draw_graph(draw, [], fresh, depth=0, opsets={"": 18}, weights=0)
        attributes = [
            ir.Attr("alpha", ir.AttributeType.FLOAT, draw(FLOATS)),
            ir.Attr("k", ir.AttributeType.UNDEFINED, None),
        ]
        functions.append(ir.Function("my.ops", name, graph=body, attributes=attributes[: draw(st.integers(0, 2))]))
    props = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    return ir.Model(graph, ir_version=10, producer_name=draw(TEXTS), functions=functions, metadata_props=props)


@settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(models())
def test_random_models_come_back(model: ir.Model) -> None:
    weights: dict[str, Any] = {}
    text = print_model(model, weights=weights)
    back = parse_model(text, weights)
    assert described(back) == described(model)
    assert print_model(back) == text
