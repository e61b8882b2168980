"""ONNX `RNN`, `GRU` and `LSTM` in torch: one step at a time, every variant of the specification, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .tensors import leaf

Tensor = Any
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]

# ONNX activation -> torch function of (x, alpha, beta), and the default alpha and beta of the specification
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "affine": (lambda x, a, b: x * a + b, 1.0, 0.0),
    "elu": (lambda x, a, b: F.elu(x, a), 1.0, 0.0),
    "hardsigmoid": (lambda x, a, b: torch.clamp(x * a + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: F.leaky_relu(x, a), 0.01, 0.0),
    "relu": (lambda x, a, b: torch.relu(x), 0.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x, a, b: torch.sigmoid(x), 0.0, 0.0),
    "softplus": (lambda x, a, b: F.softplus(x), 0.0, 0.0),
    "softsign": (lambda x, a, b: F.softsign(x), 0.0, 0.0),
    "tanh": (lambda x, a, b: torch.tanh(x), 0.0, 0.0),
    "thresholdedrelu": (lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x)), 1.0, 0.0),
}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_CELL_STATE = 2  # index of the activation of an LSTM's cell state, which ONNX Runtime does not clip


@leaf
def rnn(
    X: Tensor, W: Tensor, R: Tensor, B: Any = None, sequence_lens: Any = None, initial_h: Any = None, **o: Any
) -> Any:
    return _run("RNN", _rnn_step, X, W, R, B, sequence_lens, (initial_h,), None, o)


@leaf
def gru(
    X: Tensor, W: Tensor, R: Tensor, B: Any = None, sequence_lens: Any = None, initial_h: Any = None, **o: Any
) -> Any:
    return _run("GRU", _gru_step, X, W, R, B, sequence_lens, (initial_h,), None, o)


@leaf
def lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    P: Any = None,
    **options: Any,
) -> Any:
    return _run("LSTM", _lstm_step, X, W, R, B, sequence_lens, (initial_h, initial_c), P, options)


def _run(
    kind: str,
    make_step: Callable[..., Step],
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Any,
    lengths: Any,
    initial: Sequence[Any],
    P: Any,
    options: dict[str, Any],
) -> tuple[Tensor, ...]:
    """All directions; Y is [frames, directions, batch, hidden] (layout 0), then the last state(s)."""
    if options.get("layout", 0):
        X = X.transpose(0, 1)
        initial = [None if s is None else s.transpose(0, 1) for s in initial]
    hidden = R.shape[-1]
    functions = _activations(kind, W.shape[0], options)
    outputs, finals = [], []
    for d in range(W.shape[0]):
        backwards = d == 1 or options.get("direction", "forward") == "reverse"
        zeros = X.new_zeros(X.shape[1], hidden)
        state = tuple(zeros if s is None else s[d] for s in initial)
        bias = X.new_zeros(2 * _GATES[kind] * hidden) if B is None else B[d]
        step = make_step(R[d], bias, None if P is None else P[d], functions[d], options)
        inputs = F.linear(X, W[d], bias[: _GATES[kind] * hidden])
        y, state = _scan(step, inputs, state, lengths, backwards)
        outputs.append(y)
        finals.append(state)
    result = (torch.stack(outputs, 1), *(torch.stack(states) for states in zip(*finals, strict=True)))
    if options.get("layout", 0):
        return (result[0].permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in result[1:]))
    return result


def _scan(step: Step, inputs: Tensor, state: State, lengths: Any, backwards: bool) -> tuple[Tensor, State]:
    frames = list(range(inputs.shape[0]))
    rows: dict[int, Tensor] = {}
    for t in reversed(frames) if backwards else frames:
        new = step(inputs[t], state)
        if lengths is None:
            state, rows[t] = new, new[0]
        else:  # beyond its length a sequence keeps its state and gives zeros
            live = (t < lengths).unsqueeze(-1).to(inputs.device)
            state = tuple(torch.where(live, n, s) for n, s in zip(new, state, strict=True))
            rows[t] = torch.where(live, new[0], torch.zeros_like(new[0]))
    return torch.stack([rows[t] for t in frames]), state


def _activations(kind: str, directions: int, options: dict[str, Any]) -> list[list[Callable[[Tensor], Tensor]]]:
    size = len(_DEFAULTS[kind])
    names = list(options.get("activations") or _DEFAULTS[kind] * directions)
    alphas, betas = list(options.get("activation_alpha") or []), list(options.get("activation_beta") or [])
    made: list[Callable[[Tensor], Tensor]] = []
    for i, name in enumerate(names):
        function, alpha, beta = _ACTIVATIONS[name.lower()]
        alpha, beta = alphas[i] if i < len(alphas) else alpha, betas[i] if i < len(betas) else beta
        made.append(_bound(function, alpha, beta, None if i % size == _CELL_STATE else options.get("clip")))
    return [made[d * size : (d + 1) * size] for d in range(directions)]


def _bound(
    function: Callable[..., Tensor], alpha: float, beta: float, clip: float | None
) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x if not clip else torch.clamp(x, -clip, clip), alpha, beta)


def _rnn_step(R: Tensor, bias: Tensor, P: Any, functions: Any, options: Any) -> Step:
    (activate,) = functions
    recurrent = bias[R.shape[-1] :]

    def step(x: Tensor, state: State) -> State:
        return (activate(x + F.linear(state[0], R, recurrent)),)

    return step


def _gru_step(R: Tensor, bias: Tensor, P: Any, functions: Any, options: Any) -> Step:
    gate, activate = functions
    n = R.shape[-1]
    recurrent = bias[3 * n :]
    after = bool(options.get("linear_before_reset", 0))

    def step(x: Tensor, state: State) -> State:
        (h,) = state
        z, r = torch.split(gate(x[:, : 2 * n] + F.linear(h, R[: 2 * n], recurrent[: 2 * n])), n, 1)
        if after:
            candidate = activate(x[:, 2 * n :] + r * F.linear(h, R[2 * n :], recurrent[2 * n :]))
        else:
            candidate = activate(x[:, 2 * n :] + F.linear(r * h, R[2 * n :], recurrent[2 * n :]))
        return ((1 - z) * candidate + z * h,)

    return step


def _lstm_step(R: Tensor, bias: Tensor, P: Any, functions: Any, options: Any) -> Step:
    gate, cell, hidden = functions
    n = R.shape[-1]
    recurrent = bias[4 * n :]
    peep_i, peep_o, peep_f = (None, None, None) if P is None else torch.split(P, n)
    coupled = bool(options.get("input_forget", 0))

    def step(x: Tensor, state: State) -> State:
        h, c = state
        i, o, f, g = torch.split(x + F.linear(h, R, recurrent), n, 1)
        if P is not None:
            i, f = i + peep_i * c, f + peep_f * c
        i = gate(i)
        f = 1 - i if coupled else gate(f)
        c = f * c + i * cell(g)
        return gate(o if P is None else o + peep_o * c) * hidden(c), c

    return step
