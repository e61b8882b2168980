"""The user's own samples (`--data`) as feeds: .npz and .npy files, folders of them or of pictures, iterables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .errors import UsageError
from .pictures import pictures_in, read_pictures

__all__ = ["chunks", "load_samples"]

Array = npt.NDArray[np.generic]
_LABELS = ("labels", "label", "y")  # names under which a set of samples may hold the class of each
_HINT = "give an .npz whose arrays are named like the model's inputs, with samples along the first axis"


def load_samples(
    source: Any, model: ir.Model, limit: int = 256, normalize: str | None = None
) -> list[dict[str, Array]]:
    """At most `limit` feeds that fit the model's inputs, one sample each (or as many as a fixed batch holds).

    normalize: how pictures were prepared in training (`pictures.NORMALIZATIONS`).
    Raises UsageError when names, ranks or fixed dimensions do not match, or a value is not finite.
    """
    feeds: list[dict[str, Array]] = []
    for arrays, _ in _batches(source, model, normalize):
        feeds += _split(arrays, model, str(source) if isinstance(source, (str, Path)) else "data")
        if len(feeds) >= limit:
            break
    if not feeds:
        raise UsageError("the data holds no sample", where=str(source)[:200], hint=_HINT)
    return feeds[:limit]


def chunks(
    source: Any, model: ir.Model, normalize: str | None = None
) -> Iterator[tuple[dict[str, Array], Array | None]]:
    """All samples in the order of the source, as many at a time as it holds together, and their labels if it has some.

    Labels are an array `labels`, `label` or `y` beside the inputs, or the last item of a tuple.
    """
    where = str(source) if isinstance(source, (str, Path)) else "data"
    inputs = {str(v.name): v for v in model.graph.inputs}
    for arrays, labels in _batches(source, model, normalize):
        yield {name: _fit(array, inputs[name], where, any_batch=True) for name, array in arrays.items()}, labels


def _batches(source: Any, model: ir.Model, normalize: str | None) -> Iterable[tuple[Mapping[str, Array], Array | None]]:
    if isinstance(source, (str, Path)):
        path = Path(source)
        files = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz")) if path.is_dir() else [path]
        if not files and (pictures := pictures_in(path)):
            for sample in read_pictures(pictures, path, model.graph.inputs[0], normalize):
                yield _named(sample, model, str(path))
            return
        if not files:
            raise UsageError("the data folder holds no .npy or .npz file and no picture", where=str(path), hint=_HINT)
        for file in files:
            try:
                loaded = np.load(file)
            except (OSError, ValueError) as error:
                raise UsageError(f"the data cannot be read: {error}", where=str(file), hint=_HINT) from error
            yield _named(dict(loaded) if hasattr(loaded, "files") else loaded, model, str(file))
        return
    if isinstance(source, (Mapping, np.ndarray)):
        source = [source]
    for item in source:
        yield _named(item, model, "data")


def _named(item: Any, model: ir.Model, where: str) -> tuple[Mapping[str, Array], Array | None]:
    """Arrays by the names of the inputs, and the labels; one sample without a batch axis becomes a batch of one."""
    inputs = {str(v.name): v for v in model.graph.inputs}
    names = list(inputs)
    if not isinstance(item, Mapping):
        several = isinstance(item, (tuple, list)) and len(item) in (len(names), len(names) + 1)
        item = dict(zip([*names, _LABELS[0]], item if several else [item], strict=False))
    arrays = {str(k): np.asarray(v) for k, v in item.items()}
    label = next((arrays.pop(name) for name in _LABELS if name in arrays and name not in inputs), None)
    missing = [n for n in names if n not in arrays]
    if len(names) == 1 and missing and len(arrays) == 1:  # one input, one array: the name says nothing
        arrays = {names[0]: next(iter(arrays.values()))}
    elif missing:
        what = f"the data has no array for input {missing[0]!r}"
        raise UsageError(what, where=where, hint=f"it holds {sorted(arrays)}")
    arrays = {n: _with_batch(arrays[n], inputs[n]) for n in names}
    return arrays, None if label is None else np.atleast_1d(label)


def _with_batch(array: Array, value: ir.Value) -> Array:
    return array[None] if value.shape is not None and array.ndim == len(value.shape) - 1 else array


def _split(arrays: Mapping[str, Array], model: ir.Model, where: str) -> list[dict[str, Array]]:
    inputs = {str(v.name): v for v in model.graph.inputs}
    batches = {len(a) for name, a in arrays.items() if a.ndim and _batched(inputs[name])}
    step = next((int(s[0]) for v in inputs.values() if (s := list(v.shape or ())) and isinstance(s[0], int)), 1)
    count = min(batches, default=1)
    feeds = []
    for start in range(0, count - step + 1, step):
        feed = {}
        for name, array in arrays.items():
            part = array[start : start + step] if array.ndim and _batched(inputs[name]) else array
            feed[name] = _fit(part, inputs[name], where)
        feeds.append(feed)
    return feeds


def _batched(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 0


def _fit(array: Array, value: ir.Value, where: str, any_batch: bool = False) -> Array:
    dims = list(value.shape) if value.shape is not None else list(array.shape)
    wanted = [d if isinstance(d, int) and not (any_batch and i == 0) else None for i, d in enumerate(dims)]
    if len(dims) != array.ndim or any(d not in (None, n) for d, n in zip(wanted, array.shape, strict=True)):
        stated = f"[{','.join(str(d) for d in value.shape or ())}]"
        what = f"samples of shape {list(array.shape)} do not fit input {value.name!r} of shape {stated}"
        raise UsageError(what, where=where, hint=_HINT)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        what = f"the samples for {value.name!r} hold NaN or infinity"
        raise UsageError(what, where=where, hint="clean the data first")
    return array.astype((value.dtype or ir.DataType.FLOAT).numpy())
