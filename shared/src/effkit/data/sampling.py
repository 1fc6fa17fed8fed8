"""Which picture comes when, and with which random numbers: a pure function of (seed, epoch, position).

Two habits make a run repeatable, whether it was interrupted or not and however many worker processes load its data:

- the order of an epoch is drawn from ``(seed, epoch)`` alone, never from a generator that lives on between epochs;
- every picture is augmented under its own seed, which travels with its index through the sampler, so neither the
  worker that happens to load it nor the pictures loaded before it matter.

In distributed runs each process takes every ``world``-th position. Training wraps around to fill the last round;
evaluation fills it with the label -1, which losses and accuracies ignore, so that no picture is counted twice.
"""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing.util
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from effkit.stopping import STOP_SIGNALS

__all__ = [
    "IGNORE",
    "EpochSampler",
    "SeededDataset",
    "TensorLoader",
    "end_workers",
    "leave_signals",
    "mix_seed",
    "seed_all",
    "seeded",
    "spread",
]

IGNORE = -1
"""The label of a filler picture: ``ignore_index`` of the loss and of the metrics."""


def mix_seed(*parts: int) -> int:
    """Hash integers to one seed below 2**32 (NumPy takes no more); the same on every machine and Python."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - timm's augmentations draw from the global generator
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under ``seed`` and put the three global CPU generators back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def spread(size: int, limit: int | None) -> list[int]:
    """Return ``limit`` indices spread evenly over ``range(size)`` (all of them if ``limit`` is ``None`` or larger)."""
    count = size if limit is None else min(limit, size)
    return [i * size // count for i in range(count)]


def _rank_and_world() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(index, seed)`` pairs of this process for the epoch last given to ``set_epoch``.

    Args:
        size: Number of pictures in the data set.
        seed: Seed of the whole run.
        train: Shuffle and wrap around (training), or keep the order and fill up with ``(-1, 0)`` (evaluation).
        repeats: Augmented copies of each picture per epoch (repeated augmentation). An epoch stays as long as
            without: with 3 repeats a third of the pictures is seen, each thrice. timm's ``RepeatAugSampler`` chooses.
    """

    def __init__(self, size: int, *, seed: int, train: bool, repeats: int = 1) -> None:
        self.size, self.seed, self.train, self.repeats = size, seed, train, repeats
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch whose order the next iteration follows (Lightning calls this).

        Args:
            epoch: Counting from 0.
            start: Pictures of this process to leave out, which an interrupted run has seen already. They stay left out
                while the epoch is the same.
        """
        if epoch != self.epoch or start:
            self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        _, world = _rank_and_world()
        if self.train and self.repeats > 1:
            return len(self._repeated(0, world))
        return -(-self.size // world)

    def _repeated(self, rank: int, world: int) -> list[int]:
        from timm.data.distributed_sampler import RepeatAugSampler

        # Before 1.0.23 timm rounds fewer than 256 pictures down to none.
        rounded = 256 if self.size >= 256 else 0
        sampler = RepeatAugSampler(
            range(self.size), num_replicas=world, rank=rank, num_repeats=self.repeats, selected_round=rounded
        )
        sampler.set_epoch(mix_seed(self.seed, self.epoch))  # it seeds its generator with the epoch and nothing else
        return list(sampler)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world = _rank_and_world()
        if self.train and self.repeats > 1:
            own = self._repeated(rank, world)
        elif self.train:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.size, generator=generator).tolist()
            own = [order[i % self.size] for i in range(rank, len(self) * world, world)]
        else:
            own = [i if i < self.size else IGNORE for i in range(rank, len(self) * world, world)]
        for position in range(self.start, len(own)):
            yield own[position], mix_seed(self.seed, self.epoch, position * world + rank) if self.train else 0


class SeededDataset(Dataset):
    """A map-style data set whose keys are the pairs of :class:`EpochSampler`.

    Args:
        dataset: Yields ``(image, label)`` by index.
        train: Run each picture's random transforms under its own seed.
    """

    def __init__(self, dataset: Any, *, train: bool) -> None:
        self.dataset, self.train = dataset, train

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        if index == IGNORE:
            return self.dataset[0][0], IGNORE
        if not self.train:
            return self.dataset[index]
        with seeded(seed):
            return self.dataset[index]


def leave_signals(worker: int = 0) -> None:
    """Let a loader's worker leave signals to its parent: ``worker_init_fn`` of a ``DataLoader``.

    ``timeout``, ``scancel`` and a terminal tell a whole group to stop. A training that wants to finish its step first
    would find its workers gone; they end with it, however it ends.
    """
    if get_worker_info() is not None:
        for name in STOP_SIGNALS:
            if (signum := getattr(signal, name, None)) is not None:
                signal.signal(signum, signal.SIG_IGN)


def end_workers() -> None:
    """End the loaders' workers that are still there when Python ends.

    Python ends them by a signal that they leave to their parent (:func:`leave_signals`), and would wait for ever.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    died = getattr(signal, "SIGCHLD", None)
    if not workers or died is None:
        return
    before = signal.signal(died, signal.SIG_DFL)  # torch's handler takes a worker that was killed for a fault
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    signal.signal(died, before)


atexit.register(end_workers)  # runs before what multiprocessing, imported above, does at the end


class TensorLoader:
    """Batches of a data set that fits in memory: one indexing per batch, no worker processes, no collation.

    Args:
        images: ``(N, C, H, W)``.
        labels: ``(N,)`` class indices.
        batch_size: Images per batch; the last batch is smaller unless ``drop_last``.
        sampler: Order of the images.
        drop_last: Leave an incomplete last batch out.
        transform: Applied to each batch as ``transform(images, generator)``; the generator is seeded by the batch's
            first picture.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        sampler: EpochSampler,
        *,
        drop_last: bool = False,
        transform: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.sampler, self.drop_last, self.transform = sampler, drop_last, transform
        self.batch_sampler = None  # the attributes that Lightning looks for are those of torch's DataLoader

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def starts(self) -> range:
        """Where the batches begin among what the sampler still yields of its epoch."""
        left = len(self) - self.sampler.start // self.batch_size
        return range(0, left * self.batch_size, self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        keys = list(self.sampler)
        for start in self.starts():
            batch = keys[start : start + self.batch_size]
            index = torch.tensor([i for i, _ in batch])
            images, labels = self.images[index], self.labels[index]
            labels[index == IGNORE] = IGNORE
            if self.transform is not None:
                images = self.transform(images, torch.Generator().manual_seed(batch[0][1]))
            yield images, labels
