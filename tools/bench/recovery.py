"""Recovery by distillation on ResNet-20 and 25 000 unlabelled CIFAR-10 JPEG images: accuracy before and after.

    python -m planish.tools.bench.recovery [--steps N] [--checkpoints DIR] [--out FILE] [ROW ...]

Rows: `pruned` (−50 % MACs), `w4a4`, `w2a2`, and `w2a2-labels`, the same schedule with label cross-entropy and the
straight-through estimator. Every row is a pipeline of `optimize`; the pack's JPEG test images judge.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...driver import optimize
from ...passes.base import Pass
from ...passes.context import Context
from . import finetuning
from .quantization import PACK, load_evaluate, metric

__all__ = ["ROWS", "training_images"]

MODEL = "resnet20_cifar10"
TASK = "cifar10_jpeg"
_FEW_BITS = (
    "fold-bn,activation-ranges,reconstruct{{weights={0} activations={0} zero-points=false steps=100}},"
    "quantize{{weights={0}}},recover{{steps=%d batch=64 {1}}}"
)
_DISTILLED = "gradient=ewgs"  # SQAKD: the original's decisions alone, gradients scaled by the rounding error
_LABELLED = "gradient=ste loss=labels"

# row -> pipeline; `%d` is the number of steps
ROWS: Mapping[str, str] = {
    "pruned": 'fold-bn,prune{budget="macs=-50%%"},recover{steps=%d}',
    "w4a4": _FEW_BITS.format("int4", _DISTILLED),
    "w2a2": _FEW_BITS.format("int2", _DISTILLED),
    "w2a2-labels": _FEW_BITS.format("int2", _LABELLED),
}


def training_images(pack: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The 25 000 training images, normalised as the network wants them, and their labels."""
    evaluate = load_evaluate(pack)
    pixels, labels = finetuning.training_images(pack)
    normalised = (pixels / np.float32(255) - evaluate.MEAN) / evaluate.STD
    return {"input": normalised.astype(np.float32), "labels": labels}


def top1(pack: Path, model: Path | ir.Model) -> float:
    """Share of the 10 000 JPEG test images that a model names rightly."""
    evaluate = load_evaluate(pack)
    if isinstance(model, Path):
        return float(metric(evaluate, model, TASK, 0)["top1"])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        ir.save(model, path)
        return float(metric(evaluate, path, TASK, 0)["top1"])


class _Keep(Pass):
    """A copy of the model between two passes."""

    name: ClassVar[str] = "keep"

    def run(self, model: ir.Model, context: Context) -> None:
        self.model = model.clone()
        context.record.skip("model", "only looked at")


def row(
    pack: Path, name: str, steps: int, minutes: float, data: dict[str, Any], checkpoints: Path | None
) -> dict[str, Any]:
    """Accuracy of the float model, after the lossy passes alone, and after recovery."""
    passes = ROWS[name] % steps
    path = pack / MODEL / "model.onnx"
    start, lossy = time.monotonic(), _Keep()
    before, recover = passes.rsplit(",recover", 1)
    trained = optimize(
        path,
        target="arm64",
        passes=[before, lossy, f"recover{recover}"],
        data=data,
        time_budget=60 * minutes,
        checkpoints=checkpoints,
    )
    seconds = time.monotonic() - start
    record = trained.report["passes"][-1]
    return {
        "row": name,
        "passes": passes,
        "float": top1(pack, path),
        "lossy": top1(pack, lossy.model),
        "recovered": top1(pack, trained.model),
        "seconds": round(seconds, 1),
        "training": record["measures"].get("training"),
        "notes": record["notes"],
    }


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
@click.option("--steps", default=2000, show_default=True)
@click.option("--minutes", default=20.0, show_default=True, help="Time budget of each training.")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="Directory that a stopped row goes on from.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file; rows of earlier runs stay in it.")
def main(
    names: tuple[str, ...], pack: Path, steps: int, minutes: float, checkpoints: Path | None, out: Path | None
) -> None:
    data = training_images(pack)
    for name in names or ROWS:
        found = row(pack, name, steps, minutes, data, checkpoints)
        click.echo(json.dumps(found, ensure_ascii=False))
        if out is not None:
            rows = json.loads(out.read_text()) if out.exists() else []
            rows = [r for r in rows if r["row"] != name] + [found]
            out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
