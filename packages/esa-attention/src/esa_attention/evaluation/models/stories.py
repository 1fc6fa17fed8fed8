"""Reader of the flat binary model format of llama2.c, for small trained models such as stories260K.

Layout, little-endian: seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a negative
vocab_size says that the output layer has weights of its own), then float32: token embedding, attention norms, wq, wk,
wv, wo, feed-forward norms, w1, w2, w3, final norm, two RoPE tables that nothing reads any more, and the output layer if
it has weights of its own. Each name is one block over all layers.

llama2.c rotates neighbouring dimensions (2i, 2i+1); transformers rotates (i, i + D/2). Reordering the rows of wq and wk
within every head turns one into the other exactly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.evaluation.models.blank import blank_model, placed

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["Header", "interleaved_to_halves", "load_llama2c", "read_header"]

_HEADER_BYTES = 28
_NEWER_MAGIC = 0x616B3432  # "ak42": versions 1 and 2 of the format begin with it
_LARGEST = 1 << 24  # no field of a real model comes near; random bytes do


@dataclass(frozen=True)
class Header:
    """The seven numbers at the head of a file; ``shared`` says that the output layer reuses the embedding."""

    dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    seq_len: int
    shared: bool

    @property
    def head_dim(self) -> int:
        """Dimensions of one head."""
        return self.dim // self.num_heads

    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Shape of every float32 block of the file, in file order."""
        layers, dim, hidden, kv_dim = self.num_layers, self.dim, self.hidden_dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocab_size, dim),
            "attention_norm": (layers, dim),
            "wq": (layers, dim, dim),
            "wk": (layers, kv_dim, dim),
            "wv": (layers, kv_dim, dim),
            "wo": (layers, dim, dim),
            "ffn_norm": (layers, dim),
            "w1": (layers, hidden, dim),
            "w2": (layers, dim, hidden),
            "w3": (layers, hidden, dim),
            "final_norm": (dim,),
            "rope_cos": (self.seq_len, self.head_dim // 2),
            "rope_sin": (self.seq_len, self.head_dim // 2),
        }
        return shapes if self.shared else {**shapes, "output": (self.vocab_size, dim)}

    @property
    def num_bytes(self) -> int:
        """Size of the whole file."""
        return _HEADER_BYTES + 4 * sum(int(np.prod(shape)) for shape in self.blocks().values())

    def to_config(self) -> LlamaConfig:
        """The transformers configuration with llama2.c's constants: RoPE base 10,000, norm epsilon 1e-5."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.dim,
            intermediate_size=self.hidden_dim,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            max_position_embeddings=self.seq_len,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=self.shared,
            bos_token_id=1,
            eos_token_id=2,
        )


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the head and the size of a llama2.c model file.

    Args:
        path: For instance ``stories260K.bin``.

    Raises:
        UserError: If the file is missing, is not of this format, or is shorter or longer than its head says.
    """
    name = f"model file {os.fspath(path)!r}"
    try:
        size = Path(path).stat().st_size
        with open(path, "rb") as file:
            raw = file.read(_HEADER_BYTES)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error
    if len(raw) < _HEADER_BYTES:
        raise UserError(f"{name} is no llama2.c model: it has {size} bytes, the head alone has {_HEADER_BYTES}")
    fields = np.frombuffer(raw, "<i4").tolist()
    if fields[0] == _NEWER_MAGIC:
        raise UserError(f"{name} is of version {fields[1]} of the llama2.c format; export it again with --version 0")
    dim, hidden_dim, num_layers, num_heads, num_kv_heads, vocab_size, seq_len = fields
    shared, vocab_size = vocab_size > 0, abs(vocab_size)
    sizes = (dim, hidden_dim, num_layers, num_heads, num_kv_heads, vocab_size, seq_len)
    header = Header(dim, hidden_dim, num_layers, num_heads, num_kv_heads, vocab_size, seq_len, shared)
    plausible = all(0 < n <= _LARGEST for n in sizes) and header.num_heads % header.num_kv_heads == 0
    if not plausible or header.dim % (2 * header.num_heads):
        raise UserError(f"{name} is no llama2.c model: its head reads {fields}")
    if size != header.num_bytes:
        word = "truncated" if size < header.num_bytes else "too long"
        raise UserError(f"{name} is {word}: it has {size} bytes, its head asks for {header.num_bytes}")
    return header


def interleaved_to_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of a query or key projection from rotary pairs (2i, 2i+1) to pairs (i, i + D/2).

    Args:
        weight: ``(..., num_heads * D, in_features)`` with ``D`` even.
        num_heads: Heads of this projection.

    Returns:
        The same rows in another order, shape unchanged.
    """
    *lead, rows, columns = weight.shape
    pairs = weight.reshape(*lead, num_heads, rows // num_heads // 2, 2, columns)
    return pairs.transpose(-2, -3).reshape(weight.shape)


def load_llama2c(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LlamaForCausalLM:
    """Read a llama2.c model file into a stock transformers Llama.

    Args:
        path: For instance ``stories260K.bin``. It is parsed as plain numbers; nothing in it is executed.
        dtype: Of the weights.
        device: Where they live.

    Returns:
        The model in evaluation mode; its context is ``config.max_position_embeddings``.

    Raises:
        UserError: If the file is missing, not of this format, truncated or too long, or was trained with another RoPE
            base than 10,000.
    """
    from transformers import LlamaForCausalLM

    header = read_header(path)
    numbers = np.memmap(path, dtype="<f4", mode="r", offset=_HEADER_BYTES)
    blocks: dict[str, Tensor] = {}
    start = 0
    for name, shape in header.blocks().items():
        count = int(np.prod(shape))
        blocks[name] = torch.from_numpy(np.array(numbers[start : start + count], dtype=np.float32)).reshape(shape)
        start += count
    model = blank_model(LlamaForCausalLM, header.to_config())
    _check_rope(blocks, model.model.rotary_emb.inv_freq, path)
    model.load_state_dict(_to_transformers(blocks, header), strict=True)
    return placed(model, device, dtype)


def _check_rope(blocks: dict[str, Tensor], inv_freq: Tensor, path: str | os.PathLike[str]) -> None:
    """The tables are not used, but they tell the RoPE base; exporters that dropped them wrote zeros."""
    cos, sin = blocks["rope_cos"], blocks["rope_sin"]
    if cos.any() and len(cos) > 1 and not torch.allclose(torch.atan2(sin[1], cos[1]), inv_freq, rtol=1e-2, atol=1e-4):
        raise UserError(f"model file {os.fspath(path)!r} has RoPE tables of another base than 10000; not supported")


def _to_transformers(blocks: dict[str, Tensor], header: Header) -> dict[str, Tensor]:
    query = interleaved_to_halves(blocks["wq"], header.num_heads)
    key = interleaved_to_halves(blocks["wk"], header.num_kv_heads)
    stacked = {
        "input_layernorm": blocks["attention_norm"],
        "self_attn.q_proj": query,
        "self_attn.k_proj": key,
        "self_attn.v_proj": blocks["wv"],
        "self_attn.o_proj": blocks["wo"],
        "post_attention_layernorm": blocks["ffn_norm"],
        "mlp.gate_proj": blocks["w1"],
        "mlp.down_proj": blocks["w2"],
        "mlp.up_proj": blocks["w3"],
    }
    state = {f"model.layers.{i}.{name}.weight": b[i] for name, b in stacked.items() for i in range(header.num_layers)}
    state["model.embed_tokens.weight"] = blocks["embedding"]
    state["model.norm.weight"] = blocks["final_norm"]
    state["lm_head.weight"] = blocks["embedding"] if header.shared else blocks["output"]
    return state
