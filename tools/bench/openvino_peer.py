"""OpenVINO's side of `latency`: python openvino_peer.py MODEL.onnx INPUTS.npz [bfloat16] [nncf [transformer]].

For an interpreter that has OpenVINO. With `nncf` the model is quantized by NNCF first, its ranges from the one given
input: speed does not depend on them. `transformer` tells it what the model is; without, NNCF 3.4 fails on embeddings
with constant indices (KeyError). Reads counts from standard input, runs the model so often, and answers with a JSON
list of milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib import import_module


def main() -> None:
    import numpy as np

    openvino = import_module("openvino")

    path, arguments, *options = sys.argv[1:]
    feeds = dict(np.load(arguments))
    core = openvino.Core()
    model = core.read_model(path)
    if "nncf" in options:
        with contextlib.redirect_stdout(sys.stderr):
            nncf = import_module("nncf")
            kind = nncf.ModelType.TRANSFORMER if "transformer" in options else None
            model = nncf.quantize(model, nncf.Dataset([feeds]), subset_size=1, model_type=kind)
    # Without this OpenVINO computes float models in bfloat16 where the machine has it.
    precision = "bf16" if "bfloat16" in options else "f32"
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for name, array in feeds.items():
        request.set_tensor(name, openvino.Tensor(array))
    for line in sys.stdin:
        found = []
        for _ in range(int(line)):
            start = time.process_time()
            request.infer()
            found.append((time.process_time() - start) * 1e3)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
