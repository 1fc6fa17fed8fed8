"""The cache of a training run: opened or begun, and refused where it speaks of other views."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.training.data import ViewData

__all__ = ["cache_fingerprints", "open_cache"]


def cache_fingerprints(data: ViewData, augment: Any, teacher: Any) -> dict[str, str]:
    """What a cache of a teacher's answers depends on, by name; it is refused where one of them differs.

    Args:
        data: The training pictures.
        augment: What makes the views of a batch; ``None`` for the pictures as they are.
        teacher: Who answers; ``None`` if it is not at hand, then nothing is said about it.
    """
    prints = {"data": data.sample_ids_fingerprint(), "augment": "none" if augment is None else augment.fingerprint()}
    if teacher is not None:
        prints |= {"teacher": teacher.fingerprint(), "normalisation": teacher.normalisation_fingerprint()}
    return prints


def open_cache(
    path: Path,
    data: ViewData,
    augment: Any,
    teacher: Any,
    loss: TopKDistillationLoss,
    *,
    mode: str = "read",
    k: int | None = None,
    dtype: str = "float16",
) -> LogitCache:
    """Open the cache of a run, or make an empty one where ``mode="readwrite"`` finds none.

    The views of ``data`` are made to start again where those of the cache do.

    Args:
        path: The cache's folder.
        data: The training pictures.
        augment: What makes the views of a batch, or ``None``.
        teacher: Who answers; ``None`` where the cache has all answers.
        loss: Says how many classes it needs.
        mode: ``"read"`` or ``"readwrite"``.
        k: Classes in a record of a new cache, -1 for all; ``None`` takes what the loss needs.
        dtype: Of the logits of a new cache.

    Raises:
        UserError: If the cache was made of something else, or lacks records that nobody can fill.
    """
    choose("cache.mode", mode, ["read", "readwrite"])
    if mode == "readwrite" and teacher is None:
        raise UserError("cache.mode=readwrite asks the teacher for missing records: give teacher.weights")
    prints = cache_fingerprints(data, augment, teacher)
    cache = _opened(path, mode, data, prints, loss, k, dtype)
    if data.num_views is None:
        data.num_views = cache.num_views
    if data.num_views > cache.num_views:
        raise UserError(f"view.num_views={data.num_views} is more than the {cache.num_views} views of the cache {path}")
    if mode == "read" and not cache.complete:
        raise UserError(
            f"the cache {path} is not complete: finish it with `kd-autoaug cache build`, or use cache.mode=readwrite "
            f"(a run that fills it needs {math.ceil(cache.num_views / data.core.repeats)} epochs, and "
            "data.drop_last=false)"
        )
    return cache


def _opened(
    path: Path,
    mode: str,
    data: ViewData,
    prints: dict[str, str],
    loss: TopKDistillationLoss,
    k: int | None,
    dtype: str,
) -> LogitCache:
    needed = 1 if loss.mode == "hard" else data.num_classes if loss.k == -1 else loss.k
    sizes = {"num_samples": data.num_train, "num_classes": data.num_classes}
    if mode == "readwrite" and not path.exists():
        if data.num_views is None:
            raise UserError("view.num_views=null would need a cache without end: give the number of views, e.g. 50")
        wanted = k or needed
        new: dict[str, Any] = {
            **sizes,
            "num_views": data.num_views,
            "k": data.num_classes if wanted == -1 else wanted,
            "dtype": dtype,
            "fingerprints": prints,
            "temperatures": (loss.temperature,),
        }
        try:
            return LogitCache.create(path, **new)
        except UserError:
            if not path.exists():  # else another process of this run was first
                raise
    return LogitCache.open(path, expect={**prints, **sizes, "k": needed}, mode=mode)
