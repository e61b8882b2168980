"""Transposed convolutions as convolutions: the same numbers at every kernel, stride and padding, and integer layers."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.load import CompiledModel
from planish.ir.execute import execute
from planish.ir.integer import IntegerOp, plan
from planish.ir.text import parse_model
from planish.passes.budget import parse_budgets
from planish.passes.context import Context
from planish.passes.manager import PassManager
from planish.targets.registry import resolve


def _net(kernel: int, stride: int, pad: int, extra: int) -> ir.Model:
    size = 4 * stride + kernel + extra - 2 * pad
    return parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
    main (float[1,3,5,5] x) => (float[1,2,{size},{size}] z)
       <float[3,2,{kernel},{kernel}] w = seeded(0), float[2] b = seeded(1)>
    {{ y = ConvTranspose <strides = [{stride},{stride}], pads = [{pad},{pad},{pad},{pad}],
                          output_padding = [{extra},{extra}]> (x, w, b)
       z = Relu (y) }}""")


X = np.random.default_rng(0).normal(size=(1, 3, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_kernel_and_padding_gives_the_same_numbers(stride: int) -> None:
    rewritten = 0
    for kernel, pad, extra in product((1, 2, 3, 4, 5), (0, 1, 2), range(min(stride, 2))):
        if pad >= kernel:
            continue
        model = _net(kernel, stride, pad, extra)
        want = execute(model, {"x": X})["z"]
        record = PassManager("convolve-transposed").run(model, Context()).records[0]
        np.testing.assert_allclose(execute(model, {"x": X})["z"], want, atol=1e-5)
        rewritten += record.changed
        assert {skip.reason for skip in record.skips} <= {"its result goes beyond what the kernel reaches"}
    assert rewritten >= 12


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("strides = [1,2]", "its strides differ"),
        ("group = 3", "it has groups or dilations"),
        ("auto_pad = \"SAME_UPPER\"", "its padding is implicit"),
    ],
)  # fmt: skip
def test_what_is_left_says_why(change: str, reason: str) -> None:
    model = parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
    main (float[1,3,5,5] x) => (float[1,a,b,c] y) <float[3,2,3,3] w = seeded(0)>
    {{ y = ConvTranspose <{change}> (x, w) }}""")
    record = PassManager("convolve-transposed").run(model, Context()).records[0]
    assert [skip.reason for skip in record.skips] == [reason]


def test_a_budget_of_multiplications_is_not_spent_on_zeros() -> None:
    context = Context(budgets=parse_budgets(["macs=-20%"]))
    record = PassManager("convolve-transposed").run(_net(3, 2, 1, 1), context).records[0]
    assert [skip.reason for skip in record.skips] == ["it would take more multiplications, for which there is a budget"]


def test_the_layer_becomes_integer_with_its_activation() -> None:
    model = _net(4, 2, 1, 0)
    PassManager("convolve-transposed,activation-ranges,quantize").run(
        model, Context(target=resolve("arm64"), data=[{"x": X}])
    )
    assert "Conv" in {step.node.op_type for step in plan(model) if isinstance(step, IntegerOp)}
    order = [node.op_type for node in model.graph if node.op_type in ("Conv", "Relu", "DepthToSpace", "Slice")]
    assert order == ["Conv", "Relu", "DepthToSpace", "Slice"]


def test_in_float_it_compiles_to_a_convolution(tmp_path: Path) -> None:
    model = _net(3, 2, 1, 1)
    want = execute(model, {"x": X})["z"]
    compile_model(model, resolve("host"), tmp_path)
    np.testing.assert_allclose(CompiledModel(tmp_path / "model.so")(x=X)["z"], want, atol=1e-5)
