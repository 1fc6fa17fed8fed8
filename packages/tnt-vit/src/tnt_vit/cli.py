"""The command line: ``tnt-vit COMMAND group=option key=value``; what a command does is in ``commands`` or ``paper``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App("tnt-vit", "tnt_vit.configs", summary="Transformer in Transformer: train, use, measure and reproduce TNT.")


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train or fine-tune a TNT; resume=RUN goes on with an interrupted run."""
    from tnt_vit.commands.train import run

    return run(cfg)


@main.command("eval", unread=["optimizer", "scheduler", "logger"])
def evaluate(cfg: DictConfig) -> Report:
    """Measure a trained TNT on the test split of a data set."""
    from tnt_vit.commands.evaluate import run

    return run(cfg)


@main.command("predict", positional="images")
def predict(cfg: DictConfig) -> Report:
    """Name what is in pictures: the five most likely classes of each file."""
    from tnt_vit.commands.predict import run

    return run(cfg)


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time ours against timm's TNT and DeiT on this machine, in one interleaved run."""
    from tnt_vit.commands.bench import run

    return run(cfg)


@main.command("summary")
def summary(cfg: DictConfig) -> Report:
    """Parameters and MACs of the variants beside the paper's."""
    from tnt_vit.paper.summary import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All rows of the paper's tables beside ours; claim=true also trains on digits, full=true longer."""
    from effkit.reproduce import paper_report
    from tnt_vit.paper.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("export")
def export(cfg: DictConfig) -> Report:
    """Write the model as ONNX or torch.export file and check it against torch."""
    from tnt_vit.commands.export import run

    return run(cfg)


@main.command("convert")
def convert(cfg: DictConfig) -> Report:
    """Translate a checkpoint of any known layout to timm's names, as .safetensors or .pth."""
    from tnt_vit.commands.convert import run

    return run(cfg)


@main.command("visualize", positional="images")
def visualize(cfg: DictConfig) -> Report:
    """Draw word maps, attention and feature maps as in the paper's Figures 3 to 7."""
    from tnt_vit.commands.visualize import run

    return run(cfg)


@main.command("survey", positional="what")
def survey(cfg: DictConfig) -> Report:
    """Measure the ViT survey's backbones here beside what is published; also: survey list, survey compare A B."""
    from tnt_vit.commands.survey import run

    return run(cfg)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and which backends load here and why not."""
    from tnt_vit.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
