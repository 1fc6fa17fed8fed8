"""How widely attention is spread, block by block: entropy of its weights, and how far off the places are it looks at.

Weights are seen where they pass, in the calls of softmax, matrix product and fused attention; the network stays as it
is. Counted is only what is plainly attention of a block's tokens: softmax over keys that values are multiplied with as
it is. Attention over channels (XCiT), mixed heads (CaiT), gated positions (ConViT), or kernels that show nothing
(`nn.MultiheadAttention`) leave their block out.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from effkit.diversity import as_tokens
from effkit.watching import evaluating, hooked
from tnt_vit.survey.grid import places, side_of
from tnt_vit.survey.models import block_names

__all__ = [
    "attention_by_block",
    "attention_distance",
    "attention_entropy",
    "attention_seen",
    "fused_weights",
    "uniform_entropy",
    "windows_of",
]

_PRODUCTS = ("matmul", "__matmul__", "bmm")
_HIDDEN = 1e-35  # a weight below was masked, as Swin does by subtracting 100 where shifted windows join far places


def attention_entropy(weights: Tensor) -> float:
    """Mean entropy of rows ``(..., keys)`` that sum to one, in nats; ``log(keys)`` if attention is uniform."""
    return float(-torch.special.xlogy(weights, weights).sum(dim=-1).mean())


def uniform_entropy(weights: Tensor) -> float:
    """What :func:`attention_entropy` would be if each query attended to all keys alike that are not hidden from it."""
    return float((weights > _HIDDEN).sum(dim=-1).double().log().mean())


def attention_distance(weights: Tensor, prefix: int = 0, windows: int = 1) -> float | None:
    """Mean distance between a query's place and those it attends to (Dosovitskiy et al. 2021), class tokens left out.

    Args:
        weights: ``(..., queries, keys)``; places in reading order. Keys may stand for larger cells, as where pyramids
            attend to a smaller map.
        prefix: Class tokens of the network, see :func:`tnt_vit.survey.grid.places`.
        windows: How many windows share the picture; 1 if all places attend to all.

    Returns:
        In sides of the picture; none if the tokens are no square.
    """
    across = side_of(windows)
    queries, keys = (places(count, prefix if windows == 1 else 0) for count in weights.shape[-2:])
    if across is None or queries is None or keys is None:
        return None
    weights = weights[..., queries[0] :, keys[0] :]
    shares = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-300)
    apart = torch.cdist(_centres(queries[1], weights), _centres(keys[1], weights), compute_mode=_EXACT)
    return float((shares * apart).sum(dim=-1).mean()) / across


_EXACT = "donot_use_mm_for_euclid_dist"  # the faster way rounds: a place would be off itself


def _centres(side: int, like: Tensor) -> Tensor:
    """Of the cells of a square of side 1, ``(side^2, 2)``."""
    at = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side
    return torch.cartesian_prod(at, at)


def windows_of(weights: torch.Size, out: torch.Size, batch: int, tokens: int, width: int) -> int | None:
    """Into how many windows attention weights cut the tokens of a picture.

    Args:
        weights: ``(B * windows, heads, queries, keys)``, ``(B, heads, windows, ...)``, ``(B, windows, heads, ...)``, or
            ``(B * heads, queries, keys)`` without windows.
        out: Shape of weights times values.
        batch: Pictures.
        tokens: That the block puts out for each.
        width: Of these tokens.

    Returns:
        None if the rows are not each token's once for every head, or may as well be channels.
    """
    if len(weights) < 3:
        return None
    *lead, queries, keys = weights
    windows = tokens // queries
    if windows * queries != tokens or side_of(windows) is None:
        return None
    if windows > 1 and (queries != keys or math.prod(out) != batch * tokens * width):
        return None
    heads = math.prod(lead) // (batch * windows)
    if queries == keys and heads * queries == width and out[-1] == tokens:
        return None  # width = heads * queries: rows may be channels, and what they weigh tokens
    plain = {
        3: windows == 1 and lead[0] == batch * heads,
        4: lead[0] == batch * windows,
        5: lead[0] == batch and windows in lead[1:],
    }
    return windows if plain.get(len(weights), False) else None


def fused_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Weights ``(..., queries, keys)`` that torch's ``scaled_dot_product_attention`` applies without showing them."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        hidden = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if hidden else scores + attn_mask
    return scores.softmax(dim=-1)


class _Watching(TorchFunctionMode):
    """Attention weights of the block that runs, as they are multiplied with values, and the shape of the product."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.found: list[tuple[Tensor, torch.Size]] = []
        self._soft: dict[tuple[int, torch.Size], Tensor] = {}  # held, so that no other takes their place in memory

    def begin(self, *_: Any) -> None:
        """A block begins."""
        self.inside, self.found, self._soft = True, [], {}

    def end(self) -> list[tuple[Tensor, torch.Size]]:
        """What the block that ends has shown."""
        found, self.inside, self.found, self._soft = self.found, False, [], {}
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.inside:
            return out
        name = getattr(func, "__name__", "")
        if name == "softmax":
            if kwargs.get("dim", args[1] if len(args) > 1 else None) in (-1, out.ndim - 1):
                self._soft[out.data_ptr(), out.shape] = out
        elif name in _PRODUCTS and args and (args[0].data_ptr(), args[0].shape) in self._soft:
            self.found.append((args[0], out.shape))
        elif func is F.scaled_dot_product_attention:
            self.found.append((fused_weights(*args, **kwargs), out.shape))
        return out


