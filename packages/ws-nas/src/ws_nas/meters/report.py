"""The report of the five meters: one object, as JSON, Markdown and a self-contained HTML page."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effkit.errors import UserError
from effkit.report import Table
from effkit.report.files import write_json, write_text
from ws_nas.meters.deployment import DeploymentGap
from ws_nas.meters.discretization import DiscretizationGap
from ws_nas.meters.hypergradient import HypergradientError
from ws_nas.meters.ranking import RankingGap
from ws_nas.meters.value import ValueGap

__all__ = ["METERS", "GapReport"]

METERS = {
    "value": "M1 value gap",
    "ranking": "M2 ranking gap",
    "discretization": "M3 discretisation gap",
    "deployment": "M4 deployment gap",
    "hypergradient": "M5 hyper-gradient error",
}


@dataclass(frozen=True)
class GapReport:
    """Five meters of one supernet; each is there, or says why it is not applicable.

    Attributes:
        space: Name of the space.
        score: What ranked, e.g. ``inherited accuracy, BN re-estimated (exact)``.
        truth: What it is held against, e.g. ``digits_test, 3 seeds``.
        ranking: M2, with interval, noise ceiling and structural baselines: a tau without them says nothing.
        value: M1, or why not.
        discretization: M3, or why not.
        deployment: M4, or why not.
        hypergradient: M5, or why not.
        notes: What a reader must know beside the notes of the meters.

    Raises:
        UserError: If the ranking comes without interval, ceiling or baselines, or a reason is empty.
    """

    space: str
    score: str
    truth: str
    ranking: RankingGap
    value: ValueGap | str
    discretization: DiscretizationGap | str
    deployment: DeploymentGap | str
    hypergradient: HypergradientError | str
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        m2 = self.ranking
        if not isinstance(m2, RankingGap):
            raise UserError(f"ranking={m2!r} must be a RankingGap: every report has a ranking gap")
        if m2.ceiling is None:
            raise UserError(
                f"tau={m2.tau:.4f} without a noise ceiling is no evidence: give the truth of two or more seeds, or "
                "ceiling= where it is known"
            )
        if not m2.baselines:
            raise UserError(
                f"tau={m2.tau:.4f} without structural baselines is no evidence: give tau of params and MACs"
            )
        if not math.isnan(m2.tau) and not all(map(math.isfinite, m2.interval)):
            raise UserError(f"tau={m2.tau:.4f} without an interval is no evidence: interval={m2.interval}")
        for name in METERS:
            if isinstance(value := getattr(self, name), str) and not value.strip():
                raise UserError(f"{name}='' says neither a figure nor why it is not applicable")

    @property
    def tau(self) -> float:
        """Tau-b of score and truth."""
        return self.ranking.tau

    def to_dict(self) -> dict[str, Any]:
        """All figures; ``tau``, ``ci_low``, ``ci_high``, ``ceiling`` and ``baselines`` at the top."""
        m2 = self.ranking
        meters: dict[str, Any] = {}
        for name in METERS:
            value = getattr(self, name)
            meters[name] = {"not_applicable": value} if isinstance(value, str) else dataclasses.asdict(value)
        return {
            "space": self.space, "score": self.score, "truth": self.truth, "n": m2.n, "tau": m2.tau,
            "ci_low": m2.interval[0], "ci_high": m2.interval[1], "ceiling": m2.ceiling,
            "single_seed_tau": m2.single_seed_tau, "of_ceiling": m2.of_ceiling, "baselines": dict(m2.baselines),
            "beats": m2.beats, "meters": meters, "notes": [*m2.notes, *self.notes],
        }  # fmt: skip

    def verdict(self) -> str:
        """One sentence: does the score rank better than counting does, and how near seed noise it comes."""
        m2 = self.ranking
        if math.isnan(m2.tau):
            return "All scores are equal: nothing is ranked."
        best = max(m2.baselines, key=lambda name: m2.baselines[name])
        how = "better than" if m2.beats[best] else "not shown to be better than"
        low, high = m2.interval
        said = f"tau {m2.tau:.3f} [{low:.3f}, {high:.3f}]: {how} ranking by {best} ({m2.baselines[best]:.3f})"
        if m2.of_ceiling is not None:
            said += f", {100 * m2.of_ceiling:.0f} % of what seed noise allows ({m2.ceiling:.3f})"
        return said + "."

    def tables(self) -> list[Table]:
        """The ranking beside its ceiling and baselines, its selection figures, and the other meters."""
        m2 = self.ranking
        rows: list[list[Any]] = [
            [self.score, m2.tau, *m2.interval, None],
            *([name, tau, None, None, m2.beats[name]] for name, tau in m2.baselines.items()),
            ["noise ceiling: one seed of the truth against another", m2.ceiling, None, None, None],
        ]
        if m2.single_seed_tau is not None:
            rows.append([f"{self.score}, against single seeds (mean)", m2.single_seed_tau, None, None, None])
        note = f"{m2.n} architectures; truth: {self.truth}. {self.verdict()}"
        columns = ["ranked by", "tau-b", "95 % from", "to", "score is better (whole interval)"]
        tables = [Table("M2 ranking gap", columns, rows, note)]
        rows = [
            ["1 - tau", m2.gap], ["Spearman's rho", m2.rho], ["weighted tau", m2.weighted],
            *([f"tau among the best {share} by truth", tau] for share, tau in m2.top.items()),
            *([f"P@{k}", value] for k, value in m2.precision.items()),
            *([f"best of the top {k}", value] for k, value in m2.best.items()),
            *([f"regret@{k}", value] for k, value in m2.regret.items()),
            ["pairs tied in the score, %", 100 * m2.ties], ["pairs tied in the truth, %", 100 * m2.truth_ties],
        ]  # fmt: skip
        tables.append(Table("Selection", ["figure", "value"], rows, "Empty: fewer than 10 architectures, or all tied."))
        rows = []
        for name, title in METERS.items():
            value = getattr(self, name)
            if isinstance(value, str):
                rows.append([title, "not applicable", None, value])
            elif name != "ranking":
                for key, figure in dataclasses.asdict(value).items():
                    if isinstance(figure, int | float):
                        rows.append([title, key.replace("_", " "), figure, ""])
                    elif isinstance(figure, dict):
                        rows += [[title, f"{key} {k}", v, ""] for k, v in figure.items()]
                    else:
                        rows.append([title, key, None, " to ".join(f"{v:.4g}" for v in figure)])
        tables.append(Table("The other meters", ["meter", "figure", "value", ""], rows))
        return tables

    def to_markdown(self) -> str:
        """Headings, tables and notes as Markdown."""
        parts = [f"# Optimisation gap: {self.score} on {self.space}", "", self.verdict(), ""]
        for table in self.tables():
            parts += [f"## {table.title}", "", table.to_markdown()]
        notes = [*self.ranking.notes, *self.notes]
        if notes:
            parts += ["## Notes", "", *(f"- {note}" for note in notes), ""]
        return "\n".join(parts)

    def to_html(self, pictures: Iterable[str | os.PathLike[str]] = ()) -> str:
        """A page that needs nothing beside it.

        Args:
            pictures: PNG files to embed, with the sentences inside them as their alternatives.
        """
        from ws_nas.meters.page import render

        heading = f"Optimisation gap: {self.score} on {self.space}"
        notes = [*self.ranking.notes, *self.notes]
        return render(heading, self.verdict(), self.tables(), notes, [Path(p) for p in pictures])

    def write(self, folder: str | os.PathLike[str], pictures: Iterable[str | os.PathLike[str]] = ()) -> list[Path]:
        """Write ``gap.json``, ``gap.md`` and ``gap.html``.

        Args:
            folder: Where to.
            pictures: For the page.

        Returns:
            The files.
        """
        out = Path(folder)
        return [
            write_json(out / "gap.json", self.to_dict()),
            write_text(out / "gap.md", self.to_markdown()),
            write_text(out / "gap.html", self.to_html(pictures)),
        ]
