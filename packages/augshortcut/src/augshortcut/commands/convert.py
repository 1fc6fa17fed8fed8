"""Translate a checkpoint of the official code, and show that the result computes the same."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.checkpoints.files import load_checkpoint, save_checkpoint
from augshortcut.checkpoints.official import convert_official
from augshortcut.commands.build import plain
from augshortcut.injection.augment import augment
from augshortcut.models.zoo import create_model
from augshortcut.reference import official_logits
from effkit.arguments import named_path
from effkit.checkpoints import SUFFIXES, check_fit, read_checkpoint
from effkit.errors import UserError
from effkit.outputs import check_output_file
from effkit.report import Report, Table

__all__ = ["convert_checkpoint", "model_for", "run"]

_BASES = {192: "deit_tiny_patch16_224", 384: "deit_small_patch16_224", 768: "deit_base_patch16_224"}
_PARITY = 1e-9  # in float64, relative to the largest logit


def model_for(state: dict[str, Tensor]) -> nn.Module:
    """A plain ViT of the sizes of some weights: heads of 64, as in all of the official code.

    Raises:
        UserError: If they are no ViT's.
    """
    for name in ("patch_embed.proj.weight", "pos_embed", "head.weight"):
        if name not in state:
            raise UserError(f"the weights hold no ViT: {name} is missing")
    dim, channels, patch, _ = state["patch_embed.proj.weight"].shape
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    if side * side + 1 != state["pos_embed"].shape[1]:
        raise UserError(f"pos_embed has {state['pos_embed'].shape[1]} rows, which are no square grid and a class token")
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    sizes: dict[str, Any] = {"embed_dim": dim, "depth": depth, "num_heads": max(dim // 64, 1), "patch_size": patch}
    classes = state["head.weight"].shape[0]
    base = _BASES.get(dim, "deit_small_patch16_224")
    return create_model(base, **sizes, img_size=side * patch, in_chans=channels, num_classes=classes)


def convert_checkpoint(src: str | os.PathLike[str], dst: str | os.PathLike[str]) -> Report:
    """Convert a checkpoint of the official code to timm's names and ours.

    Args:
        src: The checkpoint, in any of the usual wrappings.
        dst: The result, ``.safetensors``, ``.pth`` or ``.pt``; keeps what was added.

    Returns:
        What was found, and the check; exit code 1 if it failed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of no such layout.
    """
    target = check_output_file("dst", dst, SUFFIXES)
    stored = read_checkpoint(named_path("src", src), expect=lambda name: name.startswith(("blocks.", "cls_token")))
    if target.exists() and target.samefile(stored.path):
        raise UserError(f"dst={str(dst)!r} is the source itself; give another name")
    state, config = convert_official(stored.state)
    model = augment(model_for(state), config)
    check_fit(state, model, src)
    model.load_state_dict(state)
    save_checkpoint(model, target)
    again = model_for(state)
    load_checkpoint(again, target)
    far, size = _distance(stored.state, again, config.residual_scale)
    good = far <= _PARITY * size
    dropped = sum(v.numel() * v.element_size() for k, v in stored.state.items() if k.endswith("index_matrix"))
    rows: list[list[Any]] = [
        ["paths a sub-layer", config.num_paths],
        ["projection", config.projection],
        ["circulant blocks per side", config.num_blocks if config.projection == "circulant" else None],
        ["scale of the residual stream", config.residual_scale],
        ["parameters", sum(p.numel() for p in model.parameters())],
        ["bytes of index tables dropped", dropped],
    ]
    check = Table(
        "Check", ["check", "largest difference", "verdict"],
        [["logits beside the official formulation on the source", far, "match" if good else "differs"]],
        "On a random picture in float64.",
    )  # fmt: skip
    found = Table(f"What {stored.path.name} is", ["what", "value"], rows)
    data = {"config": config.to_dict(), "difference": far, "match": good}
    return Report(
        "augshortcut convert",
        [found, check],
        data=data,
        files=[target],
        lines=[str(stored)],
        exit_code=0 if good else 1,
    )


def _distance(state: dict[str, Tensor], model: Any, scale: float) -> tuple[float, float]:
    x = torch.randn(
        1, state["patch_embed.proj.weight"].shape[1], *model.patch_embed.img_size, dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    with torch.no_grad():
        expected = official_logits({k: v.double() for k, v in state.items()}, x, model.blocks[0].attn.num_heads, scale)
        found = model.double().eval()(x)
    return float((found - expected).abs().max()), float(expected.abs().max())


def run(cfg: Any) -> Report:
    """Do what ``augshortcut convert`` does.

    Args:
        cfg: The composed config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of no such layout.
    """
    return convert_checkpoint(**plain(cfg, "src", "dst"))
