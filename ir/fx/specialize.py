"""Graphs of torch.compile as closed modules, and modules of ours under the signature of somebody else's graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ...errors import ModelError

__all__ = ["Specialized", "embed", "specialize"]


@dataclass(frozen=True)
class Specialized:
    """A graph with its weights, and how its call maps to the original one.

    module: takes the tensors that are no weights and returns a tuple of distinct computed tensors.
    fed: position of each of the module's arguments among the original ones; kept: positions of the weights and
        numbers that were built in. shapes: dynamic axes of each argument, as `capture_torch` takes them.
    template: the original output with a `_Place` for every leaf.
    """

    module: Any
    fed: tuple[int, ...]
    kept: tuple[int, ...]
    shapes: dict[str, dict[int, Any]]
    template: Any

    def assemble(self, results: Sequence[Any], args: Sequence[Any]) -> Any:
        """The original output from the module's results."""
        pools = {"result": results, "argument": args}
        leaves, spec = pytree.tree_flatten(self.template, is_leaf=lambda leaf: isinstance(leaf, _Place))
        filled = [leaf.key if leaf.kind == "constant" else pools[leaf.kind][leaf.key] for leaf in leaves]
        return pytree.tree_unflatten(filled, spec)


@dataclass(frozen=True)
class _Place:
    kind: str
    key: Any


def specialize(gm: Any, args: Sequence[Any]) -> Specialized:
    """Build weights and Python numbers into a graph from torch.compile; sizes are read off the tensors they belong to.

    args: the values of the placeholders; parameters and buffers are those that dynamo marks as static.
    Raises ModelError for an output that is a computed number.
    """
    holders = [node for node in gm.graph.nodes if node.op == "placeholder"]
    graph, root = torch.fx.Graph(), torch.nn.Module()
    values: dict[Any, Any] = {}
    fed, kept, shapes = [], [], {}
    for i, (node, arg) in enumerate(zip(holders, args, strict=True)):
        if _is_weight(node, arg):
            root.register_buffer(f"w{i}_{_clean(node.target)}", arg.detach())
            values[node] = graph.get_attr(f"w{i}_{_clean(node.target)}", type_expr=None)
            kept.append(i)
        elif _is_number(node, arg):
            values[node] = arg.item() if isinstance(arg, torch.Tensor) else arg
            kept.append(i)
        elif isinstance(arg, torch.Tensor):
            name = f"x{i}_{_clean(node.target)}"
            values[node] = graph.placeholder(name)
            shapes[name] = _dynamic_axes(node)
            fed.append(i)
    for node, arg in zip(holders, args, strict=True):
        if node not in values:
            values[node] = _size(graph, node, arg, holders, values)
    template, wanted = _copy(gm, graph, root, values, holders)
    graph.output(tuple(values[node] for node in wanted))
    return Specialized(torch.fx.GraphModule(root, graph).eval(), tuple(fed), tuple(kept), shapes, template)


def _clean(name: str) -> str:
    return re.sub(r"\W|^[Ll]_|_$", "", str(name))


def _is_weight(node: Any, arg: Any) -> bool:
    static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
    return isinstance(arg, torch.Tensor) and (isinstance(arg, torch.nn.Parameter) or static is not None)


def _is_number(node: Any, arg: Any) -> bool:
    """An integer that is no size, or a Python float: dynamo passes it as a 0-d tensor that only `item` reads."""
    if not isinstance(arg, torch.Tensor):
        return not isinstance(node.meta.get("example_value"), torch.SymInt)
    return arg.dim() == 0 and all(user.op == "call_method" and user.target == "item" for user in node.users)


def _dynamic_axes(node: Any) -> dict[int, Any]:
    example = node.meta.get("example_value")
    sizes = [] if example is None else list(example.shape)
    free = {axis: size for axis, size in enumerate(sizes) if isinstance(size, torch.SymInt)}
    dims = {axis: str(size) for axis, size in free.items() if size.node.maybe_as_int() is None}
    return {axis: name if name.isidentifier() else torch.export.Dim.DYNAMIC for axis, name in dims.items()}


def _size(graph: Any, node: Any, arg: Any, holders: Sequence[Any], values: dict[Any, Any]) -> Any:
    symbol = str(node.meta["example_value"])
    for holder in holders:
        example = holder.meta.get("example_value")
        if isinstance(example, torch.Tensor) and isinstance(values.get(holder), torch.fx.Node):
            for axis, size in enumerate(example.shape):
                if str(size) == symbol:
                    return graph.call_method("size", (values[holder], axis))
    return int(arg)


def _copy(gm: Any, graph: Any, root: Any, values: dict[Any, Any], holders: list[Any]) -> tuple[Any, list[Any]]:
    """Copy the computation; the output as a template, and the nodes it takes results from."""
    wanted: dict[Any, int] = {}

    def place(node: Any) -> _Place:
        if node in holders:
            return _Place("argument", holders.index(node))
        if not isinstance(values[node], torch.fx.Node):
            return _Place("constant", values[node])
        if isinstance(node.meta.get("example_value"), (torch.SymInt, int, float)):
            raise ModelError(
                f"the output {node.name} is a number that is computed",
                where=f"{node.op} {node.target}",
                hint="return tensors only, or let dynamo break the graph there",
            )
        return _Place("result", wanted.setdefault(node, len(wanted)))

    template: Any = None
    for node in gm.graph.nodes:
        if node.op == "output":
            marked = torch.fx.node.map_aggregate(
                node.args[0], lambda a: place(a) if isinstance(a, torch.fx.Node) else _Place("constant", a)
            )
            template = marked
        elif node.op == "call_method" and node.target == "item" and not isinstance(values[node.args[0]], torch.fx.Node):
            values[node] = values[node.args[0]]
        elif node.op != "placeholder":
            if node.op in ("get_attr", "call_module"):
                torch.fx.graph_module._copy_attr(gm, root, node.target)
            values[node] = graph.node_copy(node, lambda n: values[n])
    return template, list(wanted)


def embed(module: Any, gm: Any, results: Any) -> Any:
    """`module`, which takes and returns flat tensors, as a GraphModule with the arguments and output structure of `gm`.

    results: what `gm` returns, any structure; its tensors stand for the module's results in order.
    """
    graph = torch.fx.Graph()
    values: dict[Any, Any] = {}
    inner = [node for node in module.graph.nodes if node.op == "placeholder"]
    outer = [graph.node_copy(node) for node in gm.graph.nodes if node.op == "placeholder"]
    if len(inner) > len(outer):
        raise ModelError(
            "an argument of the graph holds several tensors",
            where=", ".join(str(node.target) for node in outer),
            hint="trace it with torch.export, whose graphs take tensors one by one",
        )
    values |= dict(zip(inner, outer, strict=False))
    for node in module.graph.nodes:
        if node.op == "output":
            made = iter(values[n] for n in node.args[0])
        elif node.op != "placeholder":
            values[node] = graph.node_copy(node, lambda n: values[n])
            values[node].meta = dict(node.meta)
    leaves, spec = pytree.tree_flatten(results)
    filled = [next(made) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    codegen = gm.graph._codegen
    graph.set_codegen(codegen)
    flat = isinstance(codegen, torch.fx.graph._PyTreeCodeGen)
    graph.output(filled if flat else pytree.tree_unflatten(filled, spec))
    return torch.fx.GraphModule(module, graph)
