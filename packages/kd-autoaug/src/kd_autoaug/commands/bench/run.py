"""The command ``bench``: speed beside the peers, all sides interleaved in one run."""

from __future__ import annotations

from typing import Any

from effkit.arguments import check_arguments
from effkit.bench import Bench, check_csv
from effkit.cli import run_dir
from effkit.device import set_threads
from effkit.errors import UserError, choose
from effkit.lightning.optim import plain_options
from effkit.report import Report
from kd_autoaug.commands.bench.augment import augment_report
from kd_autoaug.commands.bench.cache import cache_report
from kd_autoaug.commands.bench.operators import operators_report
from kd_autoaug.commands.bench.single import single_report
from kd_autoaug.commands.bench.step import step_report

__all__ = ["KINDS", "run"]

KINDS = ("augment", "single", "ops", "step", "cache")


def run(cfg: Any) -> Report:
    """Do what ``kd-autoaug bench`` was asked for.

    Args:
        cfg: Composed from ``bench.yaml``.

    Raises:
        UserError: If a value does not fit.
    """
    words = list(cfg.what)
    if len(words) != 1:
        raise UserError(f"bench times one thing at a time, {', '.join(KINDS)}, got {' '.join(words) or 'none'}")
    kind = choose("bench", words[0], KINDS)
    set_threads(cfg.threads)
    options, folder = plain_options(cfg), run_dir()
    reports = {"augment": augment_report, "single": single_report, "ops": operators_report}
    reports |= {"step": step_report, "cache": cache_report}
    report: Any = reports[kind]
    check_arguments(report, {k: v for k, v in options.items() if k != "csv"})
    providers = options["providers"]
    shared: dict[str, Any] = {"batch_size": _count("batch_size", cfg.batch_size), "size": _count("size", cfg.size)}
    shared |= {"csv": check_csv(cfg.csv, folder)}
    if kind == "cache":
        keys = ("network", "classes", "k", "samples", "views", "workers", "rounds", "seed")
        return cache_report(**{k: options[k] for k in keys}, **shared)
    shared |= {"folder": folder}
    timed = {k: cfg[k] for k in ("device", "threads", "min_rounds", "min_seconds")}
    if kind != "step" and cfg.precision not in ("auto", "fp32"):
        raise UserError(f"precision={cfg.precision} is of `bench step`: {kind} computes on bytes, leave it out")
    bench = Bench("kd-autoaug", precision=cfg.precision if kind == "step" else "fp32", memory=False, **timed)
    if kind == "single":
        if providers is not None:
            raise UserError(f"providers={providers}: `bench single` times ours against peer={cfg.peer}, leave it out")
        return single_report(
            bench, **{k: options[k] for k in ("n", "m", "interpolation", "peer", "kind", "seed")}, **shared
        )
    shared |= {"providers": providers}
    if kind == "augment":
        return augment_report(bench, n=cfg.n, m=cfg.m, interpolation=cfg.interpolation, seed=cfg.seed, **shared)
    if kind == "ops":
        return operators_report(bench, operators=options["operators"], **shared)
    return step_report(bench, **{k: options[k] for k in ("network", "classes", "k", "seed")}, **shared)


def _count(field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{field}={value!r} must be a whole number of at least 1")
    return value
