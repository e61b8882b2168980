"""Distillation: the losses between a student and its frozen teacher, on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from ...errors import ModelError
from ...ir.fx import to_fx
from .curriculum import ModuleReplacing
from .inputs import Inputs
from .losses import FEATURES, divergence, relative_error
from .precision import mixed
from .student import Student, with_outputs

__all__ = ["Distillation", "Settings", "feature_taps"]

Array = npt.NDArray[np.generic]
Tensor = Any

# operators whose rank-2 result is a vector of scores, not an embedding or a regression that was squashed
_SCORES = frozenset({"Add", "Conv", "Flatten", "Gemm", "LogSoftmax", "MatMul", "Reshape", "Softmax", "Squeeze"})
_SMALLEST = 1e-12  # probability whose logarithm is taken


@dataclass(frozen=True)
class Settings:
    """What decides the loss: the temperature of the decisions, the feature maps' loss, when labels rule, the batch.

    steps: of the whole training; labels_from: step from which cross-entropy against the labels takes the place of
    distillation; None for never. seed: of the choice among several teachers.
    """

    temperature: float = 4.0
    features: str = "none"
    labels_from: float | None = None
    batch: int = 128
    steps: int = 1
    seed: int = 0


class Distillation:
    """The loss of a student against its teachers: the first, which judges, and one of them at random in every step.

    taps: names of feature maps that the student returns after its outputs and the teachers compute as well.
    Source of the random teacher: Blakeney et al., "Reduce, Reuse, Recycle", 2022.
    """

    def __init__(self, settings: Settings, teachers: Sequence[ir.Model], student: Student, taps: Sequence[str]) -> None:
        self.settings = settings
        self.student = student
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teachers = [_frozen(teacher, student, taps).to(self.device) for teacher in teachers]
        self.student.module.to(self.device)
        self._compare = [_comparison(v, settings.temperature) for v in teachers[0].graph.outputs]

    def loss(self, batch: Inputs, step: int, replacing: ModuleReplacing | None = None) -> Tensor:
        """The loss of one batch, with gradients for the student, some of whose blocks may be the original's."""
        arguments = self._arguments(batch)
        labels = self.settings.labels_from is not None and step >= self.settings.labels_from
        if replacing is not None:
            replacing.step(step / self.settings.steps)
        with mixed(self.device):
            found = self.student.module(*arguments)
            if replacing is not None:
                replacing.all_new()
            if labels:
                assert batch.labels is not None
                truth = torch.from_numpy(np.asarray(batch.labels, np.int64)).to(self.device)
                return torch.nn.functional.cross_entropy(found[0].float(), truth)
            with torch.no_grad():
                wanted = self._teacher_of(step)(*arguments)
        return self._distance(found, wanted)

    def _teacher_of(self, step: int) -> Any:
        """Drawn from the number of the step, so that a training that is resumed goes on with the same ones."""
        if len(self.teachers) == 1:
            return self.teachers[0]
        return self.teachers[int(np.random.default_rng((self.settings.seed, step)).integers(len(self.teachers)))]

    def held_out(self, inputs: Inputs) -> float:
        """Mean distillation loss in float32, without gradients."""
        total, count = 0.0, 0
        size = min(self.settings.batch, len(inputs))
        with torch.no_grad():
            for start in range(0, len(inputs) - size + 1, size):
                arguments = self._arguments(inputs.take(np.arange(start, start + size)))
                value = self._distance(self.student.module(*arguments), self.teachers[0](*arguments))
                total, count = total + float(value) * size, count + size
        return total / count

    def _distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        total = sum(f(a.float(), b.float()) for f, a, b in zip(self._compare, found, wanted, strict=False))
        taps = list(zip(found, wanted, strict=True))[len(self._compare) :]
        if taps:
            feature, weight = FEATURES[self.settings.features]
            total = total + weight * sum(feature(a.float(), b.float()) for a, b in taps) / len(taps)
        return total

    def _arguments(self, batch: Inputs) -> list[Tensor]:
        tensors = []
        for name in self.student.bridge.inputs:
            tensor = torch.from_numpy(np.ascontiguousarray(batch.arrays[name])).to(self.device)
            four = tensor.dim() == 4 and tensor.is_floating_point()
            tensors.append(tensor.contiguous(memory_format=torch.channels_last) if four else tensor)
        return tensors


def _frozen(teacher: ir.Model, student: Student, taps: Sequence[str]) -> Any:
    """The module of a teacher whose inputs and outputs are the student's."""
    bridge = to_fx(with_outputs(teacher.clone(), taps), trainable=False)
    if student.bridge.outputs != bridge.outputs or student.bridge.inputs != bridge.inputs:
        raise ModelError(
            "the model's inputs or outputs are not those of its teacher",
            where=f"{list(student.bridge.outputs)} against {list(bridge.outputs)}",
            hint="recover a model whose interface no pass changed, with teachers that have the same",
        )
    return bridge.module


def feature_taps(teachers: Sequence[ir.Model], model: ir.Model) -> list[str]:
    """The last feature map of each spatial size that all models have under one name, in the order of computation."""
    original, *others = teachers
    sizes = [{v.name: map_size(v) for node in m.graph for v in node.outputs} for m in (model, *others)]
    last: dict[tuple[int, ...], str] = {}
    for node in original.graph:
        for value in node.outputs:
            size = map_size(value)
            if size and all(known.get(value.name) == size for known in sizes) and not value.is_graph_output():
                last[size] = str(value.name)
    return list(last.values())


def map_size(value: ir.Value) -> tuple[int, ...] | None:
    """Height and width of a feature map [N, C, H, W] with more than one position; None for anything else."""
    shape = value.shape
    if shape is None or len(shape) != 4:
        return None
    size = tuple(d for d in shape[2:] if isinstance(d, int))
    return size if len(size) == 2 and size != (1, 1) else None


def _comparison(value: ir.Value, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """How an output of the original is compared: divergence of decisions for scores, relative error for values."""
    producer = value.producer()
    shape = value.shape
    classes = shape is not None and len(shape) == 2 and (not isinstance(shape[1], int) or shape[1] > 1)
    if not classes or producer is None or producer.op_type not in _SCORES:
        return relative_error
    if producer.op_type == "Softmax":

        def of_probabilities(student: Tensor, teacher: Tensor) -> Tensor:
            logarithms = [torch.log(p.clamp_min(_SMALLEST)) for p in (student, teacher)]
            return divergence(logarithms[0], logarithms[1], temperature)

        return of_probabilities
    return lambda student, teacher: divergence(student, teacher, temperature)
