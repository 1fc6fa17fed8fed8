"""Triton kernels of the selection: two digits of a radix select over the whole row, then an exact finish.

Tokens are ordered by (dilated score descending, own score descending, index ascending). Both scores become 32-bit keys
of which less is better, 64 bits in all. Per row of scores:

1. ``count_kernel``: histogram of the first ``BITS`` bits (the score kernel may have done it).
2. ``refine_kernel``: the digit that holds the last place to give away; histogram of the next ``BITS`` bits below it.
3. ``collect_kernel``: again the digit. Tokens better than these two digits are chosen, and counted per tile; tokens
   that share them (usually some dozens, but with ties it can be all) are the candidates, and are listed.
4. ``write_kernel``: every program finds the threshold among the candidates in the remaining bits for itself, because
   that is cheaper than another launch, then writes the chosen tokens of its tile, which stay in ascending order.

The list of candidates is in no particular order, but only counts are taken from it, so the result is deterministic.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from esa_attention.ops._triton_common import kernels

_common = kernels("common_kernel")
add = _common.add
greater = _common.greater
lesser = _common.lesser
loop_bound = _common.loop_bound
order_key = _common.order_key
segments = _common.segments


@triton.jit
def _count(x):
    """Number of true entries."""
    return tl.reduce(x.to(tl.int32), 0, add)


@triton.jit
def _before(x):
    """For each entry, how many of the earlier ones are true."""
    x = x.to(tl.int32)
    return tl.associative_scan(x, 0, add) - x


@triton.jit
def _pick(counts, wanted):
    """The digit at which the running count reaches ``wanted``, and how many are still wanted within it."""
    total = tl.associative_scan(counts, 0, add)
    short = total < wanted
    taken = tl.reduce(tl.where(short, total, 0), 0, greater)
    return _count(short), wanted - taken


@triton.jit
def _load_keys(scores_ptr, token, mask):
    return order_key(tl.load(scores_ptr + token, mask=mask, other=0.0))


@triton.jit
def _load_rest(own_ptr, dilated_ptr, token, mask, LOW_BITS: tl.constexpr):
    """The part of the 64-bit key that the two histograms leave open, as uint64."""
    upper = (_load_keys(dilated_ptr, token, mask) & ((1 << LOW_BITS) - 1)).to(tl.uint64)
    return (upper << 32) | _load_keys(own_ptr, token, mask).to(tl.uint64)


@triton.jit(do_not_specialize=["new_tokens", "num_initial", "num_local", "num_selected"])
def count_kernel(
    dilated_ptr,
    start_ptr,
    length_ptr,
    zeroed_ptr,
    blocks,
    dilated_row_stride,
    dilated_block_stride,
    length_stride,
    zeroed_stride,
    new_tokens,
    num_initial,
    num_local,
    num_selected,
    TILE: tl.constexpr,
    BITS: tl.constexpr,
):
    """Histogram of the first digit."""
    scores = tl.program_id(1).to(tl.int64)
    row = scores // blocks
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tl.program_id(0).to(tl.int64) * TILE
    if (high - low <= num_selected) | (first >= high) | (first + TILE <= low):
        return
    dilated_ptr += row * dilated_row_stride + scores % blocks * dilated_block_stride
    token = first + tl.arange(0, TILE)
    middle = (token >= low) & (token < high)
    digit = (_load_keys(dilated_ptr, token, middle) >> (32 - BITS)).to(tl.int32)
    counts = tl.histogram(digit, 1 << BITS, mask=middle)
    bins = zeroed_ptr + scores * zeroed_stride + tl.arange(0, 1 << BITS)
    tl.atomic_add(bins, counts, mask=counts > 0, sem="relaxed")


@triton.jit(do_not_specialize=["new_tokens", "num_initial", "num_local", "num_selected"])
def refine_kernel(
    dilated_ptr,
    start_ptr,
    length_ptr,
    zeroed_ptr,
    blocks,
    dilated_row_stride,
    dilated_block_stride,
    length_stride,
    zeroed_stride,
    new_tokens,
    num_initial,
    num_local,
    num_selected,
    TILE: tl.constexpr,
    BITS: tl.constexpr,
):
    """Histogram of the second digit among the tokens that share the first digit of the last place."""
    scores = tl.program_id(1).to(tl.int64)
    row = scores // blocks
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tl.program_id(0).to(tl.int64) * TILE
    if (high - low <= num_selected) | (first >= high) | (first + TILE <= low):
        return
    dilated_ptr += row * dilated_row_stride + scores % blocks * dilated_block_stride
    zeroed_ptr += scores * zeroed_stride
    token = first + tl.arange(0, TILE)
    middle = (token >= low) & (token < high)
    key = _load_keys(dilated_ptr, token, middle)
    bins = zeroed_ptr + tl.arange(0, 1 << BITS)
    first_digit, _ = _pick(tl.load(bins), num_selected)
    digit = ((key >> (32 - 2 * BITS)) & ((1 << BITS) - 1)).to(tl.int32)
    shares = middle & ((key >> (32 - BITS)).to(tl.int32) == first_digit)
    counts = tl.histogram(digit, 1 << BITS, mask=shares)
    tl.atomic_add(bins + (1 << BITS), counts, mask=counts > 0, sem="relaxed")


@triton.jit
def _prefix(zeroed_ptr, num_selected, BITS: tl.constexpr):
    """The first two digits of the last place, and how many of the tokens that share them are chosen."""
    bins = zeroed_ptr + tl.arange(0, 1 << BITS)
    first_digit, wanted = _pick(tl.load(bins), num_selected)
    second_digit, wanted = _pick(tl.load(bins + (1 << BITS)), wanted)
    return ((first_digit << BITS) | second_digit).to(tl.uint32), wanted


@triton.jit(do_not_specialize=["new_tokens", "num_initial", "num_local", "num_selected"])
def collect_kernel(
    dilated_ptr,
    start_ptr,
    length_ptr,
    zeroed_ptr,
    better_ptr,  # (rows, tiles)
    candidates_ptr,  # (rows, capacity)
    blocks,
    dilated_row_stride,
    dilated_block_stride,
    length_stride,
    zeroed_stride,
    better_stride,
    candidates_stride,
    new_tokens,
    num_initial,
    num_local,
    num_selected,
    TILE: tl.constexpr,
    BITS: tl.constexpr,
):
    """Count what is better than the first two digits of the last place in each tile; list what shares them."""
    scores = tl.program_id(1).to(tl.int64)
    row = scores // blocks
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tl.program_id(0).to(tl.int64) * TILE
    if (high - low <= num_selected) | (first >= high):
        return
    dilated_ptr += row * dilated_row_stride + scores % blocks * dilated_block_stride
    zeroed_ptr += scores * zeroed_stride
    token = first + tl.arange(0, TILE)
    middle = (token >= low) & (token < high)
    key = _load_keys(dilated_ptr, token, middle) >> (32 - 2 * BITS)
    prefix, _ = _prefix(zeroed_ptr, num_selected, BITS)
    tl.store(better_ptr + scores * better_stride + tl.program_id(0), _count(middle & (key < prefix)))
    shares = middle & (key == prefix)
    number = _count(shares)
    if number > 0:
        base = tl.atomic_add(zeroed_ptr + (2 << BITS), number, sem="relaxed")
        place = candidates_ptr + scores * candidates_stride + base + _before(shares)
        tl.store(place, token.to(tl.int32), mask=shares)


@triton.jit
def _rank(own_ptr, dilated_ptr, candidates_ptr, number, wanted, FEW: tl.constexpr, LOW_BITS: tl.constexpr):
    """Threshold among at most ``FEW`` candidates by comparing all with all; and how many of its ties are chosen."""
    entry = tl.arange(0, FEW)
    listed = entry < number
    token = tl.load(candidates_ptr + entry, mask=listed, other=0)
    rest = _load_rest(own_ptr, dilated_ptr, token, listed, LOW_BITS)
    worst = tl.full((FEW,), (1 << (32 + LOW_BITS)) - 1, tl.uint64)
    rest = tl.where(listed, rest, worst)
    # Entries that are not listed may only tie with the worst that is.
    no_worse = tl.reduce((listed[None, :] & (rest[None, :] <= rest[:, None])).to(tl.int32), 1, add)
    enough = listed & (no_worse >= wanted)
    threshold = tl.reduce(tl.where(enough, rest, worst), 0, lesser)
    return threshold, wanted - _count(listed & (rest < threshold))


@triton.jit
def _radix(
    own_ptr,
    dilated_ptr,
    candidates_ptr,
    number,
    wanted,
    CHUNK: tl.constexpr,
    LOW_BITS: tl.constexpr,
    FINE_BITS: tl.constexpr,
):
    """The same for any number of candidates, digit by digit."""
    BINS: tl.constexpr = 1 << FINE_BITS
    threshold = tl.cast(0, tl.uint64)
    for level in tl.static_range(0, (32 + LOW_BITS) // FINE_BITS):
        counts = tl.full((BINS,), 0, tl.int32)
        for base in range(0, loop_bound(number), CHUNK):
            entry = base + tl.arange(0, CHUNK)
            listed = entry < number
            token = tl.load(candidates_ptr + entry, mask=listed, other=0)
            rest = _load_rest(own_ptr, dilated_ptr, token, listed, LOW_BITS)
            rest = rest >> (32 + LOW_BITS - FINE_BITS * (level + 1))
            shares = listed & ((rest >> FINE_BITS) == threshold)
            counts += tl.histogram((rest & (BINS - 1)).to(tl.int32), BINS, mask=shares)
        digit, wanted = _pick(counts, wanted)
        threshold = (threshold << FINE_BITS) | digit.to(tl.uint64)
    return threshold, wanted


@triton.jit
def _before_tile(
    own_ptr,
    dilated_ptr,
    candidates_ptr,
    better_ptr,
    number,
    first,
    tile,
    threshold,
    CHUNK: tl.constexpr,
    LOW_BITS: tl.constexpr,
):
    """Tokens before a tile that are surely chosen, and those that tie with the threshold."""
    chosen = tl.full((CHUNK,), 0, tl.int32)
    ties = tl.full((CHUNK,), 0, tl.int32)
    entry = tl.arange(0, CHUNK)
    for base in range(0, loop_bound(tile), CHUNK):
        chosen += tl.load(better_ptr + base + entry, mask=base + entry < tile, other=0)
    for base in range(0, loop_bound(number), CHUNK):
        token = tl.load(candidates_ptr + base + entry, mask=base + entry < number, other=0)
        earlier = (base + entry < number) & (token < first)
        rest = _load_rest(own_ptr, dilated_ptr, token, earlier, LOW_BITS)
        chosen += (earlier & (rest < threshold)).to(tl.int32)
        ties += (earlier & (rest == threshold)).to(tl.int32)
    return tl.reduce(chosen, 0, add), tl.reduce(ties, 0, add)


@triton.jit(do_not_specialize=["new_tokens", "num_initial", "num_local", "num_selected"])
def write_kernel(
    own_ptr,
    dilated_ptr,
    start_ptr,
    length_ptr,
    zeroed_ptr,
    better_ptr,
    candidates_ptr,
    indices_ptr,  # (rows, num_selected)
    count_ptr,  # (rows,)
    blocks,
    own_row_stride,
    own_block_stride,
    dilated_row_stride,
    dilated_block_stride,
    length_stride,
    zeroed_stride,
    better_stride,
    candidates_stride,
    new_tokens,
    num_initial,
    num_local,
    num_selected,
    TILE: tl.constexpr,
    BITS: tl.constexpr,
    FEW: tl.constexpr,
    CHUNK: tl.constexpr,
    FINE_BITS: tl.constexpr,
):
    """Write the chosen tokens of one tile to their places."""
    LOW_BITS: tl.constexpr = 32 - 2 * BITS
    tile = tl.program_id(0)
    scores = tl.program_id(1).to(tl.int64)
    row = scores // blocks
    _, _, low, high = segments(start_ptr, length_ptr, length_stride, row, new_tokens, num_initial, num_local)
    first = tile.to(tl.int64) * TILE
    entry = tl.arange(0, TILE)
    token = first + entry
    middle = (token >= low) & (token < high)
    indices_ptr += scores * num_selected
    number_middle = high - low
    if tile == 0:
        tl.store(count_ptr + scores, tl.minimum(number_middle, num_selected).to(tl.int32))
    if number_middle <= num_selected:
        tl.store(indices_ptr + (token - low), token, mask=middle)
        tl.store(indices_ptr + token, -1, mask=(token >= number_middle) & (token < num_selected))
        return
    if (first >= high) | (first + TILE <= low):
        return
    own_ptr += row * own_row_stride + scores % blocks * own_block_stride
    dilated_ptr += row * dilated_row_stride + scores % blocks * dilated_block_stride
    zeroed_ptr += scores * zeroed_stride
    better_ptr += scores * better_stride
    candidates_ptr += scores * candidates_stride

    key = _load_keys(dilated_ptr, token, middle) >> LOW_BITS
    prefix, wanted = _prefix(zeroed_ptr, num_selected, BITS)
    number = tl.load(zeroed_ptr + (2 << BITS))
    if number <= FEW:
        threshold, wanted = _rank(own_ptr, dilated_ptr, candidates_ptr, number, wanted, FEW, LOW_BITS)
    else:
        threshold, wanted = _radix(own_ptr, dilated_ptr, candidates_ptr, number, wanted, CHUNK, LOW_BITS, FINE_BITS)
    chosen_before, ties_before = _before_tile(
        own_ptr, dilated_ptr, candidates_ptr, better_ptr, number, first, tile, threshold, CHUNK, LOW_BITS
    )
    shares = middle & (key == prefix)
    rest = _load_rest(own_ptr, dilated_ptr, token, shares, LOW_BITS)
    tied = shares & (rest == threshold)
    chosen = (middle & (key < prefix)) | (shares & (rest < threshold)) | (tied & (ties_before + _before(tied) < wanted))
    place = chosen_before + tl.minimum(ties_before, wanted) + _before(chosen)
    tl.store(indices_ptr + place, token, mask=chosen)
