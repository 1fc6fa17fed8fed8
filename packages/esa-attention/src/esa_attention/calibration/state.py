"""An interrupted calibration goes on where it was: moments of all layers in a file, with what they were made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from effkit.errors import UserError
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.calibration.sequences import hash_sequences
from esa_attention.compression.tensor_files import read_json, read_number, read_tensors, write_tensors

__all__ = ["StateFile"]

KIND = "esa-attention calibration moments"


@dataclass(frozen=True)
class StateFile:
    """Where moments are kept between batches, and what they must have been made of to be used again.

    Rank and method are no part of it: moments gathered once serve any rank of the closed form, and key PCA.

    Args:
        path: The file.
        fingerprint: Of the model.
        far_position: Position of the queries.
        uncentred: Whether moments of keys that are not centred are kept too.
        pieces: The calibration text, cut.
    """

    path: str | os.PathLike[str]
    fingerprint: Mapping[str, Any]
    far_position: int
    uncentred: bool
    pieces: Sequence[Tensor]

    def save(self, moments: Sequence[StreamingMoments], done: int) -> None:
        """Write the moments after the first ``done`` pieces."""
        tensors = {f"layers.{m.layer}.{name}": value for m in moments for name, value in m.state().items()}
        metadata = {
            "fingerprint": json.dumps(dict(self.fingerprint), sort_keys=True),
            "far_position": str(self.far_position),
            "uncentred": str(int(self.uncentred)),
            "done": str(done),
            "tokens": hash_sequences(self.pieces[:done]),
        }
        write_tensors(self.path, KIND, tensors, metadata)

    def load(self) -> tuple[list[StreamingMoments], int] | None:
        """Moments and how many pieces they cover; ``None`` if there is no file yet.

        Raises:
            UserError: If the file is damaged, or of another model, text or far position.
        """
        if not Path(self.path).exists():
            return None
        tensors, metadata = read_tensors(self.path, KIND)
        for name, ours in (("far_position", self.far_position), ("uncentred", int(self.uncentred))):
            theirs = read_number(self.path, metadata, name)
            if theirs != ours:
                raise UserError(f"state_path={self.path}: {name} must be {ours}, got {theirs}; give another state_path")
        theirs = read_json(self.path, metadata, "fingerprint", dict)
        for name, value in self.fingerprint.items():
            if theirs.get(name) != value:
                raise UserError(
                    f"state_path={self.path} is of another model: {name} must be {value!r}, got {theirs.get(name)!r}"
                )
        done = read_number(self.path, metadata, "done")
        if done > len(self.pieces) or metadata.get("tokens") != hash_sequences(self.pieces[:done]):
            raise UserError(
                f"state_path={self.path} is of another text: its first {done} sequences must be those of token_ids "
                "(cut by sequence_length and num_tokens); give another state_path"
            )
        num_layers, read = int(self.fingerprint["num_layers"]), sum(len(p) for p in self.pieces[:done])
        key_dim = int(self.fingerprint["num_kv_heads"]) * int(self.fingerprint["head_dim"])
        moments = []
        for layer in range(num_layers):
            prefix = f"layers.{layer}."
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            try:
                made = StreamingMoments.from_state(own, layer=layer)
            except UserError as error:
                raise UserError(f"state_path={self.path} is damaged: {error}") from error
            if (made.key_dim, made.num_tokens, made.uncentred) != (key_dim, read, self.uncentred):
                raise UserError(
                    f"state_path={self.path} is damaged: layer {layer} must have {key_dim} dimensions, {read} tokens, "
                    f"got {made.key_dim}, {made.num_tokens}"
                )
            moments.append(made)
        return moments, done
