"""Every operator of the FX bridge against ONNX's own conformance cases, and their variants against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from planish.errors import ModelError
from planish.ir.execute import execute

torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
bridge = pytest.importorskip("planish.ir.fx")
operators = pytest.importorskip("planish.ir.fx.operators")

# cases whose expected result is not what this bridge promises, with the reason
DIFFERENT = {
    "resize_downsample_scales_cubic_align_corners": "the bridge takes the rounded output size, as ONNX Runtime does",
    "resize_downsample_scales_linear_align_corners": "the bridge takes the rounded output size, as ONNX Runtime does",
    "averagepool_2d_ceil_last_window_starts_on_pad": "the expected values are rounded to four digits",
    "reduce_max_empty_set": "torch has no maximum of nothing",
    "reduce_max_empty_set_bool": "torch has no maximum of nothing",
    "reduce_min_empty_set": "torch has no minimum of nothing",
}
# what an inference graph in torch refuses on purpose
REFUSED = ("training", "with_argmax")
# torch has these types, but hardly an operator for them
BARE = (np.uint16, np.uint32, np.uint64)


def array_of(given: Any) -> Any:
    """The array of a case, which may be a tensor or a list of them (a sequence); None for what numpy does not hold."""
    if isinstance(given, onnx.TensorProto):
        given = onnx.numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, (np.ndarray, np.generic)) else None


def plain(array: Any) -> bool:
    """An array of a type that numpy, torch and ONNX share."""
    if array is None or array.dtype.type in BARE:
        return False
    return array.dtype.kind in "fiub" and array.dtype.type.__module__ == "numpy"


def agrees(found: Any, expected: Any) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if expected.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    rtol = 2e-3 if expected.dtype == np.float16 else 1e-4
    return bool(np.allclose(found, expected, rtol=rtol, atol=1e-5, equal_nan=True))


@pytest.mark.parametrize("operator", sorted(operators.OPERATORS))
def test_an_operator_passes_the_conformance_cases_of_onnx(operator: str, onnx_node_cases: dict[str, list[Any]]) -> None:
    failed, passed = [], 0
    for case in onnx_node_cases.get(operator, []):
        name = case.name.removeprefix("test_")
        inputs, outputs = ([array_of(given) for given in arrays] for arrays in case.data_sets[0])
        model = ir.from_proto(case.model)
        if name in DIFFERENT or any(word in name for word in REFUSED) or not all(map(plain, [*inputs, *outputs])):
            continue
        found = bridge.to_fx(model).module(*[torch.from_numpy(np.array(array)) for array in inputs])
        if all(agrees(f.detach().numpy(), e) for f, e in zip(found, outputs, strict=True)):
            passed += 1
        else:
            failed.append(name)
    assert not failed
    if operator not in WITHOUT_CASES:
        assert passed


# operators of the table for which ONNX has no case in plain types
WITHOUT_CASES = {"BitShift", "Upsample"}


def made(op: str, arrays: dict[str, Any], constants: dict[str, Any], opset: int, **attributes: Any) -> ir.Model:
    """A model of one node; the inputs are those of both mappings, in order."""
    inputs = [
        ir.Value(name=n, type=ir.TensorType(ir.tensor(a).dtype), shape=ir.Shape(a.shape)) for n, a in arrays.items()
    ]
    weights = [ir.Value(name=n, const_value=ir.tensor(a, name=n)) for n, a in constants.items()]
    node = ir.node(op, [*inputs, *weights], attributes, name="node")
    node.outputs[0].name = "y"
    node.outputs[0].dtype = inputs[0].dtype
    graph = ir.Graph(inputs, node.outputs, nodes=[node], initializers=weights, opset_imports={"": opset})
    return ir.Model(graph, ir_version=8)


RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 4, 7, 9), dtype=np.float32)
ONES = np.array([1, 1], np.int64)

# what an older opset writes otherwise, and what ONNX has no case for: operator, constant inputs, opset, attributes
VARIANTS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "softmax over all axes from the second": ("Softmax", {}, 11, {}),
    "softmax over the last axes": ("Softmax", {}, 11, {"axis": 2}),
    "log-softmax before opset 13": ("LogSoftmax", {}, 11, {"axis": 1}),
    "clip by attributes": ("Clip", {}, 6, {"min": -0.5, "max": 0.5}),
    "clip with one bound": ("Clip", {"low": np.float32(-0.5)}, 13, {}),
    "pads by attribute": ("Pad", {}, 10, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": "reflect"}),
    "pads that crop": ("Pad", {"pads": np.array([0, 0, -1, 2, 0, 0, 3, -2])}, 13, {}),
    "reflection longer than the axis": ("Pad", {"pads": np.array([0, 0, 6, 0, 0, 0, 6, 8])}, 13, {"mode": "reflect"}),
    "slice by attributes": ("Slice", {}, 9, {"starts": [1, -4], "ends": [3, 100], "axes": [1, 3]}),
    "squeeze by attribute": ("Unsqueeze", {}, 11, {"axes": [0, 3]}),
    "sum over axes by attribute": ("ReduceSum", {}, 11, {"axes": [1, -1], "keepdims": 0}),
    "split sizes by attribute": ("Split", {}, 11, {"axis": 2, "split": [7]}),
    "nearest upsampling": ("Upsample", {"scales": np.array([1, 1, 2, 3], np.float32)}, 9, {"mode": "nearest"}),
    "linear upsampling": ("Upsample", {"scales": np.array([1, 1, 2, 3], np.float32)}, 9, {"mode": "linear"}),
    "dilated, grouped convolution with uneven pads": (
        "Conv",
        {"w": RNG.standard_normal((6, 2, 3, 2), dtype=np.float32), "b": np.arange(6, dtype=np.float32)},
        13,
        {"group": 2, "pads": [1, 0, 2, 3], "dilations": [2, 1], "strides": [1, 2]},
    ),
    "convolution, same size, more before": (
        "Conv",
        {"w": RNG.standard_normal((3, 4, 4, 2), dtype=np.float32)},
        13,
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
    ),
    "transposed convolution of a given size": (
        "ConvTranspose",
        {"w": RNG.standard_normal((4, 3, 3, 3), dtype=np.float32)},
        11,
        {"strides": [2, 2], "output_shape": [15, 18], "group": 1},
    ),
    "transposed, grouped convolution with uneven pads": (
        "ConvTranspose",
        {"w": RNG.standard_normal((4, 2, 3, 3), dtype=np.float32), "b": np.arange(4, dtype=np.float32)},
        11,
        {"strides": [3, 2], "pads": [0, 1, 2, 0], "output_padding": [1, 1], "group": 2},
    ),
    "maximum, rounded up": ("MaxPool", {}, 12, {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "mean without pads, rounded up": (
        "AveragePool",
        {},
        11,
        {"kernel_shape": [3, 3], "strides": [3, 2], "pads": [0, 1, 1, 0], "ceil_mode": 1},
    ),
    "mean with pads, rounded up": (
        "AveragePool",
        {},
        11,
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1, "count_include_pad": 1},
    ),
    "batch norm before opset 14": (
        "BatchNormalization",
        {n: np.linspace(0.5, 2, 4, dtype=np.float32) for n in ("scale", "bias", "mean", "var")},
        9,
        {"epsilon": 1e-3},
    ),
    "an exponent of one element": ("Pow", {"e": np.array([3], np.float32)}, 13, {}),
    "shrinking by area": (
        "Resize",
        {"roi": np.array([], np.float32), "scales": np.array([1, 1, 0.6, 0.5], np.float32)},
        18,
        {"mode": "linear", "antialias": 1},
    ),
    "cubic without what lies outside": (
        "Resize",
        {"roi": np.array([], np.float32), "scales": np.array([1, 1, 1.6, 2.5], np.float32)},
        13,
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_computes_what_onnx_runtime_computes(variant: str) -> None:
    op, constants, opset, attributes = VARIANTS[variant]
    model = made(op, {"x": IMAGE}, constants, opset, **attributes)
    (found,) = bridge.to_fx(model).module(torch.from_numpy(IMAGE))
    assert agrees(found.detach().numpy(), execute(model, {"x": IMAGE})["y"])


SEQUENCE = RNG.standard_normal((5, 3, 4), dtype=np.float32)


def gates(count: int, directions: int, hidden: int = 6) -> dict[str, Any]:
    shapes = {"w": (count * hidden, 4), "r": (count * hidden, hidden), "b": (2 * count * hidden,)}
    return {n: RNG.standard_normal((directions, *s)).astype(np.float32) for n, s in shapes.items()}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "count", "options"),
    [
        ("RNN", 1, {}),
        ("GRU", 3, {"linear_before_reset": 0}),
        ("GRU", 3, {"linear_before_reset": 1}),
        ("LSTM", 4, {}),
        ("LSTM", 4, {"clip": 0.5}),
    ],
)
def test_recurrent_networks_in_every_direction(op: str, count: int, options: dict[str, Any], direction: str) -> None:
    weights = gates(count, 2 if direction == "bidirectional" else 1)
    lengths = {"lengths": np.array([5, 2, 4], np.int32)}
    for constants in (weights, weights | lengths):
        model = made(op, {"x": SEQUENCE}, constants, 14, hidden_size=6, direction=direction, **options)
        module = bridge.to_fx(model).module
        (found,) = module(torch.from_numpy(SEQUENCE))
        assert agrees(found.detach().numpy(), execute(model, {"x": SEQUENCE})["y"])
        found.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


def test_axes_and_shapes_may_be_computed_at_run_time() -> None:
    cases = {
        "Reshape": np.array([2, 0, -1], np.int64),
        "Expand": np.array([2, 1, 7, 9], np.int64),
        "ReduceSum": np.array([1, 3], np.int64),
        "Unsqueeze": np.array([0, -1], np.int64),
    }
    for op, numbers in cases.items():
        model = made(op, {"x": IMAGE, "numbers": numbers}, {}, 18)
        (found,) = bridge.to_fx(model).module(torch.from_numpy(IMAGE), torch.from_numpy(numbers))
        assert agrees(found.numpy(), execute(model, {"x": IMAGE, "numbers": numbers})["y"]), op


def test_an_attribute_that_is_not_known_is_an_error_and_not_ignored() -> None:
    with pytest.raises(ModelError, match="unexpected keyword argument 'axis'") as caught:
        bridge.to_fx(made("LeakyRelu", {"x": IMAGE}, {}, 16, axis=1))
    assert caught.value.where == "node node"


def test_four_bit_weights_are_dequantized_exactly() -> None:
    q = np.array([[-8, 7, 3], [0, -1, 5]]).astype(ml_dtypes.int4)
    x = np.zeros((2, 3), np.float32)
    scale = ir.Value(name="s", const_value=ir.tensor(np.array([0.5, 2], np.float32), name="s"))
    weight = ir.Value(name="q", const_value=ir.tensor(q, name="q"))
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    dequantize = ir.node("DequantizeLinear", [weight, scale], {"axis": 0})
    add = ir.node("Add", [value, dequantize.outputs[0]])
    graph = ir.Graph(
        [value], add.outputs, nodes=[dequantize, add], initializers=[weight, scale], opset_imports={"": 21}
    )
    (found,) = bridge.to_fx(ir.Model(graph, ir_version=10)).module(torch.from_numpy(x))
    assert found.tolist() == [[-4, 3.5, 1.5], [0, -2, 10]]
