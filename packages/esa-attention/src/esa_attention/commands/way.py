"""A way to read with a model: ESA or a baseline as configured, so that workers can take it."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from dataclasses import dataclass
from typing import Any

from esa_attention.commands.subject import Subject
from esa_attention.compression.compressor import Compressors
from esa_attention.compression.geometry import geometry
from esa_attention.config import ESAConfig
from esa_attention.integration.sending import packed, unpacked

__all__ = ["Way"]


@dataclass
class Way:
    """A model, and how it is to read.

    Attributes:
        subject: The model and what goes with it.
        config: ESA's configuration.
        maps: Compressors, ``None`` where the method needs none.
        strict: Refuse maps of other weights.
    """

    subject: Subject
    config: ESAConfig
    maps: Compressors | None
    strict: bool

    @property
    def block(self) -> int:
        """Tokens of one forward pass while a context is read: whole chunks, about a thousand tokens."""
        return self.config.chunk_size * max(1, 1024 // self.config.chunk_size)

    def packed(self) -> bytes:
        """All of it for a worker; a model that can be loaded from files is not sent.

        Raises:
            UserError: If the model cannot be sent.
        """
        model = packed(self.subject.model, self.subject.remake)
        without: Any = {"model": None, "shape": None}  # the geometry holds the model's layers
        rest = dataclasses.replace(self, subject=dataclasses.replace(self.subject, **without))
        return pickle.dumps((model, rest), pickle.HIGHEST_PROTOCOL)

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def unpacked(content: bytes) -> Way:
        """The inverse; loaded once a process.

        Raises:
            UserError: If another model was loaded than the one that was packed.
        """
        model, way = pickle.loads(content)
        loaded: Way = way
        loaded.subject.model = unpacked(model)
        loaded.subject.shape = geometry(loaded.subject.model)
        return loaded
