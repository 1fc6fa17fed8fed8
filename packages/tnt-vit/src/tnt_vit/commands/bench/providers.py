"""The networks that are timed, by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from effkit.errors import UserError, choose
from tnt_vit.checkpoints.zoo import VARIANTS, create_model
from tnt_vit.inference.optimize import optimize_for_inference

__all__ = ["ORDERS", "PROVIDERS", "build_provider"]

PROVIDERS = {
    "ours": "tnt_vit rewritten by optimize_for_inference",
    "ours_words_first": "the same, words run through all layers first (R1)",
    "ours_layers": "the same, words and sentences layer by layer",
    "ours_module": "tnt_vit.TNT, the trainable module",
    "timm": "timm's TNT with the same weights",
    "deit": "timm's plain ViT of the same outer size",
}
ORDERS: dict[str, Any] = {"ours": "auto", "ours_words_first": "words_first", "ours_layers": "layers"}
"""Providers that only predict, and in which order."""
_PEER_VIT = {192: "deit_tiny_patch16_224", 384: "deit_small_patch16_224"}


def build_provider(provider: str, variant: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """A provider's network in evaluation mode; ours and timm's share their weights (random, seeded).

    Args:
        provider: A key of :data:`PROVIDERS`.
        variant: A key of :data:`tnt_vit.checkpoints.zoo.VARIANTS`.
        device: Where to put it.
        dtype: Type of weights and pictures.
        seed: Of the weights.

    Raises:
        ValueError: If the provider is unknown or has no such variant.
    """
    import timm

    choose("providers", provider, list(PROVIDERS))
    torch.manual_seed(seed)
    model: Any = create_model(variant)
    if provider == "timm":
        if not VARIANTS[variant].hub:
            raise UserError(
                f"timm has no {variant}; leave 'timm' out of providers or use model=tnt_s, tnt_b or tnt_s_legacy"
            )
        peer = timm.create_model(variant)
        peer.load_state_dict(model.state_dict())
        model = peer
    elif provider == "deit":
        width = model.embed_dim
        if width not in _PEER_VIT or model.img_size != (224, 224):
            raise UserError(f"there is no DeiT of width {width} for {model.img_size}; leave 'deit' out of providers")
        model = timm.create_model(_PEER_VIT[width])
    model = model.to(device=device, dtype=dtype).eval()
    if provider in ORDERS:
        model = optimize_for_inference(model, order=ORDERS[provider])
    return model
