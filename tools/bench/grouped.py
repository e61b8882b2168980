"""Latency of grouped convolutions on this machine: compiled int8 and float beside ONNX Runtime, as JSON.

    python -m planish.tools.bench.grouped [--rounds N] [--without FEATURE,...] [CASE ...]

Each case is a chain of four equal convolutions with ReLU, one thread, batch 1, as `latency` measures. The int8
contenders run the same Q/DQ network, all of it in integers. `--without amx-int8` compiles as for a machine that lacks
a feature.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from ...backends.tvm import environment
from ...backends.tvm.compile import compile_model
from ...backends.tvm.load import CompiledModel
from ...driver import optimize
from ...ir.shapes import infer
from ...targets.host import resolve
from .latency import feeds_for, interleaved, machine, onnx_runtime, timed

_LAYERS = 4


@dataclass(frozen=True)
class Case:
    """Convolutions of `channels` in `groups` over a square; multiplier: filters for each channel of the last one."""

    channels: int
    groups: int
    window: int
    size: int
    multiplier: int = 1


CASES: Mapping[str, Case] = {
    "ResNeXt, 32 groups of 4": Case(128, 32, 3, 28),
    "ResNeXt, 32 groups of 8": Case(256, 32, 3, 14),
    "ShuffleNet, 3 groups of 80": Case(240, 3, 1, 28),
    "RegNetX, groups of 8": Case(64, 8, 3, 28),
    "RegNetX, groups of 16": Case(160, 10, 3, 14),
    "RegNetX, groups of 24": Case(240, 10, 3, 14),
    "depthwise, multiplier 2": Case(64, 64, 3, 28, 2),
}


def network(case: Case) -> ir.Model:
    """The chain; where filters are a multiple of channels, a 1×1 convolution leads back from one layer to the next."""
    rng, build = np.random.default_rng(0), _Graph()
    x = image = build.value("image", (1, case.channels, case.size, case.size))
    for _ in range(_LAYERS):
        depth = case.channels // case.groups
        shape = (case.channels * case.multiplier, depth, case.window, case.window)
        x = build.conv(x, rng.normal(0, (2 / (depth * case.window**2)) ** 0.5, shape), case.groups)
        if case.multiplier > 1:
            back = (case.channels, case.channels * case.multiplier, 1, 1)
            x = build.conv(x, rng.normal(0, back[1] ** -0.5, back), 1)
    x.shape, x.dtype = image.shape, ir.DataType.FLOAT
    graph = ir.Graph([image], [x], nodes=build.nodes, initializers=build.weights, opset_imports={"": 17}, name="chain")
    return ir.Model(graph, ir_version=9)


class _Graph:
    """Nodes and weights so far."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []

    def value(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))

    def conv(self, x: ir.Value, array: Any, groups: int) -> ir.Value:
        """A convolution with its result as large as its input, and ReLU."""
        weight = self.value(f"w{len(self.weights)}", array.shape)
        weight.const_value = ir.tensor(array.astype(np.float32))
        self.weights.append(weight)
        pads = [array.shape[-1] // 2] * 4
        y = self._node("Conv", [x, weight], kernel_shape=list(array.shape[2:]), pads=pads, group=groups)
        return self._node("Relu", [y])

    def _node(self, op: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        node = ir.node(op, inputs, attributes, name=f"{op.lower()}{len(self.nodes)}")
        self.nodes.append(node)
        node.outputs[0].name = node.name
        return node.outputs[0]


def measure(case: Case, directory: Path, rounds: int, without: frozenset[str]) -> dict[str, float]:
    """Least milliseconds of a call of each contender."""
    source = network(case)
    shape = (4, case.channels, case.size, case.size)
    data = {"image": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    quantized = optimize(
        source, target="host", data=data, passes="activation-ranges,quantize,remove-unused", compile=False
    ).model
    contenders = {}
    for kind, model in (("int8", quantized), ("float", source)):
        infer(model)
        path = directory / kind
        path.mkdir()
        ir.save(model, path / "model.onnx")
        host = resolve(None)
        environment.load()
        compile_model(model, replace(host, features=host.features - without), path)
        feeds = feeds_for(model)
        contenders[f"planish_{kind}"] = timed(CompiledModel(path / "model.so").bind(**feeds))
        contenders[f"onnxruntime_{kind}"] = onnx_runtime(path / "model.onnx", feeds)
    return interleaved(contenders, rounds)


@click.command(help=__doc__)
@click.argument("cases", nargs=-1)
@click.option("--rounds", default=15, help="How often every contender gets its turn.")
@click.option("--without", default="", help="Features of this machine to do without.")
def main(cases: tuple[str, ...], rounds: int, without: str) -> None:
    found = {}
    for name in cases or CASES:
        with tempfile.TemporaryDirectory() as directory:
            lacking = frozenset(filter(None, without.split(",")))
            found[name] = measure(CASES[name], Path(directory), rounds, lacking)
            click.echo(f"{name}: {found[name]}", err=True)
    json.dump({"machine": machine(), "without": without, "ms": found}, sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
