"""What a policy does to each picture, in one launch: Philox, the policy's tables and their arithmetic.

A program draws one layer for ``BLOCK`` pictures. It does, operation by operation and in float64, what
:class:`kd_autoaug.augmentation.policies.sampling.Sampler` does with tensors, so its bits are the same; products and
sums must not be fused. Draws without replacement are drawn again by each layer's program from the first layer on,
which is cheaper than telling each other.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
add, loop_bound = _core.add, _core.loop_bound

MULTIPLIER_0, MULTIPLIER_1 = tl.constexpr(0xD2511F53), tl.constexpr(0xCD9E8D57)
WEYL_0, WEYL_1 = tl.constexpr(0x9E3779B9), tl.constexpr(0xBB67AE85)
ROUNDS = tl.constexpr(10)
LOW = tl.constexpr(0xFFFFFFFF)
BITS = tl.constexpr(2.0**-32)


@triton.jit
def philox(first, second, third, fourth, key_0, key_1):
    """Philox4x32-10 on words of 32 bits in int64; four words. A product of 64 bits wraps, and keeps its bits."""
    for _ in tl.static_range(ROUNDS):
        one = first * MULTIPLIER_0
        two = third * MULTIPLIER_1
        first = ((two >> 32) & LOW) ^ second ^ key_0
        third = ((one >> 32) & LOW) ^ fourth ^ key_1
        second = two & LOW
        fourth = one & LOW
        key_0 = (key_0 + WEYL_0) & LOW
        key_1 = (key_1 + WEYL_1) & LOW
    return first, second, third, fourth


@triton.jit
def words(index, view, label, seed_0, seed_1):
    """The four words of a block: ``label`` is the stream's number times 256 plus the block's."""
    zero = index * 0
    key_0 = (zero + seed_0) & LOW
    key_1 = (zero + seed_1) & LOW
    return philox(index & LOW, view & LOW, zero + label, (index >> 32) & LOW, key_0, key_1)


@triton.jit
def key_of(index_ptr, index_stride, view_ptr, view_stride, view, place, mask):
    """Numbers of the samples and of their views."""
    index = tl.load(index_ptr + place * index_stride, mask=mask, other=0)
    views = index * 0 + view
    if view_ptr is not None:
        views = tl.load(view_ptr + place * view_stride, mask=mask, other=0)
    return index, views


@triton.jit
def truncated(x):
    """Towards zero."""
    return tl.where(x < 0.0, tl.ceil(x), tl.floor(x))


@triton.jit
def row_of_weights(
    weight_ptr, rows, index, view, layer, stream, seed_0, seed_1, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """The row drawn by weights for a layer, when those of the layers before it are gone."""
    column = tl.arange(0, ROWS)[None, :]
    left = tl.load(weight_ptr + column, mask=column < rows, other=0) + tl.full([BLOCK, ROWS], 0, tl.int64)
    found = tl.full([BLOCK, 1], 0, tl.int64)
    for each in range(0, loop_bound(layer + 1)):
        choice, _, _, _ = words(index, view, (each + stream) * 256, seed_0, seed_1)
        until = tl.associative_scan(left, 1, add)
        most = tl.reduce(left, 1, add, keep_dims=True)
        target = (tl.expand_dims(choice, 1) * most) >> 32
        passed = ((until <= target) & (column < rows)).to(tl.int64)
        found = tl.reduce(passed, 1, add, keep_dims=True)
        left = tl.where(column == found, 0, left)
    return tl.reshape(found, [BLOCK])


@triton.jit
def by_law(law_ptr, entries, entry, fraction, negative):
    """``kd_autoaug.augmentation.policies.law.evaluate``, step by step."""
    law_ptr += entry
    scale = tl.load(law_ptr)
    offset = tl.load(law_ptr + entries)
    direction = tl.load(law_ptr + 2 * entries)
    cap = tl.load(law_ptr + 3 * entries)
    lowest = tl.load(law_ptr + 4 * entries)
    highest = tl.load(law_ptr + 5 * entries)
    root = tl.load(law_ptr + 6 * entries) > 0.0
    cut = tl.load(law_ptr + 7 * entries) > 0.0
    cut_total = tl.load(law_ptr + 8 * entries) > 0.0
    signed = tl.load(law_ptr + 9 * entries) > 0.0
    signed_total = tl.load(law_ptr + 10 * entries) > 0.0
    x = fraction * scale
    x = tl.minimum(tl.where(cut, truncated(x), x), cap) * direction
    x = tl.where(negative & signed, -x, x)
    y = offset + x
    y = tl.where(cut_total, truncated(y), y)
    y = tl.where(root, tl.sqrt(tl.maximum(y, 0.0)), y)
    y = tl.minimum(tl.maximum(y, lowest), highest)
    return tl.where(negative & signed_total, -y, y)


@triton.jit
def start_of_box(extent, word, side, RECTANGLE: tl.constexpr, HALF: tl.constexpr):
    """Where a cutout begins and ends along one axis; see ``kd_autoaug.augmentation.policies.boxes``."""
    if RECTANGLE:
        length = side.to(tl.float64)
        corner = tl.floor(tl.maximum(word.to(tl.float64) * BITS * length - extent * 0.5, 0.0))
        start = corner.to(tl.int64)
        end = (tl.floor(tl.minimum(corner + extent, length)) + 1.0).to(tl.int64)
    elif HALF:
        start = ((word * side) >> 32) - extent.to(tl.int64)
        end = ((word * side) >> 32) + extent.to(tl.int64)
    else:
        whole = tl.floor(extent + 0.5).to(tl.int64)
        start = ((word * side) >> 32) - whole // 2
        end = ((word * side) >> 32) + whole - whole // 2
    return start, end


@triton.jit(do_not_specialize=["view", "seed_0", "seed_1", "batch", "height", "width"])
def draw_kernel(
    op_ptr,  # (L, B) int64
    arg_ptr,  # (L, B) float64
    how_ptr,  # (L, B) int64
    box_ptr,  # (L, B, 4) int64
    index_ptr,
    index_stride,
    view_ptr,  # or None: `view` is that of all
    view_stride,
    view,
    ops_ptr,  # (E,) int64
    threshold_ptr,  # (E,) float64
    level_ptr,  # (E,) float64
    argument_ptr,  # (E, bins, 2) float64; with noise the factors of the sides, (E,)
    kinds_ptr,  # (kinds,) int64
    weight_ptr,  # (rows,) int64 or None
    law_ptr,  # (11, E) float64, where there is noise
    quantile_ptr,  # (65536,) float64, where there is normal noise
    numbers_ptr,  # float64: deviation and upper bound of the noise, the space's denominator, the narrowest blur
    seed_0,
    seed_1,
    batch,
    height,
    width,
    stream,  # of the first layer
    entries,
    rows,
    slots,
    bins,
    kinds,
    mixture_stream,
    DRAWS: tl.constexpr,
    LONG: tl.constexpr,  # whether the second block of words is read
    NOISE: tl.constexpr,  # 0 none, 1 uniform, 2 normal
    CUTOUT: tl.constexpr,  # the operator's number, or None
    STYLE: tl.constexpr,  # 0 none, 1 half, 2 rectangle, 3 rectangle_or_dot, 4 centred
    BLUR: tl.constexpr,  # the operator's number, or None
    CHAINS: tl.constexpr,  # chains whose length is drawn, or 0
    LONGEST: tl.constexpr,  # operators of such a chain at most
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Operators, arguments, interpolations and boxes of one layer."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    layer = tl.program_id(1)
    mask = place < batch
    index, views = key_of(index_ptr, index_stride, view_ptr, view_stride, view, place, mask)
    label = (layer + stream) * 256
    choice, apply, sign, interpolation = words(index, views, label, seed_0, seed_1)
    if LONG:
        level_word, across, down, wide = words(index, views, label + 1, seed_0, seed_1)

    if not DRAWS:  # one word, the first layer's, picks the row, whose slots follow each other
        choice, _, _, _ = words(index, views, (layer * 0 + stream) * 256, seed_0, seed_1)
        entry = ((choice * rows) >> 32) * slots + layer
    elif weight_ptr is None:
        entry = (choice * rows) >> 32
    else:
        entry = row_of_weights(weight_ptr, rows, index, views, layer, stream, seed_0, seed_1, BLOCK, ROWS)

    applied = apply.to(tl.float64) < tl.load(threshold_ptr + entry)
    negative = sign >> 31
    if NOISE == 0:
        bin = (level_word * bins) >> 32 if LONG else negative * 0
        arg = tl.load(argument_ptr + (entry * bins + bin) * 2 + negative)
    else:
        level = tl.load(level_ptr + entry)
        if NOISE == 1:
            level = level * (level_word.to(tl.float64) * BITS)
        else:
            level = level + tl.load(numbers_ptr) * tl.load(quantile_ptr + (level_word >> 16))
        level = tl.minimum(tl.maximum(level, 0.0), tl.load(numbers_ptr + 1))
        fraction = level / tl.load(numbers_ptr + 2)
        arg = by_law(law_ptr, entries, entry, fraction, negative > 0) * tl.load(argument_ptr + entry)

    on = applied.to(tl.int64)
    op = tl.load(ops_ptr + entry) * on
    box_ptr += (layer.to(tl.int64) * batch + place) * 4
    if CUTOUT is not None and STYLE > 0:
        left, right = start_of_box(arg, across, width, (STYLE == 2) | (STYLE == 3), STYLE == 1)
        top, bottom = start_of_box(arg, down, height, (STYLE == 2) | (STYLE == 3), STYLE == 1)
        cuts = (op == CUTOUT).to(tl.int64)
        if STYLE == 2:
            cuts = cuts * (arg > 0.0).to(tl.int64)
        tl.store(box_ptr, left * cuts, mask=mask)
        tl.store(box_ptr + 1, top * cuts, mask=mask)
        tl.store(box_ptr + 2, right * cuts, mask=mask)
        tl.store(box_ptr + 3, bottom * cuts, mask=mask)
    else:
        for side in tl.static_range(4):
            tl.store(box_ptr + side, on * 0, mask=mask)
    if CUTOUT is not None:
        arg = arg * (op != CUTOUT).to(tl.float64)
    if BLUR is not None:
        low = tl.load(numbers_ptr + 3)
        drawn = low + (arg - low) * (wide.to(tl.float64) * BITS)
        arg = tl.where(op == BLUR, drawn, arg)
    arg = arg * on.to(tl.float64)
    how = tl.load(kinds_ptr + ((interpolation * kinds) >> 32))
    if CHAINS > 0:  # the length of this layer's chain is a word of the mixture's stream
        which = CHAINS + layer // LONGEST
        label = which // 4 + mixture_stream * 256
        first, second, third, fourth = words(index, views, label, seed_0, seed_1)
        low_pair = tl.where(which % 4 == 0, first, second)
        length = 1 + ((tl.where(which % 4 < 2, low_pair, tl.where(which % 4 == 2, third, fourth)) * LONGEST) >> 32)
        op = tl.where(layer % LONGEST < length, op, 0)

    place += layer.to(tl.int64) * batch
    tl.store(op_ptr + place, op, mask=mask)
    tl.store(arg_ptr + place, arg, mask=mask)
    tl.store(how_ptr + place, how, mask=mask)


@triton.jit(do_not_specialize=["view", "seed_0", "seed_1", "batch", "count"])
def words_kernel(
    out_ptr,  # (S, count, B) int64
    labels_ptr,  # (S,) int64: numbers of the streams
    index_ptr,
    index_stride,
    view_ptr,  # or None: `view` is that of all
    view_stride,
    view,
    seed_0,
    seed_1,
    batch,
    count,
    BLOCK: tl.constexpr,
):
    """The words of one block of one stream."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    block = tl.program_id(1)
    stream = tl.program_id(2)
    mask = place < batch
    index, views = key_of(index_ptr, index_stride, view_ptr, view_stride, view, place, mask)
    label = tl.load(labels_ptr + stream) * 256 + block
    first, second, third, fourth = words(index, views, label, seed_0, seed_1)
    at = place * 0 + block * 4
    out_ptr += (stream.to(tl.int64) * count + at) * batch + place
    tl.store(out_ptr, first, mask=mask & (at < count))
    tl.store(out_ptr + batch, second, mask=mask & (at + 1 < count))
    tl.store(out_ptr + 2 * batch, third, mask=mask & (at + 2 < count))
    tl.store(out_ptr + 3 * batch, fourth, mask=mask & (at + 3 < count))
