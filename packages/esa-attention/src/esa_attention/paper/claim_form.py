"""How large a claim's experiments are, short and full, and the model of a command that they ask."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from effkit.cli import compose
from esa_attention.commands.build import build_subject, plain
from esa_attention.commands.subject import Subject

__all__ = ["FULL", "SHARES", "SHORT", "Form", "claim_subject"]

SHARES = {"needles": 0.4, "training": 0.4, "text": 0.2}  # of the time, for the progress bar


@dataclass(frozen=True)
class Form:
    """Sizes of both experiments.

    Attributes:
        length: Tokens of the context that hides the facts.
        num_needles: Facts in it.
        proximities: Half-widths of the max filter under which all questions are asked in one block.
        training: Words of a command that say how the byte-level model is trained.
        sizes: Words of a command that say how ESA reads it; its model group's sizes without them.
        text_length: Bytes that it reads.
        windows: Windows of held-out text on which recall is counted: one alone has few keys.
        note: What is left out, if anything.
    """

    length: int
    num_needles: int
    proximities: tuple[int, ...]
    training: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    text_length: int = 8192
    windows: int = 16
    note: str = ""


FULL = Form(length=65_536, num_needles=32, proximities=(0, 1, 3), training=("model.options.steps=450",))

# A context of 64 bytes is learnt, and left, in a fraction of the time of 256; sizes are cut in the same proportion.
SHORT = Form(
    length=16_384,
    num_needles=16,
    proximities=(1,),
    training=("model.options.steps=250", "+model.options.context=64", "+model.options.batch_size=10"),
    sizes=("esa.num_initial=4", "esa.num_selected=8", "esa.num_local=32", "esa.chunk_size=16"),
    text_length=2048,
    windows=32,
    note="The short form hides 16 facts in 16,384 tokens (the full one 32 in 65,536), asks them in one block under one "
    "proximity, and reads 2,048 bytes with a model trained on windows of 64 (8,192 with one of 256): one length of "
    "each, and so no word on how either grows. full=true runs the full form.",
)


def claim_subject(
    command: str, *overrides: str, path: str | os.PathLike[str] | None = None
) -> tuple[Subject, dict[str, Any]]:
    """The model of a command, as if its words had been typed, and its config group `compressor`.

    Args:
        command: The command.
        *overrides: Its words.
        path: Where the model's weights are, if they are in files.
    """
    cfg = compose("esa-attention", "esa_attention.configs", command, overrides)
    if path is not None:
        cfg.model.path = os.fspath(path)  # not a word of the command: any character may be in it
    return build_subject(cfg), plain(cfg.compressor)
