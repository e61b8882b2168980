"""The readers of a value are nodes of its model: what was removed reads nothing any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from planish.ir.graph import forget_removed_readers, only_consumer, remove_node
from planish.ir.text import parse_model
from planish.passes.foreign import adopt
from planish.passes.manager import PassManager

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
main (float[4] x, bool c) => (float[4] y)
{
   h = Neg (x)
   unread = If (c) <then_branch = a () => (float[4] p) { p = Add (h, x) },
      else_branch = b () => (float[4] q) { q = Abs (h) }>
   y = Relu (h)
}
"""


def test_a_removed_node_takes_the_reads_of_its_subgraphs_along() -> None:
    model = parse_model(TEXT)
    hidden = model.graph.node(0).outputs[0]
    assert len(hidden.uses()) == 3 and only_consumer(hidden) is None
    remove_node(model.graph.node(1))
    assert only_consumer(hidden) is model.graph.node(1)
    assert len(model.graph.inputs[0].uses()) == 1


def test_readers_left_behind_are_forgotten_and_the_others_stay() -> None:
    model = parse_model(TEXT)
    forget_removed_readers(model)
    assert len(model.graph.node(0).outputs[0].uses()) == 3
    model.graph.remove(model.graph.node(1))
    assert len(model.graph.node(0).outputs[0].uses()) == 3, "onnx_ir leaves them there"
    forget_removed_readers(model)
    assert only_consumer(model.graph.node(0).outputs[0]) is model.graph.node(1)


@dataclass
class Careless(InPlacePass):
    """Removes the If node and nothing else, as a library's pass may."""

    name: ClassVar[str] = "careless"

    def call(self, model: ir.Model) -> PassResult:
        model.graph.remove(model.graph.node(1))
        return PassResult(model, modified=True)


def test_a_pass_of_a_library_leaves_no_readers_behind() -> None:
    model = parse_model(TEXT)
    PassManager([adopt(Careless())]).run(model)
    assert only_consumer(model.graph.node(0).outputs[0]) is model.graph.node(1)
