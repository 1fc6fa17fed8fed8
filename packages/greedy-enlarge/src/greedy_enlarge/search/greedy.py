"""The search: step by step, the move whose network scores best at the step's budget."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from effkit.errors import UserError
from effkit.report.files import write_text
from greedy_enlarge.families import macs, params
from greedy_enlarge.search.journal import Journal
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.propose import Candidate, Proposal, ceiling, propose
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.running import Runner
from greedy_enlarge.search.schedule import Schedule
from greedy_enlarge.search.selection import Ranking, Scored, check_tie_margin, rank
from greedy_enlarge.search.tasks import Evaluator, Result, Task
from greedy_enlarge.spec import ArchSpec

__all__ = ["DECISIONS", "SearchResult", "Settings", "Step", "check_search", "search"]

DECISIONS = "decisions.jsonl"


@dataclass(frozen=True)
class Settings:
    """How a search goes; all of it shapes the result.

    Args:
        steps: Number of steps; ``None`` takes what brings two budgets closest to a ratio of 1.155.
        delta: Largest allowed ``|MACs - budget| / budget`` of a step.
        delta_final: Of the last step; if no move comes so close, the closest within ``delta`` is taken, flagged.
        moves: Which moves there are.
        beam: Networks that are kept a step.
        repeats: Evaluations of each candidate, with seeds of their own.
        tie_margin: Candidates within so many standard errors of the leader are tied with it.
        racing: Rungs of successive halving; ``None`` gives every candidate ``samples``.
        samples: Training samples of an evaluation without racing; ``None`` leaves it to the evaluator.
        seed: Root of all seeds.
    """

    steps: int | None = None
    delta: float = 0.05
    delta_final: float = 0.01
    moves: Moves = field(default_factory=Moves)
    beam: int = 1
    repeats: int = 1
    tie_margin: float = 1.0
    racing: Racing | None = None
    samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("beam", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name}={value!r} must be a whole number of at least {least}")
        check_tie_margin(self.tie_margin)
        if self.samples is not None:
            if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
                raise UserError(f"samples={self.samples!r} must be a whole number of at least 1, or null")
            if self.racing is not None:
                raise UserError(f"samples={self.samples} and racing exclude each other: racing says its own samples")


@dataclass(frozen=True)
class Step:
    """One step of a search.

    Attributes:
        number: From 1.
        budget: MACs to come to.
        parents: Networks it started from.
        proposals: Per parent.
        ranking: How the candidates came out.
        failed: Moves of candidates that failed twice, with the reason.
        chosen: The networks it went to, the best first.
        from_parent: Of each chosen, which parent.
    """

    number: int
    budget: int
    parents: tuple[ArchSpec, ...]
    proposals: tuple[Proposal, ...]
    ranking: Ranking
    failed: tuple[tuple[str, str], ...]
    chosen: tuple[Candidate, ...]
    from_parent: tuple[int, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        start: Where it started.
        spec: What it came to.
        schedule: Its budgets.
        steps: What it did.
        message: What is noteworthy, in a sentence; empty if nothing is.
        evaluated: Evaluations that ran in this process.
        decisions: The decision log, one canonical JSON line a step; free of times, so a resumed search writes the same.
    """

    start: ArchSpec
    spec: ArchSpec
    schedule: Schedule
    steps: tuple[Step, ...]
    message: str
    evaluated: int
    decisions: tuple[str, ...]


def check_search(spec: ArchSpec, budget: int, settings: Settings) -> tuple[Schedule, Proposal | None]:
    """Refuse what cannot succeed, before anything is evaluated.

    Args:
        spec: The start.
        budget: MACs to come to.
        settings: How the search goes.

    Returns:
        The schedule, and the candidates of the first step; ``None`` if no step is needed.

    Raises:
        UserError: If the budget is not above the start, above everything the moves reach (names the largest), or the
            first step has no candidate.
    """
    moves = settings.moves
    moves.check(spec)
    schedule = Schedule.plan(macs(spec), budget, settings.steps, settings.delta, settings.delta_final)
    for limit in moves.limits:
        if limit.measure(spec) > limit.most:
            has = f"{limit.measure(spec):,.6g}, above the maximum {limit.most:,.6g}"
            raise UserError(f"the start has {limit.name} {has}: give a larger maximum or a smaller start")
    if schedule.steps == 0:
        return schedule, None
    most = ceiling(spec, moves, schedule.steps)
    if most is not None and most < budget * (1 - settings.delta_final):
        raise UserError(
            f"budget={budget:,} is above everything that {schedule.steps} steps of these moves reach; the largest "
            f"network there has {most:,} MACs: give that or less, more steps, or larger caps (moves.largest)"
        )
    return schedule, _proposal(spec, schedule, 1, moves)


