"""What a paper is: its rows, and the claim that it holds on a laptop."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from effkit.papers.claim_run import ClaimRun
from effkit.report import Table
from effkit.rows import Outcome, Row

__all__ = ["Claim", "Paper"]


@dataclass
class Claim:
    """What the laptop-scale run of a paper found.

    Args:
        rows: Judged figures, e.g. from `Findings`, `evaluate` or `Row.judge`; the claim holds if none differs.
        figures: PNG files inside the folder given to the run, from `effkit.plots.save_png`.
        tables: Further tables: the baseline beside ours, learning curves.
        notes: Sentences a reader needs to judge the figures fairly.
    """

    rows: list[Outcome]
    figures: list[Path] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Paper:
    """A paper that can be reproduced.

    Args:
        name: Short name, that of the command and of the entry point.
        distribution: The installed package.
        title: Title of the paper.
        reference: Citation line.
        rows: Returns the rows; called when they are wanted, so that importing the module costs nothing.
        claim: Runs the laptop-scale claim in the folder of its `ClaimRun`, in its short or its full form; or where that
            function is, `"tnt_vit.paper.claim:run_claim"`, imported when it is wanted. `None` if there is none.
        command: What re-runs the rows: "tnt-vit reproduce".
    """

    name: str
    distribution: str
    title: str
    reference: str
    rows: Callable[[], list[Row]]
    claim: Callable[[ClaimRun], Claim] | str | None = None
    command: str = ""

    def run_claim(self, run: ClaimRun) -> Claim:
        """Run the claim.

        Raises:
            TypeError: If it returns anything but a `Claim`.
        """
        claim = self.claim
        assert claim is not None, f"{self.name} has no claim"
        if isinstance(claim, str):
            module, _, function = claim.partition(":")
            claim = getattr(importlib.import_module(module), function)
        assert callable(claim)
        found = claim(run)
        if not isinstance(found, Claim):
            raise TypeError(f"the claim of {self.name} must return an effkit Claim, got {type(found).__name__}")
        return found
