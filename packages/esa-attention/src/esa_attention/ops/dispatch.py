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
    from esa_attention.attention.cache.layer import ESALayer

__all__ = ["triton_runs"]

_log = logging.getLogger(__name__)
_said: set[str] = set()


def triton_runs(layer: ESALayer, query: Tensor) -> bool:
    """Whether this step is one for the Triton kernels.

    Raises:
        UserError: If ``backend="triton"`` was asked for and cannot do it; says why.
    """
    config = layer.config
    if config.backend not in ("auto", "triton"):
        return False
    if config.backend == "auto" and query.device.type != "cuda":
        return False
    reason = _why_not(layer)
    if config.backend == "triton":
        if reason:
            raise UserError(f"backend='triton' cannot be used: {reason}; use backend='torch' or 'auto'")
        return layer.get_seq_length() > config.dense_until
    reason = reason or _why_not_meant(query)
    _say(f"ESA on {query.device.type}: backend {'torch' if reason else 'triton'}{f' ({reason})' if reason else ''}")
    return not reason and layer.get_seq_length() > config.dense_until


def _why_not(layer: ESALayer) -> str:
    """What of the configuration the kernels do not do; empty if nothing."""
    from esa_attention.ops._triton_common import HAS_TRITON
    from esa_attention.ops.score_triton import MAX_PROXIMITY

    config = layer.config
    if not HAS_TRITON:
        return "triton is not installed"
    if config.method != "esa":
        return f"there are no kernels for method={config.method!r}"
    if config.selection not in ("paper", "strict_causal"):
        return f"there are no kernels for selection={config.selection!r}"
    if config.offload:
        return "keys and values are in host memory (offload=true)"
    if config.proximity > MAX_PROXIMITY:
        return f"proximity={config.proximity} exceeds {MAX_PROXIMITY}"
    return ""


def _why_not_meant(query: Tensor) -> str:
    """Where the kernels would run, but not as they are meant to."""
    import torch

    from esa_attention.ops._triton_common import interpreted

    if interpreted():
        return "TRITON_INTERPRET=1 is for tests"
    if query.dtype == torch.float64:
        return "no kernels in float64"
    if torch.version.cuda is None or torch.cuda.get_device_capability(query.device) < (8, 0):
        return "the kernels are written for NVIDIA GPUs from Ampere on"
    return ""


def _say(line: str) -> None:
    if line not in _said:
        _said.add(line)
        _log.info(line)
