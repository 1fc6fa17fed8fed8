"""Section 4.1 of the fact sheet: parameters and MACs of published networks, to the last digit."""

from __future__ import annotations

import itertools

import pytest

from greedy_enlarge.families import BASES, base, count_many, explain, macs, params, stage_shares
from greedy_enlarge.spec import ArchSpec

GOLDEN = {
    "efficientnet_b0": (5_288_548, 385_814_752),
    "efficientnet_b1": (7_794_184, 686_802_832),
    "efficientnet_b2": (9_109_994, 993_561_872),
    "efficientnet_b3": (12_233_232, 1_827_141_392),
    "efficientnet_b4": (19_341_616, 4_393_771_024),
    "efficientnet_b5": (30_389_784, 10_266_384_752),
    "efficientnet_b6": (43_040_704, 19_067_593_536),
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
PYCLS = {
    "efficientnet_b0": 385_825_092,
    "efficientnet_b1": 686_817_992,
    "efficientnet_b2": 993_578_282,
    "efficientnet_b4": 4_393_801_064,
}
SHARES = {
    "efficientnet_b0": (2.8, 2.6, 14.2, 9.8, 11.3, 22.3, 23.7, 7.7, 5.5),
    "efficientnet_b4": (1.1, 2.0, 12.7, 9.3, 11.8, 24.3, 24.3, 11.9, 2.7),
    "efficientnet_b7": (0.4, 1.6, 12.9, 9.2, 11.8, 23.4, 22.7, 16.5, 1.6),
    "ghostnet_large": (3.8, 3.6, 13.8, 8.5, 12.7, 19.1, 31.4, 7.1),
    "s_ghostnet_b1_uniform": (1.9, 2.6, 10.6, 9.3, 10.4, 25.1, 34.3, 5.8),
    "s_ghostnet_b1": (1.5, 3.7, 6.6, 10.2, 14.8, 10.6, 47.6, 5.1),
    "s_ghostnet_b4": (0.8, 4.0, 13.2, 10.0, 13.3, 24.4, 32.1, 2.3),
}
RESNET_SHARES = {
    "resnet18": (25.5, 22.7, 22.7, 22.7),
    "resnet34": (18.9, 23.8, 36.5, 17.5),
    "resnet50": (16.3, 25.1, 35.8, 19.8),
}
B0_BY_SIDE = {
    216: 377_306_912, 224: 385_814_752, 225: 449_497_408, 232: 453_401_488, 240: 462_528_080, 256: 503_337_472,
    257: 575_642_080,
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_counts(name):
    spec = base(name)
    assert (params(spec), macs(spec)) == GOLDEN[name]


@pytest.mark.parametrize("name", PYCLS)
def test_counts_with_biases_are_those_of_pycls(name):
    assert macs(base(name), count_bias=True) == PYCLS[name]


def test_what_fvcore_adds():
    parts = explain(base("efficientnet_b0"))
    assert sum(p["norm"] for p in parts) == 13_475_392
    assert sum(p["pool"] for p in parts) == 62_720

    def fvcore(name: str) -> int:
        return sum(p["conv"] + p["linear"] + p["norm"] + p["pool"] for p in explain(base(name)))

    assert fvcore("efficientnet_b0") == 399_352_864
    assert fvcore("ghostnet_100") == 148_273_936


@pytest.mark.parametrize("name", BASES)
def test_parts_add_up(name):
    spec = base(name)
    parts = explain(spec)
    assert sum(p["conv"] + p["linear"] for p in parts) == macs(spec)
    assert sum(p["conv"] + p["linear"] + p["bias"] for p in parts) == macs(spec, count_bias=True)
    assert sum(p["params"] for p in parts) == params(spec)
    for by in ("stage", "resolution"):
        assert sum(stage_shares(spec, by).macs) == macs(spec)


@pytest.mark.parametrize("name", SHARES)
def test_stage_shares(name):
    assert tuple(round(p, 1) for p in stage_shares(base(name)).percent) == SHARES[name]


@pytest.mark.parametrize("name", RESNET_SHARES)
def test_resnets_share_as_in_figure_2(name):
    """ResNet-18 is balanced, ResNet-50 has most in the middle stages."""
    assert tuple(round(p, 1) for p in stage_shares(base(name)).percent[1:-1]) == RESNET_SHARES[name]


def test_shares_by_resolution_join_block_groups_of_one_size():
    found = stage_shares(base("efficientnet_b0"), "resolution")
    assert found.names == ("stem", "1/2", "1/4", "1/8", "1/16", "1/32", "head")
    stages = stage_shares(base("efficientnet_b0")).macs
    assert found.macs[4] == stages[4] + stages[5]


def test_resolution_is_a_staircase():
    b0 = base("efficientnet_b0")
    assert {side: macs(b0.replace(resolution=side)) for side in B0_BY_SIDE} == B0_BY_SIDE
    found = count_many(b0, resolutions=list(B0_BY_SIDE))
    assert found.tolist() == list(B0_BY_SIDE.values())


def test_released_networks_contain_each_other():
    """GhostNet is in each b1 variant, and they in each of the two large networks, which contain each other not."""
    small = base("ghostnet_large")
    middle = [base("s_ghostnet_b1_uniform"), base("s_ghostnet_b1")]
    large = [base("s_ghostnet_b4"), base("s_ghostnet_b4_train")]
    for a, b in itertools.product(middle, large):
        assert a.includes(small)
        assert b.includes(a)
    assert not large[0].includes(large[1])
    assert not large[1].includes(large[0])


def test_published_widths_are_multiples_of_four_and_sides_of_eight():
    for name in ("s_ghostnet_b1_uniform", "s_ghostnet_b1", "s_ghostnet_b4", "s_ghostnet_b4_train"):
        spec = ArchSpec(**BASES[name])
        assert all(w % 4 == 0 for w in spec.widths)
        assert spec.resolution % 8 == 0
