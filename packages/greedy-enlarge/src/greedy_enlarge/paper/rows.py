"""Every published figure as a row that is checked, or that says why it cannot be here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from effkit.papers import Paper, collect_rows
from effkit.rows import Row, counted_network, counted_row
from greedy_enlarge.paper import figures
from greedy_enlarge.spec import ArchSpec

__all__ = ["ORDER", "PAPER", "paper_rows"]

ORDER = ["networks", "counters", "fig2", "scaling", "candidates", "search", "accuracy"]

NEEDS_TRAINING = "needs ImageNet and about 3,600 GPU hours by the release's own account, and no weights were published"
NEEDS_WEIGHTS = "needs ImageNet, and weights that are not part of this package"
COUNT = "structural count of the network"

_SHARES = {
    "resnet18": (25.5, 22.7, 22.7, 22.7), "resnet34": (18.9, 23.8, 36.5, 17.5), "resnet50": (16.3, 25.1, 35.8, 19.8),
}  # fmt: skip

_row = partial(counted_row, source=COUNT)


def _of_base(count: Callable[[ArchSpec], float], name: str) -> float:
    from greedy_enlarge.families import base

    return count(base(name))


def _cost(name: str, which: str) -> float:
    from greedy_enlarge.families import macs, params

    return _of_base({"params": params, "macs": macs}[which], name)


def network_rows() -> list[Row]:
    """Parameters and MACs of the networks known by name."""
    rows: list[Row] = []
    for name, both in figures.NETWORKS.items():
        command = f"greedy-enlarge count spec={name}"
        rows += counted_network("networks", name, both, partial(_cost, name), source=COUNT, command=command)
    return rows


def counter_rows() -> list[Row]:
    """What other counters report for the same networks."""
    from greedy_enlarge.families import explain, macs

    def fvcore(spec: ArchSpec) -> float:
        return sum(p["conv"] + p["linear"] + p["norm"] + p["pool"] for p in explain(spec))

    rows = []
    for (name, counter), figure in figures.OTHER_COUNTERS.items():
        compute = partial(_of_base, partial(macs, count_bias=True) if counter == "pycls" else fvcore, name)
        source = "pycls' model_complexity.json" if counter == "pycls" else "fvcore 0.1.5"
        command = f"greedy-enlarge count spec={name} explain=true"
        more = {"source": source, "evidence": "found", "command": command}
        rows.append(_row("counters", name, f"count of {counter}", figure, compute, **more))
    return rows


def share_rows() -> list[Row]:
    """How ResNets distribute their MACs, which the paper's second figure shows."""
    from greedy_enlarge.families import base, stage_shares

    def share_of(name: str, stage: int) -> float:
        return round(stage_shares(base(name)).percent[stage], 1)

    rows = []
    for name, shares in _SHARES.items():
        for stage, share in enumerate(shares, 1):
            rows.append(
                _row(
                    "fig2", name, f"share of stage {stage}", share,
                    partial(share_of, name, stage),
                    unit="%", command=f"greedy-enlarge count spec={name}",
                )
            )  # fmt: skip
    return rows


def scaling_rows() -> list[Row]:
    """What pycls' fast scaling gives for EfficientNet-B0."""
    from greedy_enlarge.families import base, macs
    from greedy_enlarge.families.scaling import scale_by_factor

    def scaled(factor: float) -> float:
        return macs(scale_by_factor(base("efficientnet_b0"), factor, "fast"))

    rows = []
    for factor, figure in ((2, 781_816_464), (4, 1_381_104_800), (1.78, 733_542_384)):
        rows.append(
            _row(
                "scaling", f"efficientnet_b0, asked for x{factor}", "MACs by fast scaling", figure,
                partial(scaled, factor),
                source="pycls' rounding", command=f"greedy-enlarge scale factor={factor} method=fast",
            )
        )  # fmt: skip
    return rows


def search_rows() -> list[Row]:
    """The first candidates, and where the known-answer searches end."""
    from greedy_enlarge.families import base, macs
    from greedy_enlarge.search.evaluators import Synthetic
    from greedy_enlarge.search.greedy import Settings, search
    from greedy_enlarge.search.moves import Moves
    from greedy_enlarge.search.propose import propose

    def candidate(move: str) -> float:
        found = propose(base("efficientnet_b0"), 445_648_184, 0.05, Moves(capped=False))
        return next(c.macs for c in found.candidates if c.move == move)

    def end(name: str, budget: int, steps: int) -> float:
        settings = Settings(steps=steps, delta_final=0.05, moves=Moves(capped=False))
        return macs(search(base(name), budget, Synthetic(), settings).spec)

    source = {"source": "this package's search, written down before it was built"}
    rows = []
    for move, figure in figures.CANDIDATES.items():
        command = "greedy-enlarge candidates budget=445648184 moves.capped=false"
        name = f"efficientnet_b0, {move}"
        rows.append(_row("candidates", name, "MACs", figure, partial(candidate, move), command=command, **source))
    for name, (budget, steps, figure) in figures.KNOWN_ANSWERS.items():
        words = f"budget={budget} steps={steps} delta_final=0.05 moves.capped=false"
        rows.append(
            _row(
                "search", f"{name} to {budget:,} in {steps} steps, synthetic score", "final MACs", figure,
                partial(end, name, budget, steps),
                command=f"greedy-enlarge search spec={name} {words}", **source,
            )
        )  # fmt: skip
    return rows


def accuracy_rows() -> list[Row]:
    """Accuracies on ImageNet, none of which can be had here."""
    rows = []
    for entry in figures.ACCURACIES:
        reason = NEEDS_TRAINING if "GhostNet" in entry.name and "1." not in entry.name else NEEDS_WEIGHTS
        rows.append(
            Row(
                "accuracy", entry.name, "ImageNet top-1", entry.top1, "%", entry.source, entry.evidence,  # type: ignore[arg-type]
                not_measured=reason, command=f"greedy-enlarge count spec={entry.spec}" if entry.spec else "",
            )
        )  # fmt: skip
    return rows


def paper_rows(table: str | int | Iterable[str | int] | None = None) -> list[Row]:
    """The rows, table by table; nothing is computed before a row is evaluated.

    Args:
        table: Only these of :data:`ORDER`; all if not given.

    Raises:
        UserError: If there is no such table; names those that are.
    """
    parts = [network_rows, counter_rows, share_rows, scaling_rows, search_rows, accuracy_rows]
    return collect_rows(parts, ORDER, table)


PAPER = Paper(
    name="greedy-enlarge",
    distribution="greedy-enlarge",
    title="Greedy Network Enlarging",
    reference=(
        "Chuanjian Liu, Kai Han, An Xiao, Yiping Deng, Wei Zhang, Chunjing Xu, Yunhe Wang: Greedy Network Enlarging. "
        "arXiv:2108.00177 (2021)."
    ),
    rows=paper_rows,
    claim="greedy_enlarge.paper.claim:run_claim",
    command="greedy-enlarge reproduce",
)
