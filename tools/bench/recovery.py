"""Recovery by distillation on ResNet-20 and 25 000 unlabelled CIFAR-10 JPEG images: accuracy before and after.

    python -m planish.tools.bench.recovery [--steps N] [--checkpoints DIR] [--out FILE] [ROW ...]

Rows: `pruned` (−50 % MACs), `w4a4`, `w2a2`, and `w2a2-labels`, the same schedule with label cross-entropy and the
straight-through estimator. Every row is a pipeline; the pack's JPEG test images judge.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...driver import optimize
from ...ir.capture import capture
from ...passes.context import Context
from ...passes.manager import PassManager
from ...targets.registry import resolve
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


@functools.cache
def original(pack: Path) -> float:
    return top1(pack, pack / MODEL / "model.onnx")


def compressed(passes: str, data: dict[str, Any], pack: Path, checkpoints: Path | None) -> ir.Model:
    """What the passes before `recover` leave; kept beside the state of the training, because it takes minutes too."""
    name = hashlib.blake2b(passes.encode(), digest_size=6).hexdigest()
    place = None if checkpoints is None else checkpoints / f"compressed-{name}.onnx"
    if place is not None and place.exists():
        return capture(place)
    model = optimize(pack / MODEL / "model.onnx", target="arm64", passes=passes, data=data).model
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        ir.save(model, place)
    return model


def row(
    pack: Path, name: str, steps: int, minutes: float, data: dict[str, Any], checkpoints: Path | None
) -> dict[str, Any]:
    """Accuracy of the float model, after the lossy passes alone, and after recovery."""
    passes = ROWS[name] % steps
    before, recover = passes.rsplit(",recover", 1)
    model = compressed(before, data, pack, checkpoints)
    lossy = model.clone()
    context = Context(target=resolve("arm64"), original=capture(pack / MODEL / "model.onnx"))
    context.time_budget, context.checkpoints = 60 * minutes, checkpoints
    context.everything = lambda: iter([({"input": data["input"]}, data["labels"])])
    context.progress = lambda what, share: click.echo(f"\r{name}: {what}, {share:4.0%}", nl=False, err=True)
    record = PassManager(f"recover{recover}").run(model, context).records[-1]
    return {
        "row": name,
        "passes": passes,
        "float": original(pack),
        "lossy": top1(pack, lossy),
        "recovered": top1(pack, model),
        "training": record.measures.get("training"),
        "notes": record.notes,
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
