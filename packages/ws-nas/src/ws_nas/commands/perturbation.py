"""Deriving anew from a trained mixture, by what it misses most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effkit.errors import UserError, written
from ws_nas.commands.scored import Source
from ws_nas.families.numbers import number
from ws_nas.families.soft import Soft
from ws_nas.search.ledger import SearchResult, Trial

__all__ = ["derive_anew"]


def derive_anew(source: Source, options: Mapping[str, Any]) -> SearchResult:
    """Decide every edge of a trained mixture; its weights stay as they are.

    Args:
        source: With the family that trained it.
        options: The keys of ``ws-nas search``.

    Raises:
        UserError: If there is no such mixture, it is decided already, or something is asked that decisions do not keep.
    """
    family, told = source.family, f"strategy={options['strategy']['name']}"
    if source.scoring is None:
        raise UserError(f"{told} decides the edges of a trained mixture: give run=RUN instead of scores=")
    if not isinstance(family, Soft):
        raise UserError(f"{told} is for mixtures that run all operations, as DARTS trains them, not for {family.name}")
    if not family.inherits:
        raise UserError(
            f"{told}: {family.name} leaves no weights to score by; it can select by perturbation where it is trained"
        )
    if family.select == "perturbation":
        raise UserError(f"{told}: the run was derived by perturbation already, in its training")
    for key in ("limit", "latency"):
        asked = options[key]
        if isinstance(asked, Mapping):
            asked = {k: v for k, v in asked.items() if v is not None} or None
        if asked is not None:
            raise UserError(f"{key}={written(asked)} is not kept by {told}: choose strategy=constrained")
    tables = family.mixture.tables
    needed = sum(
        len(edges) if among else len(tables[t].operations) - (tables[t].nothing is not None)
        for t, edges, among in family.decisions
    )
    if needed > number(options["budget"], "budget", least=1, whole=True):
        raise UserError(f"budget={options['budget']}: {told} needs {needed} evaluations of the mixture")
    family.decide(source.scoring.batches)
    genotype = family.derived()
    best = Trial(genotype, float(source.scores([genotype])[0][0]))
    return SearchResult(best, (best,), message=f"{needed} evaluations of the mixture decided {family.decided} times")
