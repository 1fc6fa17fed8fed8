"""The command line: ``esa-attention COMMAND group=option key=value``; what a command does is in ``commands``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effkit.cli import App
from effkit.progress import shown

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App(
    "esa-attention",
    "esa_attention.configs",
    summary="Efficient Selective Attention: let a RoPE language model read past its context.",
)


@main.command("calibrate")
@shown("calibrate")
def calibrate(cfg: DictConfig) -> Report:
    """Find the query and key maps of every layer and save them as one safetensors file."""
    from esa_attention.commands.calibrate import run

    return run(cfg)


@main.command("generate", positional="words")
@shown("generate")
def generate(cfg: DictConfig) -> Report:
    """Continue a prompt, or a file, of any length."""
    from esa_attention.commands.generate import run

    return run(cfg)


@main.command("needle")
@shown("needle")
def needle(cfg: DictConfig) -> Report:
    """Hide facts in a long context and ask for them: needle, multi_needle, passkey, variable_tracking."""
    from esa_attention.commands.retrieval import run

    return run(cfg)


@main.command("counting-stars")
@shown("counting_stars")
def counting_stars(cfg: DictConfig) -> Report:
    """Hide one subject with many values in a long context and ask for all of them."""
    from esa_attention.commands.retrieval import run

    return run(cfg)


@main.command("eval")
@shown("eval")
def evaluate(cfg: DictConfig) -> Report:
    """Score methods on a published benchmark from your files: longbench, infinitebench, needlebench, ruler."""
    from esa_attention.commands.evaluate import run

    return run(cfg)


@main.command("ppl")
@shown("ppl")
def ppl(cfg: DictConfig) -> Report:
    """Cross-entropy of a long text by position, for ESA, baselines and the stock model."""
    from esa_attention.commands.perplexity import run

    return run(cfg)


@main.command("recall")
@shown("recall")
def recall(cfg: DictConfig) -> Report:
    """Recall of the k best tokens after compression, layer by layer, as in Figure 2."""
    from esa_attention.commands.recall import run

    return run(cfg)


@main.command("two-level")
@shown("two_level")
def two_level(cfg: DictConfig) -> Report:
    """What scoring blocks before tokens would save: bytes of the index read, and recall."""
    from esa_attention.commands.two_level import run

    return run(cfg)


@main.command("bench", positional="what")
@shown("bench")
def bench(cfg: DictConfig) -> Report:
    """Time one layer against full attention: decode, prefill, crossover, append or calibrate."""
    from esa_attention.commands.bench.run import run

    return run(cfg)


@main.command("inspect")
def inspect(cfg: DictConfig) -> Report:
    """What ESA costs on a model, from its configuration alone: no weights, no download."""
    from esa_attention.commands.inspect import run

    return run(cfg)


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All rows of the paper's tables beside ours; claim=true also runs the laptop-scale claim."""
    from esa_attention.paper.reproduce import run

    return run(cfg)


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and which attention kernels load here and why not."""
    from esa_attention.commands.doctor import run

    return run(cfg)


if __name__ == "__main__":
    main()
