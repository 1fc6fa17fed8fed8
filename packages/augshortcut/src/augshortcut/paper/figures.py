"""The figures of the paper as data; ``rows`` says how each is checked.

"Augmented Shortcuts for Vision Transformers" (NeurIPS 2021), arXiv 2106.15941. ``TABLE2`` is printed (as the picture of
that table in the official README); it is the only table that was at hand. ``EXACT`` was counted by us in the official
design, ``RECIPE`` stands in the official training command. The paper's "FLOPs" are multiply-adds.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EXACT", "RECIPE", "TABLE2", "Comparison", "Exact"]


class Comparison(NamedTuple):
    """A base of Table 2 and its augmented form.

    Attributes:
        name: The base's name there.
        augmented: The other's name.
        base: The base among our models.
        pixels: Side of the pictures.
        top1: ImageNet top-1 of both, percent.
        params: Of both, millions.
        macs: Of both, billions.
        params_off: How far exact counts may lie from the column's, millions: it leaves out position tables and biases
            of paths, and cannot be had from one setting.
        same_network: Whether the column's cost is that of the network as it is public now.
        experiment: Its training, a config.
    """

    name: str
    augmented: str
    base: str
    pixels: int
    top1: tuple[float, float]
    params: tuple[float, float]
    macs: tuple[float, float]
    params_off: float
    same_network: bool
    experiment: str


TABLE2 = (
    Comparison(
        "ViT(DeiT)-S", "Aug-ViT-S", "deit_small_patch16_224", 224,
        (79.8, 80.9), (22.1, 22.2), (4.6, 4.7), 0.2, True, "aug_vit_small",
    ),
    Comparison(
        "ViT(DeiT)-B", "Aug-ViT-B", "deit_base_patch16_224", 224,
        (81.8, 82.4), (86.4, 86.5), (17.6, 17.7), 0.35, True, "aug_vit_base",
    ),
    Comparison(
        "ViT(DeiT)-B, 384", "Aug-ViT-B, 384", "deit_base_patch16_384", 384,
        (83.1, 84.2), (86.4, 86.5), (55.6, 55.8), 0.6, True, "aug_vit_base_384",
    ),
    Comparison(
        "PVT-S", "Aug-PVT-S", "pvt_v1_small", 224,
        (79.8, 80.5), (24.5, 24.6), (3.8, 3.9), 0.2, True, "aug_pvt_small",
    ),
    Comparison(
        "T2T-14", "Aug-T2T-14", "t2t_vit_14", 224,
        (81.5, 82.1), (21.5, 21.6), (5.2, 5.3), 0.2, False, "aug_t2t_14",
    ),
    Comparison(
        "T2T-24", "Aug-T2T-24", "t2t_vit_24", 224,
        (82.3, 83.6), (64.1, 64.2), (14.1, 14.3), 0.2, False, "aug_t2t_24",
    ),
)  # fmt: skip


class Exact(NamedTuple):
    """Parameters, and multiply-adds where the official code's are known."""

    params: int
    macs: float | None = None


# MACs in billions as the official formulation executes them (dense products), rounded to six decimals.
EXACT: dict[str, Exact] = {
    "augvit_small": Exact(22_050_664, 4.598882),
    "augvit_small_linear": Exact(25_598_824, 5.296054),
    "augvit_small_circulant2": Exact(22_142_824, 5.993226),
    "deit_base_patch16_224": Exact(86_567_656, 17.563828),
    "augvit_base_circulant2": Exact(86_567_656 + 184_320, 23.141204),
    "deit_tiny_patch16_224": Exact(5_717_416, 1.253683),
    "aug_deit_tiny_patch16_224": Exact(5_717_416 + 46_080),
    "deit_base_patch16_384": Exact(86_859_496, 55.484350),
    "pvt_v1_small": Exact(24_485_864, 3.815702),
    "aug_pvt_v1_small": Exact(24_569_064),
    "t2t_vit_14": Exact(21_545_550, 4.783469),
    "aug_t2t_vit_14": Exact(21_653_070),
    "t2t_vit_24": Exact(64_105_934, 13.661875),
    "aug_t2t_vit_24": Exact(64_351_694),
}

# Numbers of the official training command of Aug-ViT-S: name, value.
RECIPE: dict[str, float] = {
    "epochs": 300,
    "batch size": 1024,
    "learning rate": 1e-3,
    "weight decay": 0.05,
    "warm-up epochs": 5,
    "learning rate at the start": 1e-6,
    "learning rate at the end": 1e-5,
    "cooldown epochs": 10,
    "label smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "switch to cutmix": 0.5,
    "random erasing": 0.25,
    "repeated augmentation": 3,
    "drop path": 0.1,
    "decay of the weights' average": 0.99996,
    "AdamW epsilon": 1e-8,
    "scale of the residual stream": 0.75,
}
