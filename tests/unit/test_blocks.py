"""The partition into blocks: each node once, in an order that runs, single in and out where the network narrows."""

import onnx_ir as ir
import pytest
from planish.ir.blocks import partition
from planish.ir.graph import is_constant
from planish.ir.text import parse_model

RESIDUAL = """
<ir_version: 10, opset_import: ["" : 20]>
main (float[1,3,8,8] x) => (float[1,4,8,8] y)
   <float[4,3,3,3] w1 = seeded(0), float[4,4,3,3] w2 = seeded(1), float[4,4,3,3] w3 = seeded(2),
    float[4,4,1,1] w4 = seeded(3)>
{
   a = Conv <pads = [1,1,1,1]> (x, w1)
   b = Relu (a)
   c = Conv <pads = [1,1,1,1]> (b, w2)
   d = Conv <pads = [1,1,1,1]> (b, w3)
   s = Add (c, d)
   y = Conv (s, w4)
}
"""


@pytest.mark.parametrize("grain", ["layer", "block", "stage"])
def test_every_node_is_in_one_block_and_the_blocks_run_in_their_order(grain: str) -> None:
    model = parse_model(RESIDUAL)
    blocks = partition(model, grain)  # type: ignore[arg-type]
    assert sorted(n.outputs[0].name for b in blocks for n in b.nodes) == sorted(n.outputs[0].name for n in model.graph)
    known = set(model.graph.inputs)
    for block in blocks:
        assert set(block.inputs) <= known
        known |= set(block.outputs)
        made = {v for node in block.nodes for v in node.outputs}
        reads = {v for node in block.nodes for v in node.inputs if v is not None and not is_constant(v)}
        assert reads - made == set(block.inputs)
    assert set(model.graph.outputs) <= known


def test_a_branching_block_has_one_input_and_one_output() -> None:
    stem, residual, last = partition(parse_model(RESIDUAL))
    assert (stem.kind, residual.kind, last.kind) == ("chain", "residual", "chain")
    assert residual.single and len(residual.anchors) == 2
    assert [v.name for v in (*residual.inputs, *residual.outputs)] == ["b", "s"]


def test_a_value_read_far_away_keeps_everything_between_in_one_block() -> None:
    text = RESIDUAL.replace("y = Conv (s, w4)", "t = Conv (s, w4)\n   y = Add (t, a)")
    assert len(partition(parse_model(text))) == 2
    assert all(isinstance(block.nodes[0], ir.Node) for block in partition(parse_model(text)))


def test_an_unknown_grain_is_refused() -> None:
    with pytest.raises(ValueError, match="layer, block, stage"):
        partition(parse_model(RESIDUAL), "net")  # type: ignore[arg-type]
