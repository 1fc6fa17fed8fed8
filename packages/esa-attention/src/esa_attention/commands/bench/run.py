"""From the composed config to a report."""

from __future__ import annotations

from typing import Any

from effkit.arguments import check_arguments
from effkit.bench import check_csv
from effkit.cli import compose, run_dir
from effkit.device import seed_everything
from effkit.errors import UserError, choose
from effkit.report import Report
from esa_attention.commands.bench.report import KINDS, bench_report
from esa_attention.commands.bench.shape import LayerShape
from esa_attention.commands.build import in_keys, plain
from esa_attention.config import ESAConfig

__all__ = ["run"]


@in_keys
def run(cfg: Any) -> Report:
    """Run the command.

    Args:
        cfg: Composed config.

    Raises:
        UserError: If several things are to be timed, or a value does not fit.
    """
    options = plain(cfg)
    kinds = options["what"] or [options["bench"]["kind"]]
    if len(kinds) != 1:
        raise UserError(f"bench times one thing at a time, got {', '.join(kinds)}")
    # `bench decode` is short for `bench bench=decode`: the lengths and providers of that group.
    group = options["bench"] if kinds[0] == options["bench"]["kind"] else _group(kinds[0])
    given = {k: options[k] for k in ("lengths", "providers") if options[k] is not None}
    given |= {"rank": options["rank"]}
    check_arguments(bench_report, given)
    check_arguments(LayerShape, options["layer"], "layer.")
    check_arguments(ESAConfig, options["esa"], "esa.", also=options["esa"])
    sizes = {k: v for k, v in options["esa"].items() if v is not None}
    return bench_report(
        kinds[0],
        **{**{k: group[k] for k in ("lengths", "providers")}, **given},
        shape=LayerShape(**options["layer"]),
        config=ESAConfig(**sizes),
        csv=check_csv(options["csv"], run_dir()),
        folder=run_dir(),
        **{k: options[k] for k in ("device", "precision", "threads", "min_rounds", "min_seconds")},
        seed=seed_everything(options["seed"]),
    )


def _group(kind: str) -> dict[str, Any]:
    overrides = [f"bench={choose('bench', kind, KINDS)}"]
    return plain(compose("esa-attention", "esa_attention.configs", "bench", overrides).bench)
