"""TVM's ONNX frontend, quiet, with converters of ours for operators that it makes something unwieldy of."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from .floats import activation_products
from .fusion import WHAT_FOLLOWS

__all__ = ["LEVEL_PRODUCT", "imported"]

LEVEL_PRODUCT = "LevelProduct"


def imported(proto: Any, noise: io.StringIO) -> Any:
    """The Relax module of an ONNX model; `noise` receives what the frontend prints before it raises."""
    from tvm.relax.frontend.onnx import from_onnx

    logger = logging.getLogger("tvm")
    level = logger.level
    try:
        # The frontend renames values and warns about it.
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise), _converters():
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            return from_onnx(proto)
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _converters() -> Iterator[None]:
    from tvm.relax.frontend.onnx import onnx_frontend as tvm_frontend

    operators = {LEVEL_PRODUCT: _level_product, activation_products.PRODUCT: activation_products.converter}
    own_operators = {name: _Converter(convert) for name, convert in operators.items()}
    known = {**tvm_frontend._get_convert_map(), **own_operators}
    own = mock.patch.object(tvm_frontend, "_get_convert_map", lambda: known)
    clip = mock.patch.object(tvm_frontend.Clip, "_impl_v13", _clip(tvm_frontend.Clip._impl_v13))
    variadic = mock.patch.object(tvm_frontend.MultiInputBase, "_impl_v1", classmethod(_pairwise))
    with own, clip, variadic:
        yield


@dataclass(frozen=True)
class _Converter:
    """What the frontend asks for the function that converts an operator, of any opset."""

    convert: Callable[..., Any]

    def get_converter(self, opset: int) -> Callable[..., Any]:
        return self.convert


def _level_product(builder: Any, inputs: Any, attributes: Any, parameters: Any) -> Any:
    """x · (W − z) for W in integers, which are converted as they are read: a node that `rewrites` makes."""
    from tvm import te

    centered = bool(np.any(inputs[2].value.numpy()))

    def product(x: Any, levels: Any, zeros: Any) -> Any:
        k = te.reduce_axis((0, levels.shape[0]), name="k")

        def term(*index: Any) -> Any:
            level = levels[k, index[-1]].astype("float32")
            weight = level - zeros[index[-1]] if centered else level
            return te.sum(x(*index[:-1], k) * weight, axis=k)

        return te.compute((*x.shape[:-1], levels.shape[1]), term, name="level_product")

    attributes = {"op_pattern": WHAT_FOLLOWS}
    return builder.emit_te(product, *inputs, primfunc_name_hint="level_product", primfunc_attrs=attributes)


def _pairwise(converter: Any, builder: Any, inputs: Any, attributes: Any, parameters: Any) -> Any:
    """Max, Min, Mean and Sum as binary operators: ConvertLayout fails on the stack that the frontend makes of them."""
    return inputs[0] if len(inputs) == 1 else converter._impl_dynamic(builder, inputs)


def _clip(original: Callable[..., Any]) -> Callable[..., Any]:
    """Clip as Relax operators where its bounds are numbers: as min and max with tensors of the operand's rank.

    The frontend makes PrimFuncs of its own; ConvertLayout cannot move a feature map through those, nor through clip.
    """
    from tvm import relax
    from tvm.ir import Constant

    def convert(builder: Any, inputs: Any, attributes: Any, parameters: Any) -> Any:
        result, low, high = inputs[0], inputs[1], inputs[2]
        known = all(bound is None or isinstance(bound, Constant) for bound in (low, high))
        if not known or any(bound is not None and np.isnan(bound.value.numpy()).any() for bound in (low, high)):
            return original(builder, inputs, attributes, parameters)
        ones = [1] * int(result.ty.ndim)
        for bound, operator in ((low, relax.op.maximum), (high, relax.op.minimum)):
            if bound is not None:
                result = builder.normalize(operator(result, relax.const(bound.value.numpy().reshape(ones))))
        return result

    return convert