@contextlib.contextmanager
def attention_seen(model: nn.Module, blocks: str) -> Iterator[list[dict[str, Any]]]:
    """See the attention of what a network is given inside the block; it stays as it is.

    Args:
        model: The network, to run in evaluation mode.
        blocks: Regular expression of its blocks' names.

    Yields:
        The list that gets a row for each block that shows its attention, see :func:`attention_by_block`.

    Raises:
        UserError: If no block is called so; later, if one with attention puts out no tokens.
    """
    names = block_names(model, blocks)
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    modules = dict(model.named_modules())
    watching = _Watching()
    rows: list[dict[str, Any]] = []

    def ends(name: str) -> Any:
        def look(_module: nn.Module, _args: Any, output: Any) -> None:
            shown = watching.end()
            if not shown:
                return
            batch, tokens, width = as_tokens(modules[name], output, name).shape
            cut = [(weights, windows_of(weights.shape, out, batch, tokens, width)) for weights, out in shown]
            plain = [(weights.detach().double().cpu(), windows) for weights, windows in cut if windows]
            if plain:
                depth = names.index(name) / max(len(names) - 1, 1)
                rows.append({"layer": name, "depth": depth, **_spread(plain, prefix)})

        return look

    with hooked(model, names, lambda name: watching.begin, before=True), hooked(model, names, ends), watching:
        yield rows


def attention_by_block(model: nn.Module, images: Tensor, blocks: str) -> list[dict[str, Any]]:
    """Spread of attention in each block that shows its weights.

    Args:
        model: The network; stays as it is.
        images: ``(B, 3, H, W)``.
        blocks: Regular expression of its blocks' names.

    Returns:
        A row for each such block: ``layer``, ``depth`` (0 for the network's first block, 1 for its last), ``entropy``
        in nats and ``uniform``, that of uniform attention to the keys that are not masked, ``distance`` in sides of the
        picture (see :func:`attention_distance`), ``windows`` and ``keys``; means over pictures, heads and queries, and
        over attentions if a block has several.

    Raises:
        UserError: If no block is called so, or one with attention puts out no tokens.
    """
    with evaluating(model), attention_seen(model, blocks) as rows:
        model(images)
    return rows


def _spread(found: list[tuple[Tensor, int]], prefix: int) -> dict[str, Any]:
    distances = [attention_distance(weights, prefix, windows) for weights, windows in found]
    known = [distance for distance in distances if distance is not None]
    return {
        "entropy": statistics.fmean(attention_entropy(weights) for weights, _ in found),
        "uniform": statistics.fmean(uniform_entropy(weights) for weights, _ in found),
        "distance": statistics.fmean(known) if len(known) == len(found) else None,
        "windows": found[-1][1],
        "keys": found[-1][0].shape[-1],
    }
