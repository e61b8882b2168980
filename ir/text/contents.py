"""Types and the contents of tensors, read from the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .literals import DTYPES, build_tensor, quote, seeded, unquote
from .scanner import Scanner

__all__ = ["Contents"]

Array = npt.NDArray[np.generic]

_REFERENCE = re.compile(r"(?:blake2|hex):[0-9a-f]+")
_WRAPPERS: Mapping[str, Callable[[Any], ir.TypeProtocol]] = {
    "seq": ir.SequenceType,
    "optional": ir.OptionalType,
    "sparse_tensor": lambda inner: ir.SparseTensorType(inner.dtype),
}


class Contents:
    """Reads types and tensors at the scanner's position; `weights` holds the arrays behind `blake2:…`."""

    def __init__(self, scan: Scanner, weights: Mapping[str, Array]) -> None:
        self.scan = scan
        self.weights = weights

    def at_type(self) -> bool:
        return self.scan.kind == "name" and (self.scan.token in DTYPES or self.scan.token in _WRAPPERS)

    def type(self) -> tuple[ir.TypeProtocol | None, ir.Shape | None]:
        """`float[2,N,?]`: no brackets for a scalar, empty ones for an unknown rank; `seq(…)`, `optional(…)`."""
        scan = self.scan
        if not self.at_type():
            scan.fail(f"a type was expected, not {scan.found()}", f"types are {', '.join(DTYPES)}, seq(…), optional(…)")
        word = scan.name("a type")
        if word in _WRAPPERS:
            scan.expect("(", f"after {word}")
            inner, shape = self.type()
            scan.expect(")", "after the element type")
            return _WRAPPERS[word](inner), shape
        type_ = None if word == "undefined" else ir.TensorType(DTYPES[word])
        if not scan.accept("["):
            return type_, ir.Shape(())
        dims: list[int | str | None] = []
        while not scan.accept("]"):
            if scan.accept("?"):
                dims.append(None)
            else:
                dims.append(scan.integer("a size") if scan.kind == "number" else scan.name("a dimension"))
            scan.separator("]", "between dimensions")
        return type_, ir.Shape(dims) if dims else None

    def tensor(self, dtype: ir.DataType, shape: ir.Shape | None, name: str) -> ir.TensorProtocol:
        """`{1, 2}`, `splat(v)`, `seeded(n)`, `seeded(n, low, high)`, `blake2:…` or `hex:…`."""
        scan, start = self.scan, self.scan.position
        reference = scan.match(_REFERENCE)
        words = self._words("{", "}") if reference is None and scan.token == "{" else None
        if shape is None and words is not None:
            shape = ir.Shape((len(words),))  # `float[] w = {1, 2}`: the contents say it
        dims = [d for d in shape or () if isinstance(d, int)]
        if shape is None or len(dims) != len(shape):
            scan.fail(f"the contents of {quote(name)} need a fixed shape", "write the sizes: `float[4,3] w = …`", start)
        try:
            tensor = self._contents(dtype, tuple(dims), reference, words)
        except KeyError:
            hint = "give the weights saved with the text, or write seeded(0) or splat(0) instead of the hash"
            scan.fail(f"the contents of {quote(name)} ({reference}) are not in the weights", hint, start)
        except (ValueError, TypeError, OverflowError) as error:
            hint = "the element count must be the product of the sizes, each element in the range of the type"
            scan.fail(f"the contents of {quote(name)} are wrong: {error}", hint, start)
        tensor.name = name
        return tensor

    def _contents(
        self, dtype: ir.DataType, dims: tuple[int, ...], reference: str | None, words: list[str] | None
    ) -> ir.TensorProtocol:
        if words is not None:
            return build_tensor(words, dtype, dims)
        if reference is None:
            return self._generated(dtype, dims)
        target = dtype.numpy()
        if reference.startswith("hex:"):
            return ir.Tensor(np.frombuffer(bytes.fromhex(reference[4:]), target).reshape(dims), dtype=dtype)
        return ir.Tensor(self.weights[reference].view(target).reshape(dims), dtype=dtype)

    def _generated(self, dtype: ir.DataType, dims: tuple[int, ...]) -> ir.TensorProtocol:
        scan, start = self.scan, self.scan.position
        hint = "write {1, 2, 3}, splat(1), seeded(0) or seeded(0, low, high)"
        how = scan.name("the contents of a tensor")
        if how not in ("splat", "seeded"):
            scan.fail(f"{how!r} is not a way to give the contents of a tensor", hint, start)
        arguments = self._words("(", ")")
        if dtype == ir.DataType.STRING:
            scan.fail(f"{how} gives numbers, not strings", 'write {"a", "b"}', start)
        if how == "splat":
            return ir.Tensor(np.full(dims, build_tensor(arguments, dtype, ()).numpy()), dtype=dtype)
        if len(arguments) not in (1, 3):
            scan.fail("seeded takes a seed, or a seed and two bounds", hint, start)
        low, high = (float(a) for a in arguments[1:]) if len(arguments) == 3 else (None, None)
        return ir.Tensor(seeded(int(arguments[0]), dtype, dims, low, high), dtype=dtype)

    def _words(self, opening: str, closing: str) -> list[str]:
        scan, words = self.scan, list[str]()
        scan.expect(opening, "before the elements")
        while not scan.accept(closing):
            if scan.kind not in ("number", "string", "name"):
                scan.fail(f"a number or a string was expected, not {scan.found()}", "separate elements by commas")
            words.append(unquote(scan.token) if scan.kind == "string" else scan.token)
            scan.advance()
            scan.separator(closing, "between elements")
        return words