def _proposal(spec: ArchSpec, schedule: Schedule, step: int, moves: Moves) -> Proposal:
    last = step == schedule.steps
    fallback = schedule.delta if last else None
    return propose(spec, schedule.budget(step), schedule.tolerance(step), moves, fallback=fallback)


def search(
    spec: ArchSpec,
    budget: int,
    evaluator: Evaluator,
    settings: Settings | None = None,
    *,
    executor: Executor | None = None,
    journal: Journal | None = None,
    progress: Callable[[Step | None, str, float], None] | None = None,
) -> SearchResult:
    """Grow a network to a MACs budget, greedily.

    Args:
        spec: The start.
        budget: MACs to come to.
        evaluator: Scores candidates.
        settings: How; the defaults are ours, the paper's are not known to us.
        executor: Where evaluations run; one after the other in this process if not given.
        journal: Keeps finished evaluations; a search that is run again with it goes on.
        progress: Told what happens: the step that ended (or ``None``), a sentence, and the share done.

    Returns:
        The result. The chain of networks never shrinks in any coordinate.

    Raises:
        UserError: If it cannot succeed; before anything is evaluated where that can be known.
    """
    settings = settings or Settings()
    schedule, _ = check_search(spec, budget, settings)
    run = _Run(spec, evaluator, settings, schedule, executor, journal, progress)
    if schedule.steps == 0:
        distance = 100 * (budget / schedule.start - 1)
        message = f"the start's {schedule.start:,} MACs are within {distance:.2g} % of the budget: nothing to do"
        return SearchResult(spec, spec, schedule, (), message, 0, (run.heading(),))
    return run.all_steps()


