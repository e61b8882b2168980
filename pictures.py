"""A folder of pictures as samples: cut to the model's size, in the numbers that the network was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .errors import UsageError
from .passes.synthesize.hypotheses import CONVENTIONS

__all__ = ["NORMALIZATIONS", "pictures_in", "read_pictures"]

Floats = npt.NDArray[np.float32]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"})
# what --normalize is given -> the convention it stands for
NORMALIZATIONS = {
    "0..1": "0…1",
    "-1..1": "−1…1",
    "0..255": "0…255",
    "0..255-128": "0…255 less the mean",
    "imagenet": "ImageNet mean and deviation",
}


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder and of those in it, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def read_pictures(files: list[Path], folder: Path, value: ir.Value, normalize: str | None) -> Iterator[dict[str, Any]]:
    """One picture at a time, N×C×H×W or N×H×W×C as the input has it; `labels` where it lies in a folder of its class.

    Pictures are scaled until they cover the input's height and width, and the middle is taken; free sizes are kept.
    """
    if normalize not in NORMALIZATIONS:
        given = "is not given" if normalize is None else f"{normalize!r} is not known"
        hint = f"write --normalize {'|'.join(NORMALIZATIONS)}, as the network was trained"
        raise UsageError(f"how to normalise pictures {given}", where=str(folder), hint=hint)
    dims = list(value.shape or ())
    axis = next((i for i in (1, 3) if len(dims) == 4 and dims[i] in (1, 3)), None)
    if axis is None:
        stated = f"[{','.join(str(d) for d in dims)}]"
        raise UsageError(f"input {value.name!r} of shape {stated} takes no pictures", where=str(folder),
                         hint="give an .npz whose arrays are named like the model's inputs")  # fmt: skip
    classes = sorted({file.parent for file in files if file.parent != folder})
    height, width = dims[2:] if axis == 1 else dims[1:3]
    for file in files:
        unit = np.asarray(_opened(file, int(str(dims[axis])), height, width), np.float32) / np.float32(255)
        planes: Floats = unit.reshape(*unit.shape[:2], -1).transpose(2, 0, 1)[None]
        x = np.asarray(CONVENTIONS[NORMALIZATIONS[normalize]](planes), np.float32)
        label = {"labels": np.asarray([classes.index(file.parent)])} if file.parent in classes else {}
        yield {str(value.name): x if axis == 1 else x.transpose(0, 2, 3, 1)} | label


def _opened(file: Path, channels: int, height: object, width: object) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise UsageError("pictures need Pillow", where=str(file), hint="pip install 'planish[pictures]'") from error
    try:
        picture = Image.open(file).convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"the picture cannot be read: {error}", where=str(file), hint="take it out") from error
    if not isinstance(height, int) or not isinstance(width, int):
        return picture
    scale = max(height / picture.height, width / picture.width)
    size = (max(round(picture.width * scale), width), max(round(picture.height * scale), height))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
