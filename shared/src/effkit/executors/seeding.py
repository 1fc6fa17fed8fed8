"""Global generators that a task finds: those of its number, whichever process runs it and whatever ran there before."""

from __future__ import annotations

import contextlib
import random
import sys
import zlib
from collections.abc import Iterator

__all__ = ["seeded"]


@contextlib.contextmanager
def seeded(name: str) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch by a name inside the block, and put them back afterwards.

    torch is left alone where it is not loaded: it begins with a fixed seed of its own.
    """
    import numpy as np

    seed = zlib.crc32(name.encode())
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), None if torch is None else torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the global generator is what is meant
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(before[2])
