"""The ``k`` best middle tokens in a deterministic order, on the device (section 9 of the fact sheet, "Ties")."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from effkit.errors import choose
from effkit.triton import check_tensors, kernels, launch
from esa_attention.ops.checks import check_integers, check_lengths, require

__all__ = ["SelectScratch", "digit_bits", "histogram_size", "select", "select_scratch"]

_TILE = 1024  # tokens of a program
_WARPS = 8
_FEW = 128  # so many candidates are compared all with all
_CHUNK = 1024  # more are read so many at a time
_PADDING = 32  # integers after the histograms: the number of candidates, and alignment


@cache
def digit_bits() -> tuple[int, int]:
    """Bits of each of the two digits that have a histogram, and of those in which candidates are then sorted.

    Before version 3.8 triton made histograms by ballots, whose cost grows with the number of bins; since then it counts
    in shared memory. The second number divides what the first leaves of 64 bits.
    """
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return 12, 10
    major, minor = (int(part) for part in version.split(".")[:2])
    return (12, 10) if (major, minor) >= (3, 8) else (8, 8)


class SelectScratch(NamedTuple):
    """Memory of a selection, int32; may be used again by the next one on the same stream.

    Attributes:
        zeroed: Two histograms and the number of candidates for each row of scores.
        better: Number of surely chosen tokens in each tile.
        candidates: Tokens among which the threshold lies.
    """

    zeroed: Tensor
    better: Tensor
    candidates: Tensor

    @property
    def more(self) -> Tensor:
        """What was asked for behind the histograms, ``(rows, more)``."""
        return self.zeroed[:, histogram_size() :]

    def check(self, rows: int, capacity: int) -> None:
        """Check that it is large enough.

        Raises:
            UserError: If not.
        """
        held = (self.zeroed.shape[0], self.candidates.shape[1])
        require(
            held[0] == rows and held[1] >= capacity,
            f"scratch must be for {rows} rows and a capacity of at least {capacity}, "
            f"got one for {held[0]} and {held[1]}",
        )


def histogram_size() -> int:
    """Integers that a row of scores needs in ``SelectScratch.zeroed``."""
    return (2 << digit_bits()[0]) + _PADDING


def select_scratch(
    rows: int, capacity: int, device: torch.device | str, more: int = 0, zeroed: Tensor | None = None
) -> SelectScratch:
    """Allocate what :func:`select` needs besides its results.

    Args:
        rows: Rows of scores: the batch, times the blocks of queries that choose for themselves.
        capacity: Tokens there is room for.
        device: Where.
        more: Integers behind those that are zeroed, for another kernel of the step; see ``SelectScratch.more``.
        zeroed: Memory of that part, ``(rows, histogram_size())`` int32; allocated if not given.
    """
    return SelectScratch(
        torch.empty(rows, histogram_size() + more, dtype=torch.int32, device=device) if zeroed is None else zeroed,
        torch.empty(rows, max(-(-capacity // _TILE), 1), dtype=torch.int32, device=device),
        torch.empty(rows, capacity, dtype=torch.int32, device=device),
    )


def _check(own: Tensor, dilated: Tensor) -> None:
    for name, tensor in {"own": own, "dilated": dilated}.items():
        require(
            tensor.ndim in (2, 3) and tensor.stride(-1) == 1 and tensor.dtype == torch.float32,
            f"{name} must be float32 of shape (B, capacity) or (B, N, capacity), contiguous in its last dimension, "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}",
        )
    require(
        own.shape == dilated.shape,
        f"own and dilated must have one shape, got {tuple(own.shape)} and {tuple(dilated.shape)}",
    )


def select(
    own: Tensor,
    dilated: Tensor,
    start: Tensor,
    length: Tensor,
    new_tokens: int,
    num_selected: int,
    num_initial: int,
    num_local: int,
    *,
    scratch: SelectScratch | None = None,
    histogram: Literal["build", "ready"] = "build",
    indices: Tensor | None = None,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pick the best middle tokens: by dilated score, then own score, then lower index.

    The order leaves nothing to chance, however many scores are equal (``-0.0`` equals ``0.0``), so the result is the
    same on every device. Where the middle has at most ``num_selected`` tokens all are taken and no score is read.

    Args:
        own: Scores ``(B, capacity)`` or ``(B, N, capacity)`` float32, free of NaN; only those of the middle are read.
        dilated: The same after the max filter.
        start: First real token of every row ``(B,)``, int32 or int64.
        length: Number of tokens in all, ``(1,)`` or ``(B,)``.
        new_tokens: Tokens of the chunk (``T``), which with ``length`` says where the middle ends.
        num_selected: How many to pick (k).
        num_initial: Size of the initial part (l_I).
        num_local: Size of the local part (l_L).
        scratch: From :func:`select_scratch`; allocated if not given.
        histogram: ``ready`` if :func:`~esa_attention.ops.score_triton.decode_scores` or
            :func:`~esa_attention.ops.prefill_triton.chunk_scores` has just filled ``scratch`` for these scores; or
            where it is known that all of every middle is taken.
        indices: Written and returned if given, ``(B, k)`` or ``(B, N, k)`` int64, contiguous.
        count: Written and returned if given, ``(B,)`` or ``(B, N)`` int32, contiguous.

    Returns:
        Absolute token indices ``(B, k)`` or ``(B, N, k)`` int64, ascending, -1 in slots that are not used; and the
        number of slots used, ``(B,)`` or ``(B, N)`` int32.

    Raises:
        UserError: If shapes, types or devices are wrong, or Triton cannot run here.
    """
    check_integers(0, num_initial=num_initial)
    check_integers(1, new_tokens=new_tokens, num_selected=num_selected, num_local=num_local)
    choose("histogram", histogram, ("build", "ready"))
    _check(own, dilated)
    batch, blocks, capacity = own.shape[0], 1 if own.ndim == 2 else own.shape[1], own.shape[-1]
    rows = batch * blocks
    require(rows <= 65_535, f"own must have at most 65535 rows (B times N), got {rows}")
    check_lengths(start, length, batch)
    check_tensors(own=own, dilated=dilated, start=start, length=length, indices=indices, count=count)
    if scratch is None:
        require(histogram == "build", "histogram must be 'build' without scratch, got 'ready'")
        scratch = select_scratch(rows, capacity, own.device)
    else:
        scratch.check(rows, capacity)
    if indices is None:
        indices = own.new_empty((*own.shape[:-1], num_selected), dtype=torch.int64)
    if count is None:
        count = own.new_empty(own.shape[:-1], dtype=torch.int32)
    for name, tensor, shape, dtype in (
        ("indices", indices, (*own.shape[:-1], num_selected), torch.int64),
        ("count", count, tuple(own.shape[:-1]), torch.int32),
    ):
        require(
            tuple(tensor.shape) == shape and tensor.dtype == dtype and tensor.is_contiguous(),
            f"{name} must be contiguous {dtype} of shape {shape}, got {tensor.dtype} of shape {tuple(tensor.shape)}",
        )

    code = kernels(__package__, "select_kernel")
    strides = (dilated.stride(0), dilated.stride(1) if blocks > 1 else 0)
    length_stride = 0 if length.numel() == 1 else 1
    sizes = (new_tokens, num_initial, num_local, num_selected)
    tiles = -(-capacity // _TILE)
    bits, fine_bits = digit_bits()
    constants: dict[str, Any] = {"TILE": _TILE, "BITS": bits, "warps": _WARPS}
    zeroed, better, candidates = scratch
    common = (dilated, start, length, zeroed)
    if histogram == "build":
        zeroed.zero_()
        launch(
            code.count_kernel,
            (tiles, rows),
            *common,
            *(blocks, *strides, length_stride, zeroed.stride(0), *sizes),
            **constants,
        )
    launch(
        code.refine_kernel,
        (tiles, rows),
        *common,
        *(blocks, *strides, length_stride, zeroed.stride(0), *sizes),
        **constants,
    )
    launch(
        code.collect_kernel,
        (tiles, rows),
        *common,
        *(better, candidates, blocks, *strides, length_stride),
        *(zeroed.stride(0), better.stride(0), candidates.stride(0), *sizes),
        **constants,
    )
    launch(
        kernels(__package__, "select_write_kernel").write_kernel,
        # The slots that stay empty are shared out in the same way as the tokens.
        (max(tiles, -(-num_selected // _TILE)), rows),
        *(own, *common, better, candidates, indices, count),
        *(blocks, own.stride(0), own.stride(1) if blocks > 1 else 0, *strides, length_stride),
        *(zeroed.stride(0), better.stride(0), candidates.stride(0), *sizes),
        FEW=_FEW,
        CHUNK=_CHUNK,
        FINE_BITS=fine_bits,
        **constants,
    )
    return indices, count
