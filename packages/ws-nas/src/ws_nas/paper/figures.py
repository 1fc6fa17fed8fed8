"""Published figures and figures computed before, as they were found; data only.

The body of the survey could not be read: what it prints in its tables is not here. What methods it orders have
published is, from their own repositories; all of it is ``found``. Counts are ``computed``: by closed form, from
official code that was run, or from the published tables.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CIFAR10",
    "CLAIMED_TAUS",
    "IMAGENET",
    "NETWORKS",
    "PUBLISHED_COUNTS",
    "SIZED",
    "SIZES",
    "SUPERNETS",
    "TABLE_TAUS",
    "TOP1",
    "Published",
    "TableTau",
]

# Genotypes of a space.
SIZES: dict[str, int] = {
    "nas_bench_201": 15_625,
    "nas_bench_macro": 6_561,
    "digits_chain": 81,
    "fairnas_chain": 6**19,
    "darts": 1_037_664_180**2,
    "ofa": 7_371**5,
}

# Space and genotype (as it is written, or by name): parameters and MACs of ours.
NETWORKS: dict[tuple[str, str], tuple[int, int]] = {
    ("nas_bench_201", "333333"): (1_531_546, 220_119_680),
    ("nas_bench_201", "222222"): (241_306, 31_376_000),
    ("nas_bench_201", "421211"): (129_306, 15_647_360),
    ("nas_bench_201", "133133"): (1_045_466, 149_340_800),
    ("nas_bench_201", "000000"): (73_306, 7_783_040),
    ("nas_bench_macro", "00000000"): (387_882, 7_713_280),
    ("nas_bench_macro", "11111111"): (1_588_874, 53_246_464),
    ("nas_bench_macro", "22222222"): (2_932_586, 105_660_928),
    ("fairnas_chain", "37-33-37-63-67-33-33-67-67-35-63-35-35-63-63-67-63-67-65"): (4_651_352, 388_122_848),
    ("fairnas_chain", "35-33-35-33-63-35-37-33-63-35-33-63-37-33-67-65-67-63-65"): (4_506_272, 345_297_632),
}


_IMAGENET = "space.channels=48 space.layers=14 space.stem=imagenet space.resolution=224 space.classes=1000"

# Space, words for its sizes, genotype by name: parameters and MACs of ours.
SIZED: dict[tuple[str, str, str], tuple[int, int]] = {
    ("darts", "", "DARTS_V1"): (3_169_414, 500_987_520),
    ("darts", "", "DARTS_V2"): (3_349_342, 528_359_040),
    ("darts", "", "PC_DARTS_cifar"): (3_634_678, 556_670_592),
    ("darts", _IMAGENET, "DARTS_V1"): (4_510_432, 505_864_704),
    ("darts", _IMAGENET, "DARTS_V2"): (4_718_752, 529_911_552),
    ("darts", _IMAGENET, "PC_DARTS_cifar"): (5_270_560, 571_137_408),
    ("ofa", "", "max"): (7_664_760, 566_170_656),
    ("ofa", "", "min"): (3_410_792, 121_278_672),
    ("ofa", "space.resolution=128", "max"): (7_664_760, 188_248_320),
    ("ofa", "space.resolution=128", "min"): (3_410_792, 41_476_224),
}

# Supernets by space and family: all parameters.
SUPERNETS: dict[tuple[str, str], int] = {
    ("nas_bench_201", "spos"): 1_699_546,
    ("darts", "darts"): 1_930_618,
    ("darts", "pc_darts"): 299_578,
    ("ofa", "ofa"): 7_678_880,
}

# What publications say, in millions: name, space, words for its sizes, genotype, figure, and whether it is the count of
# convolutions and linear layers. Where it is not, what else was counted could not be found.
PUBLISHED_COUNTS: tuple[tuple[str, str, str, str, str, float, bool], ...] = (
    ("DARTS_V1, CIFAR-10", "darts", "", "DARTS_V1", "params", 3.3, False),
    ("DARTS_V2, CIFAR-10", "darts", "", "DARTS_V2", "params", 3.3, True),
    ("DARTS_V2, ImageNet", "darts", _IMAGENET, "DARTS_V2", "params", 4.7, True),
    ("DARTS_V2, ImageNet", "darts", _IMAGENET, "DARTS_V2", "macs", 574, False),
    ("PC_DARTS_cifar, CIFAR-10", "darts", "", "PC_DARTS_cifar", "params", 3.6, True),
    ("PC_DARTS_cifar, ImageNet", "darts", _IMAGENET, "PC_DARTS_cifar", "params", 5.3, True),
    ("PC_DARTS_cifar, ImageNet", "darts", _IMAGENET, "PC_DARTS_cifar", "macs", 586, False),
    ("FairNAS-A", "fairnas_chain", "", "FairNAS-A", "params", 4.6, False),
    ("FairNAS-A", "fairnas_chain", "", "FairNAS-A", "macs", 388, True),
    ("FairNAS-B", "fairnas_chain", "", "FairNAS-B", "macs", 345, True),
)


class TableTau(NamedTuple):
    """A rank correlation computed from published tables.

    Attributes:
        name: What ranks what.
        q: File and column that rank.
        s: File and column ranked.
        tau: Tau-b.
    """

    name: str
    q: tuple[str, str]
    s: tuple[str, str]
    tau: float


_12, _200, _MACRO = "nas_bench_201_12ep.csv", "nas_bench_201_200ep.csv", "nas_bench_macro.csv"
_TRUTH = (_200, "c10_test_200")

TABLE_TAUS = (
    TableTau("NAS-Bench-201: parameters, and CIFAR-10 after 200 epochs", (_12, "params"), _TRUTH, 0.5778),
    TableTau("NAS-Bench-201: CIFAR-10 test after 12 epochs, and after 200", (_12, "c10_test_12"), _TRUTH, 0.7001),
    TableTau("NAS-Bench-201: CIFAR-10 validation after 12, test after 200", (_12, "c10_valid_12"), _TRUTH, 0.5945),
    TableTau("NAS-Bench-201: CIFAR-10 and CIFAR-100 after 200 epochs", (_200, "c100_test_200"), _TRUTH, 0.8816),
    TableTau("NAS-Bench-201: CIFAR-10 and ImageNet16-120 after 200 epochs", (_200, "in16_test_200"), _TRUTH, 0.8392),
    TableTau("NAS-Bench-201: latency on an FPGA, and MACs", (_12, "lat_fpga_ms"), (_12, "macs"), 0.8313),
    TableTau("NAS-Bench-Macro: one seed, and another", (_MACRO, "c10_test_seed0"), (_MACRO, "c10_test_seed1"), 0.8820),
)  # fmt: skip


class Published(NamedTuple):
    """A figure of another's publication.

    Attributes:
        name: Of the method or network.
        figure: The figure.
        params: Millions; ``None`` if not given.
        cost: MACs in millions, or GPU days; ``None`` if not given.
    """

    name: str
    figure: float
    params: float | None
    cost: float | None


# CIFAR-10 test error in percent, parameters, GPU days.
CIFAR10 = (
    Published("DenseNet-BC", 3.46, 25.6, None),
    Published("NASNet-A", 2.65, 3.3, 1800),
    Published("AmoebaNet-A", 3.34, 3.2, 3150),
    Published("AmoebaNet-B", 2.55, 2.8, 3150),
    Published("PNAS", 3.41, 3.2, 225),
    Published("ENAS", 2.89, 4.6, 0.5),
    Published("DARTS, first order", 3.00, 3.3, 1.5),
    Published("DARTS, second order", 2.76, 3.3, 4.0),
    Published("SNAS, mild", 2.98, 2.9, 1.5),
    Published("SNAS, moderate", 2.85, 2.8, 1.5),
    Published("SNAS, aggressive", 3.10, 2.3, 1.5),
    Published("ProxylessNAS", 2.08, 5.7, 4.0),
    Published("P-DARTS", 2.50, 3.4, 0.3),
    Published("P-DARTS, searched on CIFAR-100", 2.62, 3.6, 0.3),
    Published("P-DARTS, large", 2.25, 10.5, None),
)

# ImageNet top-1 error in percent, mobile setting; parameters, MACs in millions.
IMAGENET = (
    Published("NASNet-A", 26.0, 5.3, 564),
    Published("AmoebaNet-C", 24.3, 6.4, 570),
    Published("PNAS", 25.8, 5.1, 588),
    Published("MnasNet-92", 25.2, 4.4, 388),
    Published("DARTS, second order", 26.7, 4.7, 574),
    Published("SNAS, mild", 27.3, 4.3, 522),
    Published("ProxylessNAS-GPU", 24.9, 7.1, 465),
    Published("P-DARTS", 24.4, 4.9, 557),
)

# ImageNet top-1 accuracy in percent; parameters, MACs in millions.
TOP1 = (
    Published("SPOS", 74.4, 3.5, 323),
    Published("FBNet-B", 74.1, None, 295),
    Published("Proxyless-R", 74.6, None, 320),
    Published("FairNAS-A", 75.3, 4.6, 388),
    Published("FairNAS-B", 75.1, None, 345),
)

# Kendall's tau of a supernet's scores with stand-alone accuracies of 13 models.
CLAIMED_TAUS: dict[str, float] = {"SPOS": 0.6153, "strict fairness": 0.9487, "expectation fairness": 0.4781}
