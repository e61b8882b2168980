"""What a model is fed: pictures, sound, spectra, features or tokens, at which shape, and what goes beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.cost import summary
from ...ir.feeds import working_feeds
from ...ir.graph import attribute
from ...ir.probe import with_shapes
from .roles import Roles, assign

__all__ = ["Signature", "beside", "padded_as_tensorflow_does", "read_signature"]

Feed = dict[str, npt.NDArray[np.generic]]

_PICTURE_CHANNELS = (1, 3, 4)
_SMALLEST_PICTURE = 16  # pixels a side; below it a plane is rather a table of features
_LONGEST_ASPECT = 4.0
_PICTURE_SIZES = (128, 96, 64, 48, 32, 224, 256, 320)  # tried, in order, for free height and width
# samples: frames of 16 to 64 ms, the same with an eighth of context, longer pieces
_SOUND_LENGTHS = (512, 256, 1024, 576, 288, 1152, 1536, 4096, 16000)
_SHORTEST_SOUND = 256  # samples of a frame: 16 ms
_FEWEST_FREQUENCIES = 65
_SENTENCES = (32, 64, 16, 128, 256, 512)
_AFFORDABLE_MACS = 1e9  # a picture; a fully convolutional net above it is observed on the next size


@dataclass(frozen=True)
class Signature:
    """The input that carries the data: `shape` of one run's batch, and which axis counts channels or features (None:
    none does).

    kind: picture, sound, spectrum, features or tokens. free_batch: the model takes any number of samples.
    roles: what the other inputs are; lengths: of sound, all that the model runs on where it fixes none.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axis: int | None
    free_batch: bool
    roles: Roles = field(default_factory=Roles)
    lengths: tuple[int, ...] = ()


def read_signature(model: ir.Model, run: Callable[[Feed], object], seed: int) -> Signature | str:
    """What a model is fed, or the reason why no inputs can be made for it."""
    roles = assign(model)
    if isinstance(roles, str):
        return roles
    if roles.signal is None:
        return _sentence(model, roles, run)
    value = roles.signal
    dims = list(value.shape) if value.shape is not None else []
    if len(dims) < 2:
        return f"input {value.name} has {len(dims)} dimensions"
    if 0 in dims:
        return f"input {value.name} holds no elements"
    axis, kind = _picture_axis(dims), "picture"
    if axis is None:
        axis, kind = _sound_axis(dims, bool(roles.states))
    shape = _working_shape(model, value, dims, kind, roles, run, seed)
    if shape is None:
        return "the model runs on no input of the shapes that were tried"
    free_batch = not isinstance(dims[0], int) and not roles.states
    found = Signature(str(value.name), kind, shape, axis, free_batch, roles)
    return found if kind != "sound" or isinstance(dims[axis or 0], int) else _with_lengths(model, found, run)


def _with_lengths(model: ir.Model, signature: Signature, run: Callable[[Feed], object]) -> Signature:
    """All lengths of sound that the model runs on: which one it was made for shows in its values."""
    working = []
    for length in _SOUND_LENGTHS:
        shape = tuple(length if i == signature.axis else d for i, d in enumerate(signature.shape))
        try:
            run(beside(model, signature, shape[0]) | {signature.name: np.zeros(shape, np.float32)})
        except Exception:  # what a runtime raises for a shape it does not take is its own affair
            continue
        working.append(length)
    return replace(signature, lengths=tuple(working))


def _sentence(model: ir.Model, roles: Roles, run: Callable[[Feed], object]) -> Signature | str:
    """Sequences of tokens: as long as the model fixes them, else 32, a sentence."""
    name = roles.tokens[0].name
    value = next(v for v in model.graph.inputs if v.name == name)
    batch, length = list(value.shape or ())
    for words in (length,) if isinstance(length, int) else _SENTENCES:
        shape = (batch if isinstance(batch, int) else 1, words)
        free_batch = not isinstance(batch, int) and not roles.states
        signature = Signature(name, "tokens", shape, None, free_batch, roles)
        try:
            run(
                beside(model, signature, shape[0])
                | {t.name: np.zeros(shape, _dtype(model, t.name)) for t in roles.tokens}
            )
        except Exception:  # what a runtime raises for a shape it does not take is its own affair
            continue
        return signature
    return "the model runs on no sequence of the lengths that were tried"


