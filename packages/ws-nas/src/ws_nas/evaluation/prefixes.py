"""Paths through a chain as a tree: what paths have in common at their beginning is computed once.

Activations and re-estimated statistics of a layer depend on the choices so far only. The tree is walked depth first,
with one activation kept a depth, until what is left of a branch fits into memory side by side; from there on each step
is called once for all the prefixes that take it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from ws_nas.supernets.norm import Applying, Collecting, rows_of
from ws_nas.supernets.supernet import Step

__all__ = ["STACKED_BYTES", "Arrived", "walk_prefixes"]

STACKED_BYTES = 32 << 20
"""Of the pictures of all paths side by side: what caches still help with."""

Arrived = Callable[[list[list[int]], list[Tensor]], None]
"""Told the paths of each of U ends, and their logits (U, B, classes) on each batch."""


class _Pictures:
    """Activations of U prefixes: of calibration pictures, where there are any, and of those to score on.

    Args:
        given: (U, B, C, H, W) each; ``None`` without calibration.
        scored: The same.
    """

    def __init__(self, given: list[Tensor] | None, scored: list[Tensor]) -> None:
        self.given, self.scored = given, scored

    def bytes_each(self) -> int:
        return sum(x[:1].nbytes for x in [*(self.given or []), *self.scored])

    def take(self, parents: list[int]) -> _Pictures:
        """Those of some prefixes, in that order."""
        if parents == list(range(len(self.scored[0]))):
            return self
        index = torch.tensor(parents, device=self.scored[0].device)
        given = None if self.given is None else [x.index_select(0, index) for x in self.given]
        return _Pictures(given, [x.index_select(0, index) for x in self.scored])

    def advance(self, step: Step) -> _Pictures:
        """One step further: scored pictures are normalised by the statistics of the others, prefix by prefix."""
        count = len(self.scored[0])

        def run(x: Tensor) -> Tensor:
            return step.run(x.flatten(0, 1)).unflatten(0, (count, -1))

        with rows_of(range(count)):
            if self.given is None:
                return _Pictures(None, [run(x) for x in self.scored])
            with Collecting(count) as session:
                further = [run(x) for x in self.given]
            with Applying(session.moments()):
                return _Pictures(further, [run(x) for x in self.scored])


def _joined(parts: list[_Pictures]) -> _Pictures:
    if len(parts) == 1:
        return parts[0]
    given = None
    if parts[0].given is not None:
        given = [torch.cat(same) for same in zip(*(part.given or [] for part in parts), strict=True)]
    return _Pictures(given, [torch.cat(same) for same in zip(*(p.scored for p in parts), strict=True)])


def _children(chains: Sequence[list[Step]], members: list[int], depth: int) -> dict[Hashable, list[int]]:
    """Paths that go on, by their next step."""
    found: dict[Hashable, list[int]] = {}
    for i in members:
        if len(chains[i]) > depth:
            found.setdefault(chains[i][depth].key, []).append(i)
    return found


def walk_prefixes(
    chains: Sequence[list[Step]],
    calibration: Sequence[Tensor] | None,
    scored: Sequence[Tensor],
    arrived: Arrived,
    stacked_bytes: int = STACKED_BYTES,
) -> None:
    """Run all paths.

    Args:
        chains: The steps of each.
        calibration: Pictures (B, C, H, W) that statistics are re-estimated on; ``None`` leaves layers as they are.
        scored: Pictures to run.
        arrived: Told what comes out.
        stacked_bytes: How much may be side by side.
    """

    def deep(depth: int, members: list[int], pictures: _Pictures) -> None:
        if pictures.bytes_each() * len(members) <= stacked_bytes:
            wide(depth, [members], pictures)
            return
        ended = [i for i in members if len(chains[i]) == depth]
        if ended:
            arrived([ended], pictures.scored)
        for some in _children(chains, members, depth).values():
            deep(depth + 1, some, pictures.advance(chains[some[0]][depth]))

    def wide(depth: int, prefixes: list[list[int]], pictures: _Pictures) -> None:
        ended = [(u, [i for i in some if len(chains[i]) == depth]) for u, some in enumerate(prefixes)]
        if at := [u for u, some in ended if some]:
            arrived([some for _, some in ended if some], pictures.take(at).scored)
        steps: dict[Hashable, list[tuple[int, list[int]]]] = {}
        for u, some in enumerate(prefixes):
            for key, members in _children(chains, some, depth).items():
                steps.setdefault(key, []).append((u, members))
        # Side by side goes what has one shape: chains of several depths reach a stage after different numbers of steps.
        alike: dict[Hashable, list[tuple[_Pictures, list[list[int]]]]] = {}
        for taking in steps.values():
            step = chains[taking[0][1][0]][depth]
            further = pictures.take([u for u, _ in taking]).advance(step)
            shape = tuple(further.scored[0].shape[1:])
            alike.setdefault(shape, []).append((further, [members for _, members in taking]))
        for parts in alike.values():
            wide(depth + 1, [some for _, more in parts for some in more], _joined([part for part, _ in parts]))

    first = None if calibration is None else [x[None] for x in calibration]
    deep(0, list(range(len(chains))), _Pictures(first, [x[None] for x in scored]))
