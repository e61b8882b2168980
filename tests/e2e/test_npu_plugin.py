"""The example of a plug-in for an NPU: found by its entry points, partitioned, compiled, and right to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import planish
import pytest
from planish.ir.reference import run

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "npu_plugin"

# A depthwise, a strided and a heavy convolution, a sum, and pooling, which the NPU has no unit for.
MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[batch,8,12,12] x) => (float[batch,5] y)
  <int8[8,1,3,3] w1 = seeded(1), int8[48,8,3,3] w2 = seeded(2), int8[48,48,3,3] w3 = seeded(3),
   int8[48,5] w4 = seeded(4), float s = {0.05}, uint8 z = {120}, float t = {0.01}, int8 o = {0}, float r = {0.2},
   int64[2] axes = {2,3}>
{
  xq = QuantizeLinear (x, s, z)
  xd = DequantizeLinear (xq, s, z)
  d1 = DequantizeLinear (w1, t, o)
  d2 = DequantizeLinear (w2, t, o)
  d3 = DequantizeLinear (w3, t, o)
  d4 = DequantizeLinear (w4, t, o)
  a = Conv <group = 8, pads = [1,1,1,1]> (xd, d1)
  aq = QuantizeLinear (a, r, z)
  ad = DequantizeLinear (aq, r, z)
  b = Conv <strides = [2,2], pads = [0,0,1,1]> (ad, d2)
  c = Relu (b)
  cq = QuantizeLinear (c, r, z)
  cd = DequantizeLinear (cq, r, z)
  e = Conv <pads = [1,1,1,1]> (cd, d3)
  eq = QuantizeLinear (e, r, z)
  ed = DequantizeLinear (eq, r, z)
  f = Add (ed, cd)
  fq = QuantizeLinear (f, r, z)
  fd = DequantizeLinear (fq, r, z)
  g = ReduceMean <keepdims = 0> (fd, axes)
  gq = QuantizeLinear (g, r, z)
  gd = DequantizeLinear (gq, r, z)
  y = MatMul (gd, d4)
}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process sees that the plug-in is installed for: its package and the entry points of its project file."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(PLUGIN), os.environ.get("PYTHONPATH", "")])}


def _python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def artifact(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `optimize MODEL --target toy-npu` leaves."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "model.onnxtxt").write_text(MODEL)
    options = [str(folder / "model.onnxtxt"), "--target", "toy-npu", "-O1", "--require-compiled"]
    done = _python(environment, "planish.tools.optimize", *options, "-o", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_the_report_says_where_each_node_runs_and_why(artifact: Path) -> None:
    report = json.loads((artifact / "report.json").read_text())
    assert report["target"]["name"] == "toy-npu"
    where = {(place["op"], place["where"]): place["reason"] for place in report["placement"]}
    assert where["Add", "NPU"] == where["Conv", "NPU"] == ""
    assert "of 16384" in where["Conv", "CPU"], "the third convolution has more weights than the NPU's memory"
    assert where["ReduceMean", "CPU"] == "no unit for mean"
    assert any("operations on the NPU" in note for note in report["compiled"]["notes"])


def test_both_processors_together_equal_the_reference(artifact: Path, environment: dict[str, str]) -> None:
    stems = [part["stem"] for part in json.loads((artifact / "parts.json").read_text())["parts"]]
    assert sum(stem.startswith("npu") for stem in stems) >= 2
    assert sum(stem.startswith("cpu") for stem in stems) >= 2
    x = np.random.default_rng(0).normal(0, 3, (1, 8, 12, 12)).astype(np.float32)
    want = run(planish.capture(artifact / "model.onnx"), {"x": x})["y"]
    assert len(np.unique(want)) > 2
    np.savez(artifact / "x.npz", x=x)
    script = (
        "import sys, numpy as np; from toy_npu.runtime import Model\n"
        "np.save(sys.argv[1] + '/y.npy', Model(sys.argv[1])(x=np.load(sys.argv[1] + '/x.npz')['x'])['y'])"
    )
    subprocess.run([sys.executable, "-c", script, str(artifact)], env=environment, check=True, timeout=60)
    np.testing.assert_array_equal(np.load(artifact / "y.npy"), want)


def test_explain_and_require_npu_know_the_plug_in(artifact: Path, environment: dict[str, str]) -> None:
    model = str(artifact / "model.onnx")
    done = _python(environment, "planish.tools.optimize", model, "--target", "toy-npu", "-O0", "--explain", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "no unit for mean" in done.stdout
    options = [model, "--target", "toy-npu", "-O0", "--require-npu", "-o", str(artifact.parent / "other")]
    refused = _python(environment, "planish.tools.optimize", *options)
    assert refused.returncode == 3
    assert "would run on the CPU" in refused.stderr
    assert not (artifact.parent / "other").exists()


def test_a_broken_back_end_is_named(tmp_path: Path, environment: dict[str, str]) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[planish.backends]\nbroken = not_there.backend\n")
    script = (
        "from planish.backends.registry import compiler\n"
        "from planish.errors import UsageError\n"
        "try: compiler('broken')\n"
        "except UsageError as error: print(error)\n"
    )
    path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert "the back end for 'broken' cannot be loaded" in done.stdout
    assert "next:" in done.stdout
