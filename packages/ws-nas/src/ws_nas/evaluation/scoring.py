"""Scores of many sub-networks of a supernet, each with statistics of its own.

Three ways to the same figures: one path at a time; all paths that take an operation at once; and, in chains, each
prefix of paths once, statistics included, for both depend on the choices so far only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from effkit.errors import UserError, choose
from effkit.progress import report_progress
from ws_nas.evaluation.prefixes import STACKED_BYTES, walk_prefixes
from ws_nas.supernets.norm import Applying, Collecting
from ws_nas.supernets.supernet import CALIBRATIONS, Supernet

__all__ = ["METHODS", "Scores", "score"]

METHODS = ("auto", "loop", "batched", "prefix")

_Path: TypeAlias = tuple[int, ...]


class Scores(NamedTuple):
    """Scores in the order of the genotypes.

    Attributes:
        accuracy: (G,) share of right answers, float64.
        loss: (G,) mean cross entropy, float64.
    """

    accuracy: Tensor
    loss: Tensor


def score(
    supernet: Supernet,
    genotypes: Sequence[Sequence[int]],
    batches: Iterable[tuple[Tensor, Tensor]],
    calibration: Iterable[Tensor] | None = None,
    *,
    mode: str = "exact",
    method: str = "auto",
    paths_at_once: int | None = None,
) -> Scores:
    """Score sub-networks with inherited weights; the supernet stays as it is.

    Args:
        supernet: Holds the weights.
        genotypes: G of its space.
        batches: Pictures (B, C, H, W) and labels (B,) to score on.
        calibration: Pictures to re-estimate statistics of batch normalisation on, for each path from nothing; without
            any, running statistics are used, or each batch's own where a supernet keeps none.
        mode: How they are re-estimated, see :meth:`Supernet.bn_statistics`.
        method: ``loop``, ``batched``, ``prefix``, or the fastest that the supernet has.
        paths_at_once: Of ``batched``; as many as fit into memory if not given.

    Raises:
        UserError: If there is nothing to score on, a genotype is of another space, the supernet has no such method,
            or a path gives no numbers; names it.
    """
    choose("method", method, METHODS)
    choose("mode", mode, CALIBRATIONS)
    paths, parts = [supernet.check(g) for g in genotypes], list(batches)
    if not parts or not sum(len(y) for _, y in parts):
        raise UserError("batches is empty: scores need at least one batch")
    if not paths:
        return Scores(torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64))
    given: list[Tensor] | None = None
    if calibration is not None:
        given = list(calibration)
        if not given or not sum(map(len, given)):
            raise UserError("calibration is empty: re-estimation of BN needs at least one batch")
        given = [torch.cat(given)] if mode == "exact" else given
    is_chain = supernet.chain(paths[0]) is not None
    if method == "prefix" and not is_chain:
        raise UserError("method=prefix needs a chain; choose auto, loop or batched")
    if method == "batched" and not supernet.batched:
        raise UserError("method=batched: this supernet has no batched forward; choose auto, loop or prefix")
    if paths_at_once is not None and paths_at_once < 1:
        raise UserError(f"paths_at_once={paths_at_once} must be at least 1")
    if method == "auto":
        method = "prefix" if is_chain and len(paths) > 1 else "batched" if supernet.batched else "loop"
    tally = _Tally(len(paths))
    with torch.no_grad(), supernet.evaluating():
        if method == "prefix":
            _prefix(supernet, paths, parts, given, tally)
        elif method == "batched":
            _batched(supernet, paths, parts, given, tally, paths_at_once)
        else:
            _loop(supernet, paths, parts, given, tally)
    return tally.scores(paths)


class _Tally:
    """Right answers and losses of each path."""

    def __init__(self, count: int) -> None:
        self.right = torch.zeros(count, dtype=torch.float64)
        self.loss = torch.zeros(count, dtype=torch.float64)
        self.seen = torch.zeros(count, dtype=torch.float64)

    def add(self, paths: Sequence[int], logits: Tensor, labels: Tensor) -> None:
        """Note logits (G, B, classes) of some paths."""
        index = torch.tensor(list(paths))
        losses = functional.cross_entropy(
            logits.float().flatten(0, 1), labels.repeat(len(logits)), reduction="none"
        ).unflatten(0, logits.shape[:2])
        self.right[index] += (logits.argmax(2) == labels).sum(1).double().cpu()
        self.loss[index] += losses.double().sum(1).cpu()
        self.seen[index] += len(labels)

    def clear(self, paths: Sequence[int]) -> None:
        """Forget some paths, which are scored anew."""
        for sums in (self.right, self.loss, self.seen):
            sums[torch.tensor(list(paths))] = 0

    def scores(self, paths: Sequence[_Path]) -> Scores:
        found = Scores(self.right / self.seen, self.loss / self.seen)
        bad = (~found.loss.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise UserError(f"genotype={paths[bad[0]]} has a loss of {float(found.loss[bad[0]])} ({len(bad)} such)")
        return found


def _loop(
    supernet: Supernet,
    paths: Sequence[_Path],
    batches: Sequence[tuple[Tensor, Tensor]],
    calibration: Sequence[Tensor] | None,
    tally: _Tally,
) -> None:
    for i, path in enumerate(paths):
        report_progress(f"sub-network {i} of {len(paths)}", i / len(paths))
        if calibration is None:
            for x, y in batches:
                tally.add([i], supernet.run(x, path)[None], y)
            continue
        with Collecting() as session:
            for x in calibration:
                supernet.run(x, path)
        with Applying(session.moments()):
            for x, y in batches:
                tally.add([i], supernet.run(x, path)[None], y)


def _batched(
    supernet: Supernet,
    paths: Sequence[_Path],
    batches: Sequence[tuple[Tensor, Tensor]],
    calibration: Sequence[Tensor] | None,
    tally: _Tally,
    at_once: int | None,
) -> None:
    largest = max([x for x, _ in batches] + list(calibration or []), key=len)
    size = at_once or _fitting(supernet, largest, len(paths))
    start = 0
    while start < len(paths):
        report_progress(f"sub-network {start} of {len(paths)}", start / len(paths))
        numbers = range(start, min(start + size, len(paths)))
        some = [paths[i] for i in numbers]
        try:
            if calibration is None:
                for x, y in batches:
                    tally.add(numbers, supernet.run_many(x, some), y)
            else:
                with Collecting(len(some)) as session:
                    for x in calibration:
                        supernet.run_many(x, some)
                with Applying(session.moments()):
                    for x, y in batches:
                        tally.add(numbers, supernet.run_many(x, some), y)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            tally.clear(numbers)
            size = max(1, size // 2)
            continue
        start += len(some)


def _fitting(supernet: Supernet, x: Tensor, most: int) -> int:
    """How many paths at once fit: by a trial of one on a GPU, by the size of the stem's output on a CPU."""
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        with Collecting(1):
            supernet.run_many(x, [tuple([min(3, m - 1) for m in supernet.choices])])
        one = max(1, torch.cuda.max_memory_allocated(x.device) - before)
        free, _ = torch.cuda.mem_get_info(x.device)
        return int(max(1, min(most, 0.5 * free // one)))
    return int(max(1, min(most, STACKED_BYTES // max(1, supernet.stem_bytes(x)))))


def _prefix(
    supernet: Supernet,
    paths: Sequence[_Path],
    batches: Sequence[tuple[Tensor, Tensor]],
    calibration: Sequence[Tensor] | None,
    tally: _Tally,
) -> None:
    done = 0

    def arrived(ends: list[list[int]], logits: list[Tensor]) -> None:
        nonlocal done
        at = torch.tensor([u for u, some in enumerate(ends) for _ in some], device=logits[0].device)
        numbers = [i for some in ends for i in some]
        for answers, (_, labels) in zip(logits, batches, strict=True):
            tally.add(numbers, answers[at], labels)
        done += len(numbers)
        report_progress(f"sub-network {done} of {len(paths)}", done / len(paths))

    walk_prefixes([supernet.chain(path) or [] for path in paths], calibration, [x for x, _ in batches], arrived)
