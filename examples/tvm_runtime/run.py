"""Run a compiled model in the TVM runtime: python run.py out/model.so (`optimize examples/digits.onnx -o out`)."""

import sys

import numpy as np
import tvm

module = tvm.runtime.load_module(sys.argv[1])
image = tvm.runtime.tensor(np.linspace(0, 16, 64, dtype=np.float32).reshape(1, 1, 8, 8))
logits = tvm.runtime.empty((1, 10), "float32")
arena = tvm.runtime.empty((max(module["arena_bytes"](), 1),), "uint8")

module["run"](image, logits, arena)
print("digit", int(logits.numpy().argmax()))
