r"""Triton kernel: a stack of inner blocks over a tile of sentences, one program per tile.

A program reads the words of ``TILE`` sentences once, keeps the residual stream in registers in fp32 through all
layers, and writes the words after each layer once. Why it looks the way it does (``R = TILE * m`` rows, word width
``c`` padded to ``CP``):

- The products with weights are 2-D dots over all ``R`` rows, so that on Hopper they become ``wgmma`` (which needs 64
  rows and four warps). Each tile reads the weights again, from the caches: for TNT-S 13.8 KB a layer against 6.1 KB of
  words in and out of 64 rows, all in bfloat16. The loop over layers, kept even for one layer, lets Triton load them
  asynchronously ahead of their use.
- Attention is a batch of ``(m, m)`` products, and a head's 6 or 10 channels are not padded to the 16 a tensor core
  takes: the queries of a head are masked to its channels and multiplied by the *whole* key row. For ``c = 24`` that
  is 229k multiply-adds a sentence, padding included, where padded heads need 262k and four times as many (smaller)
  dots with the weights. Sentences of fewer than 16 words share a 16-row block under a block-diagonal mask, the
  smallest block a tensor core takes.
- 2-D and batched dots give each warp the same 16 rows, which are one sentence: queries, scores and softmax stay in
  the registers of their warp; only keys and values are turned around, within the warp.
- The hidden layer of the MLP is made and consumed ``CHUNK`` channels at a time and never leaves registers.
- The largest part of the instructions is GELU's. For 16-bit dots it is a polynomial in fp32 (error 1.9e-4; rounding to
  bf16 costs 2e-3 at 1, to fp16 2.4e-4): compiled for sm_90 at ``c = 24``, the whole kernel is 1.6 times longer with
  ``tl.erf``, which fp32 dots use.

Loaded by ``effkit.triton.kernels``, once per execution mode; how and why is said there.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
add, greater, operand = _core.add, _core.greater, _core.operand


@triton.jit
def _weight(
    ptr, num_out, num_in, row_stride, IN: tl.constexpr, OUT: tl.constexpr, DOT: tl.constexpr, EMULATE_BF16: tl.constexpr
):
    """``(IN, OUT)`` tile of a Linear's weight, transposed; rows and columns beyond the true sizes are zero."""
    i = tl.arange(0, IN)[:, None]
    o = tl.arange(0, OUT)[None, :]
    return operand(tl.load(ptr + o * row_stride + i, mask=(i < num_in) & (o < num_out), other=0.0), DOT, EMULATE_BF16)


