"""The figures of the paper as data, table by table; ``rows`` says how each is checked.

"Transformer in Transformer", arXiv 2103.00112v3 (NeurIPS 2021). All are printed there, except ``EXACT`` (counted by us)
and ``ELSEWHERE`` (reported by others). The paper's "FLOPs" are multiply-adds.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "AP",
    "CONTEXT",
    "DATA_SETS",
    "DETECTION_DETR",
    "DETECTION_FASTER_RCNN",
    "ELSEWHERE",
    "EXACT",
    "FIGURES",
    "FINE_TUNED",
    "FINE_TUNE_SETS",
    "HEADS",
    "HYBRIDS",
    "IMAGENET",
    "POSITIONS",
    "PYRAMIDS",
    "SEGMENTATION",
    "WORDS",
]


class Cost(NamedTuple):
    """Parameters and MACs as exact counts of the official design, per variant."""

    params: int
    macs: int


# Counted by us in the official design, not printed anywhere; MACs at the model's own picture size.
EXACT: dict[str, Cost] = {
    "tnt_ti_patch16_224": Cost(6_076_408, 1_403_721_984),
    "tnt_s_patch16_224": Cost(23_768_584, 5_216_875_008),
    "tnt_b_patch16_224": Cost(65_428_680, 14_049_082_880),
    "tnt_s_se_patch16_224": Cost(24_668_296, 5_217_759_744),
    "tnt_s_patch16_384": Cost(23_914_504, 17_306_492_928),
    "tnt_s_legacy_patch16_224": Cost(23_755_336, 5_216_875_008),
    "tnt_s1_patch16_224": Cost(22_519_432, 4_792_988_160),
    "tnt_s3_patch16_224": Cost(22_207_144, 4_687_016_448),
    "tnt_s4_patch16_224": Cost(22_051_000, 4_634_030_592),
    "tnt_s_m64_patch16_224": Cost(23_686_000, 5_108_494_848),
    "pyramid_tnt_ti": Cost(10_578_529, 586_434_560),
    "pyramid_tnt_s": Cost(31_953_200, 3_283_341_312),
    "pyramid_tnt_b": Cost(156_990_072, 15_966_642_176),
}


class Trained(NamedTuple):
    """A variant trained on ImageNet: millions of parameters, billions of MACs, top-1 and top-5 in percent."""

    variant: str
    params: float
    macs: float
    top1: float
    top5: float


# Tables 1 (sizes) and 4 (accuracy); the last one is Table 12.
IMAGENET: dict[str, Trained] = {
    "TNT-Ti": Trained("tnt_ti_patch16_224", 6.1, 1.4, 73.9, 91.9),
    "TNT-S": Trained("tnt_s_patch16_224", 23.8, 5.2, 81.5, 95.7),
    "TNT-B": Trained("tnt_b_patch16_224", 65.6, 14.1, 82.9, 96.3),
    "TNT-S + SE": Trained("tnt_s_se_patch16_224", 24.7, 5.2, 81.7, 95.7),
}


class Pyramid(NamedTuple):
    """A PyramidTNT as the readme of the official code has it: millions of parameters, GMACs, top-1 in percent."""

    variant: str
    params: float
    macs: float
    top1: float


PYRAMIDS: dict[str, Pyramid] = {
    "PyramidTNT-Ti": Pyramid("pyramid_tnt_ti", 10.6, 0.6, 75.2),
    "PyramidTNT-S": Pyramid("pyramid_tnt_s", 32.0, 3.3, 82.0),
    "PyramidTNT-M": Pyramid("pyramid_tnt_m", 85.0, 8.2, 83.5),
    "PyramidTNT-B": Pyramid("pyramid_tnt_b", 157.0, 16.0, 84.1),
}


class Context(NamedTuple):
    """Another model that Table 4 quotes: its name in timm, empty if timm lacks it, and the size of its pictures."""

    timm: str
    img_size: int
    params: float
    macs: float
    top1: float


CONTEXT: dict[str, Context] = {
    "ResNet-50": Context("resnet50", 224, 25.6, 4.1, 76.2),
    "RegNetY-8GF": Context("regnety_080", 224, 39.2, 8.0, 79.9),
    "EfficientNet-B4": Context("tf_efficientnet_b4", 380, 19, 4.2, 82.9),
    "DeiT-Ti": Context("deit_tiny_patch16_224", 224, 5.7, 1.3, 72.2),
    "DeiT-S": Context("deit_small_patch16_224", 224, 22.1, 4.6, 79.8),
    "PVT-Small": Context("", 224, 24.5, 3.8, 79.8),
    "T2T-ViT_t-14": Context("", 224, 21.5, 5.2, 80.7),
    "DeiT-B": Context("deit_base_patch16_224", 224, 86.4, 17.6, 81.8),
    "T2T-ViT_t-24": Context("", 224, 63.9, 13.2, 82.2),
}


class Hybrid(NamedTuple):
    """A row of Table 5: GMACs, V100 pictures a second, top-1."""

    variant: str
    macs: float
    speed: float
    top1: float


HYBRIDS: dict[str, Hybrid] = {
    "DeiT-S": Hybrid("", 4.6, 907, 79.8),
    "TNT-S": Hybrid("tnt_s_patch16_224", 5.2, 428, 81.5),
    "TNT-S-1": Hybrid("tnt_s1_patch16_224", 4.8, 668, 81.4),
    "TNT-S-2": Hybrid("tnt_s2_patch16_224", 4.7, 704, 81.3),
    "TNT-S-3": Hybrid("tnt_s3_patch16_224", 4.7, 757, 81.1),
    "TNT-S-4": Hybrid("tnt_s4_patch16_224", 4.6, 822, 80.8),
}

# Table 6: top-1 of TNT-S by the position codes it has.
POSITIONS = {"none": 80.5, "sentence": 80.8, "word": 80.7, "both": 81.5}

# Table 7: top-1 of TNT-S by the number of inner heads.
HEADS = {1: 81.0, 2: 81.4, 4: 81.5, 6: 81.3, 8: 81.1}


class Words(NamedTuple):
    """A row of Table 8: words a sentence, their width, millions of parameters, GMACs, top-1."""

    variant: str
    words: int
    width: int
    params: float
    macs: float
    top1: float


WORDS = (
    Words("tnt_s_m64_patch16_224", 64, 6, 23.8, 5.1, 81.0),
    Words("tnt_s_patch16_224", 16, 24, 23.8, 5.2, 81.5),
    Words("tnt_s_m4_patch16_224", 4, 96, 25.1, 6.0, 81.1),
)

# Table 2: pictures for training and testing, classes (None: not printed).
DATA_SETS: dict[str, tuple[int, int, int | None]] = {
    "Flowers": (2_040, 6_149, 102),
    "Pets": (3_680, 3_669, 37),
    "iNat-19": (265_240, 3_003, 1_010),
    "CIFAR-10": (50_000, 10_000, None),
    "CIFAR-100": (50_000, 10_000, None),
    "COCO": (118_287, 5_000, None),
    "ADE20K": (20_210, 2_000, 150),
}

# Table 9: fine-tuned at 384x384, top-1 by data set (None: not printed), and the experiment that would measure each.
FINE_TUNE_SETS = {
    "ImageNet": "finetune_384/imagenet",
    "CIFAR-10": "finetune_384/cifar10",
    "CIFAR-100": "finetune_384/cifar100",
    "Flowers": "finetune_384/imagefolder",
    "Pets": "finetune_384/imagefolder",
    "iNat-19": "finetune_384/imagefolder",
}
FINE_TUNED: dict[str, tuple[float | None, ...]] = {
    "TNT-S@384": (83.1, 98.7, 90.1, 98.8, 94.7, 81.4),
    "TNT-B@384": (83.9, 99.1, 91.1, 99.0, 95.0, 83.2),
    "DeiT-B@384": (83.1, 99.1, 90.8, 98.4, None, None),
}

# Tables 10 and 13: COCO; parameters in millions, then average precision by metric.
AP = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
DETECTION_DETR: dict[str, tuple[float | None, tuple[float, ...]]] = {
    "TNT-S": (39, (38.2, 58.9, 39.4, 15.5, 41.1, 58.8)),
    "PVT-Small": (None, (34.7,)),
    "DeiT-S": (None, (33.9,)),
    "ResNet-50": (None, (32.3,)),
}
DETECTION_FASTER_RCNN: dict[str, tuple[float | None, tuple[float, ...]]] = {
    "TNT-S": (48.1, (41.5, 64.1, 44.5, 25.7, 44.6, 55.4)),
    "DeiT-S": (46.4, (39.9,)),
    "ResNet-50": (41.5, (37.4,)),
}

# Table 11: ADE20K; millions of parameters, GMACs, mean intersection over union.
SEGMENTATION = {
    "TNT-S": (32.1, 30.4, 43.6),
    "PVT-Small": (32.1, 31.6, 42.6),
    "DeiT-S": (30.3, 27.2, 40.5),
    "ResNet-50": (56.1, 79.3, 39.7),
}

# Not in the paper: top-1 and top-5 on ImageNet that others report for these designs (None: not reported).
ELSEWHERE: tuple[tuple[str, str, float, float | None, str], ...] = (
    ("TNT-S", "tnt_s_patch16_224", 81.506, 95.766, "timm, results-imagenet.csv"),
    ("TNT-B", "tnt_b_patch16_224", 82.864, 96.230, "timm, results-imagenet.csv"),
    ("TNT-S legacy", "tnt_s_legacy_patch16_224", 81.512, None, "timm, results-imagenet.csv"),
    ("TNT-S legacy, mmpretrain", "tnt_s_legacy_patch16_224", 81.52, 95.73, "mmpretrain"),
    ("TNT-S legacy, PaddleClas", "tnt_s_legacy_patch16_224", 81.12, None, "PaddleClas"),
    ("TNT-S, MindSpore port", "tnt_s_patch16_224", 81.47, 95.42, "mindspore-ai/models, research/cv/TNT"),
)

# The pictures of the paper, and what draws ours.
FIGURES = {
    "3": (
        "feature maps of blocks 1, 6 and 12, and a t-SNE of those of block 12",
        "figures=[feature_maps,channel_tsne] feature_size=1024 blocks=[1,6,12]",
    ),
    "4": ("words, block by block", "figures=[word_maps]"),
    "5": ("attention of a word to the others of its sentence", "figures=[inner_attention]"),
    "6": ("attention between sentences", "figures=[sentence_attention]"),
    "7": ("attention of the class token", "figures=[class_attention]"),
}
