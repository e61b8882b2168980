"""Models that ONNX Runtime's quantizer made, in either of its formats, compile to integer kernels."""

from pathlib import Path

import numpy as np
import planish
import pytest
from planish.backends.tvm.load import CompiledModel
from planish.ir.execute import execute
from planish.ir.fidelity import sqnr
from planish.ir.reference import run
from planish.ir.shapes import fix_dimensions

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


class _Samples:
    """What the quantizer calibrates on."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left = [{"image": rng.uniform(0, 1, (1, 1, 8, 8)).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


@pytest.mark.parametrize("channels", [True, False], ids=["channel", "tensor"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_model_quantized_by_onnx_runtime_compiles_to_integers(form: str, channels: bool, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    folded = planish.optimize(DIGITS, level=1, output=tmp_path / "folded", compile=False).artifact
    source = tmp_path / "quantized.onnx"
    quantization.quantize_static(
        folded / "model.onnx", source, _Samples(), quant_format=quantization.QuantFormat[form], per_channel=channels
    )
    result = planish.optimize(source, output=tmp_path / "out")
    layers = [place for place in result.report["placement"] if place["op"] in ("Conv", "Gemm")]
    assert layers and all(place["dtype"] == "int8" for place in layers)
    feeds = {"image": np.random.default_rng(1).uniform(0, 1, (1, 1, 8, 8)).astype(np.float32)}
    got = CompiledModel(tmp_path / "out" / "model.so")(**feeds)["logits"]
    model = planish.capture(tmp_path / "out" / "model.onnx")
    fix_dimensions(model, {"image": (1, 1, 8, 8)})
    np.testing.assert_array_equal(got, run(model, feeds)["logits"])
    assert sqnr(execute(planish.capture(source), feeds)["logits"], got) > 30
