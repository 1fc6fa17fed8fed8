"""The command ``two-level``: would it pay to score blocks before tokens? On the keys of a model, and on random ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effkit.arguments import check_arguments, input_file
from effkit.bench import check_counts
from effkit.errors import UserError
from effkit.progress import report_progress
from effkit.report import Report, Table
from esa_attention.calibration.two_level import BOUNDS, two_levels
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.methods import build_compressors, check_group
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_text
from esa_attention.integration.apply import apply_esa
from esa_attention.integration.cache_argument import cache_argument

__all__ = ["run", "two_level_report"]

_CHUNK = 2048  # tokens read at once


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    given = {name: options[name] for name in ("length", "num_queries", "ks", "blocks", "text", "seed")}
    check_arguments(two_level_report, given)
    check_group(options["compressor"])
    if given["text"] is not None:
        given["text"] = input_file("text", given["text"])
    return two_level_report(build_subject(cfg), options["compressor"], **given)


def two_level_report(
    subject: Subject,
    group: dict[str, Any],
    *,
    length: int,
    num_queries: int,
    ks: Sequence[int],
    blocks: Sequence[int],
    text: str | None,
    seed: int,
) -> Report:
    """Bytes of the index that two levels would read, and the recall at half of them.

    Args:
        subject: The model, which reads the text with ESA as configured.
        group: Config group ``compressor``.
        length: Tokens of the text.
        num_queries: Tokens at its end that are decoded, and choose.
        ks: How many tokens they choose.
        blocks: Tokens of a block.
        text: A file of the user.
        seed: Of sampled text and of the random keys.

    Raises:
        UserError: If a value does not fit.
    """
    ks, blocks = check_counts("ks", ks), check_counts("blocks", blocks)
    check_counts("num_queries", num_queries)
    config = subject.config
    if length - num_queries - config.num_local - config.num_initial <= max(*ks, *blocks):
        raise UserError(f"length must leave more tokens to choose from than ks={ks} and blocks={blocks}, got {length}")
    ids, label = read_text(subject, length, "test", text, seed)
    maps = build_compressors(subject, group)
    pairs = {label: _of_a_model(subject, maps, ids, num_queries)}
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(len(ids), 128, generator=generator)
    pairs["random numbers, rank 128"] = [(row, keys) for row in torch.randn(num_queries, 128, generator=generator)]
    data: list[dict[str, Any]] = []
    for name, rows in pairs.items():
        for k in ks:
            for block in blocks:
                for bound in BOUNDS:
                    found = [two_levels(query, index, k, block, bound) for query, index in rows]
                    exact, recall = (sum(x) / len(found) for x in zip(*found, strict=True))
                    data.append(
                        {"keys": name, "k": k, "block": block, "bound": bound, "exact": exact, "recall": recall}
                    )
    table = Table(
        f"blocks before tokens, {len(ids):,} tokens",
        ["keys", "k", "block", "bound", "bytes read, exact choice, %", "recall at half the bytes, %"],
        [[d["keys"], d["k"], d["block"], d["bound"], 100 * d["exact"], 100 * d["recall"]] for d in data],
        f"Against one level in eight bits; mean over {num_queries} decoded tokens and, of the model "
        f"({subject.name}, rank {sorted(set(maps.ranks))}), all layers.",
    )
    return Report(f"esa-attention two-level, {subject.name}", [table], data={"rows": data, "text": label})


def _of_a_model(subject: Subject, maps: Any, ids: Tensor, num_queries: int) -> list[tuple[Tensor, Tensor]]:
    """Compressed queries of the last tokens, with the compressed keys of all tokens they choose from."""
    found: list[tuple[Tensor, Tensor]] = []
    config, name = subject.config, cache_argument(subject.model)
    with torch.no_grad(), apply_esa(subject.model, config, maps) as handle:
        cache, attend = handle.new_cache(reserve=len(ids)), handle.attend

        def listening(module: Any, query: Tensor, *rest: Any) -> Tensor:
            layer = cache.layers[module.layer_idx]
            if query.shape[2] == 1:
                turned = handle.tables.rotate_far(query, config.w)
                end = layer.get_seq_length() - 1 - config.num_local
                row = layer.compressor.compress_query(turned)[0, 0].float()
                found.append((row, layer.index_rows(0, config.num_initial, end).float().clone()))
            return attend(module, query, *rest)

        handle.attend = listening  # type: ignore[method-assign, assignment]  # of this handle, inside this block
        read = len(ids) - num_queries
        row = ids[None].to(next(subject.model.parameters()).device)
        for low in range(0, read, _CHUNK):
            report_progress("reading", low / len(ids))
            subject.model(row[:, low : min(low + _CHUNK, read)], logits_to_keep=1, **{name: cache})
        for t in range(read, len(ids)):
            subject.model(row[:, t : t + 1], **{name: cache})
    return found
