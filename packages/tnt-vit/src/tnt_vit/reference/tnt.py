"""TNT written out from the equations, one head and one sentence at a time: slow, and obviously right.

This is the specification that every fast path is tested against. It reads a ``state_dict`` in timm's names, so it
shares no code with :mod:`tnt_vit.model`. Equation numbers are those of the paper; where the official code adds to them
(letters of the list in the package's README) the comments say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Trace", "inner_block_reference", "reference_forward"]

State = Mapping[str, Tensor]


@dataclass
class Trace:
    """Everything a forward pass computes.

    Attributes:
        logits: ``(B, classes)``, or the pooled features if the state has no head.
        tokens: Normalised tokens after the last block, ``(B, n + 1, d)``.
        words: Words after each block, ``(B, n, m, c)``.
        sentences: Tokens after each block, ``(B, n + 1, d)``.
        attention: Outer attention of each block, ``(B, h, n + 1, n + 1)``.
    """

    logits: Tensor
    tokens: Tensor
    words: list[Tensor] = field(default_factory=list)
    sentences: list[Tensor] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)


def _norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(x: Tensor, state: State, name: str) -> Tensor:
    out = x @ state[f"{name}.weight"].T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def _attention(x: Tensor, state: State, name: str, num_heads: int) -> tuple[Tensor, Tensor]:
    """MSA of tokens ``(N, dim)``; returns the tokens and the weights ``(h, N, N)``."""
    dim = x.shape[-1]
    width = dim // num_heads
    qk, v = _linear(x, state, f"{name}.qk"), _linear(x, state, f"{name}.v")
    outs, weights = [], []
    for head in range(num_heads):
        cols = slice(head * width, (head + 1) * width)
        scores = qk[:, :dim][:, cols] @ qk[:, dim:][:, cols].T / width**0.5
        exp = torch.exp(scores - scores.amax(-1, keepdim=True))
        weight = exp / exp.sum(-1, keepdim=True)
        outs.append(weight @ v[:, cols])
        weights.append(weight)
    return _linear(torch.cat(outs, -1), state, f"{name}.proj"), torch.stack(weights)


def _mlp(x: Tensor, state: State, name: str) -> Tensor:
    hidden = _linear(x, state, f"{name}.fc1")
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))  # GELU, exact
    return _linear(hidden, state, f"{name}.fc2")


def inner_block_reference(words: Tensor, state: State, name: str, num_heads: int, eps: float = 1e-5) -> Tensor:
    """Equations 6 and 7 for the words ``(m, c)`` of one sentence; ``name`` is the block's prefix, ``"blocks.0"``."""
    words = words + _attention(_norm(words, state, f"{name}.norm_in", eps), state, f"{name}.attn_in", num_heads)[0]
    return words + _mlp(_norm(words, state, f"{name}.norm_mlp_in", eps), state, f"{name}.mlp_in")


def _embed_words(picture: Tensor, state: State, patch: tuple[int, int], stride: int, legacy: bool) -> list[Tensor]:
    """Equations 5 and 13: words of each sentence, ``n`` tensors ``(m, c)``."""
    weight, bias, pos = state["pixel_embed.proj.weight"], state["pixel_embed.proj.bias"], state["pixel_pos"][0]
    rows, cols = picture.shape[1] // patch[0], picture.shape[2] // patch[1]
    height, width = patch[0] // stride, patch[1] // stride
    whole = F.conv2d(picture[None], weight, bias, stride=stride, padding=3)[0] if legacy else None
    sentences = []
    for row in range(rows):
        for col in range(cols):
            if whole is not None:
                maps = whole[:, row * height : (row + 1) * height, col * width : (col + 1) * width]
            else:  # (a) the convolution sees nothing beyond its own patch
                crop = picture[:, row * patch[0] : (row + 1) * patch[0], col * patch[1] : (col + 1) * patch[1]]
                maps = F.conv2d(crop[None], weight, bias, stride=stride, padding=3)[0]
            sentences.append((maps + pos).flatten(1).T)
    return sentences


