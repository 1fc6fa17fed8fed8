"""Published figures, as they were found; data only.

The paper's text could be read up to its introduction only: what comes from there is ``printed``. Everything else was
found in public repositories and threads, or counted from the released networks.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ACCURACIES", "CANDIDATES", "KNOWN_ANSWERS", "NETWORKS", "OTHER_COUNTERS", "Accuracy"]

# Parameters and MACs of networks known by name.
NETWORKS: dict[str, tuple[int, int]] = {
    "efficientnet_b0": (5_288_548, 385_814_752),
    "efficientnet_b1": (7_794_184, 686_802_832),
    "efficientnet_b2": (9_109_994, 993_561_872),
    "efficientnet_b3": (12_233_232, 1_827_141_392),
    "efficientnet_b4": (19_341_616, 4_393_771_024),
    "efficientnet_b5": (30_389_784, 10_266_384_752),
    "ghostnet_100": (5_182_508, 141_150_512),
    "ghostnet_large": (4_691_824, 141_184_432),
    "s_ghostnet_b1_uniform": (11_938_476, 582_774_650),
    "s_ghostnet_b1": (15_376_832, 663_233_632),
    "s_ghostnet_b4": (31_986_130, 4_499_328_576),
    "tinynet_a": (6_187_972, 336_867_712),
    "tinynet_b": (3_730_562, 200_709_360),
    "tinynet_c": (2_457_234, 99_536_432),
    "tinynet_d": (2_338_446, 51_580_656),
    "tinynet_e": (2_042_972, 24_356_848),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
}

# Counted with biases by pycls, with norms and pooling by fvcore.
OTHER_COUNTERS: dict[tuple[str, str], int] = {
    ("efficientnet_b0", "pycls"): 385_825_092,
    ("efficientnet_b1", "pycls"): 686_817_992,
    ("efficientnet_b2", "pycls"): 993_578_282,
    ("efficientnet_b4", "pycls"): 4_393_801_064,
    ("efficientnet_b0", "fvcore"): 399_352_864,
    ("ghostnet_100", "fvcore"): 148_273_936,
}

# MACs of the first step's candidates from EfficientNet-B0 towards B1's budget in four steps.
CANDIDATES: dict[str, int] = {
    "depth_1": 446_027_488, "depth_2": 437_298_784, "depth_3": 445_099_552, "depth_4": 449_489_632,
    "depth_5": 451_482_592, "depth_6": 455_408_224, "depth_7": 447_179_872, "width_1": 459_977_184,
    "width_2": 456_042_208, "width_3": 447_138_784, "width_4": 442_099_552, "width_5": 440_991_136,
    "width_6": 445_314_976, "width_7": 445_875_424, "resolution": 453_401_488,
}  # fmt: skip

# Start, budget, steps, and the final MACs under the synthetic score.
KNOWN_ANSWERS: dict[str, tuple[int, int, int]] = {
    "efficientnet_b0": (686_802_832, 4, 709_261_600),
    "ghostnet_large": (600_000_000, 8, 599_862_808),
}


class Accuracy(NamedTuple):
    """One published accuracy on ImageNet.

    Attributes:
        name: Of the network.
        top1: Percent.
        source: Where it was read.
        evidence: ``printed`` in the paper, ``found`` elsewhere, ``unverified``.
        spec: What is known by that name here; empty if nothing is.
    """

    name: str
    top1: float
    source: str
    evidence: str
    spec: str = ""


_RELEASE = "README of the released S-GhostNet (MindSpore models); the best of 8 checkpoints on the validation pictures"
_EFFNET = "EfficientNet paper"

ACCURACIES = (
    Accuracy("S-GhostNet, about 600 MMACs", 80.9, "abstract", "printed"),
    Accuracy("S-GhostNet, about 4.4 GMACs", 84.3, "abstract", "printed"),
    Accuracy("S-GhostNet_b1 of the release, 240 px", 79.844, _RELEASE, "found", "s_ghostnet_b1_uniform"),
    Accuracy("S-GhostNet_b4 of the release, 384 px", 83.024, _RELEASE, "found", "s_ghostnet_b4"),
    Accuracy("GhostNet-600M", 80.2, "claim of its authors; a third party reports 77", "found"),
    Accuracy("GhostNet 1.0x", 73.98, "public repository", "found", "ghostnet_100"),
    Accuracy("GhostNet 1.3x", 75.7, "public repository", "found"),
    Accuracy("EfficientNet-B0", 77.1, "recalled", "unverified", "efficientnet_b0"),
    Accuracy("EfficientNet-B1", 79.1, _EFFNET, "found", "efficientnet_b1"),
    Accuracy("EfficientNet-B2", 80.1, "recalled", "unverified", "efficientnet_b2"),
    Accuracy("EfficientNet-B3", 81.6, _EFFNET, "found", "efficientnet_b3"),
    Accuracy("EfficientNet-B4", 82.9, _EFFNET, "found", "efficientnet_b4"),
    Accuracy("EfficientNet-B5", 83.6, "recalled", "unverified", "efficientnet_b5"),
    Accuracy("EfficientNet-B6", 84.0, "recalled", "unverified"),
    Accuracy("EfficientNet-B7", 84.3, _EFFNET, "found", "efficientnet_b7"),
    Accuracy("TinyNet-A", 76.8, "public repository", "found", "tinynet_a"),
    Accuracy("TinyNet-B", 75.0, "public repository", "found", "tinynet_b"),
    Accuracy("TinyNet-C", 71.2, "public repository", "found", "tinynet_c"),
    Accuracy("TinyNet-D", 67.0, "public repository", "found", "tinynet_d"),
    Accuracy("TinyNet-E", 59.9, "public repository", "found", "tinynet_e"),
)
