"""What training moves in place of rounded weights and quantization steps: multiples of a unit for each slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...ir.fx import Bridge
from ...ir.fx.tensors import leaf

__all__ = ["Unit", "reparametrize", "value_of"]

Tensor = Any
Floats = npt.NDArray[np.float32]

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Unit:
    """What a parameter is a multiple of, and, for DoReFa, the largest magnitude of each slice; both broadcast."""

    size: Floats
    largest: Floats | None = None

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        return torch.tensor(self.size), None if self.largest is None else torch.tensor(self.largest)


def reparametrize(bridge: Bridge, units: Mapping[str, Unit]) -> None:
    """Parameters, by their paths, as `p = value_of(p′, unit)`, with p′ such that p stays what it was.

    Adam moves every number by its learning rate, however small the number is: in units of a slice's range one rate
    suits channels whose weights differ by orders of magnitude, and any number of bits.
    """
    module = bridge.module
    buffers: dict[str, list[str]] = {}
    for path, unit in units.items():
        tensors = [tensor for tensor in unit.tensors() if tensor is not None]
        buffers[path] = [f"{path.replace('.', '_')}_{kind}" for kind in ("unit", "largest")[: len(tensors)]]
        for name, tensor in zip(buffers[path], tensors, strict=True):
            module.register_buffer(name, tensor)
        with torch.no_grad():
            parameter = module.get_parameter(path)
            parameter.copy_(_multiple_of(parameter, *unit.tensors()))
    for node in list(module.graph.nodes):
        if node.op != "get_attr" or str(node.target) not in buffers:
            continue
        with module.graph.inserting_after(node):
            known = [module.graph.get_attr(name) for name in buffers[str(node.target)]]
        with module.graph.inserting_after(known[0]):
            value = module.graph.call_function(value_of, (node, *known))
        node.replace_all_uses_with(value, delete_user_cb=lambda user, value=value: user is not value)
    module.recompile()


@leaf
def value_of(parameter: Tensor, size: Tensor, largest: Tensor | None = None) -> Tensor:
    """`p′·u`; with a largest magnitude m, `m·tanh(p′·u)/max|tanh(p′·u)|`: DoReFa, which always fills its range."""
    scaled = parameter * size
    if largest is None:
        return scaled
    squashed = torch.tanh(scaled)
    over = [i for i, length in enumerate(largest.shape) if length == 1]
    return largest * squashed / squashed.abs().amax(over, keepdim=True).clamp_min(_TINY)


def _multiple_of(value: Tensor, size: Tensor, largest: Tensor | None) -> Tensor:
    if largest is not None:
        value = torch.atanh(value / largest.clamp_min(_TINY) * torch.tanh(largest))
    return value / size
