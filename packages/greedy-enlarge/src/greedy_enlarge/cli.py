"""The command line: ``greedy-enlarge COMMAND key=value``; what a command does is in ``commands`` or ``paper``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App(
    "greedy-enlarge", "greedy_enlarge.configs", summary="Grow a small CNN to an exact MACs budget, stage by stage."
)


@main.command("search")
def search(cfg: DictConfig) -> Report:
    """Grow a network to a budget; prints its plan first, and keeps a journal to go on from."""
    from greedy_enlarge.commands.search import run

    return run(cfg)


@main.command("resume")
def resume(cfg: DictConfig) -> Report:
    """Go on with an interrupted search or table, with the settings it was begun with."""
    from greedy_enlarge.commands.resume import run

    return run(cfg)


@main.command("table")
def table(cfg: DictConfig) -> Report:
    """Train every network of a capped space and record what each reaches, for comparing search rules."""
    from greedy_enlarge.commands.table import run

    return run(cfg)


@main.command("regret")
def regret(cfg: DictConfig) -> Report:
    """What search rules miss of the best network of a recorded table."""
    from greedy_enlarge.commands.regret import run

    return run(cfg)


@main.command("savings")
def savings(cfg: DictConfig) -> Report:
    """How often racing and inheritance pick what training everything picks, and what they save."""
    from greedy_enlarge.commands.savings import run

    return run(cfg)


@main.command("latency")
def latency(cfg: DictConfig) -> Report:
    """Measure latencies of a network's parts here, for a maximum of latency beside the MACs budget."""
    from greedy_enlarge.commands.latency import run

    return run(cfg)


@main.command("candidates")
def candidates(cfg: DictConfig) -> Report:
    """The networks that one step could go to, and what every other move reaches."""
    from greedy_enlarge.commands.candidates import run

    return run(cfg)


@main.command("count")
def count(cfg: DictConfig) -> Report:
    """Parameters and MACs of a network, stage by stage, and what other counters add."""
    from greedy_enlarge.commands.count import run

    return run(cfg)


@main.command("scale")
def scale(cfg: DictConfig) -> Report:
    """Scale all stages alike to an exact budget, or by a factor with pycls' rounding."""
    from greedy_enlarge.commands.scale import run

    return run(cfg)


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train a network on a data set; resume=RUN goes on with an interrupted run."""
    from greedy_enlarge.commands.train import run

    return run(cfg)


@main.command("eval")
def evaluate(cfg: DictConfig) -> Report:
    """Measure a trained network on the test split of its data set."""
    from greedy_enlarge.commands.evaluate import run

    return run(cfg)


@main.command("report")
def report(cfg: DictConfig) -> Report:
    """What a search decided and why, with pictures."""
    from greedy_enlarge.commands.report import run

    return run(cfg)


@main.command("export")
def export(cfg: DictConfig) -> Report:
    """Write a network as one Python file that needs only torch and timm."""
    from greedy_enlarge.commands.export import run

    return run(cfg)


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time counting and proposing on this machine, beside a counter that runs the network."""
    from greedy_enlarge.commands.bench import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All published figures beside ours; claim=true also runs the laptop-scale claim."""
    from effkit.reproduce import paper_report
    from greedy_enlarge.paper.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and what works here."""
    from greedy_enlarge.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
