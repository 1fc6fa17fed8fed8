"""The published figures about the paper as data; ``rows`` says how each is checked, and how well it is known.

"Circumventing Outliers of AutoAugment with Knowledge Distillation", arXiv 2003.11342 (ECCV 2020). Its text and tables
were not reachable when this was written; what is known of them comes from elsewhere, and every figure carries a mark:

- [A] abstract of the paper;
- [S] a secondary summary of the paper in a public repository, written by a machine: may err;
- [R] code of a re-implementation;
- [C] a paper that cites this one, or an official README;
- [V] found by running public code;
- [M] computed by us.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ADVERSARIAL",
    "BASELINES",
    "DIGITS",
    "DIGIT_DIFFERENCES",
    "EFFICIENTNET_COUNTS",
    "EFFICIENTNET_MACS",
    "EFFICIENTNET_TOP1",
    "FAST_AA_COUNTS",
    "METHOD",
    "PYRAMID_FEATURES",
    "RANDAUGMENT",
    "SETTINGS",
    "STRUCTURE",
    "Known",
    "Setting",
]


class Known(NamedTuple):
    """A published figure: table, row, column, value, unit, mark and where it was read."""

    table: str
    name: str
    metric: str
    figure: float | None
    unit: str
    mark: str
    source: str


SUMMARY = "secondary summary of the paper"
DEIT = "DeiT, arXiv 2012.12877, table of results"
SAM = "SAM, arXiv 2010.01412, table of results"

# What is known of the paper's own results.
METHOD = [
    Known("imagenet", "EfficientNet-B8 + KD", "top-1", 85.8, "%", "A", "abstract"),
    Known("imagenet", "EfficientNet-B8 + KD", "params", 87, "M", "C", DEIT),
    Known("imagenet", "EfficientNet-B8 + KD", "side of the pictures", 800, "px", "C", DEIT),
    Known("imagenet", "EfficientNet-B8 + KD", "throughput on a V100", 25.2, "img/s", "C", DEIT),
    Known("imagenet", "EfficientNet-B8 + KD", "top-1 error", 14.2, "%", "C", SAM),
    Known("imagenet", "EfficientNet-B7, baseline", "top-1", 84.9, "%", "S", SUMMARY),
    Known("imagenet", "EfficientNet-B7 + KD", "top-1", 85.5, "%", "S", SUMMARY),
    Known("cifar", "PyramidNet-272 + ShakeDrop + KD", "error on CIFAR-100", 10.6, "%", "S", SUMMARY),
    Known("cifar", "WRN-28-10 (by context) + KD", "error on CIFAR-100", 16.2, "%", "S", SUMMARY),
    Known(
        "cifar",
        "WRN-28-10 (by context), augmentation off for the last 50 epochs",
        "error on CIFAR-100",
        16.8,
        "%",
        "S",
        SUMMARY,
    ),
    Known("magnitude", "gain by KD at M=7 (data set unknown)", "top-1", 7.1, "points", "S", SUMMARY),
    Known("magnitude", "M=36: accuracy falls even with KD", "top-1", None, "%", "S", SUMMARY),
    Known("detection", "transfer to COCO", "AP", None, "%", "S", "none found in abstract or summary"),
]

FAST_AA = "README of kakaobrain/fast-autoaugment"
# Error in %: without, with cutout, with AutoAugment, with Fast AutoAugment (transferred).
BASELINE_COLUMNS = ("baseline", "cutout", "AutoAugment", "Fast AutoAugment")
BASELINES: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("WRN-40-2", "CIFAR-10"): (5.3, 4.1, 3.7, 3.6),
    ("WRN-40-2", "CIFAR-100"): (26.0, 25.2, 20.7, 20.7),
    ("WRN-28-10", "CIFAR-10"): (3.9, 3.1, 2.6, 2.7),
    ("WRN-28-10", "CIFAR-100"): (18.8, 18.4, 17.1, 17.3),
    ("Shake-Shake 26 2x32d", "CIFAR-10"): (3.6, 3.0, 2.5, 2.7),
    ("Shake-Shake 26 2x96d", "CIFAR-10"): (2.9, 2.6, 2.0, 2.0),
    ("Shake-Shake 26 2x96d", "CIFAR-100"): (17.1, 16.0, 14.3, 14.9),
    ("Shake-Shake 26 2x112d", "CIFAR-10"): (2.8, 2.6, 1.9, 2.0),
    ("PyramidNet-272 + ShakeDrop", "CIFAR-10"): (2.7, 2.3, 1.5, 1.8),
    ("PyramidNet-272 + ShakeDrop", "CIFAR-100"): (14.0, 12.2, 10.7, 11.9),
}

ILDOONET = "README of ildoonet/pytorch-randaugment"
# Accuracy in %.
RANDAUGMENT: dict[tuple[str, str], float] = {
    ("WRN-28-10", "CIFAR-10"): 97.3,
    ("WRN-28-10", "CIFAR-100"): 83.3,
    ("WRN-28-10", "SVHN"): 98.9,
    ("Shake-Shake 26 2x96d", "CIFAR-10"): 98.0,
    ("PyramidNet-272 + ShakeDrop", "CIFAR-10"): 98.5,
}
# Error in % of Adversarial AutoAugment, as a repository of it reports the paper's.
ADVERSARIAL_SOURCE = "repository of SeongwoongJo on Adversarial AutoAugment"
ADVERSARIAL: dict[tuple[str, str], float] = {
    ("WRN-28-10", "CIFAR-10"): 1.90,
    ("WRN-28-10", "CIFAR-100"): 15.49,
    ("PyramidNet-272 + ShakeDrop", "CIFAR-10"): 1.36,
    ("PyramidNet-272 + ShakeDrop", "CIFAR-100"): 10.42,
}

TPU = "README of tensorflow/tpu, EfficientNet"
EFFICIENTNET_COLUMNS = ("plain", "AutoAugment", "RandAugment", "AdvProp")
EFFICIENTNET_TOP1: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "B0": (76.7, 77.1, None, 77.6),
    "B1": (78.7, 79.1, None, 79.6),
    "B2": (79.8, 80.1, None, 80.5),
    "B3": (81.1, 81.6, None, 81.9),
    "B4": (82.5, 82.9, None, 83.3),
    "B5": (83.1, 83.6, 83.7, 84.3),
    "B6": (None, 84.0, None, 84.8),
    "B7": (None, 84.3, 84.7, 85.2),
    "B8": (None, None, None, 85.5),
}
# Parameters at 1,000 classes and the model's own side of pictures; multiply-adds of convolutions and linear maps there.
EFFICIENTNET_COUNTS: dict[str, tuple[int, int]] = {
    "B0": (5_288_548, 224),
    "B1": (7_794_184, 240),
    "B2": (9_109_994, 260),
    "B3": (12_233_232, 300),
    "B4": (19_341_616, 380),
    "B6": (43_040_704, 528),
    "B7": (66_347_960, 600),
}
EFFICIENTNET_MACS: dict[str, int] = {"B0": 385_814_752, "B4": 4_393_771_024, "B7": 37_745_884_192}


class Structure(NamedTuple):
    """Exact counts of a CIFAR network: parameters for 10 and 100 classes, multiply-adds for 10 at 32 x 32 pixels.

    ``base`` is the width of a Shake-Shake network, whose published counts include shortcuts that nothing runs.
    """

    name: str
    params10: int
    params100: int | None
    macs10: int
    base: int = 0


# Counted by us from the network code of Fast AutoAugment.
STRUCTURE: dict[str, Structure] = {
    "WRN-40-2": Structure("wrn_40_2", 2_243_546, 2_255_156, 327_599_360),
    "WRN-28-10": Structure("wrn_28_10", 36_479_194, 36_536_884, 5_243_328_768),
    "WRN-28-10, Fast AutoAugment's": Structure("wrn_28_10_fastaa", 36_489_290, 36_546_980, 5_951_117_568),
    "Shake-Shake 26 2x32d": Structure("shake_shake_26_2x32d", 2_989_002, 3_000_612, 426_689_792, 32),
    "Shake-Shake 26 2x96d": Structure("shake_shake_26_2x96d", 26_777_546, 26_812_196, 3_776_892_672, 96),
    "PyramidNet-272, alpha 200": Structure("pyramidnet_272_a200", 26_210_842, None, 4_488_778_176),
}

# Channels before the classifier: 4 x (16 + 200).
PYRAMID_FEATURES = 864

# Sub-policies in the published lists.
FAST_AA_COUNTS = {"fast-aa-cifar10": 493, "fast-aa-imagenet": 498, "fast-aa-svhn": 497}


class Setting(NamedTuple):
    """A RandAugment setting found in public code: operators per picture, magnitude, and the words that select it."""

    name: str
    n: int
    m: int
    words: str
    mark: str
    source: str


ILDOONET_CONFIGS = "configuration files of ildoonet/pytorch-randaugment"
RESMOOTH = "code of Chenyang4/ReSmooth"
SETTINGS = [
    Setting("EfficientNet-B7 and B8, ImageNet", 2, 28, "policy.space=tf_tpu policy.extrapolate=true", "C", TPU),
    Setting("WRN-28-10, CIFAR-100", 2, 14, "policy.space=ra_pytorch", "V", ILDOONET_CONFIGS),
    Setting("Shake-Shake and PyramidNet, CIFAR-10", 3, 9, "policy.space=ra_pytorch", "V", ILDOONET_CONFIGS),
    Setting("ReSmooth, CIFAR", 2, 28, "policy.space=resmooth", "R", RESMOOTH),
    Setting("ReSmooth, SVHN", 3, 28, "policy.space=resmooth", "R", RESMOOTH),
]


class Digit(NamedTuple):
    """A cell of the pilot on scikit-learn's digits: test accuracy in %, mean over seeds, and its standard deviation."""

    trained_with: str
    magnitude: float
    mean: float
    deviation: float | None
    seeds: int = 6


