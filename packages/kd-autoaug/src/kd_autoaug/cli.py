"""The command line: ``kd-autoaug COMMAND group=option key=value``; what a command does is in ``commands``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App(
    "kd-autoaug",
    "kd_autoaug.configs",
    summary="KD for AutoAugment: exact augmentation per sample, distillation on the same view, what it destroyed.",
)


@main.command("train", unread=["teacher"])
def train(cfg: DictConfig) -> Report:
    """Train with cross-entropy or label smoothing under a policy; resume=RUN goes on with an interrupted run."""
    from kd_autoaug.commands.train import run

    return run(cfg)


@main.command("distill")
def distill(cfg: DictConfig) -> Report:
    """Train a student beside a frozen teacher that sees the same views, or from the cache of its answers."""
    from kd_autoaug.commands.distill import run

    return run(cfg)


@main.command("eval", unread=["policy", "loss", "teacher", "optimizer", "scheduler", "logger"])
def evaluate(cfg: DictConfig) -> Report:
    """Measure a network on the clean test pictures of a data set."""
    from kd_autoaug.commands.evaluate import run

    return run(cfg)


@main.command("cache", positional="what", unread=["trainer", "optimizer", "scheduler", "logger"])
def cache(cfg: DictConfig) -> Report:
    """Make, check or describe a cache of teacher logits: build, verify or info."""
    from kd_autoaug.commands.cache import run

    return run(cfg)


@main.command("analyze")
def analyze(cfg: DictConfig) -> Report:
    """Measure what each operator destroys at each magnitude: confidence, outliers, label information."""
    from kd_autoaug.commands.analyze import run

    return run(cfg)


@main.command("suggest")
def suggest(cfg: DictConfig) -> Report:
    """Name the largest magnitude within an outlier budget, operators to drop, and K for every magnitude."""
    from kd_autoaug.commands.suggest import run

    return run(cfg)


@main.command("preview", positional="images")
def preview(cfg: DictConfig) -> Report:
    """Draw pictures under every operator and magnitude, and random views of a policy."""
    from kd_autoaug.commands.preview import run

    return run(cfg)


@main.command("bench", positional="what")
def bench(cfg: DictConfig) -> Report:
    """Time augmentation against timm and torchvision (augment, single), operators (ops) or a training step."""
    from kd_autoaug.commands.bench.run import run

    return run(cfg)


@main.command("summary")
def summary(cfg: DictConfig) -> Report:
    """Parameters and MACs of the networks, and what each policy holds."""
    from kd_autoaug.commands.summary import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All figures of the paper and around it beside ours; claim=true also runs the laptop-scale claim."""
    from effkit.reproduce import paper_report
    from kd_autoaug.paper.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, which backends load here, and whether they give Pillow's bits."""
    from kd_autoaug.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
