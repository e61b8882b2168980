"""A quantized graph read as integer operations: `plan(model)`, the one reading that every executor follows.

The arithmetic, to the bit (scales are float32, multipliers are computed in float64 and rounded once, rint is round
half to even, `lo`/`hi` are `IntegerOp.low`/`high`, the result is clipped in float32 and then converted):

=============  ========================================================================================================
quantize       y = clip(rint(x / s_y) + z_y, lo, hi), true float32 division
dequantize     y = float32(x − z_x) · s_x
requantize     y = clip(rint(float32(x − z_x) · m) + z_y, lo, hi), m = float32(s_x / s_y);
               a factor that is a float constant is in it: m = float32(s_x · constant / s_y)
conv, dense    acc = Σ (x − z_x)(w − z_w) + bias in int32, padding adds nothing;
               y = clip(rint(float32(acc) · m) + z_y, lo, hi), m = float32(s_x · s_w / s_y) per output channel;
               float result: y = float32(acc) · m, m = float32(s_x · s_w)
matmul, mul    the same with both factors activations: acc = Σ (a − z_a)(b − z_b), m = float32(s_a · s_b / s_y)
add            y = clip(rint(float32(a − z_a) · m_a + float32(b − z_b) · m_b [+ c]) + z_y, lo, hi),
               m_a = s_a / s_y and m_b = ± s_b / s_y rounded to 15 significant bits, c = float32(constant / s_y)
mean,          acc = Σ (x − z_x); y = clip(rint(float32(acc) · m) + z_y, lo, hi), m = float32(s_x / (s_y · count));
average_pool   float result: y = float32(acc) · m, m = float32(s_x / count); a sum has a count of 1
unary          y = table[x − lowest level of x's type]
softmax        y = clip(rint(float32(softmax((x − z_x) · s_x)) / s_y) + z_y, lo, hi), the exponentials in float64
resize_linear  y = clip(rint(float32(Σ a · x)), lo, hi) with the matrix a of each axis in turn, in float64
movement       integers unchanged; an operand in another encoding is requantized before
=============  ========================================================================================================

Why 15 bits in `add`: |a − z_a| < 2⁹, so each product has at most 24 significant bits and is exact in float32. The sum
is then one correctly rounded operation whether or not the compiler contracts it into a fused multiply-add, and the
result is the same on every machine. In every other row nothing is added to a product before it is rounded.
The addend c exists only where one of the operands is a float constant, so an `add` is never a sum of three.

A bias that is not stored in steps of s_x · s_w is rounded to them, for float results too. An operation whose int32
accumulator could overflow, in any order of summation, is left in float.

Executors that have more than others say so (`Arithmetic`): a longer accumulator, conv_transpose (a conv over x with
zeros between its elements), softmax, resize_linear, and 16-bit operands of add, mul, requantize and unary. An `add` of
these has multipliers of 24 bits and is summed in float64, which holds every product exactly.
"""

from .arithmetic import EVERYWHERE, OPTIONAL_KINDS, Arithmetic
from .reader import plan
from .steps import FloatNode, IntegerOp, Operand, Step

__all__ = ["EVERYWHERE", "OPTIONAL_KINDS", "Arithmetic", "FloatNode", "IntegerOp", "Operand", "Step", "plan"]
