"""How often racing picks what training everything picks, and what it saves: on a recorded table, step by step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from greedy_enlarge.families import macs, params
from greedy_enlarge.search.propose import Candidate
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.recording import Recorded
from greedy_enlarge.search.rules import candidates_of, mean_score, space_of
from greedy_enlarge.search.selection import Scored, rank
from greedy_enlarge.spec import ArchSpec

__all__ = ["Savings", "pick", "savings_on_table", "steps_of"]


@dataclass(frozen=True)
class Savings:
    """What a cheaper way to pick comes to, over many steps.

    Attributes:
        way: Its name.
        steps: How many steps were looked at; each has at least two candidates.
        same: In how many of them it picks the same network as training everything.
        tied: In how many it picks one that training everything cannot tell from its own pick (its tie set).
        share: Its training samples over those of training everything.
        loss: Mean accuracy, a fraction, that its picks lie below those of training everything.
    """

    way: str
    steps: int
    same: int
    tied: int
    share: float
    loss: float


def steps_of(table: Recorded) -> list[tuple[ArchSpec, list[ArchSpec]]]:
    """Every step there is in a table: a network, and two or more candidates of the next level."""
    space = space_of(table)
    found = []
    for level, networks in enumerate(space.levels[:-1], 1):
        for net in networks:
            candidates = candidates_of(space, net, level)
            if len(candidates) > 1:
                found.append((net, candidates))
    return found


def pick(
    table: Recorded, candidates: Sequence[ArchSpec], samples: int, repeats: Sequence[int], tie_margin: float = 1.0
) -> tuple[list[ArchSpec], list[ArchSpec]]:
    """Rank candidates by what is recorded after a number of samples.

    Args:
        table: The table.
        candidates: In the order of moves.
        samples: One of the table's.
        repeats: Which trainings.
        tie_margin: As of a search.

    Returns:
        The candidates, the pick first; and those tied with the leader.
    """
    rows = table.curves[samples]
    scored = []
    for net in candidates:
        own = [rows[net.to_json()][r] for r in repeats]
        candidate = Candidate("", net, macs(net), params(net), 0.0)
        scored.append(Scored(candidate, tuple(r["accuracy"] for r in own), tuple(r["loss"] for r in own)))
    ranking = rank(scored, tie_margin=tie_margin, n_val=int(table.about["n_val"]))
    return [s.candidate.spec for s in ranking.order], [s.candidate.spec for s in ranking.tie_set]


def _race(table: Recorded, candidates: list[ArchSpec], racing: Racing, repeats: Sequence[int]) -> tuple[ArchSpec, int]:
    """The pick of racing, and the samples it takes."""
    alive = candidates
    for samples in racing.samples[:-1]:
        going = pick(table, alive, samples, repeats, 0.0)[0][: racing.survivors(len(alive))]
        alive = [net for net in alive if net in going]
    best = pick(table, alive, racing.samples[-1], repeats)[0][0]
    return best, racing.total(len(candidates)) * len(repeats)


def savings_on_table(table: Recorded) -> list[Savings]:
    """Cheaper ways to pick beside training every candidate to the end, over all steps of a table.

    The trainings are the same ones, looked at earlier: what differs is what was not waited for. How far other seeds
    alone change the pick stands beside it, as picks of single trainings.

    Args:
        table: A recorded table of at least two numbers of samples.
    """
    steps, score = steps_of(table), mean_score(table)
    all_repeats, full = range(table.repeats), table.samples[-1]
    ways: dict[str, tuple[Racing, list[range]]] = {}
    for last in range(len(table.samples), 0, -1):
        rungs = table.samples[:last]
        if last > 1:
            ways[f"racing {' '.join(map(str, rungs))}"] = Racing(rungs), [all_repeats]
        if last < len(table.samples):
            ways[f"everything, {rungs[-1]} samples"] = Racing(rungs[-1:]), [all_repeats]
    if table.repeats > 1:
        ways["everything, one training each"] = Racing((full,)), [range(r, r + 1) for r in all_repeats]
    found = []
    for way, (racing, groups) in ways.items():
        same = tied = spent = 0
        losses = []
        for _, candidates in steps:
            order, tie_set = pick(table, candidates, full, all_repeats)
            for repeats in groups:
                best, samples = _race(table, candidates, racing, repeats)
                same += best == order[0]
                tied += best in tie_set
                spent += samples
                losses.append(score(order[0]) - score(best))
        everything = sum(len(c) for _, c in steps) * table.repeats * full * len(groups)
        number = len(steps) * len(groups)
        found.append(Savings(way, number, same, tied, spent / everything, statistics.fmean(losses)))
    return found
