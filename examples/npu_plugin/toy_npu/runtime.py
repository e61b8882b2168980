"""Run an artifact: the parts in order, each on its processor, as the application on the device would.

python -m toy_npu.runtime DIRECTORY INPUT.npz
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from planish.backends.tvm.load import CompiledModel

from .simulator import Simulator

__all__ = ["Model"]

Array = npt.NDArray[Any]


class Model:
    """`Model("out")(image=array)["logits"]`."""

    def __init__(self, directory: str | Path) -> None:
        table = json.loads((Path(directory) / "parts.json").read_text())
        self.outputs = table["outputs"]
        self._parts = [(self._load(Path(directory), part["stem"]), part) for part in table["parts"]]

    @staticmethod
    def _load(directory: Path, stem: str) -> Simulator | CompiledModel:
        if stem.startswith("npu"):
            return Simulator(directory / stem)
        return CompiledModel(directory / f"{stem}.so", stem)

    def __call__(self, **feeds: Array) -> dict[str, Array]:
        values = dict(feeds)
        for processor, part in self._parts:
            given = {name: values[name] for name in part["inputs"]}
            values |= processor(given) if isinstance(processor, Simulator) else processor(**given)
        return {name: values[name] for name in self.outputs}


if __name__ == "__main__":
    with np.load(sys.argv[2]) as inputs:
        for name, array in Model(sys.argv[1])(**inputs).items():
            print(name, array.shape, array.ravel()[:8])
