"""The state of a training that was stopped, in a file named after it: the same run goes on where it was."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

__all__ = ["Checkpoint", "fingerprint"]


def fingerprint(model: ir.Model, *facts: object) -> str:
    """A name for a training: the model's weights and graph, and whatever else decides its result."""
    digest = hashlib.blake2b(digest_size=12)
    for node in model.graph:
        digest.update(f"{node.op_type} {[v.name if v else '' for v in node.inputs]} {dict(node.attributes)}".encode())
    for name, value in model.graph.initializers.items():
        digest.update(name.encode())
        if value.const_value is not None:
            digest.update(value.const_value.tobytes())
    digest.update(repr(facts).encode())
    return digest.hexdigest()


class Checkpoint:
    """One file in a directory, replaced as a whole; without a directory nothing is kept."""

    def __init__(self, directory: Path | None, name: str) -> None:
        self.path = None if directory is None else directory / f"{name}.pt"

    def load(self) -> dict[str, Any] | None:
        """The state that was saved, or None; a file that cannot be read counts as none."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True)
        except Exception:  # torn or of another version: training starts anew
            return None
        return state

    def save(self, state: dict[str, Any]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        os.close(handle)
        torch.save(state, name)
        os.replace(name, self.path)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
