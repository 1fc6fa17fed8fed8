"""Fill a cache with a teacher's answers, in shards if need be, and check what it holds by asking again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.progress import report_progress
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.views import ViewKey

__all__ = ["Augment", "Pictures", "Verification", "build_cache", "check_build", "shard_range", "verify_cache"]

Pictures = Callable[[Tensor, int], Tensor]
"""From samples' numbers ``(B,)`` and a view to their pictures before augmentation, uint8 ``(B, C, H, W)``."""
Augment = Any
"""A ``BatchAugment``, or ``None``."""


def shard_range(shard: str | None, num_samples: int) -> tuple[int, int]:
    """Samples of a part such as ``"2/8"``: ``(begin, end)``; all of them for ``None``.

    Raises:
        UserError: If it is not ``i/n`` with i in 1..n.
    """
    if shard is None:
        return 0, num_samples
    number, _, parts = str(shard).partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise UserError(f"shard={shard!r} must be i/n with i in 1..n, e.g. 2/8")
    return num_samples * (int(number) - 1) // int(parts), num_samples * int(number) // int(parts)


def build_cache(
    cache: LogitCache,
    teacher: Teacher,
    pictures: Pictures,
    augment: Augment = None,
    *,
    begin: int = 0,
    end: int | None = None,
    views: int | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
) -> int:
    """Ask the teacher about every record that is missing or damaged in a range of samples.

    Interrupted and begun again it goes on where it was; several processes may do ranges that do not overlap.

    Args:
        cache: Open for writing.
        teacher: Whose fingerprint the cache has.
        pictures: Gives the pictures, see :data:`Pictures`.
        augment: What makes the views of the training; ``None`` for none.
        begin: First sample.
        end: One past the last sample; ``None``: all.
        views: The first so many views only; ``None``: all.
        batch_size: Pictures per call of the teacher.
        device: Where to augment and to ask; the teacher's device if ``None``.

    Returns:
        Number of records written.

    Raises:
        UserError: If the cache is of another teacher or augmentation, or a range does not fit.
    """
    end = cache.num_samples if end is None else end
    views = cache.num_views if views is None else views
    check_build(cache, teacher, augment, begin=begin, end=end, views=views, batch_size=batch_size)
    written, todo = 0, max(1, views * (end - begin))
    for view in range(views):
        for start in range(begin, end, batch_size):
            stop = min(start + batch_size, end)
            lacking = len(cache.missing(view, start, stop)) + len(cache.damaged(view, start, stop))
            if lacking:
                # The whole batch, so that a record's last bits do not depend on where an earlier build was stopped.
                index = torch.arange(start, stop)
                cache.write(index, view, _answers(teacher, pictures, augment, index, view, device))
                written += lacking
            done = view * (end - begin) + stop - begin
            report_progress(f"view {view + 1} of {views}: {written:,} records written", done / todo)
    cache.flush()
    return written


def check_build(
    cache: LogitCache, teacher: Teacher, augment: Augment, *, begin: int, end: int, batch_size: int, views: int = 1
) -> None:
    """Refuse what :func:`build_cache` cannot do; see there.

    Raises:
        UserError: If the cache is of another teacher or augmentation, or a range does not fit.
    """
    cache.header.check(_prints(cache, teacher, augment), cache.path)
    if not 0 <= begin <= end <= cache.num_samples:
        raise UserError(f"begin={begin} and end={end} must be in 0..{cache.num_samples}, the number of samples")
    if not 1 <= views <= cache.num_views or batch_size < 1:
        raise UserError(f"views={views} must be in 1..{cache.num_views}, and batch_size={batch_size} at least 1")


def _prints(cache: LogitCache, teacher: Teacher, augment: Augment) -> dict[str, str]:
    """What the cache has to agree in, as far as it says anything about it."""
    prints = {
        "teacher": teacher.fingerprint(),
        "normalisation": teacher.normalisation_fingerprint(),
        "augment": "none" if augment is None else augment.fingerprint(),
    }
    return {k: v for k, v in prints.items() if k in cache.header.fingerprints}


