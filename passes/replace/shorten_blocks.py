"""`shorten-blocks`: residual branches by one 1×1 convolution each, where the outputs suffer least."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir import shapes
from ...ir.blocks import ANCHORS, Block, partition
from ...ir.execute import Session
from ...ir.graph import initializer, is_constant
from ..base import Pass
from ..budget import parse_budget
from ..context import Array, Context, Feeds
from ..prune.allocate import allocate
from ..prune.costs import measure
from .choose import output_noise

__all__ = ["ShortenBlocks", "regress"]

Floats = npt.NDArray[np.float64]

_ROWS = 20_000  # positions that a branch is fitted on
_TRIALS = 4  # feeds that the effect on the outputs is measured on


@dataclass(frozen=True)
class _Branch:
    """A residual block's branch from `entry` to `exit`, beside a shortcut; stride: of the positions it keeps."""

    block: Block
    entry: str
    exit: str
    stride: int


@dataclass(frozen=True)
class ShortenBlocks(Pass):
    """y = x + f(x)  ⇒  y = x + (A·x + a), A = Cov(f, x)·Cov(x)⁻¹ a 1×1 convolution fitted on observed inputs

    budget: "macs=-20%", "parameters=-20%", "latency=-30%" or "size=…"; the blocks whose loss the outputs notice least
    go first, by dynamic programming. blocks: names of blocks that may be shortened (`print-blocks`), with `*`.
    """

    budget: str = "macs=-20%"
    blocks: str = "*"
    name: ClassVar[str] = "shorten-blocks"
    exact: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> None:
        budget = parse_budget(self.budget)
        shapes.infer(model)
        feeds = list(context.data or context.synthetic or ())
        if not feeds:
            context.record.skip("model", "no inputs to fit on: put synthesize-inputs before it, or give --data")
            return
        branches = _branches(model, self.blocks, context)
        fitted = [(branch, *_fit(model, branch, feeds, context.rng())) for branch in branches]
        before = measure(budget.unit, model, context.target, context.cost)
        errors, savings = [], []
        for done, (branch, weight, bias) in enumerate(fitted):
            context.progress("measuring what each block is worth", done / len(fitted))
            trial = model.clone()
            _shorten(trial, branch, weight, bias)
            saving = before - measure(budget.unit, trial, context.target, context.cost)
            errors.append(np.array([0.0, output_noise(model, trial, feeds[:_TRIALS])]))
            savings.append(np.array([0.0, max(saving, 0.0)]))
        wanted = before - budget.allowed(before)
        picked = allocate(errors, savings, wanted) if fitted and wanted > 0 else None
        if picked is None:
            most = sum(float(s[1]) for s in savings)
            what = (
                f"{budget} cannot be reached: without the branches of {len(fitted)} blocks {100 * most / before:.0f} %"
            )
            context.record.skip("model", f"{what} are saved")
            return
        for (branch, weight, bias), level, error in zip(fitted, picked, errors, strict=True):
            if not level:
                context.record.skip(branch.block.name, "the budget is met without it")
            elif context.record.change(branch.block.name, f"a 1×1 convolution; output noise {error[1]:.2g} by itself"):
                _shorten(model, branch, weight, bias)
        shapes.infer(model)


def regress(x: Array, y: Array, ridge: float = 1e-3) -> tuple[Floats, Floats]:
    """`A = Cov(y, x)·(Cov(x) + λI)⁻¹`, `a = E[y] − A·E[x]` of rows; λ in units of the mean variance."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    ca, cb = a - a.mean(0), b - b.mean(0)
    gram = ca.T @ ca / len(a)
    gram += (ridge * max(float(np.trace(gram)) / len(gram), 1e-30)) * np.eye(len(gram))
    weight: Floats = np.asarray(np.linalg.solve(gram, ca.T @ cb / len(a)).T, np.float64)
    return weight, np.asarray(b.mean(0) - weight @ a.mean(0), np.float64)


def _branches(model: ir.Model, pattern: str, context: Context) -> list[_Branch]:
    found = []
    for block in partition(model, "block"):
        if block.kind != "residual" or not fnmatch.fnmatch(block.name, pattern):
            continue
        branch = _branch(block) if block.single else None
        if branch is None:
            context.record.skip(block.name, "not a shortcut and one branch of static shapes")
        else:
            found.append(branch)
    return found


def _branch(block: Block) -> _Branch | None:
    """The side of the block's Add that holds its layers, when the other side holds none."""
    joins = [n for n in block.nodes if n.op_type == "Add" and not any(is_constant(v) for v in n.inputs)]
    if len(joins) != 1:
        return None
    sides = [_layers_behind(v, block) for v in joins[0].inputs]
    if sorted(bool(s) for s in sides) != [False, True]:
        return None
    exit_ = joins[0].inputs[0 if sides[0] else 1]
    entry = block.inputs[0]
    if exit_ is None:
        return None
    sizes = [d for v in (entry, exit_) for d in tuple(v.shape or ())[2:] if isinstance(d, int)]
    if len(sizes) != 4:
        return None
    stride = -(-sizes[0] // sizes[2])
    fits = all(-(-sizes[i] // stride) == sizes[i + 2] for i in (0, 1))
    return _Branch(block, str(entry.name), str(exit_.name), stride) if fits else None


def _layers_behind(value: ir.Value | None, block: Block) -> list[ir.Node]:
    inside, found, waiting = set(block.nodes), [], [value]
    seen: set[ir.Node] = set()
    while waiting:
        current = waiting.pop()
        producer = current.producer() if current is not None else None
        if producer is None or producer not in inside or producer in seen:
            continue
        seen.add(producer)
        if producer.op_type in ANCHORS:
            found.append(producer)
        waiting += list(producer.inputs)
    return found


def _fit(model: ir.Model, branch: _Branch, feeds: Sequence[Feeds], rng: np.random.Generator) -> tuple[Floats, Floats]:
    session = Session(model, [branch.entry, branch.exit])
    rows: list[tuple[Array, Array]] = []
    share = -(-_ROWS // len(feeds))
    for feed in feeds:
        values = session(feed)
        x = values[branch.entry][:, :, :: branch.stride, :: branch.stride]
        x, y = (np.moveaxis(v, 1, -1).reshape(-1, v.shape[1]) for v in (x, values[branch.exit]))
        chosen = rng.permutation(len(x))[:share]
        rows.append((x[chosen], y[chosen]))
    return regress(np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows]))


def _shorten(model: ir.Model, branch: _Branch, weight: Floats, bias: Floats) -> None:
    graph = model.graph
    values = {v.name: v for v in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    entry, exit_ = values[branch.entry], values[branch.exit]
    producer = exit_.producer()
    assert producer is not None
    operands = [
        initializer(graph, f"{branch.exit}_linear_weight", weight[:, :, None, None].astype(np.float32)),
        initializer(graph, f"{branch.exit}_linear_bias", bias.astype(np.float32)),
    ]
    attributes = [ir.AttrInt64s("kernel_shape", [1, 1]), ir.AttrInt64s("strides", [branch.stride] * 2)]
    made = ir.Node("", "Conv", [entry, *operands], attributes, num_outputs=1, name=f"{branch.exit}_linear")
    result = made.outputs[0]
    result.name, result.type, result.shape = f"{branch.exit}_linear_out", exit_.type, exit_.shape
    graph.insert_after(producer, [made])
    exit_.replace_all_uses_with(result)
    RemoveUnusedNodesPass()(model)
