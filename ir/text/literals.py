"""How names, strings, numbers and tensors are spelled in the text form; every spelling is read back to the bit."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "DTYPES",
    "LITERAL_LIMIT",
    "build_tensor",
    "quote",
    "seeded",
    "spell_float",
    "spell_name",
    "spell_tensor",
    "unquote",
]

Array = npt.NDArray[np.generic]
Sink = Callable[[str, Array], None]

LITERAL_LIMIT = 16  # elements; a tensor with more is written as its hash
_DIGEST_BYTES = 12
_CHUNK = 1 << 20  # elements compared at a time

# spelling in the text -> element type; the words ONNX's own text syntax uses
DTYPES: Mapping[str, ir.DataType] = {dtype.name.lower(): dtype for dtype in ir.DataType}
_KEYWORDS = frozenset(DTYPES) | {"seq", "optional", "sparse_tensor", "map", "inf", "nan", "true", "false"}
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_COMPLEX: Mapping[ir.DataType, npt.DTypeLike] = {
    ir.DataType.COMPLEX64: np.float32,
    ir.DataType.COMPLEX128: np.float64,
}


def spell_name(name: str) -> str:
    """An identifier as it is when it is a plain word, otherwise quoted."""
    return name if _BARE.fullmatch(name) and name not in _KEYWORDS else quote(name)


def quote(text: str | bytes) -> str:
    """A string in double quotes on one line; bytes that are not UTF-8 become `\\xNN`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return '"' + "".join(c if c.isprintable() and c not in '\\"' else _escape(c) for c in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{{{code:x}}}"


def unquote(token: str) -> str:
    """The string of a quoted token; bytes that are not UTF-8 come back as surrogate escapes."""

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return chr(0xDC00 + int(match[1], 16))
        if match[2]:
            return chr(int(match[2], 16))
        return _UNESCAPES.get(match[3], match[3])

    return re.sub(r"\\(?:x([89a-f][0-9a-f])|u\{([0-9a-f]+)\}|(.))", replace, token[1:-1])


def spell_float(value: float) -> str:
    """The shortest decimal that reads back as the same float32; always recognisable as a float."""
    single = np.float32(value)
    text = str(single)
    if np.isfinite(single) and np.float32(float(text)) != single:
        text = repr(float(single))
    return text


def spell_tensor(tensor: ir.TensorProtocol, sink: Sink | None = None) -> str:
    """Contents of a tensor: `{1, 2}` when small, `splat(v)` when all alike, else `blake2:…`, handed to `sink`.

    A few floats whose bits no decimal gives back (NaN payloads) are written `hex:…`. The file of an external tensor
    that nobody had read yet is closed again.
    """
    if tensor.dtype == ir.DataType.STRING:
        return "{" + ", ".join(quote(s) for s in np.asarray(tensor.numpy()).reshape(-1).tolist()) + "}"
    unread = isinstance(tensor, ir.ExternalTensor) and tensor.raw is None
    try:
        return _spell(np.ascontiguousarray(tensor.numpy()), tensor.dtype, sink)
    finally:
        if unread:
            with contextlib.suppress(BufferError):  # the sink kept the array
                tensor.release()  # type: ignore[attr-defined]


def _spell(array: Array, dtype: ir.DataType, sink: Sink | None) -> str:
    if array.size <= LITERAL_LIMIT:
        return _spell_elements(array, dtype)
    raw = _bytes(array)
    if (value := _splat(raw, array)) is not None:
        literal = _spell_elements(value, dtype)
        if literal.startswith("{"):
            return f"splat({literal[1:-1]})"
    digest = hashlib.blake2b(f"{dtype.name}{array.shape}".encode(), digest_size=_DIGEST_BYTES)
    digest.update(raw.data)
    name = "blake2:" + digest.hexdigest()
    if sink is not None:
        sink(name, array)
    return name


def _bytes(array: Array) -> npt.NDArray[np.uint8]:
    return array.reshape(-1).view(np.uint8)


def _splat(raw: npt.NDArray[np.uint8], array: Array) -> Array | None:
    """The one-element array all others equal to the bit, or None; the first few elements decide nearly always."""
    rows = raw.reshape(array.size, array.dtype.itemsize)
    start, count = 0, LITERAL_LIMIT
    while start < len(rows):
        if not (rows[start : start + count] == rows[0]).all():
            return None
        start, count = start + count, _CHUNK
    return array.reshape(-1)[:1]


def _spell_elements(array: Array, dtype: ir.DataType) -> str:
    flat = array.reshape(-1)
    if dtype in _COMPLEX:
        flat = flat.view(_COMPLEX[dtype])
    integral = dtype.is_integer() or dtype == ir.DataType.BOOL
    words = [str(int(x)) if integral else _spell_element(x) for x in flat]
    try:
        back = build_tensor(words, dtype, array.shape)
    except ValueError:
        back = None
    if back is None or back.numpy().tobytes() != array.tobytes():
        return "hex:" + array.tobytes().hex()
    return "{" + ", ".join(words) + "}"


def _spell_element(x: np.generic) -> str:
    text = str(x)
    return text.removesuffix(".0")


def build_tensor(words: Sequence[str | bytes], dtype: ir.DataType, shape: Sequence[int]) -> ir.TensorProtocol:
    """A tensor from its elements as written; ValueError when one is malformed or outside the type's range."""
    if dtype == ir.DataType.STRING:
        if len(words) != math.prod(shape):
            raise ValueError(f"{len(words)} strings do not fill the shape {list(shape)}")
        strings = [w.encode("utf-8", "surrogateescape") if isinstance(w, str) else w for w in words]
        return ir.StringTensor(strings, shape=ir.Shape(shape))
    target = dtype.numpy()
    if dtype in _COMPLEX:
        parts = np.array([float(w) for w in words], np.float64).astype(_COMPLEX[dtype])
        return ir.Tensor(parts.view(target).reshape(shape), dtype=dtype)
    if dtype == ir.DataType.BOOL:
        levels = {"0": False, "1": True, "false": False, "true": True}
        if bad := [w for w in words if w not in levels]:
            raise ValueError(f"{bad[0]!r} is not a bool (0, 1, false or true)")
        return ir.Tensor(np.array([levels[str(w)] for w in words], np.bool_).reshape(shape), dtype=dtype)
    if dtype.is_integer():
        integers = [int(w) for w in words]
        low, high = _range(dtype)
        if bad_level := [i for i in integers if not low <= i <= high]:
            raise ValueError(f"{bad_level[0]} does not fit {dtype.name.lower()}")
        wide = np.uint64 if dtype == ir.DataType.UINT64 else np.int64
        return ir.Tensor(np.array(integers, wide).astype(target).reshape(shape), dtype=dtype)
    with np.errstate(over="ignore"):
        return ir.Tensor(np.array([float(w) for w in words], np.float64).astype(target).reshape(shape), dtype=dtype)


def _range(dtype: ir.DataType) -> tuple[int, int]:
    bits = dtype.bitwidth
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.is_signed() else (0, 2**bits - 1)


def seeded(seed: int, dtype: ir.DataType, shape: Sequence[int], low: float | None, high: float | None) -> Array:
    """Uniform numbers of PCG64(seed) in [low, high): by default [−1, 1), or an integer type's range within ±127."""
    unit = np.random.Generator(np.random.PCG64(seed)).random(tuple(shape))
    if dtype == ir.DataType.BOOL:
        return np.asarray(unit < 0.5)
    if dtype.is_integer():
        first, last = _range(dtype)
        first = max(first, -127) if low is None else max(first, math.ceil(low))
        last = min(last, 127) if high is None else min(last, math.ceil(high) - 1)
        return np.floor(first + unit * (last + 1 - first)).astype(np.int64).astype(dtype.numpy())
    low, high = -1.0 if low is None else low, 1.0 if high is None else high
    if not math.isfinite(high - low):
        raise ValueError("the bounds of seeded are not finite")
    values: Array = (low + unit * (high - low)).astype(dtype.numpy())
    return values
