"""The integer networks that Ethos-U gets, run once more by Arm's TOSA reference model and compared with LiteRT.

    python -m planish.tools.bench.tosa_check [--samples N] [-o FILE] [MODEL ...]

Prints one JSON line for each model: the largest and the mean difference of the outputs in levels (LSB), and how often
the decision is the same. Needs tosa-tools, which asks for NumPy before 2.2: give it an environment of its own
(docs/ethos-u.md has the commands).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.ethosu.flatbuffer import serialize
from ...backends.ethosu.interpret import LiteRtModel
from ...backends.ethosu.lower import Lowered, lower
from ...backends.ethosu.prepare import prepared
from ...driver import optimize
from ...errors import PlanishError, UsageError
from .ethosu import SHAPES
from .quantization import PACK
from .tosa_network import to_tosa

Array = npt.NDArray[Any]

MODELS = ("resnet20_cifar10", "resnet8_cifar10", "kws_dscnn", "lenet_mnist", "mobilenetv1_075", "mobilenetv2_tf")
TARGET = "ethos-u55-256"


def compare(model: ir.Model, samples: int, seed: int = 0) -> dict[str, Any]:
    """Differences between the TOSA reference model and LiteRT's reference kernels on inputs over the whole range."""
    reference = _reference_model()
    static, _ = fix_batch(model)
    lowered = lower(prepared(static))
    graph = to_tosa(lowered.network)
    litert = LiteRtModel(serialize(lowered.network), keep=True)
    rng = np.random.default_rng(seed)
    differences, same = [], 0
    for _ in range(samples):
        levels = {t.name: rng.integers(-128, 128, t.shape, np.int8) for t in lowered.network.inputs}
        litert(_as_floats(lowered, levels))
        raw, status = reference.run(graph, list(levels.values()), tosa_level="EIGHTK")
        if status != reference.GraphStatus.TOSA_VALID:
            raise UsageError(f"the reference model says {status}", where="TOSA graph", hint="please report the model")
        for tensor, found in zip(lowered.network.outputs, raw, strict=True):
            ours = np.frombuffer(np.asarray(found).tobytes(), np.int8).reshape(tensor.shape).astype(np.int64)
            theirs = litert.tensor(tensor.name).astype(np.int64)
            differences.append(np.abs(ours - theirs).ravel())
            same += int(ours.argmax() == theirs.argmax())
    every = np.concatenate(differences)
    return {
        "samples": samples,
        "max_lsb": int(every.max()),
        "mean_lsb": round(float(every.mean()), 4),
        "same_decision": round(same / len(differences), 4),
    }


def _as_floats(lowered: Lowered, levels: dict[str, Array]) -> dict[str, Array]:
    """What `LiteRtModel` quantizes back to these levels, in ONNX's axes."""
    feeds = {}
    for tensor in lowered.network.inputs:
        assert tensor.scale is not None and tensor.zero_point is not None
        real = (levels[tensor.name].astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)
        feeds[tensor.name] = real.transpose(np.argsort(lowered.values[tensor.name].axes))
    return feeds


def _reference_model() -> Any:
    try:
        import tosa_reference_model
    except ImportError as error:
        raise UsageError(
            f"tosa-tools is not installed ({error})",
            where="TOSA cross-check",
            hint="pip install tosa-tools==2026.8.0 into an environment of its own; see docs/ethos-u.md",
        ) from error
    return tosa_reference_model


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--samples", default=16, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rows as a JSON list as well.")
def main(models: tuple[str, ...], pack: Path, samples: int, output: Path | None) -> None:
    rows = []
    for name in models or MODELS:
        try:
            model = optimize(pack / name / "model.onnx", target=TARGET, shapes=SHAPES.get(name, {})).model
            row = compare(model, samples)
        except PlanishError as error:
            row = {"error": str(error)}
        rows.append({"model": name, **row})
        click.echo(json.dumps(rows[-1]))
    if output is not None:
        output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
