"""The command line: ``shiftghost-sr COMMAND key=value``; what a command does is in ``commands`` or ``paper``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App, run_dir

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App(
    "shiftghost-sr",
    "shiftghost_sr.configs",
    summary="Half the cost of a super-resolution net, deployed as plain convolutions.",
)


@main.command("train")
def train(cfg: DictConfig) -> Report:
    """Train a network from scratch, dense or with ghosts; resume=RUN goes on with an interrupted run."""
    from shiftghost_sr.commands.train import run

    return run(cfg)


@main.command("convert")
def convert(cfg: DictConfig) -> Report:
    """Give a trained dense network ghosts, by clusters of its filters; finetune it then."""
    from shiftghost_sr.commands.convert import run

    return run(cfg)


@main.command("finetune")
def finetune(cfg: DictConfig) -> Report:
    """Finetune a network from a file; ghost=... converts it first, with its dense self as teacher if you like."""
    from shiftghost_sr.commands.finetune import run

    return run(cfg)


@main.command("deploy")
def deploy(cfg: DictConfig) -> Report:
    """Fold every shift into the next convolution, check it, and write a program that needs torch alone."""
    from shiftghost_sr.commands.deploy import run

    return run(cfg)


@main.command("evaluate")
def evaluate(cfg: DictConfig) -> Report:
    """PSNR and SSIM on held-out photographs or a benchmark, beside cubic interpolation."""
    from shiftghost_sr.commands.evaluate import run

    return run(cfg)


@main.command("upscale", positional="paths")
def upscale(cfg: DictConfig) -> Report:
    """Enlarge pictures and folders of pictures: IN ... OUT."""
    from shiftghost_sr.commands.upscale import run

    return run(cfg)


@main.command("count")
def count(cfg: DictConfig) -> Report:
    """Parameters and MACs of a network: dense, with ghosts, and deployed."""
    from shiftghost_sr.commands.count import run

    return run(cfg)


@main.command("bench")
def bench(cfg: DictConfig) -> Report:
    """Time a network's forms against each other in one interleaved run."""
    from shiftghost_sr.commands.bench import run

    return run(cfg)


@main.command("export")
def export(cfg: DictConfig) -> Report:
    """Write a network as ONNX or as a program of torch.export, for frames of any size."""
    from shiftghost_sr.commands.export import run

    return run(cfg)


@main.command("plot")
def plot(cfg: DictConfig) -> Report:
    """Draw directions, filters, enlarged pictures, errors, and what networks give for their time."""
    from shiftghost_sr.commands.plot import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All published figures beside ours; claim=true also runs the laptop-scale claim."""
    from effkit.reproduce import paper_report
    from shiftghost_sr.paper.rows import PAPER

    return paper_report(PAPER, table=cfg.table, claim=cfg.claim, run_dir=run_dir(), full=cfg.full)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and what works here."""
    from shiftghost_sr.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
