"""The one place that chooses between the fast paths of a step.

- ``triton``: kernels for CUDA (or ``TRITON_INTERPRET=1`` for tests), whole batches at once.
- ``torch``: torch's operators and numpy, row by row; every device and type. Written for CPUs.
- ``reference``: :mod:`esa_attention.reference`, loops in float64.
- ``auto``: ``triton`` on a CUDA device where it can run, else ``torch``; logged once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from effkit.errors import UserError
from effkit.notes import say_once
from effkit.triton import installed, why_not

__all__ = ["StepFacts", "triton_runs"]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What the choice depends on.

    Attributes:
        backend: What was asked for.
        device: Of the queries.
        dtype: Of the queries.
        method: How middle tokens are chosen.
        selection: Which tokens choose together, and how.
        proximity: Half-width of the max filter.
        offload: Whether keys and values are in host memory.
    """

    backend: str
    device: torch.device
    dtype: torch.dtype
    method: str
    selection: str
    proximity: int
    offload: bool


def triton_runs(facts: StepFacts, *, refuses: bool = True) -> bool:
    """Whether this step is one for the Triton kernels.

    Args:
        facts: What the choice depends on.
        refuses: Whether ``backend="triton"`` that cannot do it is an error, and not merely no.

    Raises:
        UserError: If ``backend="triton"`` was asked for and cannot do it; says why.
    """
    if facts.backend not in ("auto", "triton"):
        return False
    if facts.backend == "auto" and facts.device.type != "cuda":
        return False
    reason = _why_not(facts)
    if facts.backend == "triton":
        if reason and not refuses:
            return False
        if reason:
            raise UserError(f"backend='triton' cannot be used: {reason}; use backend='torch' or 'auto'")
        return True
    reason = reason or why_not(facts.device, (facts.dtype,), auto=True) or ""
    _say(f"ESA on {facts.device.type}: backend {'torch' if reason else 'triton'}{f' ({reason})' if reason else ''}")
    return not reason


def _why_not(facts: StepFacts) -> str:
    """What of the configuration the kernels do not do; empty if nothing."""
    from esa_attention.ops.score_triton import MAX_PROXIMITY

    if not installed():
        return "triton is not installed"
    if facts.method != "esa":
        return f"there are no kernels for method={facts.method!r}"
    if facts.selection not in ("paper", "strict_causal"):
        return f"there are no kernels for selection={facts.selection!r}"
    if facts.offload:
        return "keys and values are in host memory (offload=true)"
    if facts.proximity > MAX_PROXIMITY:
        return f"proximity={facts.proximity} exceeds {MAX_PROXIMITY}"
    return ""


def _say(line: str) -> None:
    say_once(line, __name__, logging.INFO)
