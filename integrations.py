"""Planish inside other flows: the torch.compile back end, FX graphs, onnx_ir passes and onnxscript rewrite rules."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import PlanishError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx_ir.passes import PassBase

    from .passes.base import Pass
    from .passes.manager import PassManager

__all__ = ["EagerFallback", "fx_pass", "onnx_ir_pass", "rewrite_rules", "torch_compile"]

_VARIANTS = 8  # sets of weights and numbers for which a graph is compiled before it is left to eager mode


class EagerFallback(RuntimeWarning):
    """A graph given to the `planish` back end of torch.compile runs in eager mode; the message says why."""


def torch_compile(
    gm: Any, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, **named: Any
) -> Callable[..., Any]:
    """The back end behind `torch.compile(module, backend="planish")`: exact passes, then ONNX Runtime.

    options: `target` (name of a target, default host) and `passes` (pipeline text, default the exact passes of -O1).
    Weights are built in; when they change, the graph is compiled again. A graph that cannot be compiled, or that is
    asked for gradients, runs in eager mode with an `EagerFallback` warning that gives the reason.
    """
    settings = {**(options or {}), **named}
    unknown = sorted(set(settings) - {"mode", "passes", "target"})
    if unknown:
        raise UsageError(
            f"the planish back end has no option {', '.join(unknown)}",
            where="torch.compile",
            hint='its options are "target" and "passes", as in options={"target": "host"}',
        )
    manager, target = _pipeline(settings.get("passes"), settings.get("target", "host"))
    return _Compiled(gm, manager, target)


def fx_pass(
    gm: Any, example_inputs: Any = None, passes: Any = None, *, target: str = "host", dynamic_shapes: Any = None
) -> Any:
    """A new GraphModule that computes what `gm` does after `passes`, with the same arguments and output structure.

    gm: a `torch.fx.GraphModule` (of `symbolic_trace`, `torch.export`, …), or a module, which is exported first.
    example_inputs: a tuple of arguments; not needed where the graph carries the values it was traced with.
    passes: pipeline text or a sequence of passes; by default the exact passes of -O1.
    dynamic_shapes: axes that may vary, as `{"x": {0: "batch"}}`; the others are those of the example inputs.
    Parameters are trainable and keep their names as far as the passes keep the weights; `gm` is left as it was.
    Raises ModelError where a part has no ONNX form, or no torch form on the way back.
    """
    import torch

    from .ir.fx import to_fx
    from .ir.fx.specialize import embed
    from .ir.fx_capture import capture_torch, evaluate

    manager, context_target = _pipeline(passes, target)
    inputs = _examples(gm) if example_inputs is None else example_inputs
    if not isinstance(inputs, (tuple, list)):
        inputs = (inputs,)
    if not isinstance(gm, torch.fx.GraphModule):
        gm = torch.export.export(gm, tuple(inputs), strict=False).module()
    model = capture_torch(gm, tuple(inputs), dynamic_shapes)
    _run(manager, model, context_target)
    module = to_fx(model).module
    home = next((tensor.device for tensor in (*gm.parameters(), *gm.buffers())), None)
    if home is not None:
        module = module.to(home)
    return embed(module, gm, evaluate(gm, tuple(inputs)))


def onnx_ir_pass(text: str) -> PassBase:
    """A pipeline as an `onnx_ir.passes.PassBase`, for `onnx_ir.passes.Sequential` and `PassManager`."""
    from .passes.manager import PassManager

    return PassManager(text)


def rewrite_rules(*rules: Any) -> Pass:
    """`onnxscript` rewrite rules as one pass of ours, for `planish.PassManager` and `planish.optimize(passes=…)`."""
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    from .passes.foreign import adopt

    flat = [rule for item in rules for rule in (item.rules if isinstance(item, RewriteRuleSet) else [item])]
    stray = [rule for rule in flat if not isinstance(rule, RewriteRule)]
    if stray:
        raise UsageError(
            f"{stray[0]!r} is no rewrite rule",
            where="rewrite_rules",
            hint="give onnxscript.rewriter rules or rule sets, for a RewriteRuleClassBase its .rule()",
        )
    return adopt(RewriteRuleSet(flat))


def _pipeline(passes: Any, target: str) -> tuple[PassManager, Any]:
    from .passes import defaults
    from .passes.manager import PassManager
    from .targets.registry import resolve

    return PassManager(defaults.exact() if passes is None else passes), resolve(target)


def _run(manager: PassManager, model: ir.Model, target: Any) -> None:
    from .ir import shapes
    from .passes.context import Context

    shapes.infer(model)
    manager.run(model, Context(target=target))
    shapes.infer(model)


def _examples(gm: Any) -> tuple[Any, ...]:
    """Zeros in the shapes that an FX graph was traced with."""
    import torch

    found = []
    for node in (n for n in getattr(getattr(gm, "graph", None), "nodes", ()) if n.op == "placeholder"):
        meta = node.meta.get("val", node.meta.get("example_value", node.meta.get("tensor_meta")))
        if meta is None:
            break
        found.append(torch.zeros([int(size) for size in meta.shape], dtype=meta.dtype))
    else:
        if found:
            return tuple(found)
    raise UsageError(
        "the graph does not carry the shapes of its arguments",
        where="fx_pass",
        hint="pass example_inputs=(torch.randn(1, 3, 224, 224),), one entry for each argument",
    )


class _Compiled:
    """One graph of torch.compile: compiled at its first call, when the values of its weights are known."""

    def __init__(self, gm: Any, manager: PassManager, target: Any) -> None:
        self.gm = gm
        self.manager = manager
        self.target = target
        self.kept: tuple[int, ...] = ()
        self.calls: dict[tuple[Any, ...], Callable[[Sequence[Any]], Any]] = {}
        self.eager = False

    def __call__(self, *args: Any) -> Any:
        if self.eager:
            return self.gm(*args)
        try:
            reason = self._prepare(args)
            if not reason:
                return self.calls[_states(args, self.kept)](args)
        except PlanishError as error:
            reason = " ".join(str(error).split())
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error)[:300]}"
        self.eager = True
        warnings.warn(f"planish leaves this graph to eager mode: {reason}", EagerFallback, stacklevel=2)
        return self.gm(*args)

    def _prepare(self, args: Sequence[Any]) -> str:
        """Compile unless that is done and the weights are the same; the reason when that is not possible."""
        import torch

        if self.calls and _states(args, self.kept) in self.calls:
            return ""
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return "gradients may be asked for; call it under torch.no_grad() or torch.inference_mode()"
        elsewhere = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"})
        if elsewhere:
            return f"its tensors are on {', '.join(elsewhere)}, and ONNX Runtime runs on the CPU here"
        if len(self.calls) == _VARIANTS:
            return f"its weights or number arguments have changed {_VARIANTS} times"
        call, self.kept = _build(self.gm, args, self.manager, self.target)
        self.calls[_states(args, self.kept)] = call
        return ""


def _states(args: Sequence[Any], kept: Sequence[int]) -> tuple[Any, ...]:
    """What tells that a weight has changed: its storage and version, or the number itself."""
    import torch

    states: list[Any] = []
    for arg in (args[i] for i in kept):
        if not isinstance(arg, torch.Tensor):
            states.append(arg)
        elif arg.dim() == 0 and not isinstance(arg, torch.nn.Parameter):
            states.append(arg.item())
        else:
            states.append((arg.data_ptr(), 0 if arg.is_inference() else arg._version))
    return tuple(states)


def _build(
    gm: Any, args: Sequence[Any], manager: PassManager, target: Any
) -> tuple[Callable[[Sequence[Any]], Any], tuple[int, ...]]:
    """The compiled call, and the positions of the arguments that are built into it."""
    import torch

    from .ir.execute import Session
    from .ir.fx.specialize import specialize
    from .ir.fx_capture import capture_torch

    special = specialize(gm, args)
    model = capture_torch(special.module, tuple(args[i] for i in special.fed), special.shapes)
    _refuse_randomness(model)
    _run(manager, model, target)
    session = Session(model, optimized=True)
    names = list(special.shapes)
    wanted = {value.name for value in model.graph.inputs}

    def call(given: Sequence[Any]) -> Any:
        feeds = {name: given[i].detach().numpy() for name, i in zip(names, special.fed, strict=True) if name in wanted}
        found = session(feeds)
        return special.assemble([torch.from_numpy(found[name]) for name in session.fetch], given)

    return call, special.kept


def _refuse_randomness(model: ir.Model) -> None:
    from .errors import ModelError

    random = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
    for node in model.graph.all_nodes():
        if node.op_type in random:
            raise ModelError(
                f"{node.op_type} draws random numbers",
                where=f"node {node.name}",
                hint="torch's random numbers can only come from torch",
            )
