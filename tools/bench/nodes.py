"""Node counts after `-O1` beside those of other simplifiers: prints a JSON table.

    python -m planish.tools.bench.nodes ../shared/models/*/model*.onnx --peers-python ~/peers/bin/python

Nodes are counted with those inside subgraphs; Constant nodes count. The peers (onnxslim, onnxsim, onnxscript) run in a
subprocess each, in the interpreter that has them; one that is not there, or fails on a model, is null.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir

from ...passes import defaults
from ...passes.manager import PassManager

__all__ = ["count", "main", "measure", "run_peer"]

_PEERS = {
    "onnxslim": "import onnxslim; result = onnxslim.slim(model)",
    "onnxsim": "import onnxsim; result = onnxsim.simplify(model)[0]",
    "onnxscript": "import onnxscript.optimizer; result = onnxscript.optimizer.optimize(model)",
}
_PEER_PROGRAM = """
import contextlib, io, sys, onnx
def count(graph):
    inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
    return len(graph.node) + sum(map(count, inner))
model = onnx.load(sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()):
    {run}
print(count(result.graph))
"""


def count(model: ir.Model) -> int:
    """Nodes of the model with those inside subgraphs."""
    return sum(1 for _ in model.graph.all_nodes())


def run_peer(python: str, peer: str, path: Path, timeout: float = 600) -> int | None:
    """The number of nodes a peer leaves of a model, or None when it is absent or fails."""
    program = _PEER_PROGRAM.format(run=_PEERS[peer])
    try:
        done = subprocess.run([python, "-c", program, str(path)], capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return int(lines[-1]) if done.returncode == 0 and lines and lines[-1].isdigit() else None


def measure(path: Path, peers_python: str | None) -> dict[str, Any]:
    """One row of the table: nodes before, after `-O1` and after each peer, and the seconds `-O1` took."""
    model = ir.load(path)
    row: dict[str, Any] = {"model": f"{path.parent.name}/{path.name}", "original": count(model)}
    start = time.perf_counter()
    PassManager(defaults.exact()).run(model)
    row |= {"planish": count(model), "seconds": round(time.perf_counter() - start, 2)}
    if peers_python is not None:
        row |= {peer: run_peer(peers_python, peer, path) for peer in _PEERS}
        best = min((row[peer] for peer in _PEERS if row[peer] is not None), default=None)
        row["no_worse"] = None if best is None else row["planish"] <= best
    return row


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--peers-python", metavar="PATH", help="Python that has onnxslim, onnxsim and onnxscript.")
def main(models: tuple[Path, ...], peers_python: str | None) -> None:
    rows = []
    for path in models:
        rows.append(measure(path, peers_python))
        print(f"{rows[-1]['model']}: {rows[-1]['original']} -> {rows[-1]['planish']}", file=sys.stderr)
    print(json.dumps({"models": rows}, indent=2))


if __name__ == "__main__":
    main()
