"""One board's end of remote measuring, in a process of its own: a board that hangs takes only this process with it.

    python -m planish.backends.tvm.tuning.board

Reads requests as JSON lines, one at a time, and answers each with a line: `{"rows": [[hash, seconds], …]}`, or
`{"lost": why}` when the board did not answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__: list[str] = []


def _measure(rpc: Any, tvm: Any, request: dict[str, Any]) -> list[list[Any]]:
    """Upload a measuring library and its data, run it, and read the hashes and the seconds back."""
    host, port, match = request["board"]
    session = rpc.connect(host, port, match, session_timeout=request["session_s"])
    session.upload(request["library"], "measure.so")
    function = session.load_module("measure.so").get_function("measure")
    device, count = session.cpu(0), request["count"]
    data = tvm.runtime.tensor(np.frombuffer(Path(request["data"]).read_bytes(), np.uint8), device)
    digests = tvm.runtime.tensor(np.zeros(count, np.int64), device)
    seconds = tvm.runtime.tensor(np.zeros(count, np.float64), device)
    function(data, request["rounds"], request["block_us"], digests, seconds)
    hashes = digests.numpy().view(np.uint64)
    return [[f"{h:016x}", float(s)] for h, s in zip(hashes, seconds.numpy(), strict=True)]


def _serve() -> None:
    from .. import environment

    tvm = environment.load()
    from tvm import rpc

    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"rows": _measure(rpc, tvm, json.loads(line))}
        except Exception as error:  # whatever happens to a board, tuning goes on without it
            answer = {"lost": f"{type(error).__name__}: {str(error).strip()[-300:]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
