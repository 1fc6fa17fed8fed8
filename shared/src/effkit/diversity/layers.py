"""How different the tokens of pictures are after each of some layers of any model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effkit.diversity.measures import MEASURES
from effkit.diversity.tokens import as_tokens
from effkit.errors import UserError, choose
from effkit.watching import evaluating, hooked

__all__ = ["diversity_by_layer"]


def _mask_of(images: Any, mask: Tensor | None) -> Tensor | None:
    """The mask given, or that of a NaFlex batch."""
    if mask is None and isinstance(images, Mapping):
        mask = images.get("patch_valid")
    if mask is not None and (mask.ndim != 2 or mask.dtype != torch.bool):
        raise UserError(f"mask must be booleans (pictures, tokens), got {tuple(mask.shape)} of {mask.dtype}")
    return mask


def _valid(tokens: Tensor, mask: Tensor | None, prefix: int, keep_prefix: bool, name: str) -> Tensor:
    """Which tokens count, ``(B, N)``."""
    batch, count, _ = tokens.shape
    valid = torch.ones(batch, count, dtype=torch.bool)
    if mask is not None:
        if len(mask) != batch or mask.shape[1] not in (count, count - prefix):
            raise UserError(f"mask has the shape {tuple(mask.shape)}, {name} puts out {batch} x {count} tokens")
        valid[:, count - mask.shape[1] :] = mask.cpu()
    if not keep_prefix:
        valid[:, :prefix] = False
    return valid


def _outliers(tokens: Tensor, valid: Tensor, ratio: float) -> Tensor:
    """Valid tokens whose norm is more than ``ratio`` times the median of the valid ones, ``(B, N)``."""
    norms = tokens.norm(dim=-1)
    medians = torch.stack(
        [
            row[keep].median() if keep.any() else row.new_tensor(torch.inf)
            for row, keep in zip(norms, valid, strict=True)
        ]
    )
    return valid & (norms > ratio * medians.unsqueeze(1))


def diversity_by_layer(
    model: nn.Module,
    images: Tensor | Mapping[str, Tensor],
    layers: Sequence[str],
    metrics: Sequence[str] | None = None,
    *,
    mask: Tensor | None = None,
    prefix_tokens: bool = True,
    outlier_ratio: float = 4.0,
    drop_outliers: bool = False,
) -> list[dict[str, Any]]:
    """Measure how different tokens are after each of some layers of a model, which stays as it is.

    More paths do not make tokens more different by themselves: absolute, relative and directional measures disagree,
    so all are given.

    Args:
        model: The model; runs in evaluation mode without gradients.
        images: What its ``forward`` takes: pictures ``(B, C, H, W)``, or a NaFlex batch (whose padding is left out).
        layers: Names of modules that put out tokens or maps, see :func:`~effkit.diversity.tokens.as_tokens`.
        metrics: Keys of :data:`~effkit.diversity.measures.MEASURES`; all if not given.
        mask: Tokens that count, ``(B, N)``, with or without the class token and registers.
        prefix_tokens: Whether class tokens and registers count.
        outlier_ratio: Tokens with a norm above this multiple of the picture's median are outliers (artefacts that
            distort every measure); they are counted in each row.
        drop_outliers: Leave them out.

    Returns:
        One row a layer, in the order of the model: ``layer``, the measures (means over pictures), ``norm`` (the median
        token's), ``tokens`` that counted and ``outliers`` (both per picture).

    Raises:
        UserError: If a name is not known, the mask does not fit, or outputs are no tokens.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> [row["layer"] for row in diversity_by_layer(model, torch.rand(2, 3, 224, 224), ["blocks.0", "blocks.1"])]
        ['blocks.0', 'blocks.1']
    """
    wanted = [choose("metrics", name, MEASURES) for name in (MEASURES if metrics is None else metrics)]
    if not outlier_ratio > 1:
        raise UserError(f"outlier_ratio must be above 1, got {outlier_ratio}")
    names = list(layers)
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    mask = _mask_of(images, mask)
    modules = dict(model.named_modules())
    rows: dict[str, dict[str, Any]] = {}

    def hook(name: str) -> Any:
        def measure(module: nn.Module, _args: Any, output: Any) -> None:
            tokens = as_tokens(modules[name], output, name).detach().double().cpu()
            valid = _valid(tokens, mask, prefix, prefix_tokens, name)
            strange = _outliers(tokens, valid, outlier_ratio)
            counted = valid & ~strange if drop_outliers else valid
            kept = [picture[keep] for picture, keep in zip(tokens, counted, strict=True) if keep.any()]
            if not kept:
                raise UserError(f"{name}: no token is left to measure")
            row: dict[str, Any] = {"layer": name}
            for metric in wanted:
                row[metric] = statistics.fmean(MEASURES[metric](z) for z in kept)
            row["norm"] = statistics.fmean(float(z.norm(dim=1).median()) for z in kept)
            row["tokens"] = statistics.fmean(len(z) for z in kept)
            row["outliers"] = float(strange.sum()) / len(tokens)
            rows[name] = row

        return measure

    with evaluating(model), hooked(model, names, hook):
        model(images)
    return [rows[name] for name in names if name in rows]
