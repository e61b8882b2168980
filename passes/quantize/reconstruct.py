"""`reconstruct`: rounding, scales and biases trained block by block, each to answer as in the float model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...errors import ModelError
from ...ir import metadata
from ...ir.blocks import Block, Grain, partition
from ...ir.graph import fresh_name, initializer
from ...ir.layers import Layer, layer_of
from ...ir.quantization import Encoding
from ...ir.shapes import infer
from ..base import Pass
from ..context import Context, Feeds
from ..recover.recover import require_torch
from .legality import ANCHORS, data_inputs
from .round_weights import RoundWeights
from .weights import FORMATS

if TYPE_CHECKING:
    from .block_checkpoint import BlockCheckpoint

__all__ = ["Reconstruct"]

Tensors = dict[str, Any]
Found = dict[str, Any]  # what training a block found, by `found_in`
Narrow = Literal["int8", "int6", "int4", "int3", "int2"]

_LEVELS: Mapping[Narrow, int] = {"int6": 63, "int4": 15, "int3": 7, "int2": 3}  # steps between lowest and highest level


@dataclass(frozen=True)
class Reconstruct(Pass):
    """W, b  ⇒  s·q, b′ with ‖block(x) − block_q(x̂)‖² least, by gradients: AdaRound with learned scales, from GPTQ on

    weights: as in `round-weights`, which makes the start; zero-points: as there. activations: of fewer than 8 bits
    where a layer reads them, all but the model's inputs, with learned step sizes, simulated on the 8-bit grid.
    steps: of Adam per block, on `batch` samples each, fewer of large maps; grain: what a block is (`print-blocks`).
    With `--checkpoints` a run that was stopped goes on behind its last finished block.
    The inputs are the user's samples or those of a synthesize pass; needs PyTorch.
    (Nagel et al. 2020, Li et al. 2021, Wei et al. 2022, Jeon et al. 2023)
    """

    weights: Literal["int8", "int4", "int3", "int2", "ternary"] = "int4"
    activations: Narrow = "int8"
    zero_points: bool = True
    steps: int = 400
    batch: int = 16
    grain: Grain = "block"
    name: ClassVar[str] = "reconstruct"
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError("steps and batch must be at least 1")

    def run(self, model: ir.Model, context: Context) -> None:
        require_torch(self.name)
        infer(model)
        feeds = context.fitting()
        layers = {str(v.name): x for n in model.graph if (x := layer_of(n)) is not None and (v := x.weight)}
        if not feeds or not layers:
            reason = "no inputs to train on" if not feeds else "no layer whose weights could be trained"
            context.record.skip("model", reason)
            return
        import torch

        from .block_checkpoint import BlockCheckpoint

        _give_biases(model, layers.values())
        kept = BlockCheckpoint(context, model, self.spec(), feeds)
        rounded = kept.rounded() or self._rounded(model, context, feeds)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            _Reconstruction(self, model, rounded, context, feeds).run(kept)
        if self.activations != "int8":
            context.record.note(f"{self.activations} activations are simulated on the 8-bit grid: no kernel for them")

    def _rounded(self, model: ir.Model, context: Context, feeds: Sequence[Feeds]) -> ir.Model:
        """The start: a copy of the model with weights on their grids."""
        rounded = model.clone()
        start = RoundWeights(weights=self.weights, zero_points=self.zero_points)
        start.run(rounded, Context(data=feeds, seed=context.seed, progress=context.progress))
        return rounded


class _Reconstruction:
    """The blocks in order, with the values between them in the float model and in the one quantized so far."""

    def __init__(
        self, options: Reconstruct, model: ir.Model, rounded: ir.Model, context: Context, feeds: Sequence[Feeds]
    ) -> None:
        from .train_block import tensors_of

        self.options, self.context = options, context
        self.model, self.teacher = model, model.clone()
        self.start, self.rounded = rounded, dict(rounded.graph.initializers)
        self.blocks = partition(self.teacher, options.grain)
        self.exact: Tensors = tensors_of(feeds)
        self.now: Tensors = dict(self.exact)
        self.started = time.monotonic()
        self.found: list[Found] = []
        self.narrow: set[str] = set()
        self.learned: set[str] = set()
        if options.activations != "int8":
            readers = [n for n in model.graph if n.op_type in ANCHORS]
            values = {v for n in readers for v in data_inputs(n)[:1] if not v.is_graph_input()}
            self.narrow = {str(v.name) for v in values if v.dtype == ir.DataType.FLOAT}

    def run(self, kept: BlockCheckpoint) -> None:
        first = self._resume(kept)
        for number, block in list(enumerate(self.blocks))[first:]:
            kept.reach(number, self.start, self.found, self.exact, self.now)
            try:
                self.context.progress("reconstructing blocks", number / len(self.blocks))
                self._block(number, block)
            except (RuntimeError, ModelError) as error:
                # torch's own exceptions are RuntimeErrors: a shape fixed in the graph, an operator without a form
                reason = str(error).splitlines()[0][:200]
                self.context.record.skip(block.name, f"the model does not run in PyTorch from here on: {reason}")
                break
            except KeyboardInterrupt:
                kept.save()
                raise
            self._forget(number)
        kept.remove()

    def _resume(self, kept: BlockCheckpoint) -> int:
        """Take over the blocks that a stopped run finished; how many of all there were."""
        state = kept.load()
        if state is None:
            return 0
        self.exact, self.now = state["exact"], state["now"]
        for found in state["found"]:
            self._take(found)
        self.context.record.note(f"resumed behind block {state['next']} of {len(self.blocks)}")
        return int(state["next"])

    def _block(self, number: int, block: Block) -> None:
        from ...ir.fx import to_fx
        from .block_checkpoint import found_in
        from .block_student import make_student
        from .train_block import Schedule, run, train

        bridge = to_fx(self.teacher, block.nodes, trainable=False)
        exact, now = ([values[name] for name in bridge.inputs] for values in (self.exact, self.now))
        targets = run(lambda x: bridge.module(*x), exact, self.options.batch)
        student = make_student(
            self.teacher,
            block,
            self.rounded,
            self._biases(block),
            FORMATS[self.options.weights],
            sorted(self._narrow_in(block)),
            _LEVELS.get(self.options.activations, 255),
        )
        if student.roundings or student.steps:
            mixing = 0.5 if student.steps else 0.0
            schedule = Schedule(self.options.steps, self.options.batch, mixing=mixing)
            before, after = train(student.block, exact, now, targets, schedule, self._late(number))
            self._take(found_in(student, number, f"{block.name}: error {before:.2%} → {after:.2%}"))
        results = run(student.block, now, self.options.batch)
        self.exact |= dict(zip(bridge.outputs, targets, strict=True))
        self.now |= dict(zip(bridge.outputs, results, strict=True))

    def _late(self, number: int) -> Any:
        """Whether the block's share of the user's time is over."""
        budget = self.context.time_budget
        end = None if budget is None else self.started + budget * (number + 1) / len(self.blocks)
        return lambda: end is not None and time.monotonic() > end

    def _biases(self, block: Block) -> list[str]:
        layers = [x for n in block.anchors if (x := layer_of(n)) is not None and x.bias is not None]
        return [str(x.bias.name) for x in layers if x.bias is not None]

    def _narrow_in(self, block: Block) -> set[str]:
        """The values that get few bits in this block: what its layers read and no block before it has set."""
        read = {str(v.name) for n in block.nodes if n.op_type in ANCHORS for v in data_inputs(n)[:1]}
        return (read & self.narrow) - self.learned

    def _take(self, found: Found) -> None:
        """Weights on their grids, biases and ranges of a trained block into the model."""
        self.found.append(found)
        if not self.context.record.change(self.blocks[found["block"]].nodes[0], found["detail"]):
            return
        initializers = self.model.graph.initializers
        for name, (weight, scale, axis) in found["weights"].items():
            initializers[name].const_value = ir.Tensor(weight.numpy(), name=name)
            zero = np.zeros(len(scale), np.int32)
            Encoding(scale.numpy(), zero, ir.DataType.INT8, axis).attach(initializers[name])
        for name, bias in found["biases"].items():
            initializers[name].const_value = ir.Tensor(bias.numpy(), name=name)
        values = {str(v.name): v for n in self.model.graph for v in n.outputs}
        for name, (low, high, levels) in found["steps"].items():
            fact = metadata.get(values[name], metadata.EVIDENCE) or {}
            source = f"step of {self.options.activations} learned on {fact.get('source', 'the inputs')}"
            changed = {"low": low, "high": high, "levels": levels, "source": source}
            metadata.put(values[name], metadata.EVIDENCE, fact | changed)
            self.learned.add(name)

    def _forget(self, number: int) -> None:
        """Drop the values that no block behind this one reads."""
        needed = {str(v.name) for block in self.blocks[number + 1 :] for v in block.inputs}
        for values in (self.exact, self.now):
            for name in [n for n in values if n not in needed]:
                del values[name]


def _give_biases(model: ir.Model, layers: Any) -> None:
    """A bias of zeros where a Conv or Gemm has none, to be corrected."""
    for layer in list(layers):
        assert isinstance(layer, Layer)
        if layer.bias is None and layer.has_offset:
            name = fresh_name(model.graph, f"{layer.name}_bias")
            zeros = initializer(model.graph, name, np.zeros(len(layer.matrix()), np.float32))
            layer.node.resize_inputs(3)
            layer.node.replace_input_with(2, zeros)
