"""The command line: ``augshortcut COMMAND group=option key=value``; commands are in ``commands`` and ``paper``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App("augshortcut", "augshortcut.configs", summary="Augmented shortcuts: add, train, measure and reproduce them.")


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train or fine-tune a transformer with augmented shortcuts; resume=RUN goes on with an interrupted run."""
    from augshortcut.commands.train import run

    return run(cfg)


@main.command("eval", unread=["optimizer", "scheduler", "logger"])
def evaluate(cfg: DictConfig) -> Report:
    """Measure a trained model on the test split of a data set."""
    from augshortcut.commands.evaluate import run

    return run(cfg)


@main.command("summary")
def summary(cfg: DictConfig) -> Report:
    """Parameters, executed, dense-equivalent and paper-style cost of the variants beside the paper's."""
    from augshortcut.paper.summary import run

    return run(cfg)


@main.command("diversity", positional="images")
def diversity(cfg: DictConfig) -> Report:
    """Measure how different tokens are after each block of any timm model, and the theorem's bound."""
    from augshortcut.commands.diversity import run

    return run(cfg)


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time ours against the official formulation and the plain block on this machine, in one interleaved run."""
    from augshortcut.commands.bench import run

    return run(cfg)


@main.command("convert")
def convert(cfg: DictConfig) -> Report:
    """Translate a checkpoint of the official code to timm's names and ours."""
    from augshortcut.commands.convert import run

    return run(cfg)


@main.command("fold")
def fold(cfg: DictConfig) -> Report:
    """Write an augmented model with plain operators where that is exact, and show that it computes the same."""
    from augshortcut.commands.fold import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All rows of the paper's table beside ours; claim=true also trains on digits, full=true longer."""
    from augshortcut.paper.rows import PAPER
    from effkit.reproduce import paper_report

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("list-models")
def list_models(cfg: DictConfig) -> Report:
    """Models that can have augmented shortcuts, by name or pattern."""
    from augshortcut.commands.models import run

    return run(cfg)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and which backends load here and why not."""
    from augshortcut.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
