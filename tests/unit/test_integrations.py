"""torch.compile, FX passes, and passes and rules of onnx_ir and onnxscript on either side."""

from __future__ import annotations

import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes
import onnx_ir.passes.common
import pytest
from onnxscript.rewriter import RewriteRule, RewriteRuleSet, pattern
from planish import PassManager
from planish.errors import ModelError, UsageError
from planish.integrations import EagerFallback, fx_pass, onnx_ir_pass, rewrite_rules, torch_compile
from planish.ir.text import parse_model

# --- onnx_ir and onnxscript -------------------------------------------------------------------------------------------

CHAIN = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[2] x) => (float[2] y)
{
   a = Identity (x)
   b = Neg (a)
   c = Neg (b)
   y = Relu (c)
}
"""


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def cancel_negations() -> RewriteRule:
    return RewriteRule(lambda op, x: op.Neg(op.Neg(x)), lambda op, x: op.Identity(x))


def test_a_pipeline_of_ours_runs_inside_the_manager_of_onnx_ir() -> None:
    ours = onnx_ir_pass("remove-no-ops")
    assert isinstance(ours, onnx_ir.passes.PassBase)
    theirs = onnx_ir.passes.PassManager([onnx_ir.passes.common.RemoveUnusedNodesPass(), ours])
    result = theirs(parse_model(CHAIN))
    assert result.modified
    assert operators(result.model) == ["Neg", "Neg", "Relu"]
    assert not theirs(result.model).modified


@pytest.mark.parametrize("rules", [lambda: [cancel_negations()], lambda: [RewriteRuleSet([cancel_negations()])]])
def test_rewrite_rules_of_onnxscript_run_inside_our_manager_with_a_record(rules: Any) -> None:
    model = parse_model(CHAIN)
    outcome = PassManager([rewrite_rules(*rules()), "remove-no-ops"]).run(model)
    assert operators(model) == ["Relu"]
    assert [record.changed > 0 for record in outcome.records] == [True, True]


def test_a_rule_class_runs_through_its_rule() -> None:
    class Cancel(pattern.RewriteRuleClassBase):
        def pattern(self, op: Any, x: Any) -> Any:
            return op.Neg(op.Neg(x))

        def rewrite(self, op: Any, x: Any) -> Any:
            return op.Identity(x)

    model = parse_model(CHAIN)
    PassManager([rewrite_rules(Cancel.rule())]).run(model)
    assert "Neg" not in operators(model)


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="is no rewrite rule") as caught:
        rewrite_rules("remove-no-ops")
    assert "RewriteRuleClassBase" in caught.value.hint


def test_the_module_is_imported_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import planish.integrations as i; i.onnx_ir_pass('remove-no-ops')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHOWN = {
    "onnx_ir_passes": "planish's PassManager: fold-bn changed 6",
    "rewrite_rules": "Relu Constant Pow",
    "torch_compile": "batch 4: largest difference to eager mode",
    "fx_pass": "one step of training",
}


@pytest.mark.parametrize("example", SHOWN)
def test_an_example_shows_what_it_promises(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    if example in ("torch_compile", "fx_pass"):
        pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")
    assert SHOWN[example] in capsys.readouterr().out


# --- torch ------------------------------------------------------------------------------------------------------------

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
nn = torch.nn


class Net(nn.Module):
    """BatchNorm, a size used as a number, a number argument, and an output that is an input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.bn.running_mean.uniform_(-1, 1)

    def forward(self, x: Any, scale: float = 2.0) -> Any:
        y = torch.relu(self.bn(self.conv(x))) * scale
        return {"flat": y.flatten(1).view(x.shape[0], -1), "list": [y + 1, x], "n": x.shape[0]}


def images(batch: int) -> Any:
    return torch.linspace(-1, 1, batch * 3 * 6 * 6).reshape(batch, 3, 6, 6)


def assert_same(found: Any, expected: Any) -> None:
    leaves, spec = torch.utils._pytree.tree_flatten(found)
    wanted, structure = torch.utils._pytree.tree_flatten(expected)
    assert spec == structure
    for leaf, want in zip(leaves, wanted, strict=True):
        if isinstance(want, torch.Tensor):
            torch.testing.assert_close(leaf, want, rtol=1e-4, atol=1e-5)
        else:
            assert leaf == want


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing compiled before; a fall back to eager mode is an error."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh")
def test_a_compiled_module_gives_the_same_results_at_every_batch_and_number() -> None:
    module = Net().eval()
    compiled = torch.compile(module, backend="planish")
    with torch.no_grad():
        for batch, scale in ((2, 2.0), (3, 2.0), (5, 0.5), (1, 2.0)):
            assert_same(compiled(images(batch), scale), module(images(batch), scale))


@pytest.mark.usefixtures("fresh")
def test_a_compiled_module_follows_its_weights() -> None:
    module = nn.Linear(3, 2).eval()
    compiled = torch.compile(module, backend="planish")
    x = torch.ones(2, 3)
    with torch.no_grad():
        assert_same(compiled(x), module(x))
        module.weight.mul_(2)
        assert_same(compiled(x), module(x))
        module.weight = nn.Parameter(torch.ones(2, 3))
        assert_same(compiled(x), module(x))


