"""The console script ``effkit``: what concerns all papers at once. Each paper's own commands are in its own script."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from effkit.cli import App
from effkit.cli.explain import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from effkit.report import Report

main = App("effkit", "effkit.configs", summary="Efficient deep-learning papers, each reproduced by its own package.")


@main.command("list")
def list_papers(cfg: DictConfig) -> Report:
    """List the installed papers."""
    from effkit.papers import select_papers
    from effkit.report import Report, Table

    rows = [_describe(point) for point in select_papers().values()]
    table = Table("", ["paper", "version", "title"], [list(row.values()) for row in rows])
    lines = [] if rows else ["No paper is installed. Each is a package of its own, e.g.: pip install tnt-vit"]
    return Report("Installed papers", [table] if rows else [], data={"papers": rows}, lines=lines)


def _describe(point: EntryPoint) -> dict[str, str]:
    """Name, version and title; a paper that cannot be imported is listed with the reason, beside the others."""
    from effkit.papers import load_paper

    try:
        title = load_paper(point).title
    except Exception as error:
        title = f"cannot be loaded: {one_line(repr(error))}"
    return {"paper": point.name, "version": point.dist.version if point.dist is not None else "", "title": title}


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Print versions, device, and which backends load here and why the others do not."""
    from effkit.doctor import doctor_report

    return doctor_report()


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """Check the papers' figures and laptop-scale claims, and write one HTML report.

    Runs every installed paper, or those in papers=[...], side by side; claims in their short form, or full=true.
    A second run goes on where the first was stopped. Exit code 1 if a claim does not hold.
    """
    from omegaconf import OmegaConf

    from effkit.reproduce import reproduce_all

    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    keys = ("output", "papers", "claims", "full", "jobs", "fresh", "serial", "executor", "workers", "ray", "submitit")
    return reproduce_all(**{k: plain[k] for k in keys})


@main.command("compare-machines", positional="what")
def compare_machines(cfg: DictConfig) -> Report:
    """Set two reports of `effkit reproduce` beside each other, figure by figure, with intervals.

    A and B are files results.json, or folders of reports that are repeats of each other on one machine.
    """
    from effkit.errors import UserError
    from effkit.reproduce.machines import compare_machines

    words = [str(word) for word in cfg.what]
    if len(words) != 2:
        raise UserError(f"compare-machines needs two reports, A and B, got {len(words)}")
    return compare_machines(words[0], words[1], output=cfg.output)


@main.command("bench", positional="what")
def bench(cfg: DictConfig) -> Report:
    """Time what executors cost a task (overhead), or reproduction on several workers (reproduce)."""
    from effkit.bench import check_csv
    from effkit.cli import run_dir
    from effkit.errors import UserError, choose

    if len(cfg.what) != 1:
        raise UserError(f"bench times one thing at a time, overhead or reproduce, got {' '.join(cfg.what) or 'none'}")
    kind = choose("bench", cfg.what[0], ["overhead", "reproduce"])
    options = {"workers": cfg.workers, "rounds": cfg.rounds, "csv": check_csv(cfg.csv, run_dir())}
    if kind == "overhead":
        from effkit.bench.overhead import overhead_report

        providers = None if cfg.providers is None else list(cfg.providers)
        return overhead_report(providers, tasks=cfg.tasks, folder=run_dir(), **options)
    from effkit.reproduce.speedup import speedup_report

    papers = cfg.papers if cfg.papers is None or isinstance(cfg.papers, str) else list(cfg.papers)
    return speedup_report(papers, claims=cfg.claims, **options)


if __name__ == "__main__":
    main()
