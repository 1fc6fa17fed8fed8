"""Workers of torchrun meet in a place that no earlier attempt has used.

The agents keep one key-value store for all attempts, and torch lets every attempt meet under the same keys: after a
restart a process finds the address of one that is dead, and all of them hang (pytorch issue 135712; it tells attempts
apart by a number that every agent counts for itself). Here the first process opens a new room in that store.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

from effkit.errors import RankFailed
from effkit.ranks import agents_store, failed_elsewhere

__all__ = ["meet", "room"]

PREFIX = "effkit"


def meet(trainer: Trainer) -> None:
    """Start the process group of a trainer whose processes torchrun has started; others are left alone."""
    strategy: Any = trainer.strategy
    if trainer.world_size == 1 or dist.is_initialized() or not hasattr(strategy, "_get_process_group_backend"):
        return
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    store = _opened(trainer.global_rank, strategy._timeout.total_seconds())
    mine = dist.PrefixStore(f"{PREFIX}/{room(store, trainer.global_rank, trainer.world_size)}", store)
    device: torch.device = strategy.root_device
    options: dict[str, Any] = {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        options["device_id"] = device
    dist.init_process_group(
        strategy._get_process_group_backend(),
        store=mine,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        timeout=strategy._timeout,
        **options,
    )


def _opened(rank: int, seconds: float) -> Any:
    """The store, once somebody keeps it; tries in Python, where signals are heard."""
    deadline = time.monotonic() + seconds
    while (store := agents_store(2.0, opens=rank == 0)) is None:
        if time.monotonic() > deadline:
            raise RankFailed(f"the first process of the job could not be reached in {seconds:.0f} s")
    store.set_timeout(timedelta(seconds=seconds))
    return store


def room(store: Any, rank: int, world: int, poll: float = 0.1) -> str:
    """Agree on a name that only the processes of this attempt know.

    The first announces a new name and lets in who knocks at it; whoever knocked at the door of a dead one is not on its
    list, and looks for the new name. Waits in Python, where signals are heard.

    Args:
        store: Common to all attempts, with ``set``, ``get`` and ``check``.
        rank: Of this process.
        world: How many there are.
        poll: Seconds between two looks.

    Raises:
        RankFailed: If one of them tells that it has failed and will not come.
    """
    me = uuid.uuid4().hex
    if rank == 0:
        store.set(f"{PREFIX}/name", me)
        doors = [f"{PREFIX}/{me}/knock/{other}" for other in range(1, world)]
        while not store.check(doors):
            _go_on_waiting(store, poll)
        store.set(f"{PREFIX}/{me}/guests", json.dumps([store.get(door).decode() for door in doors]))
        return me
    while True:
        if store.check([f"{PREFIX}/name"]):
            name = store.get(f"{PREFIX}/name").decode()
            store.set(f"{PREFIX}/{name}/knock/{rank}", me)
            guests = f"{PREFIX}/{name}/guests"
            if store.check([guests]) and me in json.loads(store.get(guests).decode()):
                return name
        _go_on_waiting(store, poll)


def _go_on_waiting(store: Any, poll: float) -> None:
    if line := failed_elsewhere(store):
        raise RankFailed(line)
    time.sleep(poll)
