r"""Triton kernel: a folded convolution as a matrix product that makes its operand on the way (implicit GEMM).

A program computes a rectangle of pixels for a block of output maps. It goes through a list of taps: where each reads,
relative to the pixel, comes from a small tensor, so that one compiled kernel serves every direction and a captured
graph need not be captured again when directions change. The maps are activated as they are loaded; nothing is padded.

What a folded kernel reads too much at the border (see :mod:`shiftghost_sr.ops.fold`) is a second list of taps, whose
weights are negative and which count only where the moved map is outside the frame and the map itself is inside. Only
programs that touch such a side go through it; rectangles rather than runs of pixels keep them few.

The epilogue writes each map into one or more channels of a residual stream, each at its move: no concatenation, and
every number has one writer.

Loaded by ``effkit.triton.kernels``, once per execution mode; how and why is said there.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
loop_bound, operand = _core.loop_bound, _core.operand


@triton.jit(do_not_specialize=["folded_taps", "all_taps", "tiles_down", "tiles_across"])
def folded_conv_kernel(
    x_ptr,  # (N, MAPS, height, width), any strides
    out_ptr,  # (N, channels, height, width), any strides
    weight_ptr,  # (all_taps, MAPS, OUTPUTS)
    bias_ptr,  # (OUTPUTS,) or None
    offsets_ptr,  # (all_taps, 4): where a tap reads, and what must be outside for it to count
    sides_ptr,  # (4,): pixels above, below, left and right that the second list is for
    targets_ptr,  # (TARGETS, OUTPUTS, 3): channel of the output or -1, and its move
    height,
    width,
    tiles_down,
    tiles_across,
    folded_taps,
    all_taps,
    slope,
    x_image, x_map, x_row, x_column,
    out_image, out_map, out_row, out_column,
    MAPS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TARGETS: tl.constexpr,
    ACT: tl.constexpr,  # 0 none, 1 rectifier, 2 leaky rectifier
    ADD: tl.constexpr,
    DOT: tl.constexpr,  # type of the dots' operands
    ACC: tl.constexpr,  # type of accumulators
    PRECISION: tl.constexpr,
    EMULATE_BF16: tl.constexpr,
    BH: tl.constexpr,
    BW: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    left = (tile % tiles_across) * BW
    top = (tile // tiles_across) % tiles_down * BH
    image = (tile // tiles_across // tiles_down).to(tl.int64)
    pixel = tl.arange(0, BH * BW)
    y, x = top + pixel // BW, left + pixel % BW
    inside = (y < height) & (x < width)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    n_in = n < OUTPUTS
    bottom, right = tl.minimum(top + BH, height), tl.minimum(left + BW, width)
    touches = (top < tl.load(sides_ptr)) | (bottom > height - tl.load(sides_ptr + 1))
    touches = touches | (left < tl.load(sides_ptr + 2)) | (right > width - tl.load(sides_ptr + 3))
    taps = tl.where(touches, all_taps, folded_taps)
    BLOCKS: tl.constexpr = (MAPS + BK - 1) // BK
    acc = tl.full((BH * BW, BN), 0.0, ACC)
    # Inside one picture 32 bits are enough: the wrapper refuses what is larger.
    x_own, out_own = x_ptr + image * x_image, out_ptr + image * out_image
    for i in range(0, loop_bound(taps * BLOCKS)):
        tap = i // BLOCKS
        k = (i % BLOCKS) * BK + tl.arange(0, BK)
        k_in = k < MAPS
        own_y, own_x = y + tl.load(offsets_ptr + tap * 4), x + tl.load(offsets_ptr + tap * 4 + 1)
        moved_y, moved_x = y + tl.load(offsets_ptr + tap * 4 + 2), x + tl.load(offsets_ptr + tap * 4 + 3)
        there = inside & (own_y >= 0) & (own_y < height) & (own_x >= 0) & (own_x < width)
        outside = (moved_y < 0) | (moved_y >= height) | (moved_x < 0) | (moved_x >= width)
        source = x_own + (own_y * x_row + own_x * x_column)[:, None] + k[None, :] * x_map
        f = tl.load(source, mask=(there & outside)[:, None] & k_in[None, :], other=0.0)
        if ACT == 1:  # not a maximum, which would hide what is no number
            f = tl.where(f < 0, 0.0, f).to(x_ptr.dtype.element_ty)
        if ACT == 2:
            f = tl.where(f > 0, f, f * slope).to(x_ptr.dtype.element_ty)
        weights = weight_ptr + tap * (MAPS * OUTPUTS) + k[:, None] * OUTPUTS + n[None, :]
        w = tl.load(weights, mask=k_in[:, None] & n_in[None, :], other=0.0)
        acc = tl.dot(
            operand(f, DOT, EMULATE_BF16), operand(w, DOT, EMULATE_BF16), acc,
            input_precision=PRECISION, out_dtype=ACC,
        )  # fmt: skip
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + n, mask=n_in, other=0.0).to(ACC)[None, :]
    for number in range(TARGETS):
        entry = targets_ptr + (number * OUTPUTS + n) * 3
        channel = tl.load(entry, mask=n_in, other=-1)
        to_y = y[:, None] - tl.load(entry + 1, mask=n_in, other=0)[None, :]
        to_x = x[:, None] - tl.load(entry + 2, mask=n_in, other=0)[None, :]
        mask = inside[:, None] & (channel >= 0)[None, :] & (to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width)
        target = out_own + channel[None, :] * out_map + to_y * out_row + to_x * out_column
        found = acc
        if ADD:
            found = acc + tl.load(target, mask=mask, other=0.0).to(ACC)
        tl.store(target, found.to(out_ptr.dtype.element_ty), mask=mask)
