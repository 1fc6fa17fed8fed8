"""Global generators that a task finds: those of its number, whichever process runs it and whatever ran there before."""

from __future__ import annotations

import contextlib
import random
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from effkit.lazy import after_import

__all__ = ["seed_new_torch", "seeded"]

_seeds: list[int] = []  # of the tasks that run, the innermost last
_waiting = False  # for torch to be imported
_new_torch: list[Any] = []  # state that torch had when a task imported it


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch by a name inside the block, and put them back afterwards.

    torch, which takes seconds to import, is seeded when somebody imports it inside.
    """
    global _waiting
    import numpy as np

    torch = sys.modules.get("torch")
    if torch is None and not _waiting:
        _waiting = True
        after_import("torch", "effkit.executors.torch_seed")
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    before_torch = None if torch is None else (torch.get_rng_state(), _cuda_states(torch))
    _seeds.append(zlib.crc32(name.encode()))
    random.seed(_seeds[-1])
    np.random.seed(_seeds[-1])  # noqa: NPY002  the global generator is what is meant
    if torch is not None:
        torch.manual_seed(_seeds[-1])
    try:
        yield
    finally:
        _seeds.pop()
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch is not None and before_torch is not None:
            torch.set_rng_state(before_torch[0])
            if before_torch[1] is not None:
                torch.cuda.set_rng_state_all(before_torch[1])
        elif _new_torch:
            sys.modules["torch"].set_rng_state(_new_torch.pop())


def _cuda_states(torch: Any) -> Any:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None


def seed_new_torch() -> None:
    """Seed torch as it has just been imported, if a task did that."""
    if _seeds:
        torch = sys.modules["torch"]
        _new_torch.append(torch.get_rng_state())
        torch.manual_seed(_seeds[-1])
