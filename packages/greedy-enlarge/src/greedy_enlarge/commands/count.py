"""What a network costs, stage by stage."""

from __future__ import annotations

from typing import Any

from effkit.report import Report, Table
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.families import explain, macs, params, stage_shares
from greedy_enlarge.spec import ArchSpec

__all__ = ["count_report", "run"]


def count_report(spec: ArchSpec, *, by: Any = "stage", explained: bool = False, count_bias: bool = False) -> Report:
    """Parameters and MACs of a network.

    Args:
        spec: The network.
        by: ``stage`` or ``resolution``.
        explained: Also show what each part costs kind by kind, and what other counters come to.
        count_bias: Count additions of biases in ``macs``, as pycls does.

    Raises:
        UserError: If the network is not one its family can be.
    """
    shares, total = stage_shares(spec, by), macs(spec, count_bias=count_bias)
    depths, widths = ["", *map(str, spec.depths), ""], ["", *map(str, spec.widths), ""]
    rows: list[list[Any]] = []
    for i, (name, cost, percent) in enumerate(zip(shares.names, shares.macs, shares.percent, strict=True)):
        sizes = [depths[i], widths[i]] if by == "stage" else []
        rows.append([name, *sizes, cost, round(percent, 1)])
    columns = ["part", *(["depth", "width"] if by == "stage" else []), "MACs", "share %"]
    tables = [Table(f"{spec.family} at {spec.resolution} pixels", columns, rows)]
    parts = explain(spec)
    if explained:
        kinds = ["conv", "linear", "bias", "norm", "pool", "params"]
        body = [[p["name"], *(p[k] for k in kinds)] for p in parts]
        sums = {k: sum(p[k] for p in parts) for k in kinds}
        body.append(["total", *sums.values()])
        note = "bias: additions; norm: two operations an element; pool: one an element pooled before the head."
        tables.append(Table("Kind by kind", ["part", *kinds], body, note))
        ours = sums["conv"] + sums["linear"]
        counters = [
            ["ours, half of torch.utils.flop_counter", ours],
            ["with biases, as pycls", ours + sums["bias"]],
            ["with norms and pooling, as fvcore", ours + sums["norm"] + sums["pool"]],
        ]
        tables.append(Table("What other counters come to", ["counter", "count"], counters))
    stages = [{"name": p["name"], "macs": p["conv"] + p["linear"], "params": p["params"]} for p in parts]
    data = {"params": params(spec), "macs": total, "stages": stages, "spec": spec.to_dict()}
    lines = [f"{data['params']:,} parameters, {total:,} MACs"]
    return Report("greedy-enlarge count", tables, data=data, lines=lines)


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge count`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain(cfg)
    spec = read_spec(options["spec"])
    if options["resolution"] is not None:
        spec = spec.replace(resolution=options["resolution"])
    return count_report(spec, by=options["by"], explained=options["explain"], count_bias=options["count_bias"])
