"""Channel groups: their cost by nodes, removals on random networks, and coverage beside Torch-Pruning, as JSON.

    python -m planish.tools.bench.groups [--random N] [--peers-python PYTHON] [--json FILE]

Every removal is checked: the model is valid and gives what zeroing the same units gives. `--peers-python` is an
interpreter that has torch and torch-pruning; it prunes the pack's torch networks, layer by layer.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from ...ir import shapes
from ...ir.channels import Channels, analyze, remove, zero
from ...ir.execute import execute
from ...ir.graph import is_constant
from ...passes.defaults import exact
from ...passes.manager import PassManager
from .quantization import PACK
from .random_networks import RandomNetwork

SIZES = (500, 1000, 2000, 4000)  # nodes
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what Torch-Pruning counts as layers too


def removal_error(
    model: ir.Model, rng: np.random.Generator, feeds: Mapping[str, npt.NDArray[np.generic]]
) -> tuple[int, float]:
    """Remove some units of every free group: how many went, and how far the outputs are from those of zeroing.

    The distance is the largest |difference| / max(1, largest |output|). Raises what onnx raises for an invalid model.
    """
    channels = analyze(model)
    gone = [rng.choice(g.units, rng.integers(1, len(g)), replace=False) for g in channels.free if len(g) > 1]
    units = channels.spare(np.concatenate(gone) if gone else np.empty(0, np.int64))
    zeroed, removed = model.clone(), model.clone()
    zero(zeroed, analyze(zeroed), units)
    remove(removed, analyze(removed), units)
    proto = ir.to_proto(removed)
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    expected, found = execute(zeroed, feeds), execute(removed, feeds)
    worst = 0.0
    for name, value in expected.items():
        if value.shape != found[name].shape:
            return len(units), np.inf
        scale = max(1.0, float(np.abs(value).max(initial=0.0)))
        worst = max(worst, float(np.abs(np.subtract(found[name], value)).max(initial=0.0)) / scale)
    return len(units), worst


def random_removals(count: int) -> dict[str, Any]:
    """`count` random networks with random units removed: how many lost any, the largest error, how many are wrong."""
    x = {"x": np.random.default_rng(7).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    changed, wrong, worst = 0, [], 0.0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        model = ir.from_proto(RandomNetwork(lambda n, rng=rng: int(rng.integers(n))).build(int(rng.integers(2, 15))))  # type: ignore[misc]
        shapes.infer(model)
        try:
            units, error = removal_error(model, rng, x)
        except Exception as failure:  # any refusal of the pruned model counts as wrong
            wrong.append(f"{seed}: {type(failure).__name__}")
            continue
        changed += units > 0
        worst = max(worst, error)
        if error > 1e-5:
            wrong.append(f"{seed}: {error:.1e}")
    return {"networks": count, "with_removals": changed, "largest_error": worst, "invalid": wrong}


def residual_chain(nodes: int) -> ir.Model:
    """Blocks of Conv, Relu, Conv, Add on 16 channels, about as many nodes as asked for."""
    rng = np.random.default_rng(0)
    made, weights, last = [], [], "x"
    for block in range(nodes // 4):
        for half in ("a", "b"):
            array = rng.standard_normal((16, 16, 1, 1)).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"w{block}{half}"))
        made += [
            helper.make_node("Conv", [last, f"w{block}a"], [f"a{block}"]),
            helper.make_node("Relu", [f"a{block}"], [f"r{block}"]),
            helper.make_node("Conv", [f"r{block}", f"w{block}b"], [f"b{block}"]),
            helper.make_node("Add", [f"b{block}", last], [f"s{block}"]),
        ]
        last = f"s{block}"
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 4, 4]) for name in ("x", last)]
    graph = helper.make_graph(made, "chain", kinds[:1], kinds[1:], weights)
    model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    shapes.infer(model)
    return model


def speed() -> dict[str, Any]:
    """Processor seconds of `analyze` by nodes (median of three), and the exponent of the growth."""
    seconds = {}
    for size in SIZES:
        model = residual_chain(size)
        found = []
        for _ in range(3):
            start = time.process_time()
            analyze(model)
            found.append(time.process_time() - start)
        seconds[size] = round(statistics.median(found), 4)
    exponent = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0]
    return {"seconds_by_nodes": seconds, "exponent": round(float(exponent), 3)}


def prunable(channels: Channels) -> dict[str, Any]:
    """Output channels of layers: how many there are, how many can be removed, and exactly (as zeroing would)."""
    frozen, inexact = channels.labels.atoms.frozen(), channels.labels.atoms.inexact()
    total = free = exact = 0
    for value, fields in channels.labels.fields.items():
        layer = any(use.node.op_type in LAYERS and use.idx == 1 for use in value.uses())
        if not is_constant(value) or not layer:
            continue
        for found in (f for f in fields if f.role == "out"):
            roots = channels.labels.atoms.find(found.atoms).ravel().tolist()
            total += len(roots)
            free += sum(r not in frozen for r in roots)
            exact += sum(r not in frozen and r not in inexact for r in roots)
    return {"channels": total, "prunable": round(free / max(total, 1), 4), "exactly": round(exact / max(total, 1), 4)}


def coverage(python: str | None) -> list[dict[str, Any]]:
    """Ours on every model of the pack; Torch-Pruning's on those that have a torch network."""
    theirs: dict[str, Any] = {}
    if python is not None:
        script = Path(__file__).with_name("torch_pruning_peer.py")
        done = subprocess.run([python, str(script), str(PACK.resolve())], capture_output=True, text=True, check=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
    table = []
    for entry in json.loads((PACK / "MODELS.json").read_text()):
        name = str(entry["name"])
        model = ir.load(PACK / name / "model.onnx")
        PassManager(exact()).run(model)
        shapes.infer(model)
        table.append({"model": name, "ours": prunable(analyze(model)), "torch_pruning": theirs.get(name)})
    return table


@click.command(help=__doc__)
@click.option("--random", "count", default=2000, help="Random networks to prune.")
@click.option("--peers-python", help="Interpreter with torch-pruning.")
@click.option("--json", "path", help="Write the result here too.")
def main(count: int, peers_python: str | None, path: str | None) -> None:
    result = {"speed": speed(), "coverage": coverage(peers_python), "random": random_removals(count)}
    text = json.dumps(result, indent=1, ensure_ascii=False)
    click.echo(text)
    if path:
        Path(path).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
