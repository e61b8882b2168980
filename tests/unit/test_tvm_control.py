"""Compiled If, Loop and Scan compute what ONNX Runtime's do; what depends on data beyond that is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planish.backends.tvm import parallel
from planish.backends.tvm.compile import compile_model
from planish.backends.tvm.control import Block, Close, Open, walk
from planish.backends.tvm.load import CompiledModel
from planish.backends.tvm.memory import place
from planish.backends.tvm.program import Call, Program
from planish.errors import ModelError
from planish.ir.execute import execute
from planish.ir.text import parse_model
from planish.targets.registry import resolve

HEAD = '<ir_version: 10, opset_import: ["" : 18]>\n'
# everything at once: states that trade places, iteration numbers, a branch in a loop, what it reads from outside
MODEL = """
main (bool c, float[4] x, float[4] z, float[3,2] m, float[2] v)
  => (float[4] either, float[4] p5, float[4] q5, float[4] r5, float[5,4] ys,
      float[4] s3, float[2] a3, float[2,3] os, float[3,5] es)
  <int64 five = {5}, bool yes = {1}>
{
  n = Neg (z)
  e = If (c) <
    then_branch = positive () => (float[4] t) { t = Relu (n) },
    else_branch = other () => (float[4] f) { g = Exp (x)  f = Mul (g, n) }
  >
  either = Add (e, n)
  p5, q5, r5, ys = Loop (five, yes, x, z, x) <
    body = b (int64 i, bool go, float[4] p, float[4] q, float[4] r)
      => (bool on, float[4] q, float[4] p, float[4] r2, float[4] y) {
      on = Identity (go)
      odd = Cast <to = 9> (i)
      r2 = If (odd) <
        then_branch = first () => (float[4] t) { t = Sub (r, n) },
        else_branch = later () => (float[4] f) { d = Abs (p)  f = Mul (d, r) }
      >
      k = Cast <to = 1> (i)
      y = Add (r, k)
    }
  >
  s3, a3, os, es = Scan <num_scan_inputs = 2, scan_input_directions = [1, 0], scan_output_axes = [1, 0],
    scan_output_directions = [0, 1],
    body = b2 (float[4] s, float[2] a, float[2] back, float[2] forth)
      => (float[4] s2, float[2] a2, float[2] o, float[5] w) {
      total = ReduceSum <keepdims = 1> (forth)
      s2 = Add (s, total)
      a2 = Mul (back, a)
      o = Identity (a)
      w = Concat <axis = 0> (s, total)
    }
  > (x, v, m, m)
}
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_equal_onnx_runtime(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "SMALLEST", 1)
    monkeypatch.setattr(parallel, "_SHARES", 1)
    model = parse_model(HEAD + MODEL)
    compile_model(model, replace(resolve("host"), threads=threads), tmp_path)
    compiled, rng = CompiledModel(tmp_path / "model.so"), np.random.default_rng(0)
    shapes = {"x": 4, "z": 4, "m": (3, 2), "v": 2}
    for chosen in (True, False, True):
        feeds = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        feeds["c"] = np.array(chosen)
        got = compiled(**feeds)
        for name, want in execute(model, feeds).items():
            np.testing.assert_allclose(got[name], want, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.usefixtures("cuda_emulation")
def test_loops_of_launches_equal_onnx_runtime_in_emulation(tmp_path: Path) -> None:
    """Values only: the generated kernels as host code; no GPU, nothing measured."""
    from planish.backends.cuda import compile as cuda
    from planish.backends.cuda.emulator import emulate

    model = parse_model(
        HEAD
        + """main (float[4,2,3] x) => (float[4,1,2,16] y, float[4,2,3] s)
    <float[1,16,3] w = seeded(0), float[1,16,16] r = seeded(1), int64 axis = {0}>
    { y = RNN <hidden_size = 16, direction = "reverse"> (x, w, r)  s = CumSum (x, axis) }"""
    )
    cuda.compile_model(model, resolve("cuda/sm_80"), tmp_path)
    feeds = {"x": np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)}
    got = emulate(tmp_path, feeds)
    for name, want in execute(model, feeds).items():
        np.testing.assert_allclose(got[name], want, atol=1e-6, err_msg=name)


def test_a_known_condition_leaves_one_branch(tmp_path: Path) -> None:
    model = parse_model(
        HEAD
        + """main (float[4] x) => (float[4] y) <bool c = {0}>
    {
      y = If (c) < then_branch = yes () => (float[4] p) { p = Relu (x) },
                   else_branch = no () => (float[4] q) { q = Neg (x) } >
    }"""
    )
    compile_model(model, resolve("host"), tmp_path)
    assert "if (" not in (tmp_path / "model.c").read_text().partition("calls(")[2].partition("}")[0]
    x = np.arange(-2, 2, dtype=np.float32)
    np.testing.assert_array_equal(CompiledModel(tmp_path / "model.so")(x=x)["y"], -x)


@pytest.mark.parametrize("inputs, text, why", [
    ("int64 n, float[4] x", "(n, , x)", "how often it runs depends on the input"),
    ("bool g, float[4] x", "(five, g, x)", "its condition depends on the input"),
])  # fmt: skip
def test_loops_whose_end_depends_on_data_are_refused(inputs: str, text: str, why: str, tmp_path: Path) -> None:
    loop = f"""main ({inputs}) => (float[4] y) <int64 five = {{5}}>
    {{
      [turns] y = Loop {text} <body = b (int64 i, bool go, float[4] p) => (bool on, float[4] q)
        {{ on = Identity (go)  q = Neg (p) }} >
    }}"""
    with pytest.raises(ModelError, match=why) as raised:
        compile_model(parse_model(HEAD + loop), resolve("host"), tmp_path)
    assert "turns" in raised.value.where and not list(tmp_path.iterdir())


def test_blocks_are_walked_outer_first() -> None:
    inner, outer = Block(1, 3, "j", 2), Block(1, 4, "i", 2)
    assert list(walk([inner, outer], 5)) == [0, Open(outer), Open(inner), 1, 2, Close(inner), 3, Close(outer), 4]
    assert list(walk([Block(1, 1, "i", 2)], 2)) == [0, 1]


def test_what_crosses_a_loop_lives_through_all_of_it() -> None:
    """A tensor that is read early in a loop is read again by the next iteration."""
    program = Program()
    before, state, own, late = (program.tensor(name, (64,), "uint8") for name in ("before", "state", "own", "late"))
    program.calls.append(Call("k", (), (before,)))
    with program.loop(3):
        program.calls.append(Call("k", (before,), (own,)))
        program.calls.append(Call("k", (own,), (state,)))
        program.calls.append(Call("k", (), (late,)))
    program.calls.append(Call("k", (state,), ()))
    offsets, _, arena = place(program)
    assert len({offsets[name] for name in (before, state, own)}) == 3
    assert offsets[late] == offsets[own] and arena == 3 * 64, "what one iteration makes and uses shares its memory"
    assert program.runs("k") == 11
