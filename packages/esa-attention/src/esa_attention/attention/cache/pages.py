"""Large pages for memory that is read at random or from one end to the other in every step.

A token's keys fill a page of 4 KiB, so that gathering a token looks a page up, and reading the index looks one up every
few nanoseconds. In pages of 2 MiB nearly all of them are known already. Linux gives them to memory that asks for them
(``transparent_hugepage=madvise``, the default of many systems); where it has none, nothing changes.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable

from torch import Tensor

__all__ = ["advise"]

_PAGE = 2 * 2**20
_LEAST = 4 * _PAGE  # smaller memory stays in the processor's tables of pages anyway


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's call, where it knows of large pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call  # type: ignore[no-any-return]


def advise(memory: Tensor) -> Tensor:
    """Ask for large pages under memory that nobody has written yet.

    Args:
        memory: Contiguous, in host memory.

    Returns:
        The same tensor; advice that the system does not take is no error.
    """
    begin, size = memory.data_ptr(), memory.numel() * memory.element_size()
    first, last = -(-begin // _PAGE) * _PAGE, (begin + size) // _PAGE * _PAGE
    if size >= _LEAST and (call := _madvise()) is not None:
        call(first, last - first, mmap.MADV_HUGEPAGE)
    return memory