DIGITS = [
    Digit("CE", 0.0, 98.3, 0.5),
    Digit("CE", 0.3, 98.3, 0.4),
    Digit("CE", 1.0, 95.6, 0.8),
    Digit("CE", 2.0, 92.9, 0.9),
    Digit("label smoothing 0.1", 1.0, 95.9, 0.9),
    Digit("label smoothing 0.1", 2.0, 92.8, 1.1),
    Digit("KD teacher_student, K=C", 0.3, 98.4, None, 5),
    Digit("KD teacher_student, K=C", 1.0, 98.0, 0.5),
    Digit("KD teacher_student, K=C", 2.0, 97.0, 1.1),
    Digit("KD student_teacher, K=C", 1.0, 97.9, 0.6),
    Digit("KD student_teacher, K=C", 2.0, 97.0, 0.8),
    Digit("KD renorm, K=3", 1.0, 97.8, 0.4),
    Digit("KD renorm, K=3", 2.0, 94.8, 1.5),
    Digit("KD only", 1.0, 97.5, 0.5),
    Digit("KD only", 2.0, 96.5, 0.8),
    Digit("KD by a teacher trained without augmentation", 2.0, 97.0, None),
]


class Difference(NamedTuple):
    """A difference in the pilot, paired over seeds, in points, and half of its 95 % interval."""

    name: str
    mean: float
    half: float
    seeds: int = 6


DIGIT_DIFFERENCES = [
    Difference("KD - CE, M=1", 2.4, 0.8),
    Difference("KD - CE, M=2", 4.2, 1.2),
    Difference("label smoothing - CE, M=1", 0.3, 0.4),
    Difference("label smoothing - CE, M=2", -0.1, 0.9),
    Difference("interaction: KD - CE at M=2 over that at M=0.3", 4.2, 1.6, 5),
]