@triton.jit
def _norm(x, weight_ptr, bias_ptr, offset, col, C: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm of the rows; padded columns (zero in ``x``) enter neither statistic and stay zero."""
    mean = tl.reduce(x, 1, add, keep_dims=True) * (1.0 / C)
    centred = tl.where(col < C, x - mean, 0.0)
    variance = tl.reduce(centred * centred, 1, add, keep_dims=True) * (1.0 / C)
    y = centred * tl.rsqrt(variance + EPS)
    if weight_ptr is not None:
        y = y * tl.load(weight_ptr + offset + col, mask=col < C, other=0.0).to(x.dtype)
        y = y + tl.load(bias_ptr + offset + col, mask=col < C, other=0.0).to(x.dtype)
    return y


@triton.jit
def _gelu(x, FAST: tl.constexpr):
    """``x * Phi(x)``; the fast form clamps ``1/2 + x p(x^2)`` to ``[0, 1]``.

    ``p`` is a minimax fit for ``|x| < 3.9``. Beyond, ``x p(x^2)`` keeps growing, so the clamp makes the result exact
    there; it costs nothing, being the saturation flag of the multiply-add before it.
    """
    if FAST:
        t = x * x
        p = 2.8928108e-08 * t - 1.9159415e-06
        p = p * t + 5.438334e-05
        p = p * t - 8.784942e-04
        p = p * t + 9.103683e-03
        p = p * t - 6.537631e-02
        p = p * t + 3.985693e-01
        return x * tl.clamp(x * p + 0.5, 0.0, 1.0)
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit(do_not_specialize=["num_sentences", "num_layers"])
def inner_stack_kernel(
    words_ptr,  # (S, M, C)
    out_ptr,  # (L, S, M, C)
    scale_ptr,  # (L, 2, S) factors on both branches, or None
    norm1_weight_ptr,  # (L, C) or None, like the bias
    norm1_bias_ptr,
    qkv_weight_ptr,  # (L, 3C, C)
    qkv_bias_ptr,  # (L, 3C) or None
    proj_weight_ptr,  # (L, C, C)
    proj_bias_ptr,  # (L, C)
    norm2_weight_ptr,  # (L, C) or None, like the bias
    norm2_bias_ptr,
    fc1_weight_ptr,  # (L, HIDDEN, C)
    fc1_bias_ptr,  # (L, HIDDEN)
    fc2_weight_ptr,  # (L, C, HIDDEN)
    fc2_bias_ptr,  # (L, C)
    num_sentences,
    num_layers,
    M: tl.constexpr,  # words a sentence, padded to MP
    MP: tl.constexpr,
    C: tl.constexpr,  # word width, padded to CP
    CP: tl.constexpr,
    HEADS: tl.constexpr,
    HIDDEN: tl.constexpr,
    EPS: tl.constexpr,
    DOT: tl.constexpr,  # type of the dots' operands
    ACC: tl.constexpr,  # type of accumulators, statistics, softmax and residual
    PRECISION: tl.constexpr,
    FAST_GELU: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
    TILE: tl.constexpr,  # sentences a program
    CHUNK: tl.constexpr,  # hidden channels at a time
    LAYERS: tl.constexpr,  # num_layers again for the interpreter, which cannot loop to a tensor everywhere; else None
):
    ROWS: tl.constexpr = TILE * MP
    GROUP: tl.constexpr = max(MP, 16)  # rows that attend in one product: the sentences of 16 rows, or one sentence
    BATCHED: tl.constexpr = ROWS > GROUP
    AXIS: tl.constexpr = 2 if BATCHED else 1
    LOG2_SCALE: tl.constexpr = (
        1.4426950408889634 * (C // HEADS) ** -0.5
    )  # exp2 is the hardware's; true head width, not padded

    col = tl.arange(0, CP)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    chunk = tl.arange(0, CHUNK)[None, :]
    key = tl.arange(0, GROUP)[None, :]
    query = tl.arange(0, GROUP)[:, None]
    visible = (key % MP < M) & (key // MP == query // MP)
    head_of = col // (C // HEADS)
    if BATCHED:
        visible = tl.expand_dims(visible, 0)
        head_of = tl.expand_dims(head_of, 0)

    first = tl.program_id(0).to(tl.int64) * TILE
    offset = (row // MP * M + row % MP) * C + col
    sentence = row // MP + first
    keep = (row % MP < M) & (sentence < num_sentences) & (col < C)
    x = tl.load(words_ptr + first * (M * C) + offset, mask=keep, other=0.0).to(ACC)

    for layer in range(num_layers if LAYERS is None else LAYERS):
        # Attention among the words of a sentence.
        y = operand(_norm(x, norm1_weight_ptr, norm1_bias_ptr, layer * C, col, C, EPS), DOT, EMULATE_BF16)
        w = qkv_weight_ptr + layer * (3 * C * C)
        q = tl.dot(y, _weight(w, C, C, C, CP, CP, DOT, EMULATE_BF16), out_dtype=ACC, input_precision=PRECISION)
        k = tl.dot(y, _weight(w + C * C, C, C, C, CP, CP, DOT, EMULATE_BF16), out_dtype=ACC, input_precision=PRECISION)
        v = tl.dot(
            y, _weight(w + 2 * C * C, C, C, C, CP, CP, DOT, EMULATE_BF16), out_dtype=ACC, input_precision=PRECISION
        )
        if qkv_bias_ptr is not None:
            b = qkv_bias_ptr + layer * (3 * C) + col
            q += tl.load(b, mask=col < C, other=0.0).to(ACC)
            k += tl.load(b + C, mask=col < C, other=0.0).to(ACC)
            v += tl.load(b + 2 * C, mask=col < C, other=0.0).to(ACC)
        q = operand(q, DOT, EMULATE_BF16)
        k = operand(k, DOT, EMULATE_BF16)
        v = operand(v, DOT, EMULATE_BF16)
        if BATCHED:
            q = tl.reshape(q, (ROWS // GROUP, GROUP, CP))
            k = tl.permute(tl.reshape(k, (ROWS // GROUP, GROUP, CP)), (0, 2, 1))
            v = tl.reshape(v, (ROWS // GROUP, GROUP, CP))
            mixed = tl.full((ROWS // GROUP, GROUP, CP), 0.0, ACC)
        else:
            k = tl.permute(k, (1, 0))
            mixed = tl.full((ROWS, CP), 0.0, ACC)
        for head in tl.static_range(HEADS):
            mine = head_of == head
            p = tl.dot(tl.where(mine, q, 0.0).to(q.dtype), k, out_dtype=ACC, input_precision=PRECISION)
            if GROUP != M:
                p = tl.where(visible, p, -float("inf"))
            p = tl.exp2(p * LOG2_SCALE - tl.reduce(p, AXIS, greater, keep_dims=True) * LOG2_SCALE)
            p = p * (1.0 / tl.reduce(p, AXIS, add, keep_dims=True))
            p = operand(p, DOT, EMULATE_BF16)
            mixed = tl.where(mine, tl.dot(p, v, out_dtype=ACC, input_precision=PRECISION), mixed)
        mixed = operand(tl.reshape(mixed, (ROWS, CP)), DOT, EMULATE_BF16)
        w = _weight(proj_weight_ptr + layer * (C * C), C, C, C, CP, CP, DOT, EMULATE_BF16)
        b = tl.load(proj_bias_ptr + layer * C + col, mask=col < C, other=0.0).to(ACC)
        if scale_ptr is None:
            x = tl.dot(mixed, w, x + b, out_dtype=ACC, input_precision=PRECISION)
        else:
            factor = scale_ptr + tl.cast(layer, tl.int64) * 2 * num_sentences + sentence
            s = tl.load(factor, mask=sentence < num_sentences, other=0.0).to(ACC)
            x += s * (tl.dot(mixed, w, out_dtype=ACC, input_precision=PRECISION) + b)

        # MLP.
        y = operand(_norm(x, norm2_weight_ptr, norm2_bias_ptr, layer * C, col, C, EPS), DOT, EMULATE_BF16)
        b = tl.load(fc2_bias_ptr + layer * C + col, mask=col < C, other=0.0).to(ACC)
        total = tl.full((ROWS, CP), 0.0, ACC) + b
        if scale_ptr is None:
            total += x
        for start in tl.static_range(0, HIDDEN, CHUNK):
            w = fc1_weight_ptr + layer * (HIDDEN * C) + start * C
            w = _weight(w, HIDDEN - start, C, C, CP, CHUNK, DOT, EMULATE_BF16)
            b = tl.load(fc1_bias_ptr + layer * HIDDEN + start + chunk, mask=chunk < HIDDEN - start, other=0.0).to(ACC)
            u = _gelu(tl.dot(y, w, out_dtype=ACC, input_precision=PRECISION) + b, FAST_GELU)
            w = fc2_weight_ptr + layer * (HIDDEN * C) + start
            w = _weight(w, C, HIDDEN - start, HIDDEN, CHUNK, CP, DOT, EMULATE_BF16)
            total = tl.dot(operand(u, DOT, EMULATE_BF16), w, total, out_dtype=ACC, input_precision=PRECISION)
        if scale_ptr is None:
            x = total
        else:
            x += tl.load(factor + num_sentences, mask=sentence < num_sentences, other=0.0).to(ACC) * total

        base = (tl.cast(layer, tl.int64) * num_sentences + first) * (M * C)
        tl.store(out_ptr + base + offset, x.to(out_ptr.dtype.element_ty), mask=keep)
