"""Every operator as TFLite: LiteRT's reference kernels agree with the plan, and Vela with the contract's table."""

from pathlib import Path

import numpy as np
import pytest
from planish.ir.reference import run
from planish.ir.shapes import infer
from planish.ir.text import parse_model
from planish.targets.ethosu import ACCELERATORS
from planish.targets.ethosu_contract import verdict
from planish.targets.tflite import Network

from .ethosu_cases import CASES, build

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (extra: ethos-u)")
pytest.importorskip("ethosu.vela", reason="ethos-u-vela is not installed (extra: ethos-u)")

from planish.backends.ethosu import vela
from planish.backends.ethosu.flatbuffer import serialize
from planish.backends.ethosu.interpret import LiteRtModel, layer_errors
from planish.backends.ethosu.lower import lower

NARROW = {"Exp", "Gelu", "HardSwish", "Reciprocal square root"}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_becomes_the_tflite_operators_it_should(name: str) -> None:
    assert [o.code for o in lower(build(name)).network.operations] == CASES[name][3]


@pytest.mark.parametrize("name", CASES)
def test_litert_agrees_with_the_plan_within_one_level(name: str) -> None:
    model = build(name)
    errors = layer_errors(model)
    assert errors and max(errors.values()) <= 1
    shape = [int(n) for n in CASES[name][1].split(",")]
    x = np.random.default_rng(5).normal(0, 1.5, shape).astype(np.float32)
    ours, theirs = LiteRtModel(serialize(lower(model).network))({"x": x})["y"], run(model, {"x": x})["y"]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= CASES[name][2][0] * 1.001
    assert len(np.unique(theirs)) > 3  # the levels are used, so that the comparison says something


@pytest.mark.parametrize("name", sorted(set(CASES) - NARROW))
def test_16_bit_activations_agree_too(name: str) -> None:
    lowered = lower(build(name, wide=True))
    assert [o.code for o in lowered.network.operations][: len(CASES[name][3])] == CASES[name][3]
    assert {t.dtype for t in lowered.network.inputs + lowered.network.outputs} == {"int16"}
    errors = layer_errors(build(name, wide=True))
    # TFLite interpolates functions of 16 bits
    assert errors and all(error <= (2 if kind in ("softmax", "unary") else 1) for kind, error in errors.items())


def test_functions_without_a_16_bit_kernel_are_computed_in_float() -> None:
    for name in ("Exp", "Gelu", "HardSwish"):
        (served,) = lower(build(name, wide=True)).served
        assert not served.integer and "on int16" in served.reason


def _together(wide: bool) -> Network:
    """All cases beside each other in one network, so that Vela starts once."""
    whole = Network()
    for i, name in enumerate(CASES):
        network = lower(build(name, wide)).network
        for tensor in network.tensors():
            tensor.name = f"case{i}_{tensor.name}"
        whole.operations += network.operations
        whole.inputs += network.inputs
        whole.outputs += network.outputs
    return whole


@pytest.mark.parametrize(
    ("target", "wide"),
    [("ethos-u55-128", False), ("ethos-u65-256", True), ("ethos-u85-256", False), ("ethos-u85-256", True)],
)
def test_the_table_places_operators_as_vela_does(target: str, wide: bool, tmp_path: Path) -> None:
    together, source, member = _together(wide), tmp_path / "all.tflite", ACCELERATORS[target]
    source.write_bytes(serialize(together))
    compiled, estimate = vela.compile_network(source, target, member, tmp_path / "out")
    left = vela.on_cpu(compiled)
    wrong = [
        f"{o.outputs[0].name} {o.code}: table {v.reason if v else 'NPU'}"
        for o in together.operations
        if ((v := verdict(o, member)) is not None) != (o.outputs[0].name in left)
    ]
    assert not wrong
    assert estimate.cycles > estimate.npu_cycles > 0 and left  # something stays on the CPU, so that both sides are seen


def test_equal_networks_give_equal_bytes() -> None:
    assert serialize(lower(build("Conv")).network) == serialize(lower(build("Conv")).network)


FLOATS = {
    "Conv": "Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)",
    "ConvTranspose": "ConvTranspose <strides = [2,2], pads = [1,1,0,1]> (x, w, b)",
    "InstanceNormalization": "InstanceNormalization (x, b, b)",
    "Softmax over channels": "Softmax <axis = 1> (x)",
    "Clip": "Clip (x, low, high)",
    "HardSwish": "HardSwish (x)",
    "Div": "Div (x, k)",
    "Pad reflect": 'Pad <mode = "reflect"> (x, around)',
    "MaxPool": "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x)",
    "AveragePool": "AveragePool <kernel_shape = [2,2]> (x)",
    "ReduceSum": "ReduceSum <keepdims = 0> (x, axes)",
    "Reshape": "Reshape (x, target)",
}


@pytest.mark.parametrize("name", FLOATS)
def test_float_operators_beside_the_npu_agree_with_onnx_runtime(name: str) -> None:
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    main (float[1,4,8,6] x) => (y)
       <float[4,4,3,3] w = seeded(1), float[4] b = seeded(2), float low = {{-0.5}}, float high = {{1}},
        float[4,1,1] k = {{2,3,-4,0.5}}, int64[8] around = {{0,0,1,2,0,0,2,1}}, int64[2] axes = {{2,3}},
        int64[2] target = {{-1,12}}>
    {{ y = {FLOATS[name]} }}
    """
    model = parse_model(text)
    infer(model)
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 6)).astype(np.float32)
    ours, theirs = LiteRtModel(serialize(lower(model).network))({"x": x})["y"], run(model, {"x": x})["y"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
