"""The FX bridge: pieces of a graph, gradients, weights written back, and what is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from planish.errors import ModelError
from planish.ir.execute import execute
from planish.ir.text import parse_model

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
fx = pytest.importorskip("planish.ir.fx")

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"

RESIDUAL = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[n,3,6,6] x) => (float[n,2] y)
   <float[4,3,3,3] w = seeded(0), float[4] scale = seeded(1, 0.5, 2), float[4] shift = seeded(2),
    float[4] mean = seeded(3), float[4] var = seeded(4, 0.5, 2),
    float[4,4,1,1] v = seeded(5), float[2,4] m = seeded(6), float[2] b = seeded(7)>
{
   [first] c = Conv <pads = [1,1,1,1]> (x, w)
   [second] d = BatchNormalization (c, scale, shift, mean, var)
   [third] r = Relu (d)
   [fourth] e = Conv (r, v)
   [fifth] a = Add (e, r)
   [sixth] p = GlobalAveragePool (a)
   [seventh] f = Flatten (p)
   [eighth] y = Gemm <transB = 1> (f, m, b)
}
"""


def residual() -> ir.Model:
    return parse_model(RESIDUAL)


def run(bridge: Any, *arrays: Any) -> list[Any]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in bridge.module(*map(torch.from_numpy, arrays))]


def example(batch: int = 2) -> Any:
    return np.random.default_rng(batch).standard_normal((batch, 3, 6, 6), dtype=np.float32)


def test_the_whole_model_computes_what_onnx_runtime_computes_at_any_batch() -> None:
    model = residual()
    bridge = fx.to_fx(model)
    assert (bridge.inputs, bridge.outputs) == (("x",), ("y",))
    for batch in (1, 3):
        x = example(batch)
        assert np.allclose(run(bridge, x)[0], execute(model, {"x": x})["y"], rtol=1e-5, atol=1e-5)


def test_parameters_are_the_float_initialisers_except_statistics() -> None:
    module = fx.to_fx(residual()).module
    assert {name for name, _ in module.named_parameters()} == {"w", "scale", "shift", "v", "m", "b"}
    assert {name for name, _ in module.named_buffers()} == {"mean", "var"}
    frozen = fx.to_fx(residual(), trainable=False).module
    assert not list(frozen.parameters())


def test_every_parameter_gets_a_gradient_and_every_fx_node_names_its_onnx_node() -> None:
    bridge = fx.to_fx(residual())
    bridge.module(torch.from_numpy(example()))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bridge.module.parameters())
    named = {node.meta["onnx"] for node in bridge.module.graph.nodes if node.op == "call_function"}
    assert named == {"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"}


def test_a_piece_has_the_values_at_its_border_as_inputs_and_outputs() -> None:
    model = residual()
    nodes = {node.name: node for node in model.graph}
    block = fx.to_fx(model, [nodes["fifth"], nodes["fourth"]])  # in any order
    assert (block.inputs, block.outputs) == (("r",), ("a",))
    head = fx.to_fx(model, [nodes["third"], nodes["fourth"]])
    assert (head.inputs, head.outputs) == (("d",), ("r", "e"))  # r is also read by the Add outside
    join = fx.to_fx(model, [nodes["fifth"]])
    assert (join.inputs, join.outputs) == (("e", "r"), ("a",))
    inside = execute(model, {"x": example()}, fetch=["r", "a"])
    assert np.allclose(run(block, inside["r"])[0], inside["a"], atol=1e-5)


def test_writing_back_untouched_weights_changes_nothing() -> None:
    model = residual()
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert fx.to_fx(model).write_back() == []
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in tensors.items())


def test_training_changes_the_model_only_through_write_back() -> None:
    model = residual()
    x = example()
    before = execute(model, {"x": x})["y"]
    bridge = fx.to_fx(model)
    optimizer = torch.optim.SGD(bridge.module.parameters(), lr=0.1)
    bridge.module(torch.from_numpy(x))[0].square().sum().backward()
    optimizer.step()
    assert np.array_equal(execute(model, {"x": x})["y"], before)
    assert sorted(bridge.write_back()) == ["b", "m", "scale", "shift", "v", "w"]
    after = execute(model, {"x": x})["y"]
    assert not np.allclose(after, before, atol=1e-4)
    assert np.allclose(after, run(bridge, x)[0], rtol=1e-5, atol=1e-5)
    assert model.graph.initializers["w"].const_value.dtype == ir.DataType.FLOAT


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_weights_of_every_float_type_come_back_to_the_bit(dtype: Any) -> None:
    array = np.arange(-3, 3).astype(dtype).reshape(2, 3)
    x = ir.Value(name="x", type=ir.TensorType(ir.tensor(array).dtype), shape=ir.Shape([2, 3]))
    w = ir.Value(name="w", const_value=ir.tensor(array, name="w"))
    node = ir.Node("", "Add", [x, w], name="add")
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    bridge = fx.to_fx(model)
    assert bridge.write_back() == []
    with torch.no_grad():
        bridge.module.w[0, 0] += 1
    assert bridge.write_back() == ["w"]
    expected = array.copy()
    expected[0, 0] = -2
    assert w.const_value is not None and w.const_value.numpy().dtype == dtype
    assert w.const_value.tobytes() == expected.tobytes()


