r"""Triton kernels: the gradient of an inner block, recomputed from the block's input in one launch, and its sums.

A program takes tiles of ``TILE`` sentences, one after another: it runs the block again as
:mod:`tnt_vit.ops.inner_kernel` does, keeps what the gradients need in registers, and goes back through it. Nothing but
the gradient of the words is written for each word. What makes it look as it does:

- **Gradients of weights** are sums over all rows of a batch. Each of at most 512 programs has a row of partial sums of
  its own, which it adds to tile by tile; :func:`sum_kernel` adds the rows in a fixed order. No atomics: the same input
  gives the same bits, on any number of multiprocessors. Registers could not hold the sums (48 KB for TNT-S in fp32).
- **Rows that are padding**, words beyond ``M`` and sentences beyond the last, have a gradient of zero, and through
  every product that stays zero: nothing has to be masked on the way but the keys.
- The hidden layer is made again ``CHUNK`` channels at a time, used for three products and forgotten.

Loaded by ``effkit.triton.kernels``, once per execution mode; how and why is said there.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _forward = device_functions(), kernels(__package__, "inner_kernel")
add, greater, operand, loop_bound = _core.add, _core.greater, _core.operand, _core.loop_bound
transposed_weight, gelu = _forward._weight, _forward._gelu


@triton.jit
def plain_weight(
    ptr, num_out, num_in, row_stride, OUT: tl.constexpr, IN: tl.constexpr, DOT: tl.constexpr, EMULATE_BF16: tl.constexpr
):
    """``(OUT, IN)`` tile of a Linear's weight as it is; rows and columns beyond the true sizes are zero."""
    o = tl.arange(0, OUT)[:, None]
    i = tl.arange(0, IN)[None, :]
    return operand(tl.load(ptr + o * row_stride + i, mask=(i < num_in) & (o < num_out), other=0.0), DOT, EMULATE_BF16)


@triton.jit
def normalised(x, col, C: tl.constexpr, EPS: tl.constexpr):
    """Rows less their mean and over their deviation, and one over the deviation; padded columns are zero."""
    mean = tl.reduce(x, 1, add, keep_dims=True) * (1.0 / C)
    centred = tl.where(col < C, x - mean, 0.0)
    inverse = tl.rsqrt(tl.reduce(centred * centred, 1, add, keep_dims=True) * (1.0 / C) + EPS)
    return centred * inverse, inverse


@triton.jit
def affine(x, weight_ptr, bias_ptr, col, C: tl.constexpr):
    """The norm's weight and bias, where they are."""
    if weight_ptr is not None:
        x = x * tl.load(weight_ptr + col, mask=col < C, other=0.0).to(x.dtype)
        x = x + tl.load(bias_ptr + col, mask=col < C, other=0.0).to(x.dtype)
    return x


@triton.jit
def biased(x, ptr, col, C: tl.constexpr):
    """A bias, where there is one."""
    if ptr is not None:
        x += tl.load(ptr + col, mask=col < C, other=0.0).to(x.dtype)
    return x


@triton.jit
def gelu_slope(x, FAST: tl.constexpr):
    """Derivative of ``x Phi(x)``; the fast form has the polynomial of ``gelu`` for ``Phi``."""
    if FAST:
        t = x * x
        p = 2.8928108e-08 * t - 1.9159415e-06
        p = p * t + 5.438334e-05
        p = p * t - 8.784942e-04
        p = p * t + 9.103683e-03
        p = p * t - 6.537631e-02
        p = p * t + 3.985693e-01
        below = tl.clamp(x * p + 0.5, 0.0, 1.0)
    else:
        below = 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
    return below + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def norm_back(grad, normal, inverse, weight_ptr, col, C: tl.constexpr):
    """Gradient of the rows a norm was given."""
    if weight_ptr is not None:
        grad = grad * tl.load(weight_ptr + col, mask=col < C, other=0.0).to(grad.dtype)
    mean = tl.reduce(grad, 1, add, keep_dims=True) * (1.0 / C)
    along = tl.reduce(grad * normal, 1, add, keep_dims=True) * (1.0 / C)
    return tl.where(col < C, inverse * (grad - mean - normal * along), 0.0)


