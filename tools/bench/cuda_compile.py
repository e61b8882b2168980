"""The model pack compiled for NVIDIA GPUs without one: every kernel built, its kind of products, seconds, as JSON.

    python -m planish.tools.bench.cuda_compile [--form int8]... [--architecture sm_86]... [-o FILE] [MODEL ...]

Nothing is executed, nothing is timed but the compilation. A model that the CPU back end refuses is listed with its
reason; rows of a file that exists are kept, those of the same model, form and architecture replaced.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir

from ...backends.batch import fix_batch
from ...backends.cuda.compile import compile_model
from ...backends.tvm.compile import prepared
from ...backends.tvm.lower import lower
from ...driver import optimize
from ...errors import PlanishError
from ...targets.registry import resolve
from .quantization import PACK

ARCHITECTURES = ("sm_80", "sm_86", "sm_90")
# model -> fixed input shapes, where more than the batch is free
SHAPES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "all_minilm_l6_v2": {"input_ids": (1, 32), "attention_mask": (1, 32)},
    "imdn_x2": {"input": (1, 3, 128, 128)},
    "nsnet2": {"features": (1, 100, 161)},
    "silero_vad": {"input": (1, 576), "state": (2, 1, 128)},
    "style_starry_night": {"input": (1, 3, 224, 224)},
    "yunet_n": {"input": (1, 3, 256, 320)},
}
# form -> options of `optimize` that make it
FORMS: Mapping[str, Mapping[str, Any]] = {
    "int8": {},
    "float32": {"level": 1},
    "float16": {"passes": "fold-constants,fold-bn,fuse-layer-norm,convert-float,remove-unused"},
    "bfloat16": {"passes": "fold-constants,fold-bn,fuse-layer-norm,convert-float{to=bfloat16},remove-unused"},
}


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--form", "forms", multiple=True, type=click.Choice(list(FORMS)), default=["int8", "float32"])
@click.option("--architecture", "architectures", multiple=True, default=list(ARCHITECTURES))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="JSON file that rows are added to.")
def main(models: Sequence[str], forms: Sequence[str], architectures: Sequence[str], output: Path | None) -> None:
    """Compile, print and keep the rows."""
    names = models or sorted(path.parent.name for path in PACK.glob("*/model.onnx"))
    rows = json.loads(output.read_text()) if output is not None and output.exists() else []
    for row in _rows(names, forms, architectures):
        click.echo(json.dumps(row))
        rows = [old for old in rows if _key(old) != _key(row)] + [row]
        if output is not None:  # after every row: a run that is stopped leaves what it has
            output.write_text(json.dumps(sorted(rows, key=_key), indent=1) + "\n")


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["form"], row["architecture"]


def _rows(names: Iterable[str], forms: Sequence[str], architectures: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        for form in forms:
            facts = {"model": name, "form": form}
            try:
                path = PACK / name / "model.onnx"
                model = optimize(path, target="cuda", shapes=SHAPES.get(name, {}), **FORMS[form]).model
                static, _ = fix_batch(model)
                cpu = _cpu(static)
            except PlanishError as error:
                yield {**facts, "architecture": "", "error": f"{error.what} ({error.where})"}
                continue
            for architecture in architectures:
                yield {**facts, "architecture": architecture, "cpu": cpu, **_compiled(static, architecture)}


def _cpu(model: ir.Model) -> str:
    """Why the CPU back end refuses the model; empty where it takes it."""
    try:
        lower(prepared(model), resolve("host"))
    except PlanishError as error:
        return f"{error.what} ({error.where})"
    return ""


def _compiled(model: ir.Model, architecture: str) -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory(prefix="planish-cuda-") as directory:
            compiled = compile_model(model, resolve(f"cuda/{architecture}"), Path(directory))
    except PlanishError as error:
        return {"error": f"{error.what} ({error.where})"}
    except Exception as error:  # what the driver would report as a fault of the compiler
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:300]}"}
    found = json.loads(compiled.files["kernels.json"])
    return {
        "kernels": len(found),
        "products": dict(sorted(Counter(kernel["products"] for kernel in found).items())),
        "most_registers": max((kernel["registers"] for kernel in found), default=0),
        "spilling": sum(kernel["spilled_bytes"] > 0 for kernel in found),
        "code_bytes": compiled.code_bytes,
        "weight_bytes": compiled.weight_bytes,
        "working_bytes": compiled.arena_bytes,
        "seconds": round(compiled.seconds, 1),
    }


if __name__ == "__main__":
    main()
