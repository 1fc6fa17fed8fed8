"""From a composed config to a model with its texts, its ESA configuration and its compressors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effkit.device import resolve_device, resolve_precision, seed_everything, set_threads
from effkit.errors import UserError, choose
from esa_attention.compression.compressor import Compressors, load_compressors
from esa_attention.config import ESAConfig
from esa_attention.integration.patching import ModelGeometry, geometry

if TYPE_CHECKING:
    from esa_attention.evaluation.tasks.vocab import TaskVocab

__all__ = ["METHODS", "Subject", "build_compressors", "build_subject", "esa_config", "method_setup", "read_text"]

# What `methods=[...]` may name: ESA as configured, other compressors under ESA, and baselines on the same cache.
METHODS = ("esa", "exact", "key_pca", "sgd_paper", "sinks_local", "infllm_blocks", "quest_pages", "full")


@dataclass
class Subject:
    """A model and what goes with it.

    Attributes:
        name: Of the model group.
        model: In evaluation mode, stock.
        tokenizer: ``None`` where tokens are bytes or symbols.
        config: ESA's sizes and options for it.
        shape: Its geometry.
        rank: Compressed dimension to use where none is asked for.
    """

    name: str
    model: Any
    tokenizer: Any
    config: ESAConfig
    shape: ModelGeometry
    rank: int

    def vocab(self) -> TaskVocab:
        """The language in which tasks are put to this model."""
        from esa_attention.evaluation.tasks.text_vocab import TextVocab
        from esa_attention.evaluation.tasks.vocab import SymbolVocab

        if self.name == "constructed_induction":
            return SymbolVocab.for_model(self.model)
        if self.tokenizer is None:
            return TextVocab.byte_level()
        return TextVocab.from_tokenizer(self.tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text; symbols as numbers."""
        decode = self.vocab().decode
        return " ".join(map(str, ids)) if decode is None else decode(ids)

    def encode(self, text: str) -> Tensor:
        """Text as ids ``(n,)``; for the constructed model numbers."""
        if self.name == "constructed_induction":
            size = int(self.model.config.vocab_size)
            words = text.split()
            if not words or not all(word.isdecimal() and int(word) < size for word in words):
                raise UserError(f"model={self.name} reads token numbers in 0..{size - 1}, got {text[:40]!r}")
            return torch.tensor([int(word) for word in words])
        if self.tokenizer is None:
            from esa_attention.evaluation.models.text import encode_bytes

            return encode_bytes(text)
        if hasattr(self.tokenizer, "bos_token_id"):  # a tokenizer of transformers puts its begin token itself
            return torch.as_tensor(self.tokenizer.encode(text))
        return torch.as_tensor(self.tokenizer.encode(text, bos=True))


