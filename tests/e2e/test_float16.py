"""Models in float16, as exported for GPUs: verified with the rounding they have, and quantized like any other."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import planish
import pytest
from planish.backends.tvm.load import CompiledModel
from planish.ir.fidelity import sqnr
from planish.passes.cleanup.widen_floats import WidenFloats
from planish.passes.context import Context

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


@pytest.fixture(scope="module")
def halved() -> ir.Model:
    """The example in float16, inputs and outputs included, as a converter of whole files writes it."""
    model = planish.capture(DIGITS)
    for value in (
        *model.graph.inputs,
        *model.graph.initializers.values(),
        *(v for node in model.graph for v in node.outputs),
    ):
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=value.name)
    return model


def test_exact_passes_are_judged_by_the_rounding_of_the_type(halved: ir.Model) -> None:
    result = planish.optimize(halved, level=1)
    assert not any(node.op_type == "BatchNormalization" for node in result.model.graph)
    assert 1e-4 < result.report["fidelity"]["exact_tolerance"] < 0.1


def test_float16_becomes_int8_with_its_interface_kept(halved: ir.Model, tmp_path: Path) -> None:
    result = planish.optimize(halved, output=tmp_path / "out")
    assert [v.dtype for v in (*result.model.graph.inputs, *result.model.graph.outputs)] == [ir.DataType.FLOAT16] * 2
    assert result.report["fidelity"]["outputs"][0]["sqnr_db"] > 20
    convolutions = [p for p in result.report["placement"] if p["op"] == "Conv"]
    assert convolutions and all(p["dtype"] == "int8" for p in convolutions)
    x = np.random.default_rng(0).uniform(0, 1, (1, 1, 8, 8)).astype(np.float16)
    want = result.run({"image": x})["logits"]
    got = CompiledModel(tmp_path / "out" / "model.so")(image=x)["logits"]
    assert sqnr(want, got) > 40


def test_widening_keeps_what_is_written_outside(halved: ir.Model) -> None:
    model = halved.clone()
    WidenFloats().run(model, Context())
    inside = {v.dtype for node in model.graph if node.op_type != "Cast" for v in (*node.inputs, *node.outputs) if v}
    assert ir.DataType.FLOAT16 not in inside
    assert {v.dtype for v in model.graph.outputs} == {ir.DataType.FLOAT16}
