"""Other tools' static int8 of the same model: ONNX Runtime's quantizer, and NNCF in an interpreter of its own."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.execute import Session
from ...ir.feeds import working_feeds
from ...passes.quantize.opset import PER_CHANNEL_OPSET, raise_opset

__all__ = ["nncf", "noise", "onnxruntime"]

Array = npt.NDArray[np.generic]
Feeds = Sequence[Mapping[str, Array]]

# NNCF has requirements of its own, so that it runs in another environment; this is all of it that is used
_NNCF = """
import sys, nncf, numpy, onnx
model, inputs, result = sys.argv[1:]
arrays = numpy.load(inputs)
count = len({name.split('|')[0] for name in arrays.files})
feeds = [{n.split('|')[1]: arrays[n] for n in arrays.files if n.split('|')[0] == str(i)} for i in range(count)]
loaded = onnx.load(model)
loaded.graph.ClearField('value_info')  # shapes that exporters left and that no longer hold stop NNCF
onnx.save(nncf.quantize(loaded, nncf.Dataset(feeds), subset_size=count), result)
"""


def noise(path: Path, count: int, seed: int = 0) -> list[dict[str, Array]]:
    """What a tool without data is usually calibrated on: N(0, 1), and 0 or 1 for integers."""
    model = ir.load(path)
    return working_feeds(model, Session(model), seed, count)


def onnxruntime(path: Path, feeds: Feeds, result: Path) -> None:
    """ONNX Runtime's static quantization: Q/DQ, int8 weights per channel, ranges from the extremes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Mapping[str, Array]] = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as directory:
        prepared = Path(directory) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        newer = ir.load(prepared)
        if not raise_opset(newer, PER_CHANNEL_OPSET):  # below it ONNX Runtime writes scales per channel all the same
            ir.save(newer, prepared)
        quantize_static(
            str(prepared),
            str(result),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def nncf(path: Path, feeds: Feeds, result: Path, python: Path) -> None:
    """NNCF's post-training quantization with its defaults, run by an interpreter that has it."""
    with tempfile.TemporaryDirectory() as directory:
        inputs = Path(directory) / "inputs.npz"
        np.savez(inputs, **{f"{i}|{name}": array for i, feed in enumerate(feeds) for name, array in feed.items()})  # type: ignore[arg-type]
        command = [str(python), "-c", _NNCF, str(path), str(inputs), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ModelError(f"NNCF failed: {lines[-1][:300]}", where=str(path), hint="run it by hand with the same inputs")
