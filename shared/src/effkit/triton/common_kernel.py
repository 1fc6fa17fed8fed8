"""Device functions that kernels of several packages call; see :mod:`effkit.triton` for how a kernel file gets them.

Reductions and scans name their combine function, one of those below, because ``tl.sum`` and the like are themselves
decorated when triton is first imported, which may be in the other mode. The interpreter knows triton's own combine
functions by identity, and is slow with others. For the same reason no kernel of ours calls ``tl.zeros`` (``tl.full``
is built in), ``tl.cdiv`` or others that triton wrote in its own language; interpreted, they also leave triton patched.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton.loading import interpreted

if interpreted():
    add = tl.standard._sum_combine
    greater = tl.standard._elementwise_max
    lesser = tl.standard._elementwise_min

    def loop_bound(value):
        """Bound of a ``range``; triton 3.6 would hand a NumPy array to ``int()``, which NumPy deprecates."""
        return int(value.handle.data.item()) if isinstance(value, tl.tensor) else value

else:

    @triton.jit
    def add(a, b):
        """Sum, for reductions and scans."""
        return a + b

    @triton.jit
    def greater(a, b):
        """Maximum, for reductions."""
        return tl.maximum(a, b)

    @triton.jit
    def lesser(a, b):
        """Minimum, for reductions."""
        return tl.minimum(a, b)

    @triton.jit
    def loop_bound(value):
        """Bound of a ``range``."""
        return value


@triton.jit
def operand(x, DOT: tl.constexpr, EMULATE_BF16: tl.constexpr):
    """Cast to the type of the dots; the interpreter has no bfloat16, so round to its 8 bits there and stay in fp32."""
    if EMULATE_BF16:
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.to(tl.float32, bitcast=True)
    return x.to(DOT)
