"""Activations written out in elementary operators: the ONNX operator that means them, where the opset has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.graph import attribute, constant, is_constant, only_consumer
from ..base import Pass
from ..context import Context
from .edit import become

__all__ = ["FuseActivation"]

_TOLERANCE = 1e-6  # relative: constants that were rounded to float32 on their way here


@dataclass(frozen=True)
class _Match:
    """The activation that equals an expression: its input, attributes, and the values inside that go away."""

    op_type: str
    x: ir.Value
    attributes: dict[str, Any]
    inner: tuple[ir.Value, ...]


@dataclass(frozen=True)
class FuseActivation(Pass):
    """x·clip(x+3, 0, 6)/6 ⇒ HardSwish(x);  clip(x+3, 0, 6)/6 ⇒ HardSigmoid(x);  x·½(1+erf(x/√2)) ⇒ Gelu(x)
    x·tanh(log(1+eˣ)) ⇒ Mish(x);  x·sigmoid(x) ⇒ Swish(x)

    HardSwish from opset 14, Mish from 18, Gelu from 20, Swish from 24.
    """

    name: ClassVar[str] = "fuse-activation"

    def run(self, model: ir.Model, context: Context) -> None:
        version = model.graph.opset_imports.get("", 0)
        for node in reversed(list(model.graph.all_nodes())):  # the whole before its parts
            if node.graph is None or node.domain not in ("", "ai.onnx") or node.op_type not in ("Mul", "Div"):
                continue
            for since, match in _PATTERNS:
                found = match(node)
                if found is None:
                    continue
                if version < since:
                    context.record.skip(node, f"{found.op_type} needs opset {since}, the model has {version}")
                elif any(not _private(value, node, found) for value in found.inner):
                    context.record.skip(node, f"a part of the {found.op_type} has other readers")
                elif context.record.change(node, f"{found.op_type} of {found.x.name}"):
                    become(node, found.op_type, [found.x], found.attributes)
                break


def _private(value: ir.Value, root: ir.Node, found: _Match) -> bool:
    """True when only the expression itself reads the value."""
    inside = {v.producer() for v in found.inner} | {root}
    return not value.is_graph_output() and all(use.node in inside for use in value.uses())


def _number(value: ir.Value | None, wanted: float) -> bool:
    array = constant(value, limit=1)
    if array is None or array.size != 1:
        return False
    return bool(np.isclose(float(array.reshape(-1)[0]), wanted, rtol=_TOLERANCE, atol=0))


def _made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx") else None


def _orders(node: ir.Node) -> Iterator[tuple[ir.Value | None, ir.Value | None]]:
    a, b = node.inputs
    yield a, b
    if node.op_type in ("Add", "Mul"):
        yield b, a


def _with_number(value: ir.Value | None, op_type: str, number: float) -> ir.Value | None:
    """x of a value `x op number`."""
    node = _made_by(value, op_type)
    for x, c in _orders(node) if node is not None else ():
        if _number(c, number):
            return x
    return None


def _clipped(value: ir.Value | None) -> ir.Value | None:
    """x of clip(x + 3, 0, 6)."""
    clip = _made_by(value, "Clip")
    if clip is None:
        return None
    bounds = [attribute(clip, "min"), attribute(clip, "max")]
    for i, v in enumerate(clip.inputs[1:]):
        array = constant(v, limit=1)
        bounds[i] = None if array is None else float(array.reshape(-1)[0])
    return _with_number(clip.inputs[0], "Add", 3.0) if bounds == [0.0, 6.0] else None


def _sixth(node: ir.Node) -> ir.Value | None:
    """y of y / 6 or y · ⅙."""
    for y, c in _orders(node):
        if _number(c, 6.0 if node.op_type == "Div" else 1 / 6):
            return y
    return None


def _hard_swish(node: ir.Node) -> _Match | None:
    # (x · clip) / 6
    product = _sixth(node)
    inner = _made_by(product, "Mul")
    for x, clip in _orders(inner) if inner is not None else ():
        if x is not None and clip is not None and product is not None and _clipped(clip) is x:
            return _Match("HardSwish", x, {}, (product, clip, _input(clip)))
    if node.op_type != "Mul":
        return None
    for x, gate in _orders(node):
        if x is None or gate is None:
            continue
        hard = _made_by(gate, "HardSigmoid")
        if hard is not None and hard.inputs[0] is x and _is_sixth_and_half(hard):
            return _Match("HardSwish", x, {}, (gate,))
        for scaled, clip in ((gate, _sixth_of(gate)), (x, _sixth_of(x))):
            other = x if scaled is gate else gate
            if clip is not None and _clipped(clip) is other:  # x · (clip / 6)
                return _Match("HardSwish", other, {}, (scaled, clip, _input(clip)))
    return None


def _sixth_of(value: ir.Value) -> ir.Value | None:
    node = _made_by(value, "Div", "Mul")
    return None if node is None else _sixth(node)


def _is_sixth_and_half(node: ir.Node) -> bool:
    alpha: Any = attribute(node, "alpha", 0.2)
    beta: Any = attribute(node, "beta", 0.5)
    return bool(np.isclose(alpha, 1 / 6, rtol=_TOLERANCE)) and beta == 0.5


def _input(value: ir.Value) -> ir.Value:
    node = value.producer()
    assert node is not None and node.inputs[0] is not None
    return node.inputs[0]


def _hard_sigmoid(node: ir.Node) -> _Match | None:
    clip = _sixth(node)
    x = _clipped(clip)
    if x is None or clip is None:
        return None
    return _Match("HardSigmoid", x, {"alpha": 1 / 6, "beta": 0.5}, (clip, _input(clip)))


def _gelu(node: ir.Node) -> _Match | None:
    """The three factors x, ½ and 1 + erf(x/√2) in any order."""
    if node.op_type != "Mul":
        return None
    factors, products = _factors(node)
    gates = [f for f in factors if _with_number(f, "Add", 1.0) is not None]
    halves = [f for f in factors if _number(f, 0.5)]
    if len(factors) != 3 or len(gates) != 1 or len(halves) != 1:
        return None
    (x,) = (f for f in factors if f is not gates[0] and f is not halves[0])
    erf = _with_number(gates[0], "Add", 1.0)
    made = _made_by(erf, "Erf")
    scaled = made.inputs[0] if made is not None else None
    source = _with_number(scaled, "Div", 2**0.5) or _with_number(scaled, "Mul", 0.5**0.5)
    if erf is None or scaled is None or source is not x:
        return None
    return _Match("Gelu", x, {}, (*products, gates[0], erf, scaled))


def _factors(node: ir.Node) -> tuple[list[ir.Value], list[ir.Value]]:
    """The factors of a product of products, and the products inside."""
    factors: list[ir.Value] = []
    products: list[ir.Value] = []
    for value in node.inputs:
        inner = _made_by(value, "Mul")
        if value is None:
            continue
        if inner is not None and not is_constant(value) and only_consumer(value) is node and not products:
            products.append(value)
            factors += [v for v in inner.inputs if v is not None]
        else:
            factors.append(value)
    return factors, products


def _gated(op_types: tuple[str, ...], name: str) -> Callable[[ir.Node], _Match | None]:
    """x · f(g(x)) for a chain of one-input operators."""

    def match(node: ir.Node) -> _Match | None:
        if node.op_type != "Mul":
            return None
        for x, gate in _orders(node):
            value, inner = gate, []
            for op_type in op_types:
                made = _made_by(value, op_type)
                if made is None or value is None:
                    break
                inner.append(value)
                value = made.inputs[0]
            else:
                if x is not None and value is x:
                    return _Match(name, x, {}, tuple(inner))
        return None

    return match


_PATTERNS: tuple[tuple[int, Callable[[ir.Node], _Match | None]], ...] = (
    (14, _hard_swish),
    (6, _hard_sigmoid),
    (20, _gelu),
    (18, _gated(("Tanh", "Softplus"), "Mish")),
    (24, _gated(("Sigmoid",), "Swish")),
)
