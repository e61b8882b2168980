"""A pipeline whose long parts survive an interrupt: distilled inputs, training, and the seconds it took so far."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...passes.context import Context, Feeds
from ...passes.manager import PassManager
from ...passes.record import Record

__all__ = ["run_staged"]

_SECONDS = "seconds"  # in a file of distilled inputs: what they took


def run_staged(
    passes: Sequence[object], model: ir.Model, context: Context, directory: Path | None, key: str
) -> tuple[list[Record], float]:
    """Run the passes in place; their records and seconds, those before an interrupt included.

    With a directory, training leaves its state there (`Context.checkpoints`), and distilled inputs stay there, under a
    name made from `key` and the passes before them; the same call, or one that begins alike, goes on from them.
    """
    start = time.perf_counter()
    if directory is None:
        return PassManager(passes).run(model, context).records, time.perf_counter() - start
    directory.mkdir(parents=True, exist_ok=True)
    context.checkpoints = directory
    clock = directory / f"{_name(key + PassManager(passes).spec())}.seconds"
    before = float(clock.read_text()) if clock.exists() else 0.0
    stages = _Stages(directory, key)
    try:
        records = [record for one in PassManager(passes).passes for record in stages.run(one, model, context)]
    except KeyboardInterrupt:
        clock.write_text(str(before + time.perf_counter() - start - stages.made))
        raise
    clock.unlink(missing_ok=True)
    return records, before + time.perf_counter() - start + stages.read


class _Stages:
    """made, read: seconds of distilling inputs, in this call and in the one that made what is read now."""

    def __init__(self, directory: Path, key: str) -> None:
        self._directory, self._key = directory, key
        self.made = self.read = 0.0

    def run(self, one: object, model: ir.Model, context: Context) -> list[Record]:
        manager = PassManager([one])
        self._key += manager.spec()
        if getattr(one, "name", "") != "distill-inputs":
            return manager.run(model, context).records
        place = self._directory / f"{_name(self._key)}.npz"
        if place.exists():
            self._take(place, context)
            return []
        start = time.perf_counter()
        records = manager.run(model, context).records
        self.made = time.perf_counter() - start
        if feeds := context.synthetic:
            stacked = {f"input {name}": np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
            np.savez(place, allow_pickle=False, **stacked, **{_SECONDS: np.asarray(self.made)})
        return records

    def _take(self, place: Path, context: Context) -> None:
        with np.load(place) as kept:
            stacked = {name.removeprefix("input "): kept[name] for name in kept if name != _SECONDS}
            self.read = float(kept[_SECONDS])
        count = len(next(iter(stacked.values())))
        feeds: list[Feeds] = [{name: x[i] for name, x in stacked.items()} for i in range(count)]
        context.synthetic, context.likeliest = feeds, None


def _name(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
