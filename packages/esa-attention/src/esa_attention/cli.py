"""The command line: ``esa-attention COMMAND group=option key=value``; each command is a short recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from effkit.cli import App, run_dir
from effkit.progress import shown

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from omegaconf import DictConfig

    from effkit.report import Report

main = App(
    "esa-attention",
    "esa_attention.configs",
    summary="Efficient Selective Attention: let a RoPE language model read past its context.",
)


def watched(task: Callable[[Any], Report]) -> Callable[[Any], Report]:
    """Show a command's progress while it runs."""

    @functools.wraps(task)
    def run(cfg: Any) -> Report:
        with shown(task.__name__.strip("_")):
            return task(cfg)

    return run


@main.command("calibrate")
@watched
def calibrate(cfg: DictConfig) -> Report:
    """Find the query and key maps of every layer and save them as one safetensors file."""
    from esa_attention.commands.build import build_subject, plain
    from esa_attention.commands.calibrate import calibration_report

    subject = build_subject(cfg)
    out = run_dir() / "compressors.safetensors" if cfg.out is None else cfg.out
    return calibration_report(subject, plain(cfg.compressor), out, run_dir())


@main.command("generate", positional="words")
@watched
def generate(cfg: DictConfig) -> Report:
    """Continue a prompt, or a file, of any length."""
    from esa_attention.commands.build import build_subject, plain
    from esa_attention.commands.generate import generate_report

    subject = build_subject(cfg)
    options = plain(cfg)
    keys = (
        "words",
        "prompt_file",
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
        "method",
        "watch_layer",
    )
    return generate_report(subject, options["compressor"], run_dir(), seed=cfg.seed, **{k: options[k] for k in keys})


@main.command("needle")
@watched
def needle(cfg: DictConfig) -> Report:
    """Hide facts in a long context and ask for them: needle, multi_needle, passkey, variable_tracking."""
    return _retrieval(cfg)


@main.command("counting-stars")
@watched
def counting_stars(cfg: DictConfig) -> Report:
    """Hide one subject with many values in a long context and ask for all of them."""
    return _retrieval(cfg)


def _retrieval(cfg: DictConfig) -> Report:
    from esa_attention.commands.build import build_subject, plain
    from esa_attention.commands.retrieval import retrieval_report

    subject = build_subject(cfg)
    options = plain(cfg)
    task = options["task"]
    return retrieval_report(
        subject,
        task["name"],
        options=task["options"],
        compressor=options["compressor"],
        folder=run_dir(),
        **{k: options[k] for k in ("lengths", "depths", "methods", "samples", "question", "seed")},
    )


@main.command("ppl")
@watched
def ppl(cfg: DictConfig) -> Report:
    """Cross-entropy of a long text by position, for ESA, baselines and the stock model."""
    from esa_attention.commands.build import build_subject, plain, read_text
    from esa_attention.commands.perplexity import perplexity_report

    subject = build_subject(cfg)
    ids, label = read_text(subject, cfg.length, "test", cfg.text, cfg.seed)
    options = plain(cfg)
    return perplexity_report(
        subject,
        ids,
        label=label,
        folder=run_dir(),
        compressor=options["compressor"],
        **{k: options[k] for k in ("methods", "strict")},
    )


@main.command("recall")
@watched
def recall(cfg: DictConfig) -> Report:
    """Recall of the k best tokens after compression, layer by layer, as in Figure 2."""
    from esa_attention.commands.build import build_subject, plain
    from esa_attention.commands.calibrate import recall_report

    subject = build_subject(cfg)
    options = plain(cfg)
    keys = ("methods", "k", "num_queries", "length", "text", "chunk_size", "seed")
    return recall_report(subject, options["compressor"], run_dir(), **{k: options[k] for k in keys})


@main.command("bench", positional="what")
@watched
def bench(cfg: DictConfig) -> Report:
    """Time one layer against full attention: decode, prefill, append or calibrate."""
    from effkit.errors import UserError
    from esa_attention.commands.bench.report import LayerShape, bench_report
    from esa_attention.commands.build import plain
    from esa_attention.config import ESAConfig

    options = plain(cfg)
    kinds = options["what"] or [options["bench"]["kind"]]
    if len(kinds) != 1:
        raise UserError(f"bench times one thing at a time, got {', '.join(kinds)}")
    # `bench decode` is short for `bench bench=decode`: the lengths and providers of that group.
    group = options["bench"] if kinds[0] == options["bench"]["kind"] else _bench_group(kinds[0])
    given = {k: options[k] for k in ("lengths", "providers") if options[k] is not None}
    sizes = {k: v for k, v in options["esa"].items() if v is not None}
    return bench_report(
        kinds[0],
        **{**{k: group[k] for k in ("lengths", "providers")}, **given},
        shape=LayerShape(**options["layer"]),
        config=ESAConfig(**sizes),
        csv=options["csv"] or run_dir() / "bench.csv",
        folder=run_dir(),
        **{k: options[k] for k in ("rank", "device", "precision", "threads", "min_rounds", "min_seconds")},
    )


def _bench_group(kind: str) -> dict[str, Any]:
    from effkit.errors import choose
    from esa_attention.commands.bench.report import KINDS
    from esa_attention.commands.build import plain

    return plain(main.compose("bench", [f"bench={choose('bench', kind, KINDS)}"]).bench)


@main.command("inspect")
def inspect(cfg: DictConfig) -> Report:
    """What ESA costs on a model, from its configuration alone: no weights, no download."""
    from esa_attention.commands.build import plain
    from esa_attention.commands.inspect import inspect_report

    options = plain(cfg)
    sizes = {k: v for k, v in options["esa"].items() if v is not None}
    model = options["model"]
    return inspect_report(
        model["path"] or model["name"], sizes, **{k: options[k] for k in ("rank", "lengths", "dtype")}
    )


@main.command("reproduce")
def reproduce(cfg: DictConfig) -> Report:
    """All rows of the paper's tables beside ours; claim=true also runs the laptop-scale claim."""
    from effkit.reproduce import paper_report
    from esa_attention.commands.build import plain
    from esa_attention.paper.rows import PAPER, table_names

    table = None if cfg.table is None else table_names(plain(cfg.table))
    return paper_report(PAPER, table=table, claim=cfg.claim, run_dir=run_dir())


@main.command("doctor")
def doctor(cfg: DictConfig) -> Report:
    """Versions, devices, and which attention kernels load here and why not."""
    from esa_attention.commands.doctor import doctor_report

    return doctor_report()


if __name__ == "__main__":
    main()
