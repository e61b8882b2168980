"""Functions of one variable by operator name, in float64: `UNARY[op](x, attribute, scalars)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["UNARY"]

Float = npt.NDArray[np.float64]
Attribute = Callable[[str, Any], Any]
Scalars = Sequence[float | None]
_Function = Callable[[Float, Attribute, Scalars], Float]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Float) -> Float:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _hard_sigmoid(x: Float, alpha: float, beta: float) -> Float:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _gelu(x: Float, attribute: Attribute, _: Scalars) -> Float:
    tanh = attribute("approximate", "none") == "tanh"
    share: Float = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if tanh else _erf(x / math.sqrt(2))
    return 0.5 * x * (1 + share)


def _clip(x: Float, attribute: Attribute, scalars: Scalars) -> Float:
    given = [*scalars, None, None]
    low = attribute("min", -np.inf) if given[0] is None else given[0]
    high = attribute("max", np.inf) if given[1] is None else given[1]
    return np.minimum(np.maximum(x, low), high)


def _selu(x: Float, attribute: Attribute, _: Scalars) -> Float:
    alpha, gamma = float(attribute("alpha", 1.6732632)), float(attribute("gamma", 1.0507010))
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _prelu(x: Float, _: Attribute, scalars: Scalars) -> Float:
    return np.where(x >= 0, x, x * (scalars[0] or 0.0))


def _pow(x: Float, _: Attribute, scalars: Scalars) -> Float:
    assert scalars[0] is not None
    return np.power(x, scalars[0])


# parameters: x, attribute(name, default), the operator's further inputs where they are constant scalars
UNARY: Mapping[str, _Function] = {
    "Abs": lambda x, a, s: np.abs(x),
    "Celu": lambda x, a, s: np.maximum(x, 0) + np.minimum(0, a("alpha", 1.0) * np.expm1(x / a("alpha", 1.0))),
    "Ceil": lambda x, a, s: np.ceil(x),
    "Clip": _clip,
    "Cos": lambda x, a, s: np.cos(x),
    "Elu": lambda x, a, s: np.where(x > 0, x, a("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Erf": lambda x, a, s: _erf(x),
    "Exp": lambda x, a, s: np.exp(x),
    "Floor": lambda x, a, s: np.floor(x),
    "Gelu": _gelu,
    "HardSigmoid": lambda x, a, s: _hard_sigmoid(x, a("alpha", 0.2), a("beta", 0.5)),
    "HardSwish": lambda x, a, s: x * _hard_sigmoid(x, 1 / 6, 0.5),
    "LeakyRelu": lambda x, a, s: np.where(x >= 0, x, x * a("alpha", 0.01)),
    "Log": lambda x, a, s: np.log(x),
    "Mish": lambda x, a, s: x * np.tanh(np.logaddexp(x, 0)),
    "Neg": lambda x, a, s: -x,
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": lambda x, a, s: 1 / x,
    "Relu": lambda x, a, s: np.maximum(x, 0),
    "Round": lambda x, a, s: np.rint(x),
    "Selu": _selu,
    "Sigmoid": lambda x, a, s: _sigmoid(x),
    "Sign": lambda x, a, s: np.sign(x),
    "Sin": lambda x, a, s: np.sin(x),
    "Softplus": lambda x, a, s: np.logaddexp(x, 0),
    "Softsign": lambda x, a, s: x / (1 + np.abs(x)),
    "Sqrt": lambda x, a, s: np.sqrt(x),
    "Swish": lambda x, a, s: x * _sigmoid(a("alpha", 1.0) * x),
    "Tanh": lambda x, a, s: np.tanh(x),
    "ThresholdedRelu": lambda x, a, s: np.where(x > a("alpha", 1.0), x, 0.0),
}