def beside(model: ir.Model, signature: Signature, batch: int) -> Feed:
    """What a run is fed besides the data: options, masks of ones, positions, and states of zeros at the start."""
    roles = signature.roles
    feed: Feed = dict(roles.constants)
    for value in roles.masks:
        feed[str(value.name)] = np.ones((batch, _length(value, signature)), _dtype(model, str(value.name)))
    for value in roles.positions:
        order = np.arange(_length(value, signature), dtype=_dtype(model, str(value.name)))
        feed[str(value.name)] = np.repeat(order[None], batch, 0)
    feed |= {name: np.zeros((batch, *signature.shape[1:]), np.float32) for name in roles.twins}
    for value in (v for v in model.graph.inputs if v.name in roles.states):
        shape = [d if isinstance(d, int) else batch for d in value.shape or ()]
        feed[str(value.name)] = np.zeros(shape, np.float32)
    return feed


def _length(value: ir.Value, signature: Signature) -> int:
    fixed = value.shape[1] if value.shape is not None else None
    return fixed if isinstance(fixed, int) else signature.shape[1]


def _dtype(model: ir.Model, name: str) -> npt.DTypeLike:
    value = next(v for v in model.graph.inputs if v.name == name)
    return (value.dtype or ir.DataType.INT64).numpy()


def _picture_axis(dims: Sequence[object]) -> int | None:
    """1 for N×C×H×W, 3 for N×H×W×C, None when it is no picture."""
    if len(dims) != 4:
        return None
    for axis, plane in ((1, dims[2:]), (3, dims[1:3])):
        sides = [d for d in plane if isinstance(d, int)]
        small = any(d < _SMALLEST_PICTURE for d in sides)
        if dims[axis] in _PICTURE_CHANNELS and not small and (not sides or max(sides) <= _LONGEST_ASPECT * min(sides)):
            return axis
    return None


def _sound_axis(dims: Sequence[object], stateful: bool) -> tuple[int | None, str]:
    """The axis of samples or of frequencies, and the kind: `sound`, `spectrum`, else `features`.

    A waveform is the only axis that is long; a model fed frame by frame carries state. A spectrum of 2ᵏ·m samples has
    2ᵏ⁻¹·m + 1 frequencies.
    """
    long = [i for i, d in enumerate(dims) if i and d != 1]
    if len(long) == 1 and len(dims) <= 3:
        length = dims[long[0]]
        if not isinstance(length, int):
            return long[0], "sound"
        if length >= _SHORTEST_SOUND and length % 2 == 0 and (stateful or len(dims) == 3):
            return long[0], "sound"
    for i in long:
        n = dims[i]
        others = [d for j, d in enumerate(dims) if j not in (0, i) and d != 1]
        if isinstance(n, int) and n >= _FEWEST_FREQUENCIES and n % 8 == 1 and len(others) <= 1:
            return i, "spectrum"
    return _feature_axis(dims), "features"


def _feature_axis(dims: Sequence[object]) -> int | None:
    """The shortest fixed axis after the first: coefficients of a spectrum, channels of a signal."""
    fixed = [(d, -i) for i, d in enumerate(dims) if i and isinstance(d, int) and d > 1]
    return -min(fixed)[1] if fixed else None


def _working_shape(
    model: ir.Model,
    value: ir.Value,
    dims: Sequence[object],
    kind: str,
    roles: Roles,
    run: Callable[[Feed], object],
    seed: int,
) -> tuple[int, ...] | None:
    sizes = {"picture": _PICTURE_SIZES, "sound": _SOUND_LENGTHS}.get(kind, ())
    if all(isinstance(d, int) for d in dims[1:]):
        sizes = sizes[:1]
    working = []
    for size in sizes:
        shape = tuple(d if isinstance(d, int) else (1 if i == 0 else size) for i, d in enumerate(dims))
        rest = beside(model, Signature(str(value.name), kind, shape, None, False, roles), shape[0])
        try:
            run(rest | {str(value.name): np.zeros(shape, np.float32)})
        except Exception:  # what a runtime raises for a shape it does not take is its own affair
            continue
        working.append(shape)
        if summary(with_shapes(model, {str(value.name): shape})).macs / shape[0] <= _AFFORDABLE_MACS:
            return shape
    if working:
        return min(working, key=math.prod)
    try:
        return working_feeds(model, run, seed)[0][str(value.name)].shape
    except ModelError:
        return None


def padded_as_tensorflow_does(model: ir.Model) -> bool:
    """True where a convolution pads the ends of an axis by more than its start, as `SAME` with strides does."""
    for node in model.graph:
        found = attribute(node, "pads") if node.op_type == "Conv" else None
        pads = list(found) if isinstance(found, (list, tuple)) else []
        half = len(pads) // 2
        if any(end > start for start, end in zip(pads[:half], pads[half:], strict=True)):
            return True
    return False
