"""PyramidTNT written out sentence by sentence: slow, and obviously right.

Reads a ``state_dict`` in the official names and shares no code with :mod:`tnt_vit.pyramid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["pyramid_reference"]

State = Mapping[str, Tensor]
EPS = 1e-5
SIDE = 4  # words down and across in a sentence


def _norm(x: Tensor, state: State, name: str) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + EPS) * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(x: Tensor, state: State, name: str) -> Tensor:
    out = x @ state[f"{name}.weight"].T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def _mlp(x: Tensor, state: State, name: str) -> Tensor:
    hidden = _linear(x, state, f"{name}.fc1")
    return _linear(0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)), state, f"{name}.fc2")


def _unit(x: Tensor, state: State, name: str, first: int, stride: int) -> Tensor:
    """Convolution, batch norm by its running statistics, ReLU."""
    x = F.conv2d(x, state[f"{name}.{first}.weight"], state[f"{name}.{first}.bias"], stride=stride, padding=1)
    norm = f"{name}.{first + 1}"
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + EPS)
    shift = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return torch.relu(x * scale[:, None, None] + shift[:, None, None])


def _attention(x: Tensor, keys: Tensor, state: State, name: str, heads: int, bias: Tensor | None) -> Tensor:
    """Tokens ``(N, dim)`` look at keys ``(K, dim)``; ``bias`` ``(h, N, K)`` is added to the scores."""
    dim = x.shape[1]
    width = dim // heads
    q, kv = _linear(x, state, f"{name}.q"), _linear(keys, state, f"{name}.kv")
    outs = []
    for head in range(heads):
        cols = slice(head * width, (head + 1) * width)
        scores = q[:, cols] @ kv[:, :dim][:, cols].T / width**0.5
        exp = torch.exp(scores if bias is None else scores + bias[head])
        outs.append(exp / exp.sum(1, keepdim=True) @ kv[:, dim:][:, cols])
    return _linear(torch.cat(outs, 1), state, f"{name}.proj")


def _pool(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Means over cells of ``side`` by ``side`` sentences, row by row."""
    image = x.reshape(*grid, -1)
    cells = [
        image[r : r + side, c : c + side].reshape(side * side, -1).mean(0)
        for r in range(0, grid[0], side)
        for c in range(0, grid[1], side)
    ]
    return torch.stack(cells)


def _block(
    words: list[Tensor], tokens: Tensor, grid: tuple[int, int], state: State, name: str, inner_heads: int, bias: Tensor
) -> tuple[list[Tensor], Tensor]:
    if f"{name}.inner_norm1.weight" in state:
        new = []
        for w in words:  # norms over all words of the sentence at once
            x = _norm(w.flatten(), state, f"{name}.inner_norm1").view_as(w)
            w = w + _attention(x, x, state, f"{name}.inner_attn", inner_heads, None)
            x = _norm(w.flatten(), state, f"{name}.inner_norm2").view_as(w)
            new.append(w + _mlp(x, state, f"{name}.inner_mlp"))
        words = new
        flat = _norm(torch.stack([w.flatten() for w in words]), state, f"{name}.proj_norm1")
        tokens = tokens + _norm(_linear(flat, state, f"{name}.proj"), state, f"{name}.proj_norm2")
    x = _norm(tokens, state, f"{name}.outer_norm1")
    keys = x
    if f"{name}.outer_attn.linear.weight" in state:
        side = round((len(x) / bias.shape[2]) ** 0.5)
        keys = _linear(_pool(x, grid, side), state, f"{name}.outer_attn.linear")
        keys = _norm(keys, state, f"{name}.outer_attn.norm")
    tokens = tokens + _attention(x, keys, state, f"{name}.outer_attn", bias.shape[0], bias)
    return words, tokens + _mlp(_norm(tokens, state, f"{name}.outer_norm2"), state, f"{name}.outer_mlp")


def _merge(
    words: list[Tensor], tokens: Tensor, grid: tuple[int, int], state: State, i: int
) -> tuple[list[Tensor], Tensor, tuple[int, int]]:
    """From a stage to the next: four sentences become one; what an odd grid lacks is zero."""
    rows, columns = (grid[0] + 1) // 2, (grid[1] + 1) // 2
    image = _norm(tokens, state, f"sentence_merges.{i}.norm").T.reshape(1, -1, *grid)
    name = f"sentence_merges.{i}.conv.0"
    image = F.conv2d(image, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
    name, merged = f"word_merges.{i}.conv.0", []
    for row in range(rows):
        for col in range(columns):
            board = torch.zeros(2 * SIDE, 2 * SIDE, words[0].shape[1], dtype=tokens.dtype)
            for r in range(2):
                for c in range(2):
                    if 2 * row + r < grid[0] and 2 * col + c < grid[1]:
                        word = words[(2 * row + r) * grid[1] + 2 * col + c]
                        cell = _norm(word, state, f"word_merges.{i}.norm").reshape(SIDE, SIDE, -1)
                        board[r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE] = cell
            out = F.conv2d(
                board.permute(2, 0, 1)[None], state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1
            )
            merged.append(out[0].flatten(1).T)
    return merged, image[0].flatten(1).T, (rows, columns)


def pyramid_reference(state: State, x: Tensor, inner_num_heads: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Run PyramidTNT picture by picture, in evaluation mode, at the picture size its tables are for.

    Args:
        state: Weights in the official names; depths, widths and heads among sentences are read from them.
        x: Pictures ``(B, in_chans, H, W)``.
        inner_num_heads: Heads among words of each stage, which no shape tells.

    Returns:
        Logits ``(B, classes)`` and the sentences after each stage, ``(B, n, d)``.
    """
    logits, stages = [], []
    for picture in x:
        common = _unit(picture[None], state, "patch_embed.common_conv", 0, 2)
        image = _unit(common, state, "patch_embed.inner_convs", 0, 1)[0]
        grid = (image.shape[1] // SIDE, image.shape[2] // SIDE)
        words = [
            image[:, r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE].flatten(1).T + state["inner_pos"][0]
            for r in range(grid[0])
            for c in range(grid[1])
        ]
        for first, stride in ((0, 2), (3, 2), (6, 1)):
            common = _unit(common, state, "patch_embed.outer_convs", first, stride)
        tokens = common[0].flatten(1).T + state["outer_pos"][0]
        found = []
        for i, inner_heads in enumerate(inner_num_heads):
            if i > 0:
                words, tokens, grid = _merge(words, tokens, grid, state, i - 1)
            bias = state[f"stages.{i}.relative_pos"][0]
            j = 0
            while f"stages.{i}.blocks.{j}.outer_norm1.weight" in state:
                words, tokens = _block(words, tokens, grid, state, f"stages.{i}.blocks.{j}", inner_heads, bias)
                j += 1
            found.append(tokens)
        stages.append(found)
        logits.append(_linear(_norm(tokens, state, "norm").mean(0), state, "head"))  # no class token: their mean
    return torch.stack(logits), [torch.stack([s[i] for s in stages]) for i in range(len(inner_num_heads))]
