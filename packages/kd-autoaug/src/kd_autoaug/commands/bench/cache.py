"""``kd-autoaug bench cache``: a cache built by several workers against one, each with one thread, from nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from effkit.bench import in_turns
from effkit.errors import UserError
from effkit.executors import Choice, available_cores
from effkit.report import Report
from effkit.results import append_csv
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.commands.bench.shared import photographs
from kd_autoaug.commands.cache_shards import Source, build_in_shards
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.networks import create_network

__all__ = ["cache_report"]

_CROPS = 64


class _Pictures:
    """Crops of two photographs, again and again."""

    def __init__(self, size: int) -> None:
        self.images = photographs(_CROPS, size)

    def pictures(self, split: str, index: Tensor, view: int) -> Tensor:
        return self.images[index % _CROPS]


def cache_report(
    *,
    network: str,
    classes: int,
    k: int,
    samples: int,
    views: int,
    size: int,
    batch_size: int,
    workers: int | None,
    rounds: int,
    seed: int,
    csv: str | Path,
) -> Report:
    """Time builds of a cache, starting the workers included.

    Args:
        network: The teacher's; untrained, which takes the same time.
        classes: Its classes.
        k: Classes kept.
        samples: Of the data.
        views: Of each.
        size: Side of the pictures.
        batch_size: Pictures per call of the teacher.
        workers: To be compared with one; one a core if ``None``.
        rounds: Builds with each.
        seed: Of weights and views.
        csv: Results file to add to.

    Raises:
        UserError: If a value does not fit.
    """
    workers = available_cores() if workers is None else workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 2:
        raise UserError(f"workers={workers!r} must be a whole number of at least 2, to be compared with one")
    torch.manual_seed(seed)
    teacher = Teacher(create_network(network, classes, 3, size), 0.5, 0.25)
    augment = BatchAugment(Policy.from_name("randaugment(n=2,m=9)"), seed)
    kept = classes if k == -1 else k
    sizes = {"num_samples": samples, "num_views": views, "num_classes": classes, "k": kept, "dtype": "float16"}
    prints = {"teacher": teacher.fingerprint(), "augment": augment.fingerprint()}
    source = Source(teacher, augment, _Pictures(size), sizes, prints, torch.device("cpu"))

    def build(count: int) -> None:
        with tempfile.TemporaryDirectory(prefix="kd-autoaug-") as folder:
            cache = LogitCache.create(Path(folder, "cache"), fingerprints=prints, **sizes)  # type: ignore[arg-type]
            choice = Choice("process", workers=count, threads=count)
            build_in_shards(cache, source, choice, begin=0, end=samples, batch_size=batch_size)

    one, several = "1 worker", f"{workers} workers"
    found = in_turns({one: lambda: build(1), several: lambda: build(workers)}, rounds)
    rows = found.rows(
        package="kd-autoaug", case=f"cache {network} {size}x{size}", mode="cache build", dtype="fp32",
        x_name="workers", x=workers, baseline=one,
        note=f"{samples} samples x {views} views, batch {batch_size}; one thread a worker; from nothing",
    )  # fmt: skip
    table = found.table(one, title=f"cache of {samples} samples x {views} views, {network}, {size}x{size}")
    speedup = found.ratio(one, several).median
    return Report("kd-autoaug bench cache", [table], data={"speedup": speedup}, files=[append_csv(csv, rows)])
