"""A model with what goes with it: what most commands work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.compression.geometry import ModelGeometry
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.text import encode_bytes
from esa_attention.evaluation.tasks.text_vocab import TextVocab
from esa_attention.evaluation.tasks.vocab import SymbolVocab, TaskVocab
from esa_attention.integration.sending import Remake

__all__ = ["Subject"]


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
        remake: Loads the model again in a worker; ``None``: the model is sent.
    """

    name: str
    model: Any
    tokenizer: Any
    config: ESAConfig
    shape: ModelGeometry
    rank: int
    remake: Remake | None = None

    def vocab(self) -> TaskVocab:
        """The language in which tasks are put to this model."""
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
            return encode_bytes(text)
        if hasattr(self.tokenizer, "bos_token_id"):  # a tokenizer of transformers puts its begin token itself
            return torch.as_tensor(self.tokenizer.encode(text))
        return torch.as_tensor(self.tokenizer.encode(text, bos=True))
