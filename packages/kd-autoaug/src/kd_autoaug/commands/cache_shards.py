"""``cache build`` on several workers: the range of samples in shards, each filled by a process that opens the cache.

What the records come from is handed over as it was built here, in a file beside the cache, and loaded once a process:
building it again from the config could come out differently, and the cache would refuse it.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import math
import os
import pickle
import platform
import shutil
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from effkit.atomic import alive
from effkit.executors import Choice, Task, run
from kd_autoaug.cache.build import build_cache
from kd_autoaug.cache.cache import LogitCache

__all__ = ["Source", "build_in_shards", "shards"]

_SHARDS_EACH = 4  # a worker: the last ones end at about the same time, and little is lost with one
_PAGE = 4096  # bytes; nodes that write one page at once, through a network disk, would undo each other's


@dataclass
class Source:
    """What the records of a cache come from.

    Attributes:
        teacher: A ``Teacher``.
        augment: A ``BatchAugment``, or ``None``.
        data: A ``ViewData``.
        sizes: As ``LogitCache.create`` takes them.
        fingerprints: By name.
        device: Where to compute.
    """

    teacher: Any
    augment: Any
    data: Any
    sizes: dict[str, Any]
    fingerprints: dict[str, str]
    device: torch.device

    def pictures(self, index: torch.Tensor, view: int) -> torch.Tensor:
        """Pictures before augmentation, see :data:`kd_autoaug.cache.build.Pictures`."""
        return self.data.pictures("train", index, view)


def shards(begin: int, end: int, batch_size: int, count: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cut a range between batches, so that every batch is the one that a build in one piece has.

    Args:
        begin: First sample.
        end: One past the last.
        batch_size: Samples of a batch.
        count: How many shards at most.
        multiple: Cut at samples that are a multiple of it only.
    """
    possible = [place for place in range(begin, end, batch_size) if place % multiple == 0 or place == begin]
    edges = sorted({possible[len(possible) * i // count] for i in range(count)} if possible else ())
    return list(pairwise([*edges, end]))


def build_in_shards(
    cache: LogitCache, source: Source, choice: Choice, *, begin: int, end: int, batch_size: int
) -> tuple[int, list[list[Any]]]:
    """Fill a range of a cache on several workers; the records are those of a build in one piece.

    Args:
        cache: Open for writing; its header has been compared.
        source: What the records come from.
        choice: Where the shards are built.
        begin: First sample.
        end: One past the last.
        batch_size: Pictures per call of the teacher.

    Returns:
        Records written, and lines for the report.

    Raises:
        TaskError: If a shard cannot be built; names it.
    """
    multiple = 1 if choice.one_machine else samples_a_page(cache)
    cut = shards(begin, end, batch_size, _SHARDS_EACH * choice.count(), multiple)
    folder = _own_folder(cache.path)
    try:
        content = pickle.dumps(source, pickle.HIGHEST_PROTOCOL)
        file = folder / "source.pickle"
        file.write_bytes(content)
        print_of_it = hashlib.sha256(content).hexdigest()
        tasks = [Task(f"samples {a} to {b}", str(file), print_of_it, str(cache.path), a, b, batch_size) for a, b in cut]
        with replace(choice, folder=folder / "submitit").open(tasks=len(tasks)) as pool:
            written = sum(run(pool, _build_shard, tasks))
            facts = {"workers": pool.workers, "threads of each": pool.threads, "shards": len(tasks)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return written, [[name, value] for name, value in facts.items()]


def _own_folder(cache: Path) -> Path:
    """A folder beside the cache for this build alone; those of builds of this host that were killed go."""
    mark = f".{cache.name}.{zlib.crc32(platform.node().encode()):08x}."
    for left in cache.parent.glob(f"{glob.escape(mark)}*.jobs"):
        pid = left.name.removeprefix(mark).removesuffix(".jobs")
        if pid.isdecimal() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = cache.with_name(f"{mark}{os.getpid()}.jobs")
    shutil.rmtree(folder, ignore_errors=True)  # of another process that had this number
    folder.mkdir()
    return folder


def samples_a_page(cache: LogitCache) -> int:
    """Samples after which all files of a cache are at the beginning of a page."""
    sizes = [kind.itemsize * math.prod(shape[1:]) for kind, shape in cache.header.arrays().values()]
    return math.lcm(*(_PAGE // math.gcd(size, _PAGE) for size in sizes))


@functools.lru_cache(maxsize=1)
def _loaded(file: str, print_of_it: str) -> Source:
    source: Source = pickle.loads(Path(file).read_bytes())
    source.teacher.to(source.device)
    return source


def _build_shard(file: str, print_of_it: str, path: str, begin: int, end: int, batch_size: int) -> int:
    source = _loaded(file, print_of_it)
    cache = LogitCache.open(path, expect={**source.sizes, **source.fingerprints}, mode="readwrite")
    return build_cache(
        cache, source.teacher, source.pictures, source.augment,
        begin=begin, end=end, batch_size=batch_size, device=source.device,
    )  # fmt: skip
