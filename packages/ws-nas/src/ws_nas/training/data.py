"""Pictures for the architecture beside those for the weights: one endless stream, the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from effkit.data.sampling import leave_signals, mix_seed
from effkit.data.selection import SelectionData
from effkit.errors import UserError

__all__ = ["ValidationStream", "stream_of"]

STREAM = 0x5EA2  # tells this order from that of the training pictures


class _Order(Sampler[list[int]]):
    """Endless batches of indices: whole passes in random orders, one after the other.

    Args:
        size: Pictures.
        batch: Pictures of a batch and process.
        seed: Of all orders.
    """

    def __init__(self, size: int, batch: int, seed: int) -> None:
        self.size, self.batch, self.seed, self.start = size, batch, seed, 0
        self._orders: dict[int, list[int]] = {}

    def at(self, step: int) -> list[int]:
        """The indices of one batch of this process."""
        on = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if on else (0, 1)
        first = step * self.batch * world + rank
        return [self._index(first + i * world) for i in range(self.batch)]

    def _index(self, position: int) -> int:
        number, place = divmod(position, self.size)
        if number not in self._orders:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, STREAM, number))
            self._orders = {k: v for k, v in self._orders.items() if k == number - 1}
            self._orders[number] = torch.randperm(self.size, generator=generator).tolist()
        return self._orders[number][place]

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield self.at(step)
            step += 1


class ValidationStream:
    """Batch number ``step`` of an endless stream of pictures, as bytes.

    What a step gets depends on ``(seed, step)`` only. One iterator lives through the whole training: it is made again
    only where a step is asked for out of turn, as after a resume.

    Args:
        dataset: Pictures and labels.
        batch_size: Of a batch and process.
        seed: Of the order.
        num_workers: Loader processes for pictures that are not in memory.
    """

    def __init__(self, dataset: Any, batch_size: int, seed: int, num_workers: int = 0) -> None:
        if len(dataset) == 0:
            raise UserError("data has no pictures to choose architectures by")
        self.dataset, self.workers, self.seed = dataset, num_workers, seed
        self.order = _Order(len(dataset), min(batch_size, len(dataset)), seed)
        self._iterator: Any = None
        self._next = 0

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step."""
        if isinstance(self.dataset, TensorDataset):
            index = torch.tensor(self.order.at(step))
            images, labels = self.dataset.tensors
            return images[index], labels[index]
        if self._iterator is None or step != self._next:
            self.order.start = step
            self._iterator = iter(
                DataLoader(
                    self.dataset,
                    batch_sampler=self.order,
                    num_workers=self.workers,
                    worker_init_fn=leave_signals,
                    generator=torch.Generator().manual_seed(self.seed),
                )
            )
        self._next = step + 1
        images, labels = next(self._iterator)
        return images, labels

    def close(self) -> None:
        """End the loader's processes; a step that is asked for later begins them anew."""
        self._iterator = None


def stream_of(data: SelectionData) -> ValidationStream:
    """The stream of a data set's pictures to select by."""
    return ValidationStream(data.val, data.data.batch_size, data.data.seed, data.data.num_workers)
