"""The command ``generate``: read a prompt of any length, go on writing, and show what was selected."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from effkit.arguments import check_arguments, input_file
from effkit.cli import run_dir
from effkit.errors import UserError, choose
from effkit.progress import report_progress
from effkit.report import Report, Table, write_text
from esa_attention.attention.segments import Segments
from esa_attention.commands.build import build_subject, in_keys, plain
from esa_attention.commands.methods import METHODS, check_group, method_setup
from esa_attention.commands.subject import Subject
from esa_attention.commands.texts import read_file
from esa_attention.evaluation.tasks.multi_needle import multi_needle
from esa_attention.integration.apply import apply_esa
from esa_attention.integration.cache_argument import cache_argument
from esa_attention.plots import consecutive_overlap, overlap_curves, selection_map

__all__ = ["generate_report", "run"]

_KEYS = (
    *("words", "prompt_file", "max_new_tokens", "temperature", "top_k", "top_p", "num_beams"),
    *("method", "watch_layer", "seed"),
)


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    given = {k: options[k] for k in _KEYS}
    check_arguments(generate_report, given)
    check_group(options["compressor"])
    if given["prompt_file"] is not None:
        given["prompt_file"] = input_file("prompt_file", given["prompt_file"])
    return generate_report(build_subject(cfg), options["compressor"], run_dir(), **given)


def generate_report(
    subject: Subject,
    compressor: dict[str, Any],
    folder: Path,
    *,
    words: Sequence[str],
    prompt_file: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    num_beams: int,
    method: str,
    watch_layer: int | None,
    seed: int,
) -> Report:
    """Generate with one method.

    Args:
        subject: The model.
        compressor: Config group ``compressor``.
        folder: Gets the text and the pictures.
        words: The prompt, word by word; for the constructed model token numbers.
        prompt_file: A text in front of it.
        max_new_tokens: Tokens to write.
        temperature: 0 takes the likeliest token every time.
        top_k: Draw from so many likeliest tokens.
        top_p: Draw from the likeliest tokens of this probability in all.
        num_beams: Beams; 1 searches none.
        method: ``stock`` or one of :data:`esa_attention.commands.methods.METHODS`.
        watch_layer: Draw the selection of this layer.
        seed: Of what is drawn.

    Raises:
        UserError: If a value does not fit.
    """
    choose("method", method, ("stock", *METHODS))
    if max_new_tokens < 1 or temperature < 0 or num_beams < 1:
        raise UserError(
            "max_new_tokens and num_beams must be at least 1 and temperature at least 0, got "
            f"{max_new_tokens}, {num_beams} and {temperature}"
        )
    if watch_layer is not None and (method == "stock" or not 0 <= watch_layer < subject.shape.num_layers):
        raise UserError(
            f"watch_layer must be in 0..{subject.shape.num_layers - 1} and needs another method than stock, got "
            f"{watch_layer}"
        )
    prompt = _prompt(subject, words, prompt_file)
    sampling: dict[str, Any] = {"do_sample": temperature > 0, "num_beams": num_beams}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_k": top_k or 0, "top_p": 1.0 if top_p is None else top_p}
    elif top_k is not None or top_p is not None:
        raise UserError("top_k and top_p need temperature above 0")
    steps: list[tuple[Segments, Any]] = []

    def watch(layer: int, row: int, cut: Segments, choices: Any) -> None:
        if layer == watch_layer and row == 0:
            steps.append((cut, [c[2].tolist() for c in choices]))

    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {}
        read = 0.0
        if method != "stock":
            config, maps = method_setup(subject, method, compressor, {})
            handle = stack.enter_context(apply_esa(subject.model, config, maps, strict=compressor["strict"]))
            stack.enter_context(handle.watch(watch))
            options[cache_argument(subject.model)] = cache = handle.new_cache(len(prompt) + max_new_tokens)
            # All but the last token is read here: in chunks of ours, with progress, and without their logits.
            start = time.perf_counter()
            for low in range(0, len(prompt) - 1, config.chunk_size):
                part = prompt[low : min(low + config.chunk_size, len(prompt) - 1)]
                with torch.inference_mode():
                    subject.model(part[None].to(subject.model.device), logits_to_keep=1, **options)
                report_progress(
                    f"{low + len(part):,} of {len(prompt):,} tokens read", (low + len(part)) / len(prompt) / 2
                )
            read = time.perf_counter() - start
            if num_beams > 1:
                cache.batch_repeat_interleave(num_beams)
        torch.manual_seed(seed)
        start = time.perf_counter()
        ids = prompt[None].to(subject.model.device)
        out = subject.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, **sampling, **options
        )[0, len(prompt) :]
        wrote = time.perf_counter() - start
    text = subject.decode(out.tolist())
    files = [write_text(folder / "text.txt", text + "\n")]
    if watch_layer is not None:
        files += _draw(subject, steps, folder, watch_layer)
    rows = [
        ["prompt, tokens", len(prompt)],
        ["written, tokens", len(out)],
        ["trained context", subject.shape.trained_context],
        ["reading, s", read],
        ["writing, s", wrote],
        ["per written token, ms", 1e3 * wrote / max(1, len(out))],
    ]
    table = Table(f"{method}", ["what", "value"], rows)
    data = {"text": text, "ids": out.tolist(), "prompt_tokens": len(prompt), "method": method}
    return Report(f"esa-attention generate, {subject.name}", [table], data=data, files=files, lines=[text])


def _prompt(subject: Subject, words: Sequence[str], prompt_file: str | None) -> torch.Tensor:
    text = " ".join(words)
    if prompt_file is not None:
        text = read_file("prompt_file", prompt_file) + text
    if not text:
        if subject.name != "constructed_induction":
            raise UserError("no prompt: write words after the command, or prompt_file=FILE")
        # Something to see without any text: facts, and the key of one of them.
        sample = multi_needle(subject.vocab(), 4096, 8)[3]
        return torch.cat([sample.context_ids, sample.question_ids])
    return subject.encode(text)


def _draw(subject: Subject, steps: list[tuple[Segments, Any]], folder: Path, layer: int) -> list[Path]:
    """Which tokens were selected over the steps, and how much two steps in a row share."""
    if not steps:
        raise UserError("nothing was selected: the sequence never had a middle part; give a longer prompt")
    steps.sort(key=lambda step: step[0].current)
    chosen = [sorted({j for block in blocks for j in block}) for _, blocks in steps]
    config = subject.config
    remark = f"{subject.name}, layer {layer}, {config.num_selected} of the middle tokens"
    sizes: dict[str, Any] = {"num_initial": config.num_initial, "num_local": config.num_local}
    positions = [cut.current for cut, _ in steps]
    files = [selection_map(chosen, positions, folder / f"selected_layer{layer}.png", remark=remark, **sizes)]
    if len(chosen) > 1:
        middle = steps[-1][0].num_middle
        overlaps = {f"layer {layer}": consecutive_overlap(chosen)}
        picture = folder / f"overlap_layer{layer}.png"
        files.append(overlap_curves(overlaps, picture, chance=len(chosen[-1]) / middle, remark=remark))
    return files
