"""Networks known by name: the published ones, and the released networks of the paper."""

from __future__ import annotations

from typing import Any

__all__ = ["BASES"]

_B0 = (16, 24, 40, 80, 112, 192, 320)


def _effnet(depths: str, widths: tuple[int, ...], resolution: int, stem: int = 32, head: int = 1280) -> dict[str, Any]:
    digits = tuple(map(int, depths.split()))
    return _spec("efficientnet", digits, widths, resolution, stem=stem, head=head)


def _ghost(depths: tuple[int, ...], widths: tuple[int, ...], resolution: int) -> dict[str, Any]:
    return _spec("ghostnet_large", depths, widths, resolution)


def _spec(
    family: str, depths: tuple[int, ...], widths: tuple[int, ...], resolution: int, **more: Any
) -> dict[str, Any]:
    return {"family": family, "depths": depths, "widths": widths, "resolution": resolution, **more}


def _resnet(kind: str, depths: tuple[int, ...]) -> dict[str, Any]:
    widths = (64, 128, 256, 512) if kind == "basic" else (256, 512, 1024, 2048)
    return _spec("resnet", depths, widths, 224, template=(kind,))


_GHOST = (16, 24, 40, 80, 112, 160)

BASES: dict[str, dict[str, Any]] = {
    # Sides of the EfficientNet paper; timm's default inputs of b2 to b5 are 256, 288, 320 and 448.
    "efficientnet_b0": _effnet("1 2 2 3 3 4 1", _B0, 224),
    "efficientnet_b1": _effnet("2 3 3 4 4 5 2", _B0, 240),
    "efficientnet_b2": _effnet("2 3 3 4 4 5 2", (16, 24, 48, 88, 120, 208, 352), 260, head=1408),
    "efficientnet_b3": _effnet("2 3 3 5 5 6 2", (24, 32, 48, 96, 136, 232, 384), 300, 40, 1536),
    "efficientnet_b4": _effnet("2 4 4 6 6 8 2", (24, 32, 56, 112, 160, 272, 448), 380, 48, 1792),
    "efficientnet_b5": _effnet("3 5 5 7 7 9 3", (24, 40, 64, 128, 176, 304, 512), 456, 48, 2048),
    "efficientnet_b6": _effnet("3 6 6 8 8 11 3", (32, 40, 72, 144, 200, 344, 576), 528, 56, 2304),
    "efficientnet_b7": _effnet("4 7 7 10 10 13 4", (32, 48, 80, 160, 224, 384, 640), 600, 64, 2560),
    "tinynet_a": _effnet("1 2 2 4 4 5 1", (16, 24, 40, 80, 112, 192, 320), 192),
    "tinynet_b": _effnet("1 2 2 3 3 4 1", (16, 24, 32, 64, 88, 144, 240), 188),
    "tinynet_c": _effnet("1 2 2 3 3 3 1", (8, 16, 24, 40, 64, 104, 176), 184),
    "tinynet_d": _effnet("1 1 1 2 2 3 1", (8, 16, 24, 40, 64, 104, 176), 152),
    "tinynet_e": _effnet("1 1 1 2 2 2 1", (8, 16, 24, 40, 56, 96, 160), 106),
    "ghostnet_100": _spec("ghostnet", (1, 2, 2, 4, 2, 5), _GHOST, 224),
    "ghostnet_large": _ghost((1, 2, 2, 4, 2, 5), _GHOST, 224),
    # The released networks: the first two are in the 600M class, the others in the 4.4B class.
    "s_ghostnet_b1_uniform": _ghost((1, 2, 3, 4, 3, 6), (28, 44, 72, 140, 196, 280), 240),
    "s_ghostnet_b1": _ghost((2, 2, 5, 10, 2, 10), (24, 32, 64, 112, 160, 280), 248),
    "s_ghostnet_b4": _ghost((3, 5, 5, 12, 6, 14), (36, 60, 108, 168, 232, 336), 384),
    "s_ghostnet_b4_train": _ghost((2, 4, 5, 12, 6, 14), (36, 68, 108, 164, 216, 336), 384),
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet34": _resnet("basic", (3, 4, 6, 3)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet101": _resnet("bottleneck", (3, 4, 23, 3)),
    "regnetx_002": _spec("regnet", (1, 1, 4, 7), (24, 56, 152, 368), 224, template=("x_g8",)),
    "regnety_004": _spec("regnet", (1, 3, 6, 6), (48, 104, 208, 440), 224, template=("y_g8",)),
    # For 32-pixel patches on a laptop: the 17 classes of `data=textures` and a grey channel.
    "tiny": _spec(
        "custom", (1, 1, 1), (8, 12, 16), 24, stem=8, head=64, classes=17, in_chans=1,
        template=("ir_r1_k3_s1_e3_c8", "ir_r1_k3_s2_e3_c12", "ir_r1_k3_s2_e3_c16"),
    ),
}  # fmt: skip
"""Fields of :class:`~greedy_enlarge.spec.ArchSpec` by name."""
