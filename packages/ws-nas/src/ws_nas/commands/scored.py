"""Scores of architectures: inherited, by a trained supernet; or read, from a column of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effkit.device import resolve_device
from effkit.errors import UserError
from effkit.runs import Run
from ws_nas.commands.evaluate import open_run
from ws_nas.commands.tables import open_table, space_of, text
from ws_nas.commands.train import scoring_of
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.columns import Accuracy
from ws_nas.spaces.space import Genotype, Space
from ws_nas.training.pictures import Scoring

__all__ = ["Source", "open_source"]


@dataclass(frozen=True)
class Source:
    """What scores architectures.

    Attributes:
        space: Theirs.
        name: What to call the score.
        scoring: The supernet's; ``None`` where a column is read.
        table: With the column; ``None`` where a supernet scores.
        column: Its name.
        family: That trained the supernet.
    """

    space: Space
    name: str
    scoring: Scoring | None = None
    table: TabularBenchmark | None = None
    column: str = ""
    family: Any = None

    def scores(self, genotypes: Sequence[Genotype]) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores, larger is better, and accuracies in percent; ``None`` where the score knows of none."""
        if self.scoring is not None:
            found = self.scoring.scores(genotypes)
            accuracy = 100 * found.accuracy.numpy()
            return (accuracy if self.scoring.metric == "accuracy" else -found.loss.numpy()), accuracy
        assert self.table is not None
        values = self.table.values(self.column, genotypes)
        return values, values if isinstance(self.table.columns[self.column], Accuracy) else None


def open_source(options: Mapping[str, Any]) -> Source:
    """What a config scores by: ``run``, or ``scores`` and perhaps ``scores_table``.

    Args:
        options: The config, with ``space``, ``run``, ``weights``, ``scores``, ``scores_table``, ``table``,
            ``scoring``, ``seed`` and ``device``.

    Raises:
        UserError: If there is neither, or both; or a value does not fit.
    """
    given = [key for key in ("run", "scores") if options[key]]
    if len(given) != 1:
        said = "are both set" if given else "are not set"
        raise UserError(f"run and scores {said}: give run=RUN, a trained supernet, or scores=COLUMN of a table")
    if "run" in given:
        if options["scores_table"]:
            raise UserError("scores_table belongs to scores=COLUMN: leave it out with run=")
        opened = Run.open(options["run"], package="ws_nas")
        data, found, family = open_run(opened, options["weights"])
        space = space_of(options, found)
        scoring = scoring_of(dict(options), family, data, data.val, resolve_device(options["device"]))
        metric = "accuracy, %" if scoring.metric == "accuracy" else "-loss"
        return Source(space, f"{family.name}, inherited {metric}", scoring, family=family)
    space = space_of(options)
    field = "table" if options["scores_table"] is None else "scores_table"
    table = open_table(field, options[field], space)
    column = text("scores", options["scores"])
    if column not in table.columns:
        known = ", ".join(table.columns)
        raise UserError(f"scores={column!r} is no column of {field}={str(options[field])!r}, choose one of {known}")
    return Source(space, column, table=table, column=column)