def _answers(teacher: Teacher, pictures: Pictures, augment: Augment, index: Tensor, view: int, device: Any) -> Tensor:
    device = teacher.device if device is None else torch.device(device)
    images, numbers = pictures(index, view).to(device), index.to(device)
    which = torch.full_like(numbers, view)
    if augment is None:
        return teacher(images, ViewKey(numbers, which, "none"))
    return teacher(augment(images, numbers, which), ViewKey(numbers, which, augment.fingerprint()))


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_cache` found.

    Attributes:
        checked: Records asked about again.
        wrong: Those that differ by more than ``tolerance`` times the record's largest logit.
        worst: The largest difference, relative to the record's largest logit.
        tolerance: What rounding to the cache's dtype and another batch size explain.
        first: Sample and view of the first wrong record, or ``None``.
        read: Records whose checksum was compared: all that are there.
        damaged: Those that are not what was written, as (sample, view), in the order of views.
    """

    checked: int
    wrong: int
    worst: float
    tolerance: float
    first: tuple[int, int] | None = None
    read: int = 0
    damaged: tuple[tuple[int, int], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every record is what was written, and every one checked is right."""
        return self.wrong == 0 and not self.damaged


def verify_cache(
    cache: LogitCache,
    teacher: Teacher,
    pictures: Pictures,
    augment: Augment = None,
    *,
    sample: int = 256,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    tolerance: float | None = None,
) -> Verification:
    """Compare every record with its checksum; ask the teacher again about a random sample of them, and compare.

    A record is right if its logits are those of its classes, and no class left out has a larger one; classes that
    rounding makes equal may change places.

    Args:
        cache: Open for reading or writing.
        teacher: The teacher.
        pictures: Gives the pictures, see :data:`Pictures`.
        augment: What makes the views.
        sample: Records to check.
        seed: Of the choice.
        batch_size: Pictures per call of the teacher.
        device: As of :func:`build_cache`.
        tolerance: Relative to the largest logit of a record; ``None``: half a unit in the last place of the cache's
            dtype, and 1e-4 (1e-2 for a teacher in half precision) for sums that depend on the batch size.

    Raises:
        UserError: If the cache is empty, or a number is out of range.
    """
    if sample < 1 or batch_size < 1:
        raise UserError(f"sample={sample} and batch_size={batch_size} must be at least 1")
    if tolerance is None:
        half = teacher.dtype in (torch.float16, torch.bfloat16)
        tolerance = (2.0**-11 if cache.header.dtype == "float16" else 0.0) + (1e-2 if half else 1e-4)
    index, view = _draw(cache, sample, seed)
    if not len(index):
        raise UserError(f"the cache {cache.path} has no records yet: build it first")
    damaged = _damaged(cache, batch_size)
    sound = torch.tensor([place not in damaged for place in zip(index.tolist(), view.tolist(), strict=True)])
    index, view = index[sound], view[sound]
    wrong, worst, first = 0, 0.0, None
    for number in view.unique().tolist():  # pictures are given view by view
        for part in index[view == number].split(batch_size):
            again = _answers(teacher, pictures, augment, part, number, device).float().cpu()
            error = _error(cache, part, number, again)
            bad = error > tolerance
            worst = max(worst, float(error.max()))
            wrong += int(bad.sum())
            if first is None and bool(bad.any()):
                first = (int(part[bad][0]), int(number))
    return Verification(len(index), wrong, worst, tolerance, first, cache.count(), tuple(damaged))


def _damaged(cache: LogitCache, batch_size: int) -> dict[tuple[int, int], None]:
    """Records that are not what was written, in the order of views."""
    found: dict[tuple[int, int], None] = {}
    rows = max(batch_size, (1 << 22) // (cache.header.record_bytes + 4))  # some megabytes at once
    for view in range(cache.num_views):
        for start in range(0, cache.num_samples, rows):
            index = cache.damaged(view, start, min(start + rows, cache.num_samples))
            found.update(dict.fromkeys((sample, view) for sample in index.tolist()))
        report_progress(f"checksums of view {view + 1} of {cache.num_views}", (view + 1) / cache.num_views)
    return found


def _draw(cache: LogitCache, sample: int, seed: int) -> tuple[Tensor, Tensor]:
    """Some records that are there, evenly drawn without replacement if there are enough."""
    total = cache.num_samples * cache.num_views
    generator = torch.Generator().manual_seed(seed)
    if total <= 4 * sample:
        places = torch.randperm(total, generator=generator)
    else:  # a cache may have 1e9 records: no permutation of them
        places = torch.randint(total, (8 * sample,), generator=generator).unique()
        places = places[torch.randperm(len(places), generator=generator)]
    there = places[cache.has(places // cache.num_views, places % cache.num_views)]
    if not len(there) and cache.count():  # hardly begun: look from the start
        view = next(v for v in range(cache.num_views) if len(cache.missing(v)) < cache.num_samples)
        index = torch.arange(cache.num_samples)
        there = index[cache.has(index, view)] * cache.num_views + view
    there = there[:sample]
    return there // cache.num_views, there % cache.num_views


def _error(cache: LogitCache, index: Tensor, view: int, logits: Tensor) -> Tensor:
    """By how much records are wrong, relative to their largest logit, ``(B,)``."""
    if logits.shape[1] != cache.num_classes:
        raise UserError(f"the teacher has {logits.shape[1]} classes, the cache {cache.path} {cache.num_classes}")
    top = cache.read(index, view)
    error = (top.values - logits.gather(1, top.classes)).abs().amax(1)
    if cache.k < cache.num_classes:
        others = logits.scatter(1, top.classes, -torch.inf).amax(1)
        error = torch.maximum(error, others - top.values[:, -1])
    return error / logits.abs().amax(1).clamp(min=1e-6)
