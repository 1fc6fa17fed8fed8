"""Which candidate a step goes to: the best mean score, and what to do where noise hides which that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from effkit.errors import UserError
from greedy_enlarge.search.propose import Candidate

__all__ = ["Ranking", "Scored", "check_tie_margin", "rank", "standard_error"]


@dataclass(frozen=True)
class Scored:
    """A candidate with what its repeats found.

    Attributes:
        candidate: The candidate.
        scores: The selecting metric, one a repeat.
        losses: Validation losses, if there are any; lower wins a tie.
    """

    candidate: Candidate
    scores: tuple[float, ...]
    losses: tuple[float, ...] = field(default=())

    @property
    def mean(self) -> float:
        """Mean score."""
        return statistics.fmean(self.scores)


@dataclass(frozen=True)
class Ranking:
    """How the candidates of a step came out.

    Attributes:
        order: All of them, the chosen first: the tie set by its rule, then the others by score.
        leader: The one with the best mean.
        tie_set: Those within the margin of the leader, itself included, in the order of moves.
        margin: The margin.
        standard_error: Of the leader's mean.
    """

    order: tuple[Scored, ...]
    leader: Scored
    tie_set: tuple[Scored, ...]
    margin: float
    standard_error: float


def standard_error(scored: Scored, n_val: int) -> float:
    """Standard error of a mean score.

    The larger of two: the spread of the repeats over the root of their number, and for an accuracy on ``n_val``
    pictures its binomial error ``sqrt(p (1 - p) / n_val)``, which further repeats on the same pictures do not lower.

    Args:
        scored: The candidate.
        n_val: Pictures the score is a share of; 0 if it is none.
    """
    found = 0.0
    if len(scored.scores) > 1:
        found = statistics.stdev(scored.scores) / math.sqrt(len(scored.scores))
    if n_val:
        p = min(1.0, max(0.0, scored.mean))
        found = max(found, math.sqrt(p * (1 - p) / n_val))
    return found


def check_tie_margin(value: float) -> None:
    """Refuse a margin that is none.

    Raises:
        UserError: If it is no finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"tie_margin={value!r} must be a number of at least 0")


def rank(scored: Sequence[Scored], *, tie_margin: float = 1.0, n_val: int = 0) -> Ranking:
    """Rank the candidates of a step.

    Args:
        scored: In the order of moves.
        tie_margin: Candidates within so many standard errors of the leader's mean are tied with it.
        n_val: Pictures the score is a share of; 0 if it is none.

    Returns:
        The ranking. Ties are resolved by lower validation loss, then fewer parameters, then the order of moves.

    Raises:
        UserError: If there is none, or the margin is negative.
    """
    if not scored:
        raise UserError("there is no candidate to choose from")
    check_tie_margin(tie_margin)
    leader = max(scored, key=lambda s: s.mean)  # the first of equals
    error = standard_error(leader, n_val)
    margin = tie_margin * error
    tied = [s for s in scored if s.mean >= leader.mean - margin]
    rest = sorted((s for s in scored if s not in tied), key=lambda s: -s.mean)
    resolved = sorted(tied, key=lambda s: (statistics.fmean(s.losses) if s.losses else 0.0, s.candidate.params))
    return Ranking((*resolved, *rest), leader, tuple(tied), margin, error)
