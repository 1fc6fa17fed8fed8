"""What a command compares: ESA as configured, other compressors under ESA, baselines on the same cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from effkit.arguments import check_arguments, input_file, named_path
from effkit.errors import UserError, choose
from effkit.executors import Choice
from esa_attention.calibration.calibrate import calibrate
from esa_attention.commands.calibration_texts import calibration_texts, text_files
from esa_attention.commands.subject import Subject
from esa_attention.compression.compressor import Compressors, load_compressors
from esa_attention.config import ESAConfig

__all__ = ["METHODS", "build_compressors", "check_group", "kind_of", "method_setup"]

# What `methods=[...]` may name: ESA as configured, other compressors under ESA, and baselines on the same cache.
_WITHOUT_MAPS = ("sinks_local", "infllm_blocks", "quest_pages", "full")
METHODS = ("esa", "exact", "key_pca", "sgd_paper", *_WITHOUT_MAPS)


def _kinds(
    method: str,
    path: str | Path | None,
    strict: bool,
    text: str | Path | Sequence[str] | None,
    rank: int | Literal["auto"] | None,
) -> None:
    """What a group ``compressor`` holds beside arguments of `calibrate`."""


def check_group(group: dict[str, Any]) -> None:
    """Refuse a group ``compressor`` whose values are of another kind, before a model is built.

    Raises:
        UserError: Naming the first such key.
    """
    check_arguments(_kinds, group, "compressor.")
    check_arguments(calibrate, {k: v for k, v in group.items() if k not in ("text", "rank")}, "compressor.")
    if group["path"] is not None:
        named_path("compressor.path", group["path"])
    for file in text_files(group["text"]):
        input_file("compressor.text", file)


def build_compressors(
    subject: Subject,
    group: dict[str, Any],
    method: str | None = None,
    state_path: Path | None = None,
    choice: Choice | None = None,
) -> Compressors:
    """The compressors of a command: read from a file, or calibrated now.

    Args:
        subject: The model.
        group: Config group ``compressor`` as plain values.
        method: Another method than the group's; then nothing is read from its file.
        state_path: Where an interrupted calibration is kept.
        choice: Where the text is read.

    Raises:
        UserError: If the file is not the model's, or a value does not fit.
    """
    check_group(group)
    if group["path"] is not None and method in (None, group["method"]):
        return load_compressors(group["path"], subject.model, strict=group["strict"])
    method = group["method"] if method is None else method
    if method == "exact":
        return calibrate(subject.model, method="exact")
    texts, names = calibration_texts(subject, group["num_tokens"], group["text"])
    rank = subject.rank if group["rank"] is None else group["rank"]
    have = sum(map(len, texts))
    if rank != "auto" and have < rank:
        raise UserError(
            f"the calibration text holds {have} tokens, a rank of {rank} needs as many and should have far more: give "
            "compressor.text=FILE (or several) or a lower compressor.rank"
        )
    options: dict[str, Any] = {}
    if method == "sgd_paper":
        options = {k: group[k] for k in ("lr", "sgd_batch_size", "epochs", "init")}
    return calibrate(
        subject.model,
        texts,
        method=method,
        rank=rank if method == group["method"] or rank != "auto" else subject.rank,
        tail=group["tail"],
        far_position=subject.config.w,
        num_tokens=group["num_tokens"],
        bias=group["bias"] if method == group["method"] else None,
        text=names,
        state_path=state_path,
        choice=choice,
        remake=subject.remake,
        **options,
    )


def kind_of(name: str, group: dict[str, Any]) -> str | None:
    """Which compressors a method needs, as `calibrate` calls them; ``None`` for none."""
    if name == "esa":
        return str(group["method"])
    return name if name in METHODS and name not in _WITHOUT_MAPS else None


def method_setup(
    subject: Subject, name: str, group: dict[str, Any], made: dict[str, Compressors]
) -> tuple[ESAConfig, Compressors | None]:
    """Configuration and compressors for one of :data:`METHODS`.

    Args:
        subject: The model.
        name: The method.
        group: Config group ``compressor``.
        made: Compressors by method, filled as they are made.

    Raises:
        UserError: If the method is unknown.
    """
    choose("methods", name, METHODS)
    kind = kind_of(name, group)
    if kind is None:
        return subject.config.replace(method=name), None
    if kind not in made:
        made[kind] = build_compressors(subject, group, None if name == "esa" else kind)
    return subject.config, made[kind]
