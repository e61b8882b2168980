"""Where the time of compiled models goes: kernels of templates, and of every other kind, as JSON lines.

    python -m planish.tools.bench.kernels [--float] [--pack DIR] [MODEL ...]

Every kernel of a model is measured alone, on this machine and one thread, as `--tune` measures it; `rest` is the share
of a run that kernels without a template take, `kinds` has the microseconds a run of the most expensive of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...backends.batch import fix_batch
from ...backends.tvm.compile import prepared
from ...backends.tvm.lower import lower
from ...backends.tvm.tuning.candidates import Candidate, subject
from ...backends.tvm.tuning.cost import Measured
from ...backends.tvm.tuning.cost_local import LocalTime
from ...driver import optimize
from ...targets.host import resolve
from .quantization import PACK

# model -> what fixes the dimensions that it leaves open
MODELS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "vit_mnist": {},
    "all_minilm_l6_v2": {"input_ids": (1, 32), "attention_mask": (1, 32)},
    "yunet_n": {"input": (1, 3, 256, 320)},
    "imdn_x2": {"input": (1, 3, 128, 128)},
    "style_starry_night": {},
    "silero_vad": {"input": (1, 576), "state": (2, 1, 128)},
    "nsnet2": {"features": (1, 100, 161)},
    "dtln_1": {},
    "dtln_2": {},
    "mobilenetv2_tf": {},
    "mobilenetv1_075": {},
    "resnet20_cifar10": {},
    "kws_dscnn": {},
}
_SHOWN = 6


def shares(source: Path, shapes: Mapping[str, Sequence[int]], *, integer: bool) -> dict[str, Any]:
    """Microseconds of a run of one model in kernels of templates and in the others."""
    options: dict[str, Any] = {"target": "host"} if integer else {"level": 1}
    static, _ = fix_batch(optimize(source, shapes=shapes, **options).model)
    target = resolve(None)
    program, _ = lower(prepared(static), target)
    names = list(program.kernels)
    subjects = [subject(program, name) for name in names]
    outcomes = LocalTime(target).measure(
        [Candidate(found, program.kernels[name]) for found, name in zip(subjects, names, strict=True)]
    )
    total, rest = 0.0, defaultdict[str, float](float)
    for name, found, outcome in zip(names, subjects, outcomes, strict=True):
        if not isinstance(outcome, Measured):
            raise click.ClickException(f"{name} of {source.parent.name} was not measured: {outcome.reason}")
        cost = found.calls * outcome.value * 1e6
        total += cost
        if name not in program.choices:
            rest[name.rpartition("_")[0]] += cost
    kinds = {kind: round(cost, 2) for kind, cost in sorted(rest.items(), key=lambda item: -item[1])[:_SHOWN]}
    return {"us": round(total, 1), "rest": round(sum(rest.values()) / total, 3), "kinds": kinds}


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--float", "plain", is_flag=True, help="The models in float32 instead of int8.")
@click.option("--pack", type=click.Path(exists=True, path_type=Path), default=PACK, help="Directory of the models.")
def main(models: Sequence[str], plain: bool, pack: Path) -> None:
    for name in models or MODELS:
        found = shares(pack / name / "model.onnx", MODELS.get(name, {}), integer=not plain)
        click.echo(json.dumps({"model": name, "form": "float" if plain else "int8", **found}))


if __name__ == "__main__":
    main()
