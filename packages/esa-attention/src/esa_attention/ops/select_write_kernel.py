"""The last Triton kernel of the selection: the threshold among the candidates, and the chosen tokens in order.

See :mod:`esa_attention.ops.select_kernel` for what comes before.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
add, lesser, loop_bound = _core.add, _core.lesser, _core.loop_bound
segments = _common.segments

_select = kernels(__package__, "select_kernel")
count_true = _select.count_true
load_keys = _select.load_keys
pick = _select.pick
prefix_of = _select.prefix_of
true_before = _select.true_before


@triton.jit
def load_rest(own_ptr, dilated_ptr, token, mask, LOW_BITS: tl.constexpr):
    """The part of the 64-bit key that the two histograms leave open, as uint64."""
    upper = (load_keys(dilated_ptr, token, mask) & ((1 << LOW_BITS) - 1)).to(tl.uint64)
    return (upper << 32) | load_keys(own_ptr, token, mask).to(tl.uint64)


@triton.jit
def _rank(own_ptr, dilated_ptr, candidates_ptr, number, wanted, FEW: tl.constexpr, LOW_BITS: tl.constexpr):
    """Threshold among at most ``FEW`` candidates by comparing all with all; and how many of its ties are chosen."""
    entry = tl.arange(0, FEW)
    listed = entry < number
    token = tl.load(candidates_ptr + entry, mask=listed, other=0)
    rest = load_rest(own_ptr, dilated_ptr, token, listed, LOW_BITS)
    worst = tl.full((FEW,), (1 << (32 + LOW_BITS)) - 1, tl.uint64)
    rest = tl.where(listed, rest, worst)
    # Entries that are not listed may only tie with the worst that is.
    no_worse = tl.reduce((listed[None, :] & (rest[None, :] <= rest[:, None])).to(tl.int32), 1, add)
    enough = listed & (no_worse >= wanted)
    threshold = tl.reduce(tl.where(enough, rest, worst), 0, lesser)
    return threshold, wanted - count_true(listed & (rest < threshold))


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
            rest = load_rest(own_ptr, dilated_ptr, token, listed, LOW_BITS)
            rest = rest >> (32 + LOW_BITS - FINE_BITS * (level + 1))
            shares = listed & ((rest >> FINE_BITS) == threshold)
            counts += tl.histogram((rest & (BINS - 1)).to(tl.int32), BINS, mask=shares)
        digit, wanted = pick(counts, wanted)
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
        rest = load_rest(own_ptr, dilated_ptr, token, earlier, LOW_BITS)
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

    key = load_keys(dilated_ptr, token, middle) >> LOW_BITS
    prefix, wanted = prefix_of(zeroed_ptr, num_selected, BITS)
    number = tl.load(zeroed_ptr + (2 << BITS))
    if number <= FEW:
        threshold, wanted = _rank(own_ptr, dilated_ptr, candidates_ptr, number, wanted, FEW, LOW_BITS)
    else:
        threshold, wanted = _radix(own_ptr, dilated_ptr, candidates_ptr, number, wanted, CHUNK, LOW_BITS, FINE_BITS)
    chosen_before, ties_before = _before_tile(
        own_ptr, dilated_ptr, candidates_ptr, better_ptr, number, first, tile, threshold, CHUNK, LOW_BITS
    )
    shares = middle & (key == prefix)
    rest = load_rest(own_ptr, dilated_ptr, token, shares, LOW_BITS)
    tied = shares & (rest == threshold)
    chosen = (
        (middle & (key < prefix)) | (shares & (rest < threshold)) | (tied & (ties_before + true_before(tied) < wanted))
    )
    place = chosen_before + tl.minimum(ties_before, wanted) + true_before(chosen)
    tl.store(indices_ptr + place, token, mask=chosen)
