"""The command ``ppl``.

Cross-entropy of one long text by position, for several methods on one model, beside the stock model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkit.arguments import check_arguments, input_file, renamed
from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.progress import part
from effkit.report import Report, write_bytes
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.methods import check_group, method_setup
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_text
from esa_attention.compression.compressor import Compressors
from esa_attention.evaluation.tasks.ppl import bucket_edges, bucket_means, perplexity_table, token_nats
from esa_attention.integration.apply import apply_esa
from esa_attention.plots import perplexity_curves

__all__ = ["curve", "perplexity_report", "run"]


def _kinds(length: int, text: str | None) -> None:
    """What the command's keys of the text hold."""


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    check_arguments(_kinds, options)
    check_arguments(perplexity_report, {k: options[k] for k in ("methods", "strict")})
    check_group(options["compressor"])
    text = None if options["text"] is None else input_file("text", options["text"])
    subject = build_subject(cfg)
    with renamed({"num_tokens": "length"}):
        ids, label = read_text(subject, options["length"], "test", text, options["seed"])
    return perplexity_report(
        subject,
        ids,
        label=label,
        folder=run_dir(),
        compressor=options["compressor"],
        **{k: options[k] for k in ("methods", "strict")},
    )


def curve(
    subject: Subject,
    ids: Tensor,
    method: str,
    compressor: dict[str, Any],
    made: dict[str, Compressors],
    strict: bool = False,
) -> Tensor:
    """Nats per token of a text under one method, or ``stock`` for the model as it is.

    Args:
        subject: The model.
        ids: The text ``(n,)``.
        method: ``stock`` or one of :data:`esa_attention.commands.methods.METHODS`.
        compressor: Config group ``compressor``.
        made: Compressors made so far.
        strict: One token at a time.
    """
    if method == "stock":
        return token_nats(subject.model, ids, chunk=256, strict=strict)
    config, maps = method_setup(subject, method, compressor, made)
    with apply_esa(subject.model, config, maps, strict=compressor["strict"]) as handle:
        return token_nats(subject.model, ids, cache=handle.new_cache(), chunk=config.chunk_size, strict=strict)


def perplexity_report(
    subject: Subject,
    ids: Tensor,
    *,
    methods: Sequence[str],
    compressor: dict[str, Any],
    strict: bool,
    label: str,
    folder: Path,
) -> Report:
    """Read one text with every method.

    Args:
        subject: The model.
        ids: The text ``(n,)``.
        methods: ``stock`` and names of :data:`esa_attention.commands.methods.METHODS`.
        compressor: Config group ``compressor``.
        strict: One token at a time: no later token then takes part in what an earlier one reads.
        label: Name of the text.
        folder: Gets the picture and the curves.

    Raises:
        UserError: If a value does not fit.
    """
    if not methods:
        raise UserError("methods is empty")
    made: dict[str, Compressors] = {}
    curves: dict[str, Tensor] = {}
    for number, name in enumerate(methods):
        with part(name, number / len(methods), (number + 1) / len(methods)):
            curves[name] = curve(subject, ids, name, compressor, made, strict)
    context = subject.shape.trained_context
    edges = bucket_edges(len(ids) - 1, min(context, len(ids) - 1))
    table = perplexity_table(curves, edges)
    c = subject.config
    table.note = (
        f"{label}. Trained context {context}. Initial {c.num_initial}, selected {c.num_selected}, local {c.num_local}, "
        f"chunk {c.chunk_size}, proximity {c.proximity}. "
        + (
            "Token by token."
            if strict
            else f"Tokens of a chunk choose together ({c.choosing_block} at a time), as in the paper."
        )
    )
    means = {name: bucket_means(nats, edges) for name, nats in curves.items()}
    files = [perplexity_curves(means, edges, folder / "perplexity.png", trained_context=context)]
    names = list(curves)
    rows = torch.stack([curves[n] for n in names], dim=1)
    lines = ["position," + ",".join(names)] + [
        f"{i + 1}," + ",".join(f"{v:.5f}" for v in row) for i, row in enumerate(rows.tolist())
    ]
    files.append(write_bytes(folder / "nats.csv", ("\n".join(lines) + "\n").encode()))
    data = {"edges": edges, "nats": means, "trained_context": context, "text": label}
    return Report(f"esa-attention ppl, {subject.name}", [table], data=data, files=files)
