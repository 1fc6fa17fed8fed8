"""How different tokens are inside a network, block by block, and how alike blocks and networks are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from effkit.diversity import as_tokens, diversity_by_layer
from effkit.errors import UserError
from effkit.watching import evaluating, hooked
from tnt_vit.survey.grid import places, side_of
from tnt_vit.survey.models import block_names

__all__ = ["GRID", "METRICS", "block_features", "cka_matrix", "diversity", "in_reading_order", "linear_cka", "on_grid"]

METRICS = ("cosine", "relative_residual", "effective_rank")
GRID = 7  # places a side on which blocks and networks of different resolutions are compared


def diversity(model: nn.Module, images: Tensor, blocks: str) -> list[dict[str, Any]]:
    """How different the tokens of a picture are after each block; class tokens count.

    Args:
        model: The network; stays as it is.
        images: ``(B, 3, H, W)``.
        blocks: Regular expression of its blocks' names.

    Returns:
        One row a block: ``layer``, mean pairwise ``cosine``, ``relative_residual`` (distance to equal tokens),
        ``effective_rank``, and what :func:`effkit.diversity.diversity_by_layer` says beside.
    """
    return diversity_by_layer(model, images, block_names(model, blocks), METRICS)


def on_grid(tokens: Tensor, prefix: int = 0, grid: int = GRID) -> Tensor:
    """Tokens averaged over a grid of places, class tokens left out.

    Args:
        tokens: ``(B, N, d)`` in reading order of a square.
        prefix: How many class tokens a network says it has, see :func:`tnt_vit.survey.grid.places`.
        grid: Places a side.

    Returns:
        ``(B grid^2, d)``.

    Raises:
        UserError: If no square is left.
    """
    batch, count, width = tokens.shape
    found = places(count, prefix)
    if found is None:
        raise UserError(f"{count} tokens are no square of places")
    extra, side = found
    maps = tokens[:, extra:].transpose(1, 2).reshape(batch, width, side, side)
    return adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2).reshape(-1, width)


def in_reading_order(output: Any, tokens: Tensor) -> Tensor:
    """Tokens in the order of the picture, where a block puts them out in windows.

    Args:
        output: What a block puts out; ``(B, windows, places, d)`` as of NesT is told from ``(B, H, W, d)`` by two
            different lengths, as pictures are squares.
        tokens: The same as ``(B, N, d)``.
    """
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] == output.shape[2]:
        return tokens
    batch, windows, inside, width = output.shape
    across, side = side_of(windows), side_of(inside)
    if across is None or side is None or tokens.shape != (batch, windows * inside, width):
        return tokens
    return output.reshape(batch, across, across, side, side, width).transpose(2, 3).reshape(tokens.shape)


def block_features(model: nn.Module, images: Tensor, blocks: str) -> dict[str, Tensor]:
    """What each block puts out, on one grid of places for all networks.

    Args:
        model: The network; stays as it is.
        images: ``(B, 3, H, W)``.
        blocks: Regular expression of its blocks' names.

    Returns:
        Block to ``(B grid^2, d)``.

    Raises:
        UserError: If a block puts out no square of tokens.
    """
    names = block_names(model, blocks)
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    modules = dict(model.named_modules())
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            tokens = in_reading_order(output, as_tokens(modules[name], output, name))
            found[name] = on_grid(tokens.detach().float().cpu(), prefix)

        return keep

    with evaluating(model), hooked(model, names, hook):
        model(images)
    return {name: found[name] for name in names if name in found}


def _gram(x: Tensor) -> Tensor:
    gram = x.double() @ x.double().T
    return gram.fill_diagonal_(0)


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    """Unbiased estimate from Gram matrices with an empty diagonal (Song et al. 2012, equation 5)."""
    n = len(k)
    whole = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return whole / (n * (n - 3))


def linear_cka(x: Tensor, y: Tensor) -> float:
    """How alike two sets of features are, whatever their rotation and scale (Kornblith et al. 2019, linear kernel).

    The estimate is the unbiased one: with fewer samples than columns the plain one calls all features alike.

    Args:
        x: ``(n, d)``, the same n samples in the same order as in `y`; n at least 4.
        y: ``(n, e)``.

    Returns:
        1 for equal features, about 0 for independent ones (it may be slightly below); NaN for constant ones.

    Raises:
        UserError: If the samples are not as many on both sides, or too few.
    """
    if len(x) != len(y) or len(x) < 4:
        raise UserError(f"CKA needs the same samples on both sides, at least 4, got {len(x)} and {len(y)}")
    k, m = _gram(x - x.mean(0)), _gram(y - y.mean(0))
    own = _hsic(k, k) * _hsic(m, m)
    return float(_hsic(k, m) / own.sqrt()) if own > 0 else math.nan


def cka_matrix(rows: Sequence[Tensor] | Mapping[str, Tensor]) -> list[list[float]]:
    """CKA of each with each, see :func:`linear_cka`."""
    members = list(rows.values()) if isinstance(rows, Mapping) else list(rows)
    grams = [_gram(x - x.mean(0)) for x in members]
    own = [_hsic(g, g) for g in grams]

    def alike(i: int, j: int) -> float:
        scale = own[i] * own[j]
        return float(_hsic(grams[i], grams[j]) / scale.sqrt()) if scale > 0 else math.nan

    half = {(i, j): alike(i, j) for i in range(len(grams)) for j in range(i + 1)}
    return [[half[max(i, j), min(i, j)] for j in range(len(grams))] for i in range(len(grams))]