def _picture(picture: Tensor, state: State, depth: int, args: dict) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    eps, legacy = args["eps"], args["legacy"]
    words = _embed_words(picture, state, args["patch_size"], args["inner_stride"], legacy)
    flat = torch.stack([w.flatten() for w in words])
    # (b) the first sentence tokens come from the words, between two norms
    first = _norm(_linear(_norm(flat, state, "norm1_proj", eps), state, "proj"), state, "norm2_proj", eps)
    tokens = torch.cat([state["cls_token"][0], first]) + state["patch_pos"][0]  # equation 12
    all_words, all_tokens, all_attention = [], [], []
    for i in range(depth):
        name = f"blocks.{i}"
        if f"{name}.norm_in.weight" in state:  # (i) plain ViT blocks have no inner part
            words = [inner_block_reference(w, state, name, args["inner_num_heads"], eps) for w in words]
            if legacy:
                add = torch.stack([_norm(w, state, f"{name}.norm1_proj", eps).flatten() for w in words])
                add = _linear(add, state, f"{name}.proj")
            else:  # (c) norms over the flattened words and after the projection
                add = _norm(torch.stack([w.flatten() for w in words]), state, f"{name}.norm1_proj", eps)
                add = _norm(_linear(add, state, f"{name}.proj"), state, f"{name}.norm2_proj", eps)
            tokens = torch.cat([tokens[:1], tokens[1:] + add])  # equation 8; the class token receives nothing
        mixed, weights = _attention(
            _norm(tokens, state, f"{name}.norm_out", eps), state, f"{name}.attn_out", args["num_heads"]
        )
        tokens = tokens + mixed  # equation 9
        update = _mlp(_norm(tokens, state, f"{name}.norm_mlp", eps), state, f"{name}.mlp")
        if f"{name}.se_layer.fc.1.weight" in state:  # (h) channel gate
            gate = _norm(update.mean(0, keepdim=True), state, f"{name}.se_layer.fc.0", eps)
            gate = torch.relu(_linear(gate, state, f"{name}.se_layer.fc.1"))
            update = update + update * torch.tanh(_linear(gate, state, f"{name}.se_layer.fc.3"))
        tokens = tokens + update  # equation 10
        all_words.append(torch.stack(words))
        all_tokens.append(tokens)
        all_attention.append(weights)
    return all_words, all_tokens, all_attention


def reference_forward(
    state: State,
    x: Tensor,
    *,
    patch_size: tuple[int, int] = (16, 16),
    inner_stride: int = 4,
    num_heads: int = 6,
    inner_num_heads: int = 4,
    legacy: bool = False,
    global_pool: str = "token",
    eps: float = 1e-5,
) -> Trace:
    """Run TNT picture by picture from a ``state_dict`` in timm's names.

    Args:
        state: Weights; the depth, widths and which blocks have an inner part are read from the keys.
        x: Pictures ``(B, in_chans, H, W)``.
        patch_size: Height and width of a sentence in pixels.
        inner_stride: Distance between words in pixels.
        num_heads: Heads among sentences.
        inner_num_heads: Heads among words.
        legacy: The first public variant.
        global_pool: ``token`` or ``avg``.
        eps: Of the layer norms.

    Returns:
        A :class:`Trace`.
    """
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    args = {
        "patch_size": patch_size,
        "inner_stride": inner_stride,
        "num_heads": num_heads,
        "inner_num_heads": inner_num_heads,
        "legacy": legacy,
        "eps": eps,
    }
    pictures = [_picture(picture, state, depth, args) for picture in x]
    words, sentences, attention = (
        [torch.stack([p[kind][i] for p in pictures]) for i in range(depth)] for kind in range(3)
    )
    tokens = _norm(sentences[-1], state, "norm", eps)
    pooled = tokens[:, 0] if global_pool == "token" else tokens[:, 1:].mean(1)
    logits = _linear(pooled, state, "head") if "head.weight" in state else pooled
    return Trace(logits, tokens, words, sentences, attention)
