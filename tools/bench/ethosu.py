"""Ethos-U on the model pack: Vela's cycles, placement foretold and real, LiteRT's accuracy, as JSON.

    python -m planish.tools.bench.ethosu [--target T]... [--variant NAME]... [--metrics] [-o FILE] [MODEL ...]

Cycles are Vela's estimates: no command stream is executed. LiteRT runs the same int8 network for the metric, in its
optimized kernels; the reference kernels give `lsb`, the largest difference of a layer on equal operands.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.ethosu import vela
from ...backends.ethosu.compile import explain, measured_placement
from ...backends.ethosu.flatbuffer import serialize
from ...backends.ethosu.interpret import LiteRtModel, layer_errors
from ...backends.ethosu.lower import lower
from ...backends.ethosu.prepare import prepared
from ...driver import optimize
from ...errors import PlanishError
from ...passes.defaults import exact, int8
from ...passes.registry import parse
from ...targets.ethosu import ACCELERATORS
from ...targets.registry import resolve
from .quantization import PACK, load_evaluate, metric

Array = npt.NDArray[np.generic]

TARGETS = ("ethos-u55-256", "ethos-u65-512", "ethos-u85-256")
# model -> samples for the metric
SAMPLES: Mapping[str, int] = {
    "resnet20_cifar10": 1017,
    "resnet8_cifar10": 1017,
    "kws_dscnn": 1000,
    "lenet_mnist": 200,
    "mobilenetv1_075": 200,
    "mobilenetv2_tf": 200,
    "yunet_n": 24,
    "style_starry_night": 8,
}
# model -> fixed input shapes, where more than the batch is free
SHAPES: Mapping[str, Mapping[str, Sequence[int]]] = {"yunet_n": {"input": (1, 3, 256, 320)}}
_INT8 = "activation-ranges,keep-float,quantize,remove-unused"
# variant -> passes behind the exact ones; empty for those of the default pipeline
VARIANTS: Mapping[str, str] = {
    "dense": "",
    "2:4": f"synthesize-inputs,sparsify{{pattern=2:4}},{_INT8}",
    "16 levels": f"synthesize-inputs,{_INT8},cluster-weights{{levels=16}}",
    "32 levels": f"synthesize-inputs,{_INT8},cluster-weights{{levels=32}}",
    "pruned": f'synthesize-inputs{{samples=256}},prune{{budget="macs=-20%" alignment=8}},{_INT8}',
}


@dataclass
class Row:
    """One model on one NPU; metrics are None where they were not asked for."""

    model: str
    target: str
    variant: str
    nodes: int = 0
    on_npu: int = 0
    agreement: float = 0.0
    vela: dict[str, Any] | None = None
    lsb: dict[str, int] | None = None
    metric: str = ""
    float_metric: float | None = None
    simulated: float | None = None
    litert: float | None = None
    samples: int = 0
    seconds: float = 0.0
    error: str = ""


class _Session:
    """LiteRT behind the few calls of an ONNX Runtime session that the pack's evaluate.py makes."""

    def __init__(self, model: LiteRtModel, graph: ir.Graph) -> None:
        self._model = model
        self._inputs = [_argument(v) for v in graph.inputs if v.name not in graph.initializers]
        self._outputs = [_argument(v) for v in graph.outputs]

    def get_inputs(self) -> list[SimpleNamespace]:
        return self._inputs

    def get_outputs(self) -> list[SimpleNamespace]:
        return self._outputs

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        found = self._model(feeds)
        return [found[name] for name in names or [output.name for output in self._outputs]]


def _argument(value: ir.Value) -> SimpleNamespace:
    shape = [d if isinstance(d, int) else str(d) for d in value.shape or ()]
    return SimpleNamespace(name=str(value.name), shape=shape, type="tensor(float)")


