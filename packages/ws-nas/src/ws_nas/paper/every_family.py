"""Every family on one tiny setting: a few steps on digits, a genotype, and each meter or why it is not applicable."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from effkit.progress import report_progress
from effkit.report import Table
from ws_nas.commands.mixture import discretization_of, hypergradient_of
from ws_nas.evaluation.scoring import score
from ws_nas.evaluation.splits import Splits, digits_splits
from ws_nas.families.base import Batch, Family
from ws_nas.families.individual import Individual
from ws_nas.families.progress import Progress
from ws_nas.families.registry import FAMILIES, make_family
from ws_nas.meters.gap import ONE_SCALE
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.shipped import digits_table
from ws_nas.ops.ranks import kendall_tau
from ws_nas.spaces.registry import get_space
from ws_nas.spaces.space import Genotype
from ws_nas.training.pictures import alone

__all__ = ["every_family", "family_table"]

STEPS, EPOCHS, BATCH, PICTURES = 2, 3, 16, 64
SPACES = {"p_darts": "darts_tiny", "pc_darts": "darts_tiny", "ofa": "ofa_tiny", "bignas": "ofa_tiny"}
_FEW = {"exhaustive": 0, "population": 3, "parents": 2, "generations": 1}
OPTIONS: dict[str, dict[str, Any]] = {
    "individual": {"candidates": 4},
    "enas": {"updates": 2, "samples": 4, "candidates": 4},
    "proxyless": {"warmup": 0, "every": 1},
    "r_darts": {"every": 3, "pictures": 1},
    "pc_darts": {"warmup": 1},
    "p_darts": {"warmup": 0, "cells": [3, 3, 3]},
    "ofa": {"shares": [1, 1, 1, 1, 1, 1], "search": _FEW},
    "bignas": {"search": _FEW},
}
NOT_SHARED = "shares no weights: what it did not train has no score"
NO_TABLE = "no stand-alone results of this space"


def every_family() -> dict[str, Any]:
    """Train each family for a few steps on the digits chain.

    Returns:
        By name: the genotype as it is written, whether it is one, and each meter, or why it is not applicable.
    """
    torch.set_num_threads(1)
    data, table = digits_splits(0), digits_table()
    chosen = table.space.sample_many(12, 0)
    truth = table.truth("digits_test_12", chosen).mean(0)
    found = {}
    for i, name in enumerate(FAMILIES):
        report_progress(name, i / len(FAMILIES))
        family = _trained(name, data)
        genotype = family.derive()
        pictures, calibration = _pictures(data)
        m3 = discretization_of(family, pictures, calibration)
        entry: dict[str, Any] = {
            "space": family.space.name, "genotype": family.space.format(genotype), "valid": genotype in family.space,
            "m3": m3 if isinstance(m3, str) else m3.gap, "m5": hypergradient_of(family),
        }  # fmt: skip
        if family.space.space_id != table.space.space_id:
            entry |= {"tau": NO_TABLE, "value": NO_TABLE}
        elif isinstance(family, Individual):
            own = 100 * float(alone(family.net_of(genotype), pictures).accuracy)
            entry |= {"tau": NOT_SHARED, "value": _truth(table, genotype) - own}
        else:
            net: Any = family.net_of(genotype)
            own = 100 * float(score(net, [genotype], pictures, calibration).accuracy)
            tau = kendall_tau(family.score(chosen), truth)
            entry |= {"tau": tau, "value": _truth(table, genotype) - own}
        found[name] = entry
    return found


def _truth(table: TabularBenchmark, genotype: Genotype) -> float:
    return float(table.truth("digits_test_12", [genotype]).mean())


def _pictures(data: Splits) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """A few to score on, and a few to re-estimate statistics by."""
    return [(data.val[0][:PICTURES], data.val[1][:PICTURES])], [data.train[0][:PICTURES]]


def _trained(name: str, data: Splits) -> Family:
    torch.manual_seed(0)
    space = get_space(SPACES.get(name, "digits_chain"))
    family = make_family(name, space, space.supernet(), 0, **OPTIONS.get(name, {}))
    images, labels = data.train
    pictures, calibration = _pictures(data)

    def scorer(genotypes: list[Any]) -> list[float]:
        if isinstance(family, Individual):
            return [-float(alone(family.net_of(g), pictures).loss) for g in genotypes]
        losses = [0.0] * len(genotypes)
        places: dict[int, list[int]] = {}
        for i, genotype in enumerate(genotypes):
            places.setdefault(id(family.net_of(genotype)), []).append(i)
        for some in places.values():  # those that share a super-network at once
            net: Any = family.net_of(genotypes[some[0]])
            for i, loss in zip(some, score(net, [genotypes[i] for i in some], pictures, calibration).loss, strict=True):
                losses[i] = -float(loss)
        return losses

    family.scorer = scorer
    validation = itertools.cycle(zip(data.val[0].split(BATCH), data.val[1].split(BATCH), strict=True))
    for epoch in range(EPOCHS):
        family.begin_epoch(Progress(epoch, EPOCHS, STEPS))
        optimizer = torch.optim.SGD(family.network.parameters(), lr=0.05, momentum=0.9)
        family.weight_optimizer = optimizer
        for step in range(STEPS):
            number = epoch * STEPS + step
            some = slice(number * BATCH, (number + 1) * BATCH)
            optimizer.zero_grad(set_to_none=True)
            family.training_step(Batch(images[some], labels[some], *next(validation)), number)
            optimizer.step()
        family.end_epoch(validation)
    return family


def family_table(found: dict[str, Any]) -> Table:
    """What each family came to."""
    rows: list[list[Any]] = [
        [name, e["space"], e["genotype"], e["value"], e["tau"], e["m3"], ONE_SCALE, e["m5"]]
        for name, e in found.items()
    ]
    columns = ["family", "space", "derived", "M1, points", "M2: tau-b, 12 networks", "M3", "M4", "M5"]
    note = f"{EPOCHS * STEPS} steps on {BATCH} pictures each: it shows that each of them runs, and nothing more."
    return Table("Every family, one tiny setting", columns, rows, note)
