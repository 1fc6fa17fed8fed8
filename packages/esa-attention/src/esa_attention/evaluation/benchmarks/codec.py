"""Text to tokens and back for a model of any kind, and the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effkit.errors import UserError
from esa_attention.evaluation.models.text import decode_bytes, encode_bytes

__all__ = ["Codec"]


class Codec:
    """What a model reads and writes.

    Args:
        model: A causal language model.
        tokenizer: Of transformers or of llama2.c; ``None`` where tokens are bytes.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._of_transformers = hasattr(tokenizer, "apply_chat_template")
        self._size = int(model.get_input_embeddings().num_embeddings)
        self.stop_ids = sorted(_stop_ids(model, tokenizer))

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """Tokens of a text.

        Args:
            text: The text.
            begin: With the tokens that the tokenizer puts around a text (its begin token).

        Raises:
            UserError: If a token is not in the model's vocabulary.
        """
        if self._tokenizer is None:
            ids = encode_bytes(text).tolist()
        elif self._of_transformers:
            ids = list(self._tokenizer.encode(text, add_special_tokens=begin))
        else:
            ids = self._tokenizer.encode(text, bos=begin)
        if ids and max(ids) >= self._size:
            raise UserError(f"the model has {self._size} tokens, the text needs token {max(ids)}: {text[:40]!r}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        if self._tokenizer is None:
            return decode_bytes([i for i in ids if i < 256])
        if self._of_transformers:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        return str(self._tokenizer.decode(ids))

    def line_end(self) -> int:
        """The token that ends a line."""
        return self.encode("\n", begin=False)[-1]

    def in_chat(self, text: str) -> str:
        """A text as a user's message in the model's chat template, up to where the answer begins.

        Raises:
            UserError: If the tokenizer has no template.
        """
        self.check_chat()
        message = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def check_chat(self) -> None:
        """Refuse a tokenizer without a chat template.

        Raises:
            UserError: If there is none.
        """
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise UserError("chat_template=true: the model's tokenizer has no chat template, leave chat_template out")


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """End tokens of the model's generation settings and of the tokenizer; llama2.c's models end with a begin token."""
    settings = getattr(model, "generation_config", None)
    said = [getattr(settings, "eos_token_id", None), getattr(tokenizer, "eos_token_id", None)]
    if tokenizer is not None and not hasattr(tokenizer, "apply_chat_template"):
        said += [getattr(tokenizer, "bos_id", None), getattr(tokenizer, "eos_id", None)]
    found: set[int] = set()
    for value in said:
        found |= set(value) if isinstance(value, list | tuple) else set() if value is None else {int(value)}
    return found
