"""Networks of a found network's MACs that no search has looked at: uniform scaling, and the end of a random path."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

from effkit.errors import UserError
from greedy_enlarge.families import macs
from greedy_enlarge.families.scaling import scale
from greedy_enlarge.search.evaluators import RandomChoice
from greedy_enlarge.search.greedy import Settings, search
from greedy_enlarge.spec import ArchSpec

__all__ = ["baselines", "uniform"]


def uniform(start: ArchSpec, budget: int, method: str) -> ArchSpec | None:
    """The uniformly scaled network of a budget.

    Within 1 % by the family's steps; small networks that these miss are met within 2 % by single channels and pixels.

    Args:
        start: What is scaled.
        budget: MACs.
        method: As of :func:`~greedy_enlarge.families.scaling.scale`.

    Returns:
        The network; ``None`` if there is none so close.
    """
    with contextlib.suppress(UserError):
        return scale(start, budget, method)
    with contextlib.suppress(UserError):
        return scale(start, budget, method, tolerance=0.02, width_step=1, resolution_step=1)
    return None


def baselines(start: ArchSpec, found: ArchSpec, budget: int, settings: Settings) -> Mapping[str, ArchSpec | None]:
    """What a searched network is held against.

    Args:
        start: Where the search started.
        found: What it came to.
        budget: What it was asked for.
        settings: How it went; the random path takes the same moves.

    Returns:
        Networks by name; ``None`` where there is none.
    """
    networks: dict[str, ArchSpec | None] = {m: uniform(start, macs(found), m) for m in ("compound", "fast")}
    networks["random path"] = None
    with contextlib.suppress(UserError):  # a random path may come to where no move leads on
        plain = dataclasses.replace(settings, racing=None, samples=None, repeats=1, beam=1)
        networks["random path"] = search(start, budget, RandomChoice(), plain).spec
    return networks