@triton.jit
def accumulate(ptr, value, again, num_rows, num_columns, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add to a matrix of partial sums; what is there counts only if this is not the first time."""
    r = tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, COLUMNS)[None, :]
    mask = (r < num_rows) & (c < num_columns)
    ptr += r * row_stride + c
    tl.store(ptr, value + tl.load(ptr, mask=mask & (c * 0 + again > 0), other=0.0), mask=mask)


@triton.jit
def accumulate_rows(ptr, value, again, num_columns, COLUMNS: tl.constexpr):
    """Add the sum over the rows to a vector of partial sums."""
    accumulate(ptr, tl.reduce(value, 0, add, keep_dims=True), again, 1, num_columns, 0, 1, COLUMNS)


@triton.jit
def attention(
    q,
    k,
    mine,
    visible,
    MASKED: tl.constexpr,
    AXIS: tl.constexpr,
    LOG2_SCALE: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Weights of one head, as in the forward kernel."""
    turned = tl.permute(k, (0, 2, 1)) if AXIS == 2 else tl.permute(k, (1, 0))
    p = tl.dot(tl.where(mine, q, 0.0).to(q.dtype), turned, out_dtype=ACC, input_precision=PRECISION)
    if MASKED:
        p = tl.where(visible, p, -float("inf"))
    p = tl.exp2(p * LOG2_SCALE - tl.reduce(p, AXIS, greater, keep_dims=True) * LOG2_SCALE)
    return p * (1.0 / tl.reduce(p, AXIS, add, keep_dims=True))


@triton.jit(do_not_specialize=["num_sentences", "num_programs", "num_steps", "num_sums"])
def inner_backward_kernel(
    words_ptr,  # (S, M, C), the block's input
    grad_ptr,  # (S, M, C), of its output
    more_ptr,  # (S, M, C) to be added to that, or None
    out_ptr,  # (S, M, C), gradient of the input
    sums_ptr,  # (P, num_sums) partial sums of the weights' gradients, in the order of InnerParams
    scale_ptr,  # (2, S) factors on both branches, or None
    norm1_weight_ptr,  # (C,) or None, like the bias
    norm1_bias_ptr,
    qkv_weight_ptr,  # (3C, C)
    qkv_bias_ptr,  # (3C,) or None
    proj_weight_ptr,  # (C, C)
    proj_bias_ptr,  # (C,)
    norm2_weight_ptr,  # (C,) or None, like the bias
    norm2_bias_ptr,
    fc1_weight_ptr,  # (HIDDEN, C)
    fc1_bias_ptr,  # (HIDDEN,)
    fc2_weight_ptr,  # (C, HIDDEN)
    fc2_bias_ptr,  # (C,)
    num_sentences,
    num_programs,
    num_steps,  # tiles a program
    num_sums,
    M: tl.constexpr,  # words a sentence, padded to MP
    MP: tl.constexpr,
    C: tl.constexpr,  # word width, padded to CP
    CP: tl.constexpr,
    HEADS: tl.constexpr,
    HIDDEN: tl.constexpr,
    EPS: tl.constexpr,
    DOT: tl.constexpr,  # type of the dots' operands
    ACC: tl.constexpr,  # type of accumulators, statistics, softmax and sums
    PRECISION: tl.constexpr,
    FAST_GELU: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
    TILE: tl.constexpr,  # sentences of a tile
    CHUNK: tl.constexpr,  # hidden channels at a time
):
    ROWS: tl.constexpr = TILE * MP
    GROUP: tl.constexpr = max(MP, 16)  # rows that attend in one product, as in the forward kernel
    GROUPS: tl.constexpr = ROWS // GROUP
    BATCHED: tl.constexpr = GROUPS > 1
    AXIS: tl.constexpr = 2 if BATCHED else 1
    SCALE: tl.constexpr = (C // HEADS) ** -0.5
    LOG2_SCALE: tl.constexpr = 1.4426950408889634 * SCALE
    # Where each gradient begins in a row of partial sums.
    NORM1: tl.constexpr = 0
    QKV: tl.constexpr = NORM1 + (0 if norm1_weight_ptr is None else 2 * C)
    QKV_BIAS: tl.constexpr = QKV + 3 * C * C
    PROJ: tl.constexpr = QKV_BIAS + (0 if qkv_bias_ptr is None else 3 * C)
    PROJ_BIAS: tl.constexpr = PROJ + C * C
    NORM2: tl.constexpr = PROJ_BIAS + C
    FC1: tl.constexpr = NORM2 + (0 if norm2_weight_ptr is None else 2 * C)
    FC1_BIAS: tl.constexpr = FC1 + HIDDEN * C
    FC2: tl.constexpr = FC1_BIAS + HIDDEN
    FC2_BIAS: tl.constexpr = FC2 + C * HIDDEN

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
    program = tl.program_id(0)
    sums_ptr += program.to(tl.int64) * num_sums
    offset = (row // MP * M + row % MP) * C + col

    for again in range(0, loop_bound(num_steps)):
        tile = (program + again * num_programs).to(tl.int64)
        first = tile * TILE
        sentence = row // MP + first
        keep = (row % MP < M) & (sentence < num_sentences) & (col < C)
        base = first * (M * C)
        x = tl.load(words_ptr + base + offset, mask=keep, other=0.0).to(ACC)
        grad = tl.load(grad_ptr + base + offset, mask=keep, other=0.0).to(ACC)
        if more_ptr is not None:
            grad += tl.load(more_ptr + base + offset, mask=keep, other=0.0).to(ACC)
        scale1 = 1.0
        scale2 = 1.0
        if scale_ptr is not None:
            known = sentence < num_sentences
            scale1 = tl.load(scale_ptr + sentence, mask=known, other=0.0).to(ACC)
            scale2 = tl.load(scale_ptr + num_sentences + sentence, mask=known, other=0.0).to(ACC)

        # Forward again: attention.
        normal1, _ = normalised(x, col, C, EPS)
        y1 = operand(affine(normal1, norm1_weight_ptr, norm1_bias_ptr, col, C), DOT, EMULATE_BF16)
        w = transposed_weight(qkv_weight_ptr, C, C, C, CP, CP, DOT, EMULATE_BF16)
        q = tl.dot(y1, w, out_dtype=ACC, input_precision=PRECISION)
        w = transposed_weight(qkv_weight_ptr + C * C, C, C, C, CP, CP, DOT, EMULATE_BF16)
        k = tl.dot(y1, w, out_dtype=ACC, input_precision=PRECISION)
        w = transposed_weight(qkv_weight_ptr + 2 * C * C, C, C, C, CP, CP, DOT, EMULATE_BF16)
        v = tl.dot(y1, w, out_dtype=ACC, input_precision=PRECISION)
        if qkv_bias_ptr is not None:
            q = biased(q, qkv_bias_ptr, col, C)
            k = biased(k, qkv_bias_ptr + C, col, C)
            v = biased(v, qkv_bias_ptr + 2 * C, col, C)
        q = operand(q, DOT, EMULATE_BF16)
        k = operand(k, DOT, EMULATE_BF16)
        v = operand(v, DOT, EMULATE_BF16)
        if BATCHED:
            q = tl.reshape(q, (GROUPS, GROUP, CP))
            k = tl.reshape(k, (GROUPS, GROUP, CP))
            v = tl.reshape(v, (GROUPS, GROUP, CP))
        mixed = tl.full((GROUPS, GROUP, CP), 0.0, ACC) if BATCHED else tl.full((ROWS, CP), 0.0, ACC)
        for head in tl.static_range(HEADS):
            mine = head_of == head
            p = attention(q, k, mine, visible, GROUP != M, AXIS, LOG2_SCALE, ACC, PRECISION)
            p = operand(p, DOT, EMULATE_BF16)
            mixed = tl.where(mine, tl.dot(p, v, out_dtype=ACC, input_precision=PRECISION), mixed)
        mixed = operand(tl.reshape(mixed, (ROWS, CP)), DOT, EMULATE_BF16)
        w = transposed_weight(proj_weight_ptr, C, C, C, CP, CP, DOT, EMULATE_BF16)
        update = biased(tl.dot(mixed, w, out_dtype=ACC, input_precision=PRECISION), proj_bias_ptr, col, C)
        x += scale1 * update
        normal2, inverse2 = normalised(x, col, C, EPS)
        y2 = operand(affine(normal2, norm2_weight_ptr, norm2_bias_ptr, col, C), DOT, EMULATE_BF16)

        # Back through the MLP, whose hidden layer is made again on the way.
        g = scale2 * grad
        accumulate_rows(sums_ptr + FC2_BIAS, g, again, C, CP)
        g = operand(g, DOT, EMULATE_BF16)
        back = tl.full((ROWS, CP), 0.0, ACC)
        for start in tl.static_range(0, HIDDEN, CHUNK):
            w = transposed_weight(fc1_weight_ptr + start * C, HIDDEN - start, C, C, CP, CHUNK, DOT, EMULATE_BF16)
            u = tl.dot(y2, w, out_dtype=ACC, input_precision=PRECISION)
            u = u + tl.load(fc1_bias_ptr + start + chunk, mask=chunk < HIDDEN - start, other=0.0).to(ACC)
            hidden = operand(gelu(u, FAST_GELU), DOT, EMULATE_BF16)
            part = tl.dot(tl.permute(g, (1, 0)), hidden, out_dtype=ACC, input_precision=PRECISION)
            accumulate(sums_ptr + FC2 + start, part, again, C, HIDDEN - start, HIDDEN, CP, CHUNK)
            w = plain_weight(fc2_weight_ptr + start, C, HIDDEN - start, HIDDEN, CP, CHUNK, DOT, EMULATE_BF16)
            u = tl.dot(g, w, out_dtype=ACC, input_precision=PRECISION) * gelu_slope(u, FAST_GELU)
            accumulate_rows(sums_ptr + FC1_BIAS + start, u, again, HIDDEN - start, CHUNK)
            u = operand(u, DOT, EMULATE_BF16)
            part = tl.dot(tl.permute(u, (1, 0)), y2, out_dtype=ACC, input_precision=PRECISION)
            accumulate(sums_ptr + FC1 + start * C, part, again, HIDDEN - start, C, C, CHUNK, CP)
            w = plain_weight(fc1_weight_ptr + start * C, HIDDEN - start, C, C, CHUNK, CP, DOT, EMULATE_BF16)
            back = tl.dot(u, w, back, out_dtype=ACC, input_precision=PRECISION)
        if norm2_weight_ptr is not None:
            accumulate_rows(sums_ptr + NORM2, back * normal2, again, C, CP)
            accumulate_rows(sums_ptr + NORM2 + C, back, again, C, CP)
        grad += norm_back(back, normal2, inverse2, norm2_weight_ptr, col, C)

        # Back through the attention.
        g = scale1 * grad
        accumulate_rows(sums_ptr + PROJ_BIAS, g, again, C, CP)
        g = operand(g, DOT, EMULATE_BF16)
        part = tl.dot(tl.permute(g, (1, 0)), mixed, out_dtype=ACC, input_precision=PRECISION)
        accumulate(sums_ptr + PROJ, part, again, C, C, C, CP, CP)
        w = plain_weight(proj_weight_ptr, C, C, C, CP, CP, DOT, EMULATE_BF16)
        g = operand(tl.dot(g, w, out_dtype=ACC, input_precision=PRECISION), DOT, EMULATE_BF16)
        if BATCHED:
            g = tl.reshape(g, (GROUPS, GROUP, CP))
        dq = tl.full((GROUPS, GROUP, CP), 0.0, ACC) if BATCHED else tl.full((ROWS, CP), 0.0, ACC)
        dk = dq
        dv = dq
        for head in tl.static_range(HEADS):
            mine = head_of == head
            p = attention(q, k, mine, visible, GROUP != M, AXIS, LOG2_SCALE, ACC, PRECISION)
            of_head = tl.where(mine, g, 0.0).to(g.dtype)
            turned = tl.permute(v, (0, 2, 1)) if BATCHED else tl.permute(v, (1, 0))
            dp = tl.dot(of_head, turned, out_dtype=ACC, input_precision=PRECISION)
            ds = p * (dp - tl.reduce(dp * p, AXIS, add, keep_dims=True)) * SCALE
            ds = operand(ds, DOT, EMULATE_BF16)
            p = operand(p, DOT, EMULATE_BF16)
            turned = tl.permute(p, (0, 2, 1)) if BATCHED else tl.permute(p, (1, 0))
            dv = tl.dot(turned, of_head, dv, out_dtype=ACC, input_precision=PRECISION)
            dq = tl.where(mine, tl.dot(ds, k, out_dtype=ACC, input_precision=PRECISION), dq)
            turned = tl.permute(ds, (0, 2, 1)) if BATCHED else tl.permute(ds, (1, 0))
            of_head = tl.where(mine, q, 0.0).to(q.dtype)
            dk = tl.dot(turned, of_head, dk, out_dtype=ACC, input_precision=PRECISION)
        # The input and its norm once more: held until here they would have spilled.
        x = tl.load(words_ptr + base + offset, mask=keep, other=0.0).to(ACC)
        normal1, inverse1 = normalised(x, col, C, EPS)
        y1 = operand(affine(normal1, norm1_weight_ptr, norm1_bias_ptr, col, C), DOT, EMULATE_BF16)
        back = tl.full((ROWS, CP), 0.0, ACC)
        for part_of in tl.static_range(3):
            g = dq if part_of == 0 else dk if part_of == 1 else dv
            g = tl.reshape(g, (ROWS, CP))
            if qkv_bias_ptr is not None:
                accumulate_rows(sums_ptr + QKV_BIAS + part_of * C, g, again, C, CP)
            g = operand(g, DOT, EMULATE_BF16)
            part = tl.dot(tl.permute(g, (1, 0)), y1, out_dtype=ACC, input_precision=PRECISION)
            accumulate(sums_ptr + QKV + part_of * (C * C), part, again, C, C, C, CP, CP)
            w = plain_weight(qkv_weight_ptr + part_of * (C * C), C, C, C, CP, CP, DOT, EMULATE_BF16)
            back = tl.dot(g, w, back, out_dtype=ACC, input_precision=PRECISION)
        if norm1_weight_ptr is not None:
            accumulate_rows(sums_ptr + NORM1, back * normal1, again, C, CP)
            accumulate_rows(sums_ptr + NORM1 + C, back, again, C, CP)
        grad += norm_back(back, normal1, inverse1, norm1_weight_ptr, col, C)
        tl.store(out_ptr + base + offset, grad.to(out_ptr.dtype.element_ty), mask=keep)
        tl.debug_barrier()  # the next tile's sums are added by whichever threads hold them


@triton.jit(do_not_specialize=["num_programs", "num_sums"])
def sum_kernel(
    sums_ptr,  # (P, num_sums)
    out_ptr,  # (num_sums,)
    num_programs,
    num_sums,
    ACC: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of the rows, in an order that depends on their number alone."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    total = tl.full([ROWS, BLOCK], 0.0, ACC)
    for start in range(0, loop_bound(num_programs), ROWS):
        mask = (start + row < num_programs) & (column < num_sums)
        place = (start + row).to(tl.int64) * num_sums + column
        total += tl.load(sums_ptr + place, mask=mask, other=0.0)
    total = tl.reduce(total, 0, add, keep_dims=True)
    tl.store(out_ptr + column, total.to(out_ptr.dtype.element_ty), mask=column < num_sums)
