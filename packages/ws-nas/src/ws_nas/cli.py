"""The command line: ``ws-nas COMMAND key=value``; what a command does is in ``commands`` or ``paper``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App("ws-nas", "ws_nas.configs", summary="Weight-sharing architecture search, and what it gets wrong, measured.")


@main.command("info")
def info(cfg: DictConfig) -> Report:
    """A search space: its size, and what networks of it cost."""
    from ws_nas.commands.info import run

    return run(cfg)


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train a super-network by a family of methods, and derive a genotype; resume=RUN goes on with a run."""
    from ws_nas.commands.train import run

    return run(cfg)


@main.command("resume")
def resume(cfg: DictConfig) -> Report:
    """Go on with an interrupted training, with the settings it was begun with."""
    from ws_nas.commands.resume import run

    return run(cfg)


@main.command("eval")
def evaluate(cfg: DictConfig) -> Report:
    """Measure sub-networks of a trained super-network on the test split, with inherited weights."""
    from ws_nas.commands.evaluate import run

    return run(cfg)


@main.command("gap")
def gap(cfg: DictConfig) -> Report:
    """Does a supernet rank as stand-alone training does: five meters beside seed noise and counting."""
    from ws_nas.commands.gap import run

    return run(cfg)


@main.command("compare")
def compare(cfg: DictConfig) -> Report:
    """Train all families with one budget, and put their meters into one table."""
    from ws_nas.commands.compare import run

    return run(cfg)


@main.command("calibrate")
def calibrate(cfg: DictConfig) -> Report:
    """Repair a ranking with a few stand-alone results, and say how far it can be trusted."""
    from ws_nas.commands.calibrate import run

    return run(cfg)


@main.command("search")
def search(cfg: DictConfig) -> Report:
    """Search a space by a trained supernet or a table, within limits of MACs, parameters and latency."""
    from ws_nas.commands.search import run

    return run(cfg)


@main.command("standalone")
def standalone(cfg: DictConfig) -> Report:
    """Train networks of a space alone, from nothing."""
    from ws_nas.commands.standalone import run

    return run(cfg)


@main.command("build-table")
def build_table(cfg: DictConfig) -> Report:
    """Train every network of a small space with several seeds, and write their table."""
    from ws_nas.commands.build_table import run

    return run(cfg)


@main.command("export")
def export(cfg: DictConfig) -> Report:
    """Write a network as Python source and weights that need only torch."""
    from ws_nas.commands.export import run

    return run(cfg)


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time the fast ways to score and to train many networks, beside one at a time."""
    from ws_nas.commands.bench import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All published figures beside ours; claim=true also runs the laptop-scale claim."""
    from effkit.reproduce import paper_report
    from ws_nas.paper.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and what works here."""
    from ws_nas.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
