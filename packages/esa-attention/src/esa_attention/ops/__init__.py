"""Fast paths of a step and the one place that chooses between them.

- ``triton``: kernels for CUDA (or ``TRITON_INTERPRET=1`` for tests), whole batches at once.
- ``torch``: torch's operators and numpy, row by row; every device and type. Written for CPUs.
- ``reference``: :mod:`esa_attention.reference`, loops in float64.
- ``auto``: ``triton`` on a CUDA device where it can run, else ``torch``; logged once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import Tensor

from effkit.errors import UserError

if TYPE_CHECKING:
    from esa_attention.cache import ESALayer

__all__ = ["triton_runs"]

_log = logging.getLogger(__name__)
_said: set[str] = set()


def triton_runs(layer: ESALayer, query: Tensor) -> bool:
    """Whether this step is one for the Triton kernels.

    Raises:
        UserError: If ``backend="triton"`` was asked for and cannot do it; says why.
    """
    return False
