r"""Triton kernel: all paths of a sub-layer at once, ``sum_t gate_t act(Theta_t x + beta_t)``, one tile a program.

One level of the split of :mod:`~augshortcut.ops.crt` happens in registers: a program loads the two halves of the input
chunks, forms sum and difference, multiplies them with the circulant and the skew-circulant part, and puts the halves of
the output together again in its epilogue, where bias, activation, gate and the sum over paths cost no pass over memory.
Half the multiply-adds of the dense matrix, one read of x per tile of columns and path, one write.

Paths are a loop around the loop over K: four accumulators, whatever T is (two products, two halves of the sum).

Loaded by ``effkit.triton.kernels``, once per execution mode; how and why is said there.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
operand = _core.operand


@triton.jit
def _activate(x, ACT: tl.constexpr):
    if ACT == 0:  # gelu
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    if ACT == 1:  # gelu_tanh: 0.5 (1 + tanh z) is the logistic function of 2 z
        return x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    if ACT == 2:  # relu
        return tl.maximum(x, 0.0)
    if ACT == 3:  # silu
        return x / (1.0 + tl.exp(-x))
    return x


@triton.jit(do_not_specialize=["num_rows"])
def activated_paths_kernel(
    x_ptr,  # (M, b_in 2H)
    out_ptr,  # (M, b_out 2H)
    circ_ptr,  # (T, b_out H, b_in H)
    skew_ptr,  # likewise
    bias_ptr,  # (T, b_out 2H) or None
    gate_ptr,  # (T, b_out 2H) or None
    num_rows,
    T: tl.constexpr,
    H: tl.constexpr,  # half of a circulant's size
    K: tl.constexpr,  # b_in H
    C: tl.constexpr,  # b_out H
    ACT: tl.constexpr,
    DOT: tl.constexpr,  # type of the dots' operands
    ACC: tl.constexpr,  # type of accumulators
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
    BK: tl.constexpr,
):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    col = tl.program_id(1) * BC + tl.arange(0, BC)
    row_in, col_in = row < num_rows, col < C
    x_row = x_ptr + row.to(tl.int64)[:, None] * (2 * K)
    place = (col // H) * (2 * H) + col % H  # of the first half among the outputs
    sum0 = tl.full((BM, BC), 0.0, ACC)
    sum1 = tl.full((BM, BC), 0.0, ACC)
    for t in range(T):
        plus = tl.full((BM, BC), 0.0, ACC)
        minus = tl.full((BM, BC), 0.0, ACC)
        weights = t * C * K + col[None, :] * K
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            k_in = k < K
            source = x_row + ((k // H) * (2 * H) + k % H)[None, :]
            mask = row_in[:, None] & k_in[None, :]
            x0 = tl.load(source, mask=mask, other=0.0).to(ACC)
            x1 = tl.load(source + H, mask=mask, other=0.0).to(ACC)
            w_mask = k_in[:, None] & col_in[None, :]
            circ = tl.load(circ_ptr + weights + k[:, None], mask=w_mask, other=0.0)
            skew = tl.load(skew_ptr + weights + k[:, None], mask=w_mask, other=0.0)
            plus = tl.dot(
                operand(x0 + x1, DOT, EMULATE_BF16), operand(circ, DOT, EMULATE_BF16), plus,
                input_precision=PRECISION, out_dtype=ACC,
            )  # fmt: skip
            minus = tl.dot(
                operand(x0 - x1, DOT, EMULATE_BF16), operand(skew, DOT, EMULATE_BF16), minus,
                input_precision=PRECISION, out_dtype=ACC,
            )  # fmt: skip
        y0 = plus + minus
        y1 = plus - minus
        own = t * 2 * C + place
        if bias_ptr is not None:
            y0 += tl.load(bias_ptr + own, mask=col_in, other=0.0).to(ACC)[None, :]
            y1 += tl.load(bias_ptr + own + H, mask=col_in, other=0.0).to(ACC)[None, :]
        y0 = _activate(y0, ACT)
        y1 = _activate(y1, ACT)
        if gate_ptr is not None:
            y0 *= tl.load(gate_ptr + own, mask=col_in, other=0.0).to(ACC)[None, :]
            y1 *= tl.load(gate_ptr + own + H, mask=col_in, other=0.0).to(ACC)[None, :]
        sum0 += y0
        sum1 += y1
    target = out_ptr + row.to(tl.int64)[:, None] * (2 * C) + place[None, :]
    mask = row_in[:, None] & col_in[None, :]
    tl.store(target, sum0.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(target + H, sum1.to(out_ptr.dtype.element_ty), mask=mask)