@pytest.mark.usefixtures("fresh")
def test_passes_of_the_back_end_are_really_run() -> None:
    seen = []

    class Spy(onnx_ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> onnx_ir.passes.PassResult:
            seen.extend(operators(model))
            return onnx_ir.passes.PassResult(model, modified=False)

    compiled = torch.compile(Net().eval(), backend="planish", options={"passes": ["fold-bn", Spy()]})
    with torch.no_grad():
        compiled(images(2))
    assert "Conv" in seen and "BatchNormalization" not in seen


def training_norm() -> tuple[Any, Any]:
    return nn.BatchNorm1d(3).train(), torch.ones(4, 3)


LEFT_TO_EAGER = {
    "gradients": (lambda: (nn.Linear(3, 2), torch.ones(2, 3)), True, "gradients may be asked for"),
    "dropout in training": (lambda: (nn.Dropout(0.5).train(), torch.ones(9)), False, "training mode"),
    "batch norm in training": (training_norm, False, "changes tensors in place"),
    "random numbers": (lambda: (lambda x: x + torch.rand(3), torch.ones(3)), False, "draws random numbers"),
    "an input changed in place": (lambda: (lambda x: x.mul_(2), torch.ones(3)), False, "changes tensors in place"),
    "an unsupported operator": (lambda: (lambda x: torch.linalg.svd(x)[1], torch.eye(3)), False, "_linalg_svd"),
}


@pytest.mark.parametrize("case", LEFT_TO_EAGER)
def test_what_cannot_be_compiled_runs_in_eager_mode_and_says_why(case: str) -> None:
    make, gradients, reason = LEFT_TO_EAGER[case]
    torch._dynamo.reset()
    module, x = make()
    compiled = torch.compile(module, backend="planish")
    with torch.set_grad_enabled(gradients):
        torch.manual_seed(1)
        with pytest.warns(EagerFallback, match=reason):
            found = compiled(x.clone())
        torch.manual_seed(1)
        assert_same(found, make()[0](x.clone()) if "norm" in case else module(x.clone()))
        with warnings.catch_warnings():
            warnings.simplefilter("error", EagerFallback)
            compiled(x.clone())  # said once
    assert found.requires_grad is gradients


def test_an_unknown_option_is_an_error_at_once() -> None:
    with pytest.raises(UsageError, match="no option passed"):
        torch_compile(torch.fx.symbolic_trace(nn.ReLU()), [], options={"passed": "fold-bn"})


def graph_modules() -> dict[str, Any]:
    module = Net().eval()
    return {
        "symbolic_trace": (torch.fx.symbolic_trace(module, concrete_args={"scale": 2.0}), (images(2),)),
        "torch.export": (torch.export.export(module, (images(2),)).module(), None),
        "module": (module, (images(2),)),
    }


@pytest.mark.parametrize("origin", ["symbolic_trace", "torch.export", "module"])
def test_an_fx_pass_gives_back_a_graph_module_of_the_same_signature(origin: str) -> None:
    gm, inputs = graph_modules()[origin]
    improved = fx_pass(gm, inputs)
    assert isinstance(improved, torch.fx.GraphModule)
    assert_same(improved(images(2)), Net().eval()(images(2)))
    assert not [node for node in improved.graph.nodes if "batch_norm" in str(node.target)]
    assert all(parameter.requires_grad for parameter in improved.parameters())


def test_an_fx_pass_leaves_the_graph_module_as_it_was() -> None:
    module = Net().train()
    gm = torch.fx.symbolic_trace(module, concrete_args={"scale": 2.0}).train()
    state = {name: tensor.clone() for name, tensor in gm.state_dict().items()}
    code = gm.code
    improved = fx_pass(gm, images(2), passes="fold-bn")
    with torch.no_grad():
        for parameter in improved.parameters():
            parameter.zero_()
    assert gm.code == code and gm.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in gm.state_dict().items())


def test_an_fx_pass_keeps_dimensions_dynamic_and_names_of_weights() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    gm = torch.fx.symbolic_trace(module)
    improved = fx_pass(gm, images(1), dynamic_shapes={"input": {0: "batch"}})
    assert {name for name, _ in improved.named_parameters()} == set(module.state_dict())
    for batch in (1, 4):
        assert_same(improved(images(batch)), module(images(batch)))


def test_an_fx_pass_handles_nested_results_and_unused_arguments() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: Any, unused: Any, h: Any = None) -> Any:
            return self.lstm(x)

    module = Recurrent().eval()
    gm = torch.fx.GraphModule(module, torch.fx.Tracer().trace(module))
    inputs = (torch.linspace(-1, 1, 2 * 7 * 4).reshape(2, 7, 4), torch.ones(1))
    assert_same(fx_pass(gm, inputs)(*inputs), module(*inputs))


def test_an_fx_pass_without_shapes_asks_for_them() -> None:
    with pytest.raises(UsageError, match="does not carry the shapes") as caught:
        fx_pass(torch.fx.symbolic_trace(nn.ReLU()))
    assert "example_inputs=" in caught.value.hint


def test_an_fx_pass_over_an_unsupported_operator_is_an_error() -> None:
    gm = torch.fx.symbolic_trace(lambda x: torch.linalg.svd(x)[1])
    with pytest.raises(ModelError, match=r"no ONNX form for aten\._linalg_svd"):
        fx_pass(gm, torch.eye(3))
