"""Fine-tuning after pruning: prune ResNet-20 to half its MACs without data, then train it on the pack's JPEG images.

    python -m planish.tools.bench.finetuning [--minutes M] [--labels] [--budget macs=-50%] [--json FILE]

The pruned ONNX model becomes a torch module (`planish.ir.fx`), a training loop of the user's own distils the original
into it, and the weights go back into the ONNX model. Without `--labels` the teacher's logits are all that is learnt
from. The 10,000 JPEG test images judge, and are never trained on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...ir import shapes
from ...ir.cost import summary
from ...ir.fx import to_fx
from ...passes.context import Context
from ...passes.manager import PassManager
from .pruning import judged, original
from .quantization import PACK, load_evaluate

MODEL = "resnet20_cifar10/model_bn"
TASK = "cifar10_jpeg"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the network was trained with
BATCH = 128
TEMPERATURE = 4.0
RATE = 1e-3


def training_images(pack: Path = PACK) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All training images of the pack N×3×32×32, and their labels."""
    evaluate = load_evaluate(pack)
    data = evaluate.data("cifar10_jpeg_train")
    picture = evaluate.jpegs(data)
    images = np.stack([picture(i) for i in range(len(data["y"]))]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), data["y"].astype(np.int64)


def augmented(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Shifted by up to 4 pixels and mirrored, normalised."""
    padded = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    result = np.empty(images.shape, np.float32)
    for i, (dy, dx, mirrored) in enumerate(rng.integers(0, (9, 9, 2), (len(images), 3))):
        crop = padded[i, :, dy : dy + 32, dx : dx + 32]
        result[i] = crop[:, :, ::-1] if mirrored else crop
    mean, deviation = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return np.asarray((result / 255 - mean) / deviation, np.float32)


def prune(budget: str) -> tuple[ir.Model, ir.Model]:
    """The original with BatchNorm folded, and a copy within the budget, pruned without data."""
    before, _ = original(MODEL)
    after = before.clone()
    manager = PassManager(f'synthesize-inputs{{samples=256}},prune{{budget="{budget}" alignment=2}},remove-unused')
    manager.run(after, Context())
    shapes.infer(after)
    return before, after


def train(
    model: ir.Model, teacher: ir.Model, seconds: float, labelled: bool, show: Callable[[str], object]
) -> dict[str, Any]:
    """Distil the teacher into the model, in place, for so many seconds of processor time: Adam, one cosine, bfloat16.

    Loss: ρ²·KL(teacher ‖ student) at temperature ρ; with labels, their cross-entropy is added. BatchNorm is folded, so
    there is nothing that keeps large steps from diverging: the rate is small and the gradient is clipped.
    """
    import torch

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, labels = training_images()
    bridge = to_fx(model)
    layout = torch.channels_last  # what oneDNN's bfloat16 convolutions want
    module = bridge.module.train().to(memory_format=layout)
    answer = to_fx(teacher, trainable=False).module.to(memory_format=layout)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    began, start, seen, last = time.perf_counter(), time.process_time(), 0, 0.0
    while (spent := time.process_time() - start) < seconds:
        chosen = rng.integers(0, len(images), BATCH)
        x = torch.from_numpy(augmented(images[chosen], rng)).to(memory_format=layout)
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * spent / seconds))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                wanted = answer(x)[0].float()
            logits = module(x)[0].float()
        soft = torch.nn.functional.log_softmax(logits / TEMPERATURE, 1)
        target = torch.nn.functional.softmax(wanted / TEMPERATURE, 1)
        loss = TEMPERATURE**2 * torch.nn.functional.kl_div(soft, target, reduction="batchmean")
        if labelled:
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        seen += len(x)
        if spent - last > 30:
            last = spent
            show(f"{spent:4.0f} s, {seen / len(images):.1f} epochs, loss {float(loss.detach()):.3f}")
    bridge.write_back()
    wall = round(time.perf_counter() - began)
    return {"processor_seconds": round(spent), "wall_seconds": wall, "epochs": round(seen / len(images), 1)}


@click.command(help=__doc__)
@click.option("--minutes", default=5.0, help="Processor time to train for.")
@click.option("--labels/--no-labels", default=True, help="Learn from the labels too.")
@click.option("--budget", default="macs=-50%", help="What the pruned model may cost.")
@click.option("--limit", default=0, help="Test images; 0 takes all 10,000.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the result here too.")
def main(minutes: float, labels: bool, budget: str, limit: int, path: Path | None) -> None:
    before, after = prune(budget)
    result: dict[str, Any] = {
        "model": MODEL,
        "budget": budget,
        "labels": labels,
        "macs_left": round(summary(after).macs / summary(before).macs, 4),
        "parameters_left": round(summary(after).parameters / summary(before).parameters, 4),
        "float": judged(before, TASK, limit),
        "pruned": judged(after, TASK, limit),
    }
    click.echo(json.dumps(result))
    result |= train(after, before, 60 * minutes, labels, lambda line: click.echo(line, err=True))
    result["fine_tuned"] = judged(after, TASK, limit)
    result["drop"] = round(result["float"] - result["fine_tuned"], 4)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    click.echo(text)
    if path:
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