def test_the_module_can_be_copied_pickled_and_traced_again() -> None:
    bridge = fx.to_fx(ir.load(DIGITS))
    x = torch.linspace(0, 16, 2 * 64).reshape(2, 1, 8, 8)
    expected = bridge.module(x)[0]
    retraced = torch.fx.symbolic_trace(bridge.module)
    for module in (copy.deepcopy(bridge.module), pickle.loads(pickle.dumps(bridge.module)), retraced):
        assert torch.equal(module(x)[0], expected)


def test_quantization_is_exact_forwards_and_straight_through_backwards() -> None:
    model = parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        main (float[2,3] x) => (float[2,3] y, int8[2,3] q)
           <float s = {0.1}, int8 z = {5}>
        {
           [quantize] q = QuantizeLinear (x, s, z)
           [dequantize] y = DequantizeLinear (q, s, z)
        }
        """
    )
    bridge = fx.to_fx(model)
    x = np.array([[-20, -1.23, 0.04], [0.05, 0.15, 20]], np.float32)
    expected = execute(model, {"x": x})
    y, q = bridge.module(torch.from_numpy(x).requires_grad_())
    assert q.dtype == torch.int8
    assert np.array_equal(q.numpy(), expected["q"]) and np.array_equal(y.detach().numpy(), expected["y"])
    leaf = torch.from_numpy(x).requires_grad_()
    bridge.module(leaf)[0].sum().backward()
    assert torch.allclose(leaf.grad, torch.tensor([[0.0, 1, 1], [1, 1, 0]]))  # 0 where the integer is clipped
    assert bridge.module.s.grad is not None


def test_names_that_python_does_not_take_or_that_fall_together_are_changed() -> None:
    arrays = {"in": 1.0, "a.b": 2.0, "a_b": 3.0, "0": 4.0, "a": 5.0, "a.b.forward": 6.0}
    names = list(arrays)
    inputs = [ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])) for n in names]
    weights = [ir.Value(name=f"w.{n}", const_value=ir.tensor(np.array([x], np.float32))) for n, x in arrays.items()]
    node = ir.node("Sum", [*inputs, *weights], name="sum")
    graph = ir.Graph(inputs, node.outputs, nodes=[node], initializers=weights, opset_imports={"": 20})
    bridge = fx.to_fx(ir.Model(graph, ir_version=10))
    assert bridge.inputs == tuple(names)
    assert bridge.module(*(torch.tensor([x]) for x in arrays.values()))[0].item() == 42
    assert sorted(value.name for value in bridge.weights.values()) == sorted(f"w.{n}" for n in names)


CONDITIONAL = """
<ir_version: 10, opset_import: ["" : 20]>
main (bool c, float[3] x) => (float[3] y)
   <float[3] w = {1,2,3}>
{
   [choice] y = If (c) <
      then_branch = yes () => (float[3] t) { [add] t = Add (x, w) },
      else_branch = no () => (float[3] e) { [multiply] e = Mul (x, w) }>
}
"""


def test_an_if_takes_the_branch_of_the_condition_and_trains_its_weights() -> None:
    model = parse_model(CONDITIONAL)
    bridge = fx.to_fx(model)
    x = np.array([4, 5, 6], np.float32)
    for choice in (True, False):
        feeds = {"c": np.array(choice), "x": x}
        assert np.array_equal(run(bridge, *feeds.values())[0], execute(model, feeds)["y"])
    bridge.module(torch.tensor(False), torch.from_numpy(x))[0].sum().backward()
    assert bridge.module.w.grad.tolist() == [4, 5, 6]


def test_unsupported_operators_are_all_named_with_their_nodes() -> None:
    model = parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20, "custom" : 1]>
        main (float[3] x) => (float[3] y)
        {
           [odd] a = custom.Odd (x)
           [noise] b = RandomNormalLike (a)
           [sum] y = Add (a, b)
        }
        """
    )
    with pytest.raises(ModelError, match=r"no torch form for RandomNormalLike, custom\.Odd") as caught:
        fx.to_fx(model)
    assert "odd" in caught.value.where and "noise" in caught.value.where
    part = fx.to_fx(model, [node for node in model.graph if node.name == "sum"])
    assert part.inputs == ("a", "b")


def test_an_unsupported_variant_is_refused_by_name() -> None:
    model = parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        main (float[1,1,4,4] x) => (float[1,1,2,2] y, int64[1,1,2,2] i)
        {
           [pool] y, i = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x)
        }
        """
    )
    with pytest.raises(ModelError, match="only the first output of MaxPool") as caught:
        fx.to_fx(model)
    assert caught.value.where == "node pool"
