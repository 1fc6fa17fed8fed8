"""Every figure as a row that is checked, or that says why it cannot be here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from effkit.papers import Paper, collect_rows
from effkit.rows import Row, Tolerance, counted_network, counted_row
from ws_nas.paper import figures
from ws_nas.paper.published import ABSENT, column, tables_at_hand

__all__ = ["ORDER", "PAPER", "paper_rows"]

ORDER = ["spaces", "networks", "tables", "hyper-gradient", "rankings", "cifar10", "imagenet"]

NEEDS_GPUS = "needs days of a GPU, and no weights are part of this package"
COUNTED_OTHERWISE = "ours is a row of its own; what else was counted in the published figure could not be found"
TOO_FEW = "13 models are no evidence (without any relation tau scatters by 0.21 there), and ImageNet is not here"

COUNT = "structural count, checked on official code"
TABLES = "computed from the published tables"
_PDARTS = "P-DARTS repository, its table of results"
_FAIRNAS = "FairNAS repository, its table of results"


def _size(name: str) -> float:
    from ws_nas.spaces.registry import get_space

    return get_space(name).size()


def _cost(space: str, words: str, genotype: str, which: str) -> float:
    from ws_nas.spaces.registry import get_space

    sizes = dict(word.removeprefix("space.").split("=") for word in words.split())
    found = get_space(space, **{key: int(value) if value.isdecimal() else value for key, value in sizes.items()})
    return getattr(found.cost(found.parse(genotype)), which)


def _millions(space: str, words: str, genotype: str, which: str) -> float:
    return _cost(space, words, genotype, which) / 1e6


def _info(space: str, words: str, genotype: str) -> str:
    return " ".join(["ws-nas info", f"space={space}", *words.split(), f"'genotypes=[{genotype}]'"])


def _supernet(space: str, family: str) -> float:
    import torch

    from ws_nas.spaces.registry import get_space
    from ws_nas.supernets.partial import PartialDartsSupernet

    found: Any = get_space(space)
    with torch.device("meta"):
        made = PartialDartsSupernet(found.search, found.space_id) if family == "pc_darts" else found.supernet()
        return sum(p.numel() for p in made.parameters())


def _distinct_params() -> float:
    from ws_nas.spaces.registry import get_space

    space = get_space("nas_bench_201")
    return len({space.cost(g).params for g in space})


def _connected() -> float:
    from ws_nas.spaces.registry import get_space

    return get_space("nas_bench_201").size() - get_space("nas_bench_201", connected=True).size()


def space_rows() -> list[Row]:
    """How many genotypes spaces have."""
    rows = []
    for name, size in figures.SIZES.items():
        how = {"source": "closed form", "command": f"ws-nas info space={name}"}
        rows.append(counted_row("spaces", name, "genotypes", size, partial(_size, name), **how))
    how = {"source": TABLES, "command": "ws-nas info space=nas_bench_201"}
    more = (("cells not connected to their input", 341, _connected), ("parameter counts", 28, _distinct_params))
    rows += [counted_row("spaces", "nas_bench_201", metric, figure, compute, **how) for metric, figure, compute in more]
    return rows


def network_rows() -> list[Row]:
    """Parameters and MACs of known networks, and parameters of supernets; what was published of them beside ours."""
    rows: list[Row] = []
    known = {(space, "", genotype): costs for (space, genotype), costs in figures.NETWORKS.items()} | figures.SIZED
    for (space, words, genotype), costs in known.items():
        side = f" at {words.split('=')[-1]}" if space == "ofa" and words else ", ImageNet" if words else ""
        name, count = f"{space} {genotype}{side}", partial(_cost, space, words, genotype)
        how = {"source": COUNT, "command": _info(space, words, genotype)}
        rows += counted_network("networks", name, costs, count, **how)
    for (space, family), figure in figures.SUPERNETS.items():
        name, how = f"{space}, supernet of {family}", {"source": COUNT, "command": "ws-nas reproduce table=networks"}
        rows.append(counted_row("networks", name, "params", figure, partial(_supernet, space, family), **how))
    return [*rows, *_published_counts()]


def _published_counts() -> list[Row]:
    rows = []
    for name, space, words, genotype, which, figure, same in figures.PUBLISHED_COUNTS:
        source = _FAIRNAS if space == "fairnas_chain" else _PDARTS if which == "macs" else "the method's publication"
        rows.append(
            Row(
                "networks", f"{name}, as published", "params" if which == "params" else "MACs", figure, "M", source,
                "found", compute=partial(_millions, space, words, genotype, which) if same else None,
                tolerance=Tolerance("rounds_to"), command=_info(space, words, genotype),
                not_measured="" if same else COUNTED_OTHERWISE,
            )
        )  # fmt: skip
    return rows


def _table_tau(entry: figures.TableTau) -> float:
    from ws_nas.ops.ranks import kendall_tau

    return kendall_tau(column(*entry.q), column(*entry.s))


def _additive() -> float:
    """The additive model that fits best, of the mean over seeds: least squares on one-hot genotypes of all rows."""
    from ws_nas.ops.ranks import kendall_tau
    from ws_nas.paper.published import published_table

    table = published_table("nas_bench_macro.csv")
    genes = np.array(list(table))
    design = np.concatenate([genes[:, i, None] == np.arange(3) for i in range(8)], axis=1).astype(float)
    mean = table.truth("c10_test").mean(0)
    return kendall_tau((design @ np.linalg.lstsq(design, mean, rcond=None)[0]).round(9), mean)


def table_rows() -> list[Row]:
    """Rank correlations of published tables."""
    here = tables_at_hand() is not None
    how: dict[str, Any] = {"unit": "", "source": TABLES, "evidence": "computed", "tolerance": Tolerance("abs", 0.001)}
    entries: list[tuple[str, float, Any]] = [(e.name, e.tau, partial(_table_tau, e)) for e in figures.TABLE_TAUS]
    entries.append(("NAS-Bench-Macro: the best additive model, and the mean of seeds", 0.865, _additive))
    return [
        Row(
            "tables", name, "tau-b", tau, compute=compute if here else None, not_measured="" if here else ABSENT,
            command="ws-nas gap", **how,
        )
        for name, tau, compute in entries
    ]  # fmt: skip


def _hypergradient(estimator: str) -> float:
    """Cosine with the exact gradient of a problem whose answer is known: see the docstring of `hypergradient_rows`."""
    import torch

    from ws_nas.families.hypergradient import neumann
    from ws_nas.meters.hypergradient import exact_hypergradient, hypergradient_error

    a = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    alpha = torch.tensor([2.0, 4.0], dtype=torch.float64)
    w = torch.linalg.solve(a, alpha)
    v = torch.tensor([1.0, 2.0], dtype=torch.float64)
    c = w - v
    exact = exact_hypergradient(
        lambda w, alpha: 0.5 * w @ a @ w - alpha @ w, lambda w, alpha: 0.5 * ((w - c) ** 2).sum(), w, alpha
    )
    estimates = {
        "one unrolled step": lambda: v,
        "times A instead of its inverse": lambda: a @ v,
        "Neumann series, 5 terms": lambda: neumann(lambda x: [a @ x[0]], [v], 5, 0.2)[0],
        "Neumann series, 10 terms": lambda: neumann(lambda x: [a @ x[0]], [v], 10, 0.2)[0],
    }
    return hypergradient_error(estimates[estimator](), exact).cosine


def hypergradient_rows() -> list[Row]:
    """Estimators on ``L_tr = w'Aw/2 - alpha'w``, ``L_val = |w - c|^2/2``, A = diag(1, 4), at ``w* - c = (1, 2)``."""
    cosines = (
        ("one unrolled step", 0.8), ("Neumann series, 5 terms", 0.98461), ("Neumann series, 10 terms", 0.99890),
        ("times A instead of its inverse", 0.5547),
    )  # fmt: skip
    return [
        Row(
            "hyper-gradient", name, "cosine with the exact gradient", cosine, "", "worked out by hand", "computed",
            compute=partial(_hypergradient, name), tolerance=Tolerance("abs", 1e-5 if cosine > 0.9 else 1e-4),
            command="ws-nas reproduce table=hyper-gradient",
        )
        for name, cosine in cosines
    ]  # fmt: skip


def ranking_rows() -> list[Row]:
    """Rank correlations that were claimed for supernets."""
    return [
        Row(
            "rankings", name, "Kendall's tau, 13 models", tau, "", "FairNAS repository, figure 1", "found",
            not_measured=TOO_FEW, command="ws-nas gap",
        )
        for name, tau in figures.CLAIMED_TAUS.items()
    ]  # fmt: skip


def accuracy_rows() -> list[Row]:
    """What methods reached at the scale of their papers."""
    rows = []
    for table, metric, source, entries in (
        ("cifar10", "test error", _PDARTS, figures.CIFAR10),
        ("imagenet", "top-1 error", _PDARTS, figures.IMAGENET),
        ("imagenet", "top-1 accuracy", _FAIRNAS, figures.TOP1),
    ):
        for entry in entries:
            rows.append(
                Row(table, entry.name, metric, entry.figure, "%", source, "found", not_measured=NEEDS_GPUS)
            )  # fmt: skip
    return rows


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these of :data:`ORDER`; all if not given.

    Raises:
        UserError: If there is no such table; names those that are.
    """
    parts = [space_rows, network_rows, table_rows, hypergradient_rows, ranking_rows, accuracy_rows]
    return collect_rows(parts, ORDER, table)


PAPER = Paper(
    name="ws-nas",
    distribution="ws-nas",
    title="Weight-Sharing Neural Architecture Search",
    reference=(
        "Lingxi Xie, Xin Chen, Kaifeng Bi, Longhui Wei, Yuhui Xu, Zhengsu Chen, Lanfei Wang, An Xiao, Jianlong Chang, "
        "Xiaopeng Zhang, Qi Tian: Weight-Sharing Neural Architecture Search: A Battle to Shrink the Optimization Gap. "
        "ACM Computing Surveys 54(9), 2021. arXiv:2008.01475."
    ),
    rows=paper_rows,
    claim="ws_nas.paper.claim:run_claim",
    command="ws-nas reproduce",
)
