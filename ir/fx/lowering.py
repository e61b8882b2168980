"""ONNX nodes to an FX graph, by the operator table."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.analysis import analyze_implicit_usage

from ...errors import ModelError
from .facts import FACTS, branches_of, contents, parameters
from .operators import OPERATORS, Operator, apply
from .tensors import tensor_of, torch_dtype

__all__ = ["Lowering"]

_DOMAINS = ("", "ai.onnx")
_SCALED = ("DequantizeLinear", "PRelu", "QuantizeLinear")  # operators for which a single number is a weight


class Lowering:
    """Builds one GraphModule; the branches of `If` are lowered by the same object, so that it knows every weight.

    weights: path of a parameter or buffer -> the initialiser it was copied from.
    """

    def __init__(self, model: ir.Model, trainable: bool) -> None:
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.captured = analyze_implicit_usage(model.graph)
        self.trainable = trainable
        self.weights: dict[str, ir.Value] = {}

    def require_supported(self, nodes: Iterable[ir.Node]) -> None:
        """Raise a ModelError that names every operator without a torch form."""
        missing: dict[str, list[str]] = {}
        for node in _with_branches(nodes):
            if node.domain not in _DOMAINS or (node.op_type not in OPERATORS and node.op_type not in _STRUCTURAL):
                missing.setdefault(f"{node.domain}.{node.op_type}".lstrip("."), []).append(node.name or "?")
        if missing:
            raise ModelError(
                f"no torch form for {', '.join(sorted(missing))}",
                where=", ".join(f"{op} {names[0]}" for op, names in sorted(missing.items())),
                hint="give to_fx the nodes of a part without it, or simplify the model first (-O1)",
            )

    def build(self, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> Any:
        """The GraphModule that computes `outputs`, as a tuple, from `inputs`."""
        return _Builder(self, "").build(nodes, inputs, outputs)


class _Tracer(torch.fx.proxy.GraphAppendingTracer):  # type: ignore[misc]
    """Marks every FX node with the name of the ONNX node it comes from, as `meta["onnx"]`."""

    site: str | None = None
    op: str = ""

    def create_node(self, *args: Any, **kwargs: Any) -> Any:
        node = super().create_node(*args, **kwargs)
        node.meta["onnx"] = self.site
        return node


class _Builder:
    """The FX graph of one ONNX graph. `prefix` is the path of its module inside the outermost one."""

    def __init__(self, lowering: Lowering, prefix: str) -> None:
        self.lowering = lowering
        self.prefix = prefix
        self.root = torch.nn.Module()
        self.graph = torch.fx.Graph()
        self.tracer = _Tracer(self.graph)
        self.values: dict[ir.Value, Any] = {}

    def build(self, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> Any:
        taken: set[str] = set()
        for value in inputs:
            name = _identifier(value.name or "input")
            while name in taken:
                name += "_"
            taken.add(name)
            self.values[value] = self.tracer.create_proxy("placeholder", name, (), {}, name=name)
        for node in nodes:
            self.lower(node)
        self.tracer.site = None
        results = tuple(self.declared(value) for value in outputs)
        self.tracer.create_proxy("output", "output", (results,), {})
        return torch.fx.GraphModule(self.root, self.graph).eval()

    def lower(self, node: ir.Node) -> None:
        """Append one ONNX node."""
        self.tracer.site, self.tracer.op = node.name, node.op_type
        try:
            structural = _STRUCTURAL.get(node.op_type)
            result = structural(self, node) if structural else self.call(node, OPERATORS[node.op_type])
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{node.op_type} (opset {self.lowering.opset}) has no torch form here: {error}",
                where=f"node {node.name}",
                hint="give to_fx the nodes of a part without it, or simplify the model first (-O1)",
            ) from error
        for value, part in zip(node.outputs, self.parts(node, result), strict=False):
            self.values[value] = part

    def parts(self, node: ir.Node, result: Any) -> tuple[Any, ...]:
        """One result for each output of the node that is used."""
        if isinstance(result, tuple):
            return result
        if node.op_type in OPERATORS and OPERATORS[node.op_type].several:
            return tuple(result[i] for i in range(len(node.outputs)))
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            raise ModelError(
                f"only the first output of {node.op_type} has a torch form",
                where=f"node {node.name}",
                hint="give to_fx the nodes of a part without it",
            )
        return (result,)

    # --- values -------------------------------------------------------------------------------------------------------

    def tensor(self, value: ir.Value, state: bool = False) -> Any:
        """The proxy of a value; a constant becomes a parameter or buffer when it is first needed as a tensor."""
        if value not in self.values:
            found = contents(value)
            if found is None:
                raise KeyError(f"the value {value.name} is computed later or elsewhere")
            self.values[value] = self.register(value, found, state)
        return self.values[value]

    def register(self, value: ir.Value, found: ir.TensorProtocol, state: bool) -> Any:
        tensor = tensor_of(found)
        initialiser = value.const_value is not None and value.producer() is None
        number = tensor.dim() == 0 and self.tracer.op not in _SCALED  # a factor, no weight
        trained = self.lowering.trainable and initialiser and not state and tensor.is_floating_point() and not number
        path = self.attach(value.name or "constant", torch.nn.Parameter(tensor) if trained else tensor)
        if initialiser:
            self.lowering.weights[self.prefix + path] = value
        return self.tracer.create_proxy("get_attr", path, (), {})

    def attach(self, name: str, tensor: Any) -> str:
        """Put a tensor at the path its name says, `layer1.0.conv1.weight`; the path is changed where it is taken."""
        *parents, last = [_identifier(part, digits=True) for part in name.split(".")]
        module, path = self.root, []
        for part in parents:
            while hasattr(module, part) and not isinstance(getattr(module, part), torch.nn.Module):
                part += "_"
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
            path.append(part)
        while hasattr(module, last):
            last += "_"
        if isinstance(tensor, torch.nn.Parameter):
            module.register_parameter(last, tensor)
        elif isinstance(tensor, torch.nn.Module):
            module.add_module(last, tensor)
        else:
            module.register_buffer(last, tensor)
        return ".".join([*path, last])

    def declared(self, value: ir.Value) -> Any:
        """A value on its way out: what was carried as floating-point numbers gets the integer type of the model."""
        result = self.tensor(value)
        if value.dtype is None or not value.dtype.is_integer() or value.dtype == ir.DataType.INT64:
            return result
        return result.to(torch_dtype(value.dtype))

    # --- operators ----------------------------------------------------------------------------------------------------

    def call(self, node: ir.Node, operator: Operator) -> Any:
        """Run the operator's function on proxies, which records what it does; or record the function itself."""
        names, accepts = parameters(operator.function)
        inputs = list(node.inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        args: list[Any] = []
        deferred = False
        for i, value in enumerate(inputs):
            name = names[i] if i < len(names) else ""
            known = contents(value) if name in operator.static or name in operator.scalar else None
            if value is None:
                args.append(None)
            elif known is not None and name in operator.static:
                args.append(known.numpy().tolist())
            elif known is not None and known.size == 1 and name in operator.scalar:
                args.append(known.numpy().item())
            else:
                deferred |= name in operator.static
                args.append(self.tensor(value, name in operator.state))
        kwargs = {name: self.attribute(node, attribute) for name, attribute in node.attributes.items()}
        if deferred:
            return self.tracer.create_proxy("call_function", apply, (node.op_type, *args), kwargs)
        kwargs |= {name: fact(node, self.lowering.opset) for name, fact in FACTS.items() if accepts(name)}
        result = operator.function(*args, **kwargs)
        if isinstance(result, torch.Tensor):  # everything it needed was known
            return self.tracer.create_proxy("get_attr", self.attach(f"{node.outputs[0].name}", result), (), {})
        return result

    def attribute(self, node: ir.Node, attribute: ir.Attr) -> Any:
        if attribute.type == ir.AttributeType.TENSOR:
            path = self.attach(f"{node.name}.{attribute.name}", tensor_of(attribute.as_tensor()))
            return self.tracer.create_proxy("get_attr", path, (), {})
        return list(attribute.value) if isinstance(attribute.value, tuple) else attribute.value

    def conditional(self, node: ir.Node) -> Any:
        """`If`: the branch taken when the condition is known, else a module that holds both."""
        known = contents(node.inputs[0])
        branches = {name: node.attributes[name].as_graph() for name in ("then_branch", "else_branch")}
        if known is not None:
            taken = branches["then_branch" if known.numpy().item() else "else_branch"]
            for inner in taken:
                self.lower(inner)
            return tuple(self.tensor(value) for value in taken.outputs)
        free = {value for graph in branches.values() for value in self.lowering.captured.get(graph, ())}
        captured = sorted(free, key=lambda value: value.name or "")
        path = _identifier(node.name or "conditional")
        made = [
            _Builder(self.lowering, f"{self.prefix}{path}.{name}.").build(list(graph), captured, graph.outputs)
            for name, graph in branches.items()
        ]
        self.attach(path, _Conditional(*made))
        args = tuple(self.tensor(value) for value in (node.inputs[0], *captured))  # type: ignore[arg-type]
        result = self.tracer.create_proxy("call_module", path, args, {})
        return tuple(result[i] for i in range(len(node.outputs)))


class _Conditional(torch.nn.Module):  # type: ignore[misc]
    """Both branches of an `If`; the condition chooses at run time."""

    def __init__(self, then_branch: Any, else_branch: Any) -> None:
        super().__init__()
        self.then_branch = then_branch
        self.else_branch = else_branch

    def forward(self, condition: Any, *captured: Any) -> Any:
        branch = self.then_branch if bool(condition) else self.else_branch
        return branch(*captured)


def _nothing(builder: _Builder, node: ir.Node) -> Any:
    """A Constant becomes a buffer, or a Python number, where it is used."""
    return ()


_STRUCTURAL: Mapping[str, Callable[[_Builder, ir.Node], Any]] = {"Constant": _nothing, "If": _Builder.conditional}


def _with_branches(nodes: Iterable[ir.Node]) -> Iterable[ir.Node]:
    for node in nodes:
        yield node
        for graph in branches_of(node):
            yield from _with_branches(graph)


def _identifier(name: str, digits: bool = False) -> str:
    """A name that Python and FX accept."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    if keyword.iskeyword(clean):
        return f"{clean}_"
    return clean if digits or not clean[0].isdigit() else f"_{clean}"
