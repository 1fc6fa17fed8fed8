"""How different the tokens of pictures are after each block: :func:`diversity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from augshortcut.metrics.capture import block_names
from effkit.diversity import diversity_by_layer

__all__ = ["diversity"]


def diversity(
    model: nn.Module,
    images: Tensor | Mapping[str, Tensor],
    metrics: Sequence[str] | None = None,
    *,
    layers: Sequence[str] | None = None,
    mask: Tensor | None = None,
    prefix_tokens: bool = True,
    outlier_ratio: float = 4.0,
    drop_outliers: bool = False,
) -> list[dict[str, Any]]:
    """Measure how different tokens are after each block of any timm model, which stays as it is.

    This is :func:`effkit.diversity.diversity_by_layer`, which knows no blocks by itself.

    Args:
        model: The model.
        images: Pictures ``(B, C, H, W)``, or a NaFlex batch.
        metrics: See there, as the four after ``layers``.
        layers: Names of modules; the transformer blocks if not given.
        mask: Tokens that count, ``(B, N)``.
        prefix_tokens: Whether class tokens and registers count.
        outlier_ratio: From which norm a token is an outlier.
        drop_outliers: Leave them out.

    Returns:
        One row a layer, in the order of the model.

    Raises:
        UserError: If a name is not known, the mask does not fit, or outputs are no tokens.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2)
        >>> [row["layer"] for row in diversity(model, torch.rand(2, 3, 224, 224))]
        ['blocks.0', 'blocks.1']
    """
    return diversity_by_layer(
        model,
        images,
        block_names(model, layers),
        metrics,
        mask=mask,
        prefix_tokens=prefix_tokens,
        outlier_ratio=outlier_ratio,
        drop_outliers=drop_outliers,
    )