class _Run:
    """One search in progress."""

    def __init__(
        self, spec: ArchSpec, evaluator: Evaluator, settings: Settings, schedule: Schedule, executor: Executor | None,
        journal: Journal | None, progress: Callable[[Step | None, str, float], None] | None,
    ) -> None:  # fmt: skip
        self.spec, self.evaluator, self.settings, self.schedule = spec, evaluator, settings, schedule
        self.progress, self.journal = progress, journal
        self.number = 0
        self.runner = Runner(evaluator, executor, journal, self._advanced)
        self.lines: list[str] = []

    def _advanced(self, done: int, total: int) -> None:
        if self.progress is not None:
            share = (self.number - 1 + done / max(1, total)) / self.schedule.steps
            text = f"step {self.number} of {self.schedule.steps}, evaluation {done} of {total}"
            self.progress(None, text, max(0.0, share))

    def heading(self) -> str:
        s = self.schedule
        budgets = [s.budget(n) for n in range(s.steps + 1)]
        return _line({"start": self.spec.to_dict(), "macs": s.start, "target": s.target, "budgets": budgets})

    def all_steps(self) -> SearchResult:
        beam: list[ArchSpec] = [self.spec]
        states = [self._start_states()]
        steps: list[Step] = []
        self.lines = [self.heading()]
        for number in range(1, self.schedule.steps + 1):
            self.number = number
            step, states = self._step(beam, states)
            steps.append(step)
            beam = [c.spec for c in step.chosen]
            self.lines.append(_line(_decision(step, self.settings, self.evaluator.n_val)))
            if self.journal is not None:
                write_text(self.journal.folder / DECISIONS, "\n".join(self.lines) + "\n")
            if self.progress is not None:
                best = step.chosen[0]
                text = f"step {self.number}: {best.move}, {best.macs:,} MACs ({100 * best.deviation:+.2f} %)"
                self.progress(step, text, self.number / self.schedule.steps)
        message = ""
        if any(p.nearest for p in steps[-1].proposals):
            message = (
                f"no move of the last step came within {100 * self.schedule.delta_final:g} % of the budget; "
                "the closest was taken"
            )
        return SearchResult(
            self.spec, beam[0], self.schedule, tuple(steps), message, self.runner.evaluated, tuple(self.lines)
        )

    def _start_states(self) -> list[str]:
        """States of the start, one a repeat, for candidates to inherit."""
        if not self.evaluator.inherits:
            return [""] * self.settings.repeats
        settings = self.settings
        samples = settings.racing.samples[-1] if settings.racing else settings.samples
        tasks = [Task.make(settings.seed, self.spec, 0, r, samples=samples) for r in range(settings.repeats)]
        results = self.runner.run(tasks, [{"step": 0, "move": "start", "repeat": t.repeat} for t in tasks])
        for result in results:
            if result.status != "ok":
                raise UserError(f"the start could not be trained: {result.reason}")
        return [result.state for result in results]

    def _step(self, beam: list[ArchSpec], states: list[list[str]]) -> tuple[Step, list[list[str]]]:
        moves = self.settings.moves
        proposals: list[Proposal] = []
        candidates: dict[ArchSpec, tuple[Candidate, int]] = {}
        for index, parent in enumerate(beam):
            try:
                proposal = _proposal(parent, self.schedule, self.number, moves)
            except UserError as error:
                if index + 1 < len(beam) or candidates:  # another network of the beam may go on
                    proposals.append(Proposal(self.schedule.budget(self.number), (), ()))
                    continue
                raise UserError(f"step {self.number} of {self.schedule.steps}: {error}") from error
            proposals.append(proposal)
            for candidate in proposal.candidates:  # moves commute: two parents may reach one network
                candidates.setdefault(candidate.spec, (candidate, index))
        scored, failed, found = self._score(list(candidates.values()), beam, states)
        if not scored:
            reasons = "; ".join(f"{move}: {reason}" for move, reason in failed)
            raise UserError(f"all candidates of step {self.number} failed: {reasons}")
        ranking = rank(scored, tie_margin=self.settings.tie_margin, n_val=self.evaluator.n_val)
        chosen = [s.candidate for s in ranking.order[: self.settings.beam]]
        from_parent = tuple(candidates[c.spec][1] for c in chosen)
        step = Step(
            self.number, self.schedule.budget(self.number), tuple(beam), tuple(proposals), ranking, tuple(failed),
            tuple(chosen), from_parent,
        )  # fmt: skip
        return step, [found[c.spec] for c in chosen]

    def _score(
        self, candidates: Sequence[tuple[Candidate, int]], beam: list[ArchSpec], states: list[list[str]]
    ) -> tuple[list[Scored], list[tuple[str, str]], dict[ArchSpec, list[str]]]:
        """Evaluate the candidates, all with the same samples or racing; scores of one rung are compared only."""
        settings, repeats = self.settings, range(self.settings.repeats)
        rungs: Sequence[int | None] = settings.racing.samples if settings.racing else (settings.samples,)
        alive = list(candidates)
        reached: dict[ArchSpec, list[str]] = {c.spec: [""] * settings.repeats for c, _ in alive}
        failed: list[tuple[str, str]] = []
        scored: list[Scored] = []
        for rung, samples in enumerate(rungs):
            tasks, about = [], []
            for candidate, parent in alive:
                for r in repeats:
                    more: dict[str, Any] = {"samples": samples, "continues": reached[candidate.spec][r]}
                    if self.evaluator.inherits:
                        more |= {"parent": beam[parent], "parent_state": states[parent][r]}
                    tasks.append(Task.make(settings.seed, candidate.spec, self.number, r, **more))
                    about.append({"step": self.number, "move": candidate.move, "repeat": r, "rung": rung})
            results = self.runner.run(tasks, about)
            scored = []
            for i, (candidate, _) in enumerate(alive):
                own = results[i * len(repeats) : (i + 1) * len(repeats)]
                bad = [result.reason for result in own if result.status != "ok"]
                if bad:
                    failed.append((candidate.move, bad[0]))
                    continue
                reached[candidate.spec] = [result.state for result in own]
                scored.append(self._scored(candidate, own))
            if rung + 1 < len(rungs) and scored:
                assert settings.racing is not None
                ranking = rank(scored, tie_margin=0.0)
                going = {s.candidate.spec for s in ranking.order[: settings.racing.survivors(len(scored))]}
                alive = [pair for pair in alive if pair[0].spec in going]
        return scored, failed, reached

    def _scored(self, candidate: Candidate, results: Sequence[Result]) -> Scored:
        losses = tuple(r.metrics["loss"] for r in results) if all("loss" in r.metrics for r in results) else ()
        return Scored(candidate, tuple(r.metrics[self.evaluator.metric] for r in results), losses)


def _decision(step: Step, settings: Settings, n_val: int) -> dict[str, Any]:
    """A step as plain values, without times."""
    ranking = step.ranking
    order = {s.candidate.spec: i for i, s in enumerate(ranking.order)}
    candidates = [
        {**dataclasses.asdict(s.candidate), "spec": s.candidate.spec.to_dict(), "scores": list(s.scores),
         "losses": list(s.losses)}
        for s in sorted(ranking.order, key=lambda s: order[s.candidate.spec])
    ]  # fmt: skip
    return {
        "step": step.number,
        "budget": step.budget,
        "parents": [p.to_dict() for p in step.parents],
        "candidates": candidates,
        "dropped": [[dataclasses.asdict(d) for d in p.dropped] for p in step.proposals],
        "nearest": [p.nearest for p in step.proposals],
        "failed": [list(f) for f in step.failed],
        "leader": ranking.leader.candidate.move,
        "tie_set": [s.candidate.move for s in ranking.tie_set],
        "standard_error": ranking.standard_error,
        "margin": ranking.margin,
        "n_val": n_val,
        "seed": settings.seed,
        "repeats": settings.repeats,
        "chosen": [{"move": c.move, "macs": c.macs, "params": params(c.spec)} for c in step.chosen],
    }


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
