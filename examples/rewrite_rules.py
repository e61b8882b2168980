"""A rewrite rule of onnxscript inside a planish pipeline: Relu(x)·Relu(x) becomes Relu(x)².

python examples/rewrite_rules.py
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import planish
from onnxscript.rewriter import pattern
from planish.integrations import rewrite_rules

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
square (float[n,4] x) => (float[n,4] y)
{
   a = Identity (x)
   r = Relu (a)
   y = Mul (r, r)
}
"""


class SquareOfRelu(pattern.RewriteRuleClassBase):
    """Mul(Relu(x), Relu(x)) ⇒ Pow(Relu(x), 2)"""

    def pattern(self, op: Any, x: Any) -> Any:
        r = op.Relu(x)
        return op.Mul(r, r)

    def rewrite(self, op: Any, x: Any) -> Any:
        return op.Pow(op.Relu(x), op.Constant(value_float=2.0))


def main() -> None:
    model = ir.from_onnx_text(MODEL)
    planish.PassManager([rewrite_rules(SquareOfRelu.rule()), "remove-no-ops"]).run(model)
    print(" ".join(node.op_type for node in model.graph))


if __name__ == "__main__":
    main()
