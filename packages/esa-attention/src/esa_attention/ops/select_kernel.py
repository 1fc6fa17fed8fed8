"""Triton kernels of the selection: two digits of a radix select over the whole row, then an exact finish.

Tokens are ordered by (dilated score descending, own score descending, index ascending). Both scores become 32-bit keys
of which less is better, 64 bits in all. Per row of scores:

1. ``count_kernel``: histogram of the first ``BITS`` bits (the score kernel may have done it).
2. ``refine_kernel``: the digit that holds the last place to give away; histogram of the next ``BITS`` bits below it.
3. ``collect_kernel``: again the digit. Tokens better than these two digits are chosen, and counted per tile; tokens
   that share them (usually some dozens, but with ties it can be all) are the candidates, and are listed.
4. ``write_kernel`` (in :mod:`esa_attention.ops.select_write_kernel`): every program finds the threshold among the
   candidates in the remaining bits for itself, because that is cheaper than another launch, then writes the chosen
   tokens of its tile, which stay in ascending order.

The list of candidates is in no particular order, but only counts are taken from it, so the result is deterministic.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions, kernels

_core, _common = device_functions(), kernels(__package__, "common_kernel")
add, greater = _core.add, _core.greater
order_key, segments = _common.order_key, _common.segments


@triton.jit
def count_true(x):
    """Number of true entries."""
    return tl.reduce(x.to(tl.int32), 0, add)


@triton.jit
def true_before(x):
    """For each entry, how many of the earlier ones are true."""
    x = x.to(tl.int32)
    return tl.associative_scan(x, 0, add) - x


@triton.jit
def pick(counts, wanted):
    """The digit at which the running count reaches ``wanted``, and how many are still wanted within it."""
    total = tl.associative_scan(counts, 0, add)
    short = total < wanted
    taken = tl.reduce(tl.where(short, total, 0), 0, greater)
    return count_true(short), wanted - taken


@triton.jit
def load_keys(scores_ptr, token, mask):
    """Keys of the scores of some tokens, less for better ones."""
    return order_key(tl.load(scores_ptr + token, mask=mask, other=0.0))


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
    digit = (load_keys(dilated_ptr, token, middle) >> (32 - BITS)).to(tl.int32)
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
    key = load_keys(dilated_ptr, token, middle)
    bins = zeroed_ptr + tl.arange(0, 1 << BITS)
    first_digit, _ = pick(tl.load(bins), num_selected)
    digit = ((key >> (32 - 2 * BITS)) & ((1 << BITS) - 1)).to(tl.int32)
    shares = middle & ((key >> (32 - BITS)).to(tl.int32) == first_digit)
    counts = tl.histogram(digit, 1 << BITS, mask=shares)
    tl.atomic_add(bins + (1 << BITS), counts, mask=counts > 0, sem="relaxed")


@triton.jit
def prefix_of(zeroed_ptr, num_selected, BITS: tl.constexpr):
    """The first two digits of the last place, and how many of the tokens that share them are chosen."""
    bins = zeroed_ptr + tl.arange(0, 1 << BITS)
    first_digit, wanted = pick(tl.load(bins), num_selected)
    second_digit, wanted = pick(tl.load(bins + (1 << BITS)), wanted)
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
    key = load_keys(dilated_ptr, token, middle) >> (32 - 2 * BITS)
    prefix, _ = prefix_of(zeroed_ptr, num_selected, BITS)
    tl.store(better_ptr + scores * better_stride + tl.program_id(0), count_true(middle & (key < prefix)))
    shares = middle & (key == prefix)
    number = count_true(shares)
    if number > 0:
        base = tl.atomic_add(zeroed_ptr + (2 << BITS), number, sem="relaxed")
        place = candidates_ptr + scores * candidates_stride + base + true_before(shares)
        tl.store(place, token.to(tl.int32), mask=shares)
