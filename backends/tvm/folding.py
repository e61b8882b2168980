"""Relax operators on constants, evaluated with numpy while they are legalised: TVM would compile a kernel for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .fusion import OPAQUE

__all__ = ["VIEWS", "legalizations"]

Array = npt.NDArray[np.generic]

# Shape changes of a dense row-major array cost nothing: they stay Relax operators and become views of the program.
VIEWS = ("relax.expand_dims", "relax.flatten", "relax.memory.view", "relax.reshape", "relax.squeeze")

# operator -> numpy's function of the same arguments
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.divide": np.divide,
    "relax.isnan": np.isnan,
    "relax.multiply": np.multiply,
    "relax.negative": np.negative,
    "relax.sqrt": np.sqrt,
    "relax.subtract": np.subtract,
    "relax.where": np.where,
}


_CONVOLUTION = ("strides", "padding", "dilation", "groups", "data_layout", "kernel_layout", "out_layout")
# operator that sums products -> its attributes, but for the type of the result
_PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "relax.matmul": (),
    "relax.nn.conv1d": _CONVOLUTION,
    "relax.nn.conv2d": _CONVOLUTION,
    "relax.nn.conv2d_transpose": (*_CONVOLUTION, "output_padding"),
}


def legalizations() -> dict[str, Callable[[Any, Any], Any]]:
    """What LegalizeOps is to do with these operators: fold constants, leave views, gather safely, else as TVM does."""
    from tvm.ir import Op

    folds: dict[str, Callable[[Any, list[Array]], Any]] = {
        name: _call(function) for name, function in _FUNCTIONS.items()
    }
    folds["relax.permute_dims"] = _transpose
    folds |= dict.fromkeys(VIEWS, _reshape)
    rules = {name: _rule(fold, None if name in VIEWS else Op.get(name)) for name, fold in folds.items()}
    rules |= {"relax.take": _take, "relax.strided_slice": _slice} | dict.fromkeys(_PRODUCTS, _wide_sums)
    return rules | {"relax.nn.conv2d_transpose": _channels_first}


def _channels_first(builder: Any, call: Any) -> Any:
    """ConvertLayout turns transposed convolutions too, which TVM has no kernel for: they are turned back."""
    from tvm import relax, topi

    turned = [str(getattr(call.attrs, name)) for name in ("data_layout", "kernel_layout", "out_layout")]
    if turned == ["NCHW", "IOHW", "NCHW"]:
        return _wide_sums(builder, call)
    data, weight = (
        builder.emit(builder.call_te(topi.transpose, argument, [layout.index(axis) for axis in axes]))
        for argument, layout, axes in zip(call.args, turned, ("NCHW", "IOHW"), strict=False)
    )
    names = ("strides", "padding", "output_padding", "dilation", "groups")
    options = {name: getattr(call.attrs, name) for name in names}
    plain = builder.normalize(relax.op.nn.conv2d_transpose(data, weight, **options))
    result = builder.emit(_wide_sums(builder, plain))
    return builder.call_te(topi.transpose, result, ["NCHW".index(axis) for axis in turned[2]])


def _wide_sums(builder: Any, call: Any) -> Any:
    """Products of 16-bit floats are summed in float32 and rounded once."""
    from tvm import relax, topi

    rule, dtype = call.op.get_attr("FLegalize"), str(call.ty.dtype)
    if dtype not in ("float16", "bfloat16"):
        return rule(builder, call)
    options = {name: getattr(call.attrs, name) for name in _PRODUCTS[call.op.name]}
    make = relax.op.matmul if call.op.name == "relax.matmul" else getattr(relax.op.nn, call.op.name.rpartition(".")[2])
    wide = builder.normalize(make(*call.args, **options, out_dtype="float32"))
    return builder.call_te(topi.cast, builder.emit(rule(builder, wide)), dtype)


def _call(function: Callable[..., Any]) -> Callable[[Any, list[Array]], Any]:
    return lambda _, arrays: function(*arrays)


def _rule(fold: Callable[[Any, list[Array]], Any], op: Any) -> Callable[[Any, Any], Any]:
    from tvm import relax

    def legalize(builder: Any, call: Any) -> Any:
        arrays = [_constant(builder, argument) for argument in call.args[:1] if op is None] or [
            _constant(builder, argument) for argument in call.args
        ]
        known = [array for array in arrays if array is not None]
        if len(known) == len(arrays):
            with np.errstate(all="ignore"):
                return relax.const(np.asarray(fold(call, known), str(call.ty.dtype), order="C"))
        return call if op is None else op.get_attr("FLegalize")(builder, call)

    return legalize


def _constant(builder: Any, argument: Any) -> Array | None:
    from tvm import relax
    from tvm.ir import Constant

    while isinstance(argument, relax.Var):
        bound = builder.lookup_binding(argument)
        if bound is None:
            return None
        argument = bound
    return argument.value.numpy() if isinstance(argument, Constant) and hasattr(argument.value, "numpy") else None


def _take(builder: Any, call: Any) -> Any:
    """Indices are clipped, or wrapped where the frontend asks for it: its other mode reads outside of the array."""
    from tvm import topi

    mode = "wrap" if call.attrs.mode == "wrap" else "clip"
    return builder.call_te(topi.take, call.args[0], call.args[1], call.attrs.axis, mode=mode)


def _slice(builder: Any, call: Any) -> Any:
    """A part of a product's results is a kernel of its own: fused with the sums it would take their template away."""
    from tvm import relax
    from tvm.ir import Op

    made = Op.get("relax.strided_slice").get_attr("FLegalize")(builder, call)
    source = builder.lookup_binding(call.args[0]) if isinstance(call.args[0], relax.Var) else None
    sums = next((str(getattr(argument, "name_hint", "")) for argument in getattr(source, "args", ())), "")
    # the last two where sums have a bias, or are rounded to 16 bits
    if sums.startswith(("conv2d", "matmul", "add", "cast")):
        function = made.args[0]
        builder.update_func(function, builder.get()[function].with_attr("op_pattern", OPAQUE))
    return made


def _transpose(call: Any, arrays: list[Array]) -> Array:
    axes = call.attrs.axes
    return np.transpose(arrays[0], None if axes is None else [int(axis) for axis in axes])


def _reshape(call: Any, arrays: list[Array]) -> Array:
    return arrays[0].reshape([int(extent) for extent in call.ty.shape])