def plain(value: Any) -> Any:
    """A config node as plain Python values."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def esa_config(esa: dict[str, Any], sizes: dict[str, Any], trained_context: int) -> ESAConfig:
    """ESA's configuration: what the user gave, then what suits the model, then the paper's sizes cut to its context.

    Args:
        esa: Fields of :class:`ESAConfig`; ``None`` where the user gave nothing.
        sizes: The model group's.
        trained_context: Longest sequence the model was trained on.
    """
    given = {k: v for k, v in {**sizes, **{k: v for k, v in esa.items() if v is not None}}.items() if v is not None}
    known = {f.name for f in dataclasses.fields(ESAConfig)}
    for name in given:
        choose("esa field", name, sorted(known))
    return ESAConfig.for_context(trained_context, **given)


def build_subject(cfg: Any) -> Subject:
    """Build the model of a command, set threads and seed.

    Args:
        cfg: Composed config with ``model`` and ``esa``.

    Raises:
        UserError: If the model cannot be had or something does not fit.
    """
    from esa_attention.evaluation.models.registry import build_model, load_tokenizer

    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed", 0))
    device = resolve_device(cfg.get("device", "auto"))
    dtype = resolve_precision(cfg.get("precision", "auto"), device)
    group = plain(cfg.model)
    name, path = group["name"], group["path"]
    options = {k: v for k, v in group["options"].items() if v is not None}
    if group["device_map"] is not None:
        options["device_map"] = group["device_map"]
    model = build_model(name, path, device=device, dtype=dtype, **options)
    shape = geometry(model)
    config = esa_config(plain(cfg.esa), group["sizes"], shape.trained_context)
    rank = min(group["rank"] or 128, shape.key_dim)
    return Subject(name, model, load_tokenizer(name, path), config, shape, rank)


def read_text(
    subject: Subject, num_tokens: int, split: str, path: str | None = None, seed: int = 0
) -> tuple[Tensor, str]:
    """Text for a model, as long as asked for.

    Args:
        subject: The model.
        num_tokens: Tokens wanted; fewer only if a file of the user holds fewer.
        split: ``train`` (calibration) or ``test``; they share no document, sample or seed.
        path: A text file of the user instead.
        seed: Of what is sampled.

    Returns:
        Ids ``(n,)`` and a name for the text.

    Raises:
        UserError: If there is too little text.
    """
    choose("split", split, ["train", "test"])
    if num_tokens < 2:
        raise UserError(f"num_tokens must be at least 2, got {num_tokens}")
    seed += 0 if split == "test" else 10_000
    if path is not None:
        ids = subject.encode(Path(path).read_text(encoding="utf-8", errors="replace"))
        if ids.numel() < 2:
            raise UserError(f"text {path!r} holds fewer than 2 tokens")
        return ids[:num_tokens], Path(path).name
    if subject.name == "tiny_random" or (subject.name == "constructed_induction" and split == "train"):
        # All tokens alike: a text of mere filler would teach the compressors nothing about keys that occur once.
        generator = torch.Generator().manual_seed(seed)
        size = int(subject.model.config.vocab_size)
        return torch.randint(2, size, (num_tokens,), generator=generator), "random tokens"
    if subject.name == "constructed_induction":
        from esa_attention.evaluation.tasks.multi_needle import multi_needle

        needles = min(8, max(1, num_tokens // 16))
        return multi_needle(subject.vocab(), num_tokens, needles, seed)[0].context_ids, "needles in filler"
    if subject.name == "stories260k":
        from esa_attention.evaluation.models.sampling import sample_stories

        return sample_stories(subject.model, subject.tokenizer, num_tokens, seed), "stories sampled from the model"
    from esa_attention.evaluation.models.text import encode_bytes, read_split

    text = read_split(split, ("topics",))  # type: ignore[arg-type]
    if len(text) < (5 if subject.tokenizer is not None else 1) * num_tokens:
        text += read_split(split, ("stdlib",))  # type: ignore[arg-type]
    ids = (
        encode_bytes(text[: num_tokens + 1])
        if subject.tokenizer is None
        else subject.encode(text[: 8 * num_tokens].decode("utf-8", "replace"))
    )
    if ids.numel() < num_tokens:
        raise UserError(
            f"the bundled text holds {ids.numel():,} tokens, {num_tokens:,} were asked for; give a file of yours: "
            "text=FILE, for calibration compressor.text=FILE"
        )
    return ids[:num_tokens], "Python's documentation topics and sources"


def build_compressors(
    subject: Subject, group: dict[str, Any], method: str | None = None, state_path: Path | None = None
) -> Compressors:
    """The compressors of a command: read from a file, or calibrated now.

    Args:
        subject: The model.
        group: Config group ``compressor`` as plain values.
        method: Another method than the group's; then nothing is read from its file.
        state_path: Where an interrupted calibration is kept.

    Raises:
        UserError: If the file is not the model's, or a value does not fit.
    """
    from esa_attention.calibration import calibrate

    if group["path"] is not None and method in (None, group["method"]):
        return load_compressors(group["path"], subject.model, strict=group["strict"])
    method = group["method"] if method is None else method
    if method == "exact":
        return calibrate(subject.model, method="exact")
    ids, label = read_text(subject, group["num_tokens"], "train", group["text"])
    rank = subject.rank if group["rank"] is None else group["rank"]
    options: dict[str, Any] = {}
    if method == "sgd_paper":
        options = {k: group[k] for k in ("lr", "sgd_batch_size", "epochs", "init")}
    return calibrate(
        subject.model,
        ids,
        method=method,
        rank=rank if method == group["method"] or rank != "auto" else subject.rank,
        tail=group["tail"],
        far_position=subject.config.w,
        num_tokens=group["num_tokens"],
        bias=group["bias"] if method == group["method"] else None,
        text=label,
        state_path=state_path,
        **options,
    )


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
    if name in ("sinks_local", "infllm_blocks", "quest_pages", "full"):
        return subject.config.replace(method=name), None
    kind = group["method"] if name == "esa" else name
    if kind not in made:
        made[kind] = build_compressors(subject, group, None if name == "esa" else kind)
    return subject.config, made[kind]
