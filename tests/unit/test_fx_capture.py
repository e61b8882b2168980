"""Torch into the IR: names, BatchNorm, provenance, dynamic dimensions, eval semantics, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planish.errors import ModelError, UsageError
from planish.ir import metadata
from planish.ir.capture import capture
from planish.ir.execute import execute

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
nn = torch.nn


class Block(nn.Module):
    """Convolution, BatchNorm with statistics that are not the initial ones, dropout and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.bn.running_mean.uniform_(-1, 1)
        self.bn.running_var.uniform_(0.5, 2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, image: Any) -> Any:
        y = torch.relu(self.bn(self.conv(image)))
        return self.fc(self.drop(y.mean((2, 3))))


IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def difference(model: Any, module: Any, image: Any) -> float:
    with torch.no_grad():
        expected = module(image).numpy()
    (found,) = execute(model, {"image": image.numpy()}).values()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def forms() -> dict[str, Any]:
    module = Block().eval()
    return {
        "module": (module, IMAGE),
        "graph module": (torch.fx.symbolic_trace(module), (IMAGE,)),
        "exported program": (torch.export.export(module, (IMAGE,)), None),
    }


@pytest.mark.parametrize("form", ["module", "graph module", "exported program"])
def test_every_form_keeps_batch_norm_statistics_and_names(form: str) -> None:
    source, inputs = forms()[form]
    model = capture(source, inputs)
    operators = [node.op_type for node in model.graph]
    assert operators == ["Conv", "BatchNormalization", "Relu", "ReduceMean", "Gemm"]
    assert [value.name for value in model.graph.inputs] == ["image"]
    state = Block().state_dict()
    for name in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "fc.weight", "fc.bias"):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), state[name].numpy())
    assert difference(model, Block().eval(), IMAGE) < 1e-5


def test_every_node_says_where_it_came_from_and_nothing_else_is_left() -> None:
    model = capture(Block(), IMAGE)
    sources = {node.op_type: metadata.get(node, metadata.SOURCE) for node in model.graph}
    assert sources["Conv"] == ["conv/conv2d"]
    assert sources["BatchNormalization"][0].startswith("bn/")
    assert sources["Relu"] == ["relu"]
    assert all(set(node.metadata_props) == {metadata.SOURCE} for node in model.graph)


def test_a_module_in_training_mode_is_captured_in_eval_mode_and_left_as_it_was() -> None:
    module = Block().train()
    module.conv.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = capture(module, IMAGE)
    assert module.training and module.bn.training and not module.conv.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert difference(model, Block().eval(), IMAGE) < 1e-5


def test_training_the_module_further_does_not_change_the_model() -> None:
    module = Block().eval()
    model = capture(module, IMAGE)
    with torch.no_grad():
        module.fc.weight.zero_()
    assert difference(model, Block().eval(), IMAGE) < 1e-5


def test_named_dimensions_stay_dynamic_even_from_an_example_of_size_one() -> None:
    model = capture(Block(), IMAGE[:1], dynamic_shapes={"image": {0: "batch", 2: "height"}})
    shape = model.graph.inputs[0].shape
    assert shape is not None
    assert [str(dim) for dim in shape] == ["batch", "3", "height", "8"]
    for image in (IMAGE[:1], IMAGE, torch.ones(3, 3, 5, 8)):
        assert difference(model, Block().eval(), image) < 1e-5


def test_keyword_inputs_optional_inputs_and_nested_outputs() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Any, mask: Any = None, *, scale: Any) -> Any:
            return {"a": x * scale if mask is None else x * mask, "b": [x + 1, x - scale]}

    model = capture(Scaled(), {"x": torch.ones(2, 2), "scale": torch.full((1,), 3.0)})
    assert [value.name for value in model.graph.inputs] == ["x", "scale"]
    found = execute(model, {"x": np.ones((2, 2), np.float32), "scale": np.full(1, 3, np.float32)})
    assert [float(a.flat[0]) for a in found.values()] == [3, 2, -2]


def test_a_weight_rearranged_by_the_exporter_keeps_its_name() -> None:
    model = capture(nn.Sequential(nn.GRU(4, 5)), torch.ones(3, 1, 4))
    assert {"0.weight_ih_l0", "0.weight_hh_l0"} <= set(model.graph.initializers)
    assert "GRU" in [node.op_type for node in model.graph]


def test_a_large_tied_weight_stays_one_initialiser() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(200, 32)
            self.head = nn.Linear(32, 200, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Any) -> Any:
            return self.head(self.embed(ids))

    model = capture(Tied(), torch.zeros(1, 3, dtype=torch.long))
    assert [value.shape for value in model.graph.initializers.values() if value.const_value.size > 100] == [(200, 32)]


def test_bfloat16_weights_are_kept_to_the_bit() -> None:
    module = nn.Linear(3, 4).bfloat16()
    model = capture(module, torch.ones(1, 3, dtype=torch.bfloat16))
    tensor = model.graph.initializers["weight"].const_value
    assert tensor is not None
    assert tensor.tobytes() == module.weight.detach().view(torch.int16).numpy().tobytes()


def test_capturing_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    capture(Block(), IMAGE)
    assert capfd.readouterr() == ("", "")


class Svd(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.svd(x)[1]


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.count += 1
        return x * self.count


REFUSED = {
    "an unsupported operator": (lambda: (Svd(), torch.eye(3)), ModelError, "no ONNX form for aten._linalg_svd"),
    "control flow on values": (lambda: (Branching(), torch.ones(3)), ModelError, "cannot capture Branching"),
    "changed state": (lambda: (Counting(), torch.ones(3)), ModelError, "changes tensors in place: count"),
    "a program in training mode": (
        lambda: (torch.export.export(nn.Dropout(0.5).train(), (torch.ones(3),)), None),
        ModelError,
        "training mode",
    ),
    "no inputs": (lambda: (Block(), None), UsageError, "only be captured with example inputs"),
    "inputs that do not fit": (lambda: (Block(), (1, 2)), UsageError, "do not fit forward"),
    "TorchScript": (lambda: (torch.jit.script(nn.ReLU()), torch.ones(1)), UsageError, "cannot be captured"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_what_cannot_be_captured_is_refused_with_the_reason(case: str) -> None:
    make, kind, reason = REFUSED[case]
    with pytest.raises(kind, match=reason) as caught:
        capture(*make())
    assert caught.value.where and caught.value.hint


def test_a_dimension_that_the_module_fixes_cannot_be_dynamic() -> None:
    with pytest.raises(ModelError) as caught:
        capture(nn.Linear(3, 2), torch.ones(2, 3), dynamic_shapes={"input": {1: "features"}})
    assert "leave it out of dynamic_shapes" in caught.value.hint
    with pytest.raises(UsageError, match="'image', which is no input"):
        capture(nn.Linear(3, 2), torch.ones(2, 3), dynamic_shapes={"image": {0: "batch"}})