def measure(pack: Path, entry: Mapping[str, Any], model: ir.Model, target: str, variant: str, limit: int) -> Row:
    """Compile an optimized model, compare, and, where `limit` is not 0, evaluate on that many samples."""
    start = time.perf_counter()
    row = Row(str(entry["name"]), target, variant)
    static, _ = fix_batch(model)
    ready = prepared(static)
    lowered = lower(ready)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "model.tflite"
        source.write_bytes(serialize(lowered.network))
        compiled, estimate = vela.compile_network(source, target, ACCELERATORS[target], Path(directory) / "vela")
        real = measured_placement(lowered, ACCELERATORS[target], compiled)
        foretold = {p.node: p.where for p in explain(static, resolve(target))}
        row.vela, row.nodes = asdict(estimate), len(real)
        row.on_npu = sum(p.where == "NPU" for p in real)
        row.agreement = round(sum(foretold[p.node] == p.where for p in real) / max(len(real), 1), 4)
        if limit:
            row.lsb = layer_errors(static)
            _evaluate(row, pack, entry, model, ready, source, limit)
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def _evaluate(
    row: Row, pack: Path, entry: Mapping[str, Any], model: ir.Model, ready: ir.Model, source: Path, limit: int
) -> None:
    evaluate, task = load_evaluate(pack), str(entry["task"])
    simulated = source.with_name("simulated.onnx")
    ir.save(model, simulated)
    before = metric(evaluate, pack / row.model / "model.onnx", task, limit)
    row.metric, row.samples = next(iter(before)), int(before.get("n", limit))
    row.float_metric = before[row.metric]
    row.simulated = metric(evaluate, simulated, task, limit)[row.metric]
    session = _Session(LiteRtModel(source, reference=False), ready.graph)
    row.litert = evaluate.TASKS[task](session, limit)[row.metric]


def rows(
    pack: Path, names: Iterable[str], targets: Sequence[str], variants: Sequence[str], metrics: bool
) -> Iterable[Row]:
    """One row for each model, target and variant; the targets share one int8 network: metrics come with the first."""
    chosen = set(names) or set(SAMPLES)
    for entry in json.loads((pack / "MODELS.json").read_text()):
        name = str(entry["name"])
        if name not in chosen & set(SAMPLES):
            continue
        for variant in variants:
            try:
                path = _source(pack / name, variant)
                behind = parse(VARIANTS[variant]) if VARIANTS[variant] else int8(resolve(targets[0]))
                passes = [*exact(), *behind]
                model = optimize(path, target=targets[0], passes=passes, shapes=SHAPES.get(name, {})).model
                for target in targets:
                    limit = SAMPLES[name] if metrics and target == targets[0] else 0
                    yield measure(pack, entry, model, target, variant, limit)
            except PlanishError as error:
                yield Row(name, targets[0], variant, error=str(error))


def _source(directory: Path, variant: str) -> Path:
    """Pruning wants the statistics of BatchNormalization, which some models have in a second file."""
    kept = directory / "model_bn.onnx"
    return kept if variant == "pruned" and kept.exists() else directory / "model.onnx"


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--target", "targets", multiple=True, default=TARGETS)
@click.option("--variant", "variants", multiple=True, default=("dense",), type=click.Choice(list(VARIANTS)))
@click.option("--metrics", is_flag=True, help="Also the accuracy, on the samples of each model.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Replace the rows of these models and variants.")
def main(
    models: tuple[str, ...],
    pack: Path,
    targets: tuple[str, ...],
    variants: tuple[str, ...],
    metrics: bool,
    output: Path | None,
) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for row in rows(pack, models, targets, variants, metrics):
        line = asdict(row)
        click.echo(json.dumps(line, ensure_ascii=False))
        if output is not None:
            _replace(output, line)


def _replace(path: Path, row: dict[str, Any]) -> None:
    """Put a row into a JSON list, in place of the one of the same model, target and variant."""
    key = ("model", "target", "variant")
    old = json.loads(path.read_text()) if path.exists() else []
    kept = [r for r in old if any(r[k] != row[k] for k in key)]
    path.write_text(json.dumps([*kept, row], ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
