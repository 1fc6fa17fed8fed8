"""The choice among scored tokens on a CPU: linear in their number, and nearly all of it one reading.

A max filter over all scores, a partition of all of them and the masks of all of them are a dozen passes over memory to
find a few thousand tokens. The largest score of every block of tokens tells beforehand where those can be: a token as
good as its block's best has ``proximity`` neighbours in that block which dilation makes as good. So the best
``k / (proximity + 1)`` blocks hold ``k`` tokens among them, and their worst is a bound below which nothing is chosen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from esa_attention.ops.forms import PRODUCTS, Asked, Product, Size
from esa_attention.ops.native.select import select_native
from esa_attention.ops.selection_torch import dilate, select_topk

__all__ = ["chosen_size", "select"]

# Tokens of a block: the more blocks there are to one that is needed, the fewer candidates they leave.
_SIZES = (64, 32, 16, 8)
_BLOCKS = 4
# Below so many scores any form takes as long as the calls around it.
_LEAST = 2**14


def _plain(own: Tensor, proximity: int, k: int) -> Tensor:
    """All scores are looked at."""
    return select_topk(dilate(own, proximity), k, own)


def _numpy(own: Tensor, proximity: int, k: int) -> Tensor:
    """Candidates and what is chosen of them in numpy."""
    values = own.numpy()
    near = _candidates(own, values, proximity, k)
    if near is None:
        return torch.from_numpy(np.flatnonzero(_best(dilate(own, proximity).numpy(), values, k)))
    spread = values[near]
    last = values.size - 1
    for step in range(1, proximity + 1):
        # Beyond a border stands the token at the border, which is in the window of whoever looks beyond it.
        np.maximum(spread, values[np.maximum(near - step, 0)], out=spread)
        np.maximum(spread, values[np.minimum(near + step, last)], out=spread)
    return torch.from_numpy(near[_best(spread, values[near], k)])


def _native(own: Tensor, proximity: int, k: int) -> Tensor:
    """The same compiled; what is no way for it (few scores, many alike) is another form's."""
    found = select_native(own, proximity, k)
    return _numpy(own, proximity, k) if found is None else found


_FORMS = {"numpy": _numpy, "native": _native, "plain": _plain}
_SELECT = PRODUCTS["select"] = Product("select", _FORMS, lambda dtype: 0.0)


def select(own: Tensor, proximity: int, k: int, forms: Asked = "auto") -> Tensor:
    """The ``k`` best tokens by dilated score, own score and lower index; see ``select_topk``.

    Args:
        own: Scores of the middle tokens ``(M,)``, with ``M > k``.
        proximity: Half-width of the max filter.
        k: How many.
        forms: In which form, see :mod:`~esa_attention.ops.forms`; all give the same.

    Returns:
        Indices ``(k,)``, ascending.
    """
    if own.device.type != "cpu":
        return _plain(own, proximity, k)
    if own.shape[0] < _LEAST or own.dtype != torch.float32:
        return _numpy(own, proximity, k)
    return _SELECT(forms, chosen_size(own.shape[0], k), own, proximity, k)


def chosen_size(count: int, k: int) -> Size:
    """For what a measurement of this choice holds: so many scores, of which so many are chosen."""
    return Size(torch.float32, count.bit_length(), k, k, torch.get_num_threads())


def _candidates(own: Tensor, values: np.ndarray, proximity: int, k: int) -> np.ndarray | None:
    """Tokens that the ``k`` best are among, ascending: all whose dilated score reaches a bound that ``k`` tokens reach.

    Returns:
        Indices; ``None`` where the scores are too few, too alike or no numbers, so that looking at all is as fast.
    """
    needed = -(-k // (proximity + 1))
    size = next((s for s in _SIZES if s > proximity and values.size // s >= _BLOCKS * needed), 0)
    if not size:
        return None
    count = values.size // size
    best = own[: count * size].view(count, size).amax(dim=1).numpy()
    bound = np.partition(best, count - needed)[count - needed]
    blocks = np.flatnonzero(best >= bound)
    inside = np.flatnonzero(values[: count * size].reshape(count, size)[blocks] >= bound)
    rest = np.flatnonzero(values[count * size :] >= bound) + count * size
    seeds = np.concatenate((blocks[inside // size] * size + inside % size, rest))
    if seeds.size > values.size // (4 * proximity + 4):
        return None
    reached = np.zeros(values.size, dtype=bool)
    around = seeds[:, None] + np.arange(-proximity, proximity + 1)
    reached[around.clip(0, values.size - 1)] = True
    near = np.flatnonzero(reached)
    return near if near.size >= k else None  # fewer where a score is NaN


def _best(dilated: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """A mask of the ``k`` best: by dilated score, then own score, then lower index."""
    chosen, ties, missing = _above(dilated, k)
    if missing < ties.size:
        among = own[ties]
        surely, again, missing = _above(among, missing)
        surely[again[:missing]] = True  # the same own score too: the lower index
        ties = ties[surely]
    chosen[ties] = True
    return chosen


def _above(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A mask of what exceeds the k-th largest, the indices equal to it, and how many of those belong to the k."""
    threshold = np.partition(values, values.size - k)[values.size - k]
    mask = values > threshold
    return mask, np.flatnonzero(values == threshold), k - int(np.count_nonzero(mask))
