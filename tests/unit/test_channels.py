"""Channel groups: zeroing equals removing on random networks, every removal is valid, and the rules' special cases."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planish.ir import shapes
from planish.ir.channels import analyze, prunable_share
from planish.ir.channels.atoms import Atoms
from planish.tools.bench.groups import removal_error
from planish.tools.bench.random_networks import RandomNetwork

X = {"x": np.random.default_rng(7).standard_normal((2, 3, 4, 4)).astype(np.float32)}


def parse(text: str) -> ir.Model:
    from planish.ir.text import parse_model

    model = parse_model('<ir_version: 10, opset_import: ["" : 20]>\n' + text)
    shapes.infer(model)
    return model


def check_removal(model: ir.Model, rng: np.random.Generator, feeds: dict[str, np.ndarray]) -> int:
    """Remove some units of every free group: the model is valid and gives what zeroing gives. Returns how many went."""
    gone, error = removal_error(model, rng, feeds)
    assert error <= 1e-5
    return gone


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_zeroing_equals_removing_on_random_networks(data: st.DataObject) -> None:
    network = RandomNetwork(lambda n: data.draw(st.integers(0, n - 1)))
    model = ir.from_proto(network.build(data.draw(st.integers(2, 14))))
    shapes.infer(model)
    check_removal(model, np.random.default_rng(data.draw(st.integers(0, 99))), X)


def test_random_networks_lose_channels() -> None:
    """The property above is not empty: most random networks have something to remove."""
    lost = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model = ir.from_proto(RandomNetwork(lambda n, rng=rng: int(rng.integers(n))).build(8))
        shapes.infer(model)
        lost += check_removal(model, rng, X) > 0
    assert lost > 30


def test_union_find_keeps_the_smallest_and_its_reasons() -> None:
    atoms = Atoms()
    a, b, c = atoms.fresh(4), atoms.fresh(4), atoms.fresh(2)
    atoms.unify(a, b[::-1])
    atoms.unify(b[:2], c)
    np.testing.assert_array_equal(atoms.find(c), [3, 2])
    atoms.freeze(c[:1], "first")
    atoms.freeze(a, "second")
    assert atoms.frozen() == {3: "first", 0: "second", 1: "second", 2: "second"}


def test_attention_is_pruned_by_whole_heads() -> None:
    model = parse("""main (float[2,5,8] x) => (float[2,5,3] y)
      <float[8,12] q = seeded(0), float[8,12] k = seeded(1), float[8,12] v = seeded(2), float[12,3] o = seeded(3),
       int64[4] heads = {0,5,3,4}, int64[3] merged = {0,5,12}>
    {
      a = MatMul (x, q)
      ah = Reshape (a, heads)
      at = Transpose <perm = [0,2,1,3]> (ah)
      b = MatMul (x, k)
      bh = Reshape (b, heads)
      bt = Transpose <perm = [0,2,3,1]> (bh)
      c = MatMul (x, v)
      ch = Reshape (c, heads)
      ct = Transpose <perm = [0,2,1,3]> (ch)
      s = MatMul (at, bt)
      p = Softmax (s)
      z = MatMul (p, ct)
      zt = Transpose <perm = [0,2,1,3]> (z)
      m = Reshape (zt, merged)
      y = MatMul (m, o)
    }""")
    (group,) = analyze(model).free
    assert len(group) == 3 and {m.value.name for m in group.members} == {"q", "k", "v", "o"}
    assert all(m.positions.shape == (3, 4) for m in group.members)
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    assert check_removal(model, np.random.default_rng(0), {"x": x})


@pytest.mark.parametrize("gates, op, outputs", [(4, "LSTM", "h, hn, cn"), (3, "GRU", "h, hn"), (1, "RNN", "h, hn")])
def test_a_recurrent_hidden_unit_lies_in_every_gate(gates: int, op: str, outputs: str) -> None:
    model = parse(f"""main (float[5,2,3] x) => (float[5,1,2,3] y)
      <float[1,{gates * 6},3] w = seeded(0), float[1,{gates * 6},6] r = seeded(1), float[1,{gates * 12}] b = seeded(2),
       float[6,3] v = seeded(3)>
    {{
      {outputs} = {op} <hidden_size = 6> (x, w, r, b)
      y = MatMul (h, v)
    }}""")
    (group,) = analyze(model).free
    assert len(group) == 6
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    assert check_removal(model, np.random.default_rng(0), {"x": x})


FROZEN = {
    "y = Softmax <axis = 1> (a)": "Softmax over channels",
    "y = TopK_free (a)": "no rule for TopK_free",
    "y = Add (a, x)": "combined with x, whose channels cannot be removed",
    "y = ReduceMax <keepdims = 1> (a, one)": "ReduceMax over channels",
}


@pytest.mark.parametrize("line, reason", FROZEN.items())
def test_what_cannot_be_removed_says_why(line: str, reason: str) -> None:
    op = line.split()[2]
    text = "main (float[1,3,4,4] x) => (float[1,3,4,4] y) <float[3,3,1,1] w = seeded(0), int64[1] one = {1}>"
    model = parse(text + "{ a = Conv (x, w) " + line.replace(op, "Relu" if "free" in op else op) + " }")
    if "free" in op:
        model.graph[-1].op_type = op
    (group,) = analyze(model).groups
    assert group.frozen == reason


def test_a_layer_normalised_stream_is_inexact() -> None:
    model = parse("""main (float[2,3] x) => (float[2,4] y)
      <float[3,6] w = seeded(0), float[6] g = seeded(1), float[6] b = seeded(2), float[6,4] v = seeded(3)>
    {
      a = MatMul (x, w)
      n = LayerNormalization (a, g, b)
      y = MatMul (n, v)
    }""")
    groups = analyze(model).groups
    assert groups[0].inexact and not groups[0].frozen and len(groups[0]) == 6


def test_groups_of_a_long_network_take_time_linear_in_its_nodes() -> None:
    """Counts the work, not the clock: positions created grow like the nodes."""
    counts = []
    for blocks in (50, 100):
        graph = "".join(
            f"a{i} = Conv <pads = [1,1,1,1]> (s{i}, w) b{i} = Relu (a{i}) s{i + 1} = Add (b{i}, s{i})\n"
            for i in range(blocks)
        )
        model = parse(
            f"main (float[1,4,4,4] x) => (float[1,4,4,4] s{blocks}) <float[4,4,3,3] w = seeded(0)>"
            "{ s0 = Relu (x) " + graph + "}"
        )
        counts.append(len(analyze(model).labels.atoms))
    assert counts[1] <= 2 * counts[0]


MODELS = sorted((Path(__file__).resolve().parents[3] / "shared" / "models").glob("*/*.onnx"))


@pytest.mark.skipif(not MODELS, reason="the pack of models is not beside the repository")
@pytest.mark.parametrize("path", MODELS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_zeroing_equals_removing_on_the_pack(path: Path) -> None:
    from planish.ir.capture import capture
    from planish.ir.execute import Session
    from planish.ir.feeds import working_feeds
    from planish.passes.manager import PassManager

    model = capture(path)
    PassManager(
        "inline-functions,lift-constants,lift-subgraph-initializers,fold-shapes,fold-constants,remove-unused"
    ).run(model)
    shapes.infer(model)
    started = time.perf_counter()
    channels = analyze(model)
    assert time.perf_counter() - started < 30  # a hang, not a benchmark
    feeds = working_feeds(model, Session(model), 0, 1)[0]
    gone = check_removal(model, np.random.default_rng(0), dict(feeds))
    assert (gone > 0) == (prunable_share(channels.groups) > 0)
