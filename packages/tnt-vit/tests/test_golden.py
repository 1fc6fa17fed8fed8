"""Parameters and MACs: the paper's variants to the last digit, and the closed forms against counts of random sizes."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effkit.cost import Cost, measure_image
from tnt_vit.layers.stem import fold_word_filters
from tnt_vit.model import TNT
from tnt_vit.paper.closed_forms import Sizes, dead_params, estimated_block_macs, macs, params
from tnt_vit.paper.cost import timm_cost, variant_cost

# Live parameters and MACs of one picture, counted in the official design; S-2, (4, 96) and B at 384 here only.
GOLDEN = {
    "tnt_ti_patch16_224": (6_076_408, 1_403_721_984),
    "tnt_s_patch16_224": (23_768_584, 5_216_875_008),
    "tnt_b_patch16_224": (65_428_680, 14_049_082_880),
    "tnt_s_se_patch16_224": (24_668_296, 5_217_759_744),
    "tnt_s_legacy_patch16_224": (23_755_336, 5_216_875_008),
    "tnt_s_patch16_384": (23_914_504, 17_306_492_928),
    "tnt_b_patch16_384": (65_671_880, 44_533_473_280),
    "tnt_s1_patch16_224": (22_519_432, 4_792_988_160),
    "tnt_s2_patch16_224": (22_363_288, 4_740_002_304),
    "tnt_s3_patch16_224": (22_207_144, 4_687_016_448),
    "tnt_s4_patch16_224": (22_051_000, 4_634_030_592),
    "tnt_s_m64_patch16_224": (23_686_000, 5_108_494_848),
    "tnt_s_m4_patch16_224": (25_032_040, 5_975_536_128),
}

# Which module's own operators make up a part of the MACs; ``blocks.3`` and the like come first in these names.
PARTS = {
    "inner linear": r"blocks\.\d+\.(attn_in\.(qk|v|proj)|mlp_in\.fc[12])",
    "inner attention": r"blocks\.\d+\.attn_in",
    "word to sentence": r"blocks\.\d+\.proj",
    "outer linear": r"blocks\.\d+\.(attn_out\.(qk|v|proj)|mlp\.fc[12])",
    "outer attention": r"blocks\.\d+\.attn_out",
    "SE": r"blocks\.\d+\.se_layer\.fc\.[13]",
    "stem": r"pixel_embed\.proj",
    "stem projection": r"proj",
    "head": r"head",
}


def measured_parts(cost: Cost) -> dict[str, int]:
    """MACs per part as counted; every layer that has any must belong to exactly one part."""
    found = dict.fromkeys(PARTS, 0)
    for layer in cost.layers:
        if layer.macs:
            (part,) = [part for part, pattern in PARTS.items() if re.fullmatch(pattern, layer.name)]
            found[part] += layer.macs
    return found


@pytest.mark.parametrize("variant", GOLDEN)
def test_counts_of_the_variants(variant: str) -> None:
    sizes, cost = variant_cost(variant)
    assert (cost.params, cost.macs) == GOLDEN[variant]
    assert cost.uncounted == ()
    assert sum(params(sizes).values()) == cost.params
    assert macs(sizes) == measured_parts(cost)


def test_split_of_tnt_s() -> None:
    split = {part: round(count / 1e6, 1) for part, count in macs(Sizes()).items()}
    assert split == {
        "inner linear": 260.1,
        "inner attention": 28.9,
        "word to sentence": 346.8,
        "outer linear": 4183.0,
        "outer attention": 357.7,
        "SE": 0.0,
        "stem": 11.1,
        "stem projection": 28.9,
        "head": 0.4,
    }


def test_the_paper_counts_a_table_that_nothing_reads() -> None:
    sizes, cost = variant_cost("tnt_b_patch16_224")
    assert cost.params + dead_params(sizes) == 65_554_120


def test_deit_s() -> None:
    cost, _ = timm_cost("deit_small_patch16_224", 224)
    assert (cost.params, cost.macs) == (22_050_664, 4_598_882_304)


def test_estimate_of_section_2_2() -> None:
    assert estimated_block_macs(Sizes()) == 429_305_856
    assert estimated_block_macs(Sizes(), inner=False) == 376_320_000


def test_published_formula_for_the_usual_sizes() -> None:
    L, c, d, n, m, K = 12, 24, 384, 196, 16, 1000
    N = n + 1
    flops = L * (12 * n * m * c**2 + 2 * n * m**2 * c + n * m * c * d + 12 * N * d**2 + 2 * N**2 * d)
    flops += 147 * n * m * c + n * m * c * d + d * K
    weights = L * (12 * c**2 + 10 * c + 2 * m * c + m * c * d + 2 * d + 12 * d**2 + 10 * d)
    weights += (147 * c + c) + m * c + (2 * m * c + m * c * d + d + 2 * d) + d + (n + 1) * d + 2 * d + d * K + K
    assert sum(macs(Sizes()).values()) == flops
    assert sum(params(Sizes()).values()) == weights


@st.composite
def architectures(draw: st.DrawFn) -> dict:
    """Arguments of small TNTs that differ in everything the closed forms depend on."""
    stride = draw(st.sampled_from([2, 4]))
    patch = (stride * draw(st.integers(1, 3)), stride * draw(st.integers(1, 3)))
    heads, inner_heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    depth = draw(st.integers(1, 3))
    return {
        "img_size": (patch[0] * draw(st.integers(1, 3)), patch[1] * draw(st.integers(1, 3))),
        "patch_size": patch,
        "inner_stride": stride,
        "in_chans": draw(st.integers(1, 4)),
        "num_classes": draw(st.sampled_from([0, 1, 10])),
        "embed_dim": heads * draw(st.integers(2, 8)),
        "num_heads": heads,
        "inner_dim": inner_heads * draw(st.integers(1, 6)),
        "inner_num_heads": inner_heads,
        "depth": depth,
        "tnt_blocks": sorted(draw(st.sets(st.integers(1, depth)))),
        "mlp_ratio": draw(st.sampled_from([1.5, 2.0, 4.0])),
        "qkv_bias": draw(st.booleans()),
        "se_ratio": draw(st.sampled_from([0.0, 0.5])),
        "legacy": draw(st.booleans()),
    }


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(args=architectures())
def test_closed_forms_hold_for_any_sizes(args: dict) -> None:
    model = TNT(**args, backend="reference", device="meta")
    cost = measure_image(model, args["img_size"], args["in_chans"])
    sizes = Sizes.from_args(args)
    assert sum(params(sizes).values()) == cost.params
    assert macs(sizes) == measured_parts(cost)
    assert macs(Sizes.of(model)) == macs(sizes)
    assert params(Sizes.of(model)) == params(sizes)


def test_what_watches_modules_counts_the_stem_of_the_rows() -> None:
    """Folded to patch-sized filters the stem spends 57.8M MACs, not 11.1M; a hook on the convolution has it called."""
    with torch.device("meta"):
        watched = measure_image(TNT(backend="torch", depth=1), 224)
        plain = measure_image(TNT(backend="reference", depth=1), 224)
        stem = TNT(backend="torch", depth=1).pixel_embed
        folded = fold_word_filters(stem.proj.weight, stem.patch_size, stem.stride)
    assert (watched.params, watched.macs) == (plain.params, plain.macs)
    (conv,) = [layer for layer in watched.layers if layer.name == "pixel_embed.proj"]
    assert 196 * folded.numel() - conv.macs == 196 * 16 * 24 * 3 * (256 - 49)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"img_size": 225}, "img_size=225"),
        ({"inner_stride": 5}, "inner_stride=5"),
        ({"tnt_blocks": [13]}, "13 is not a block number"),
        ({"depth": 0}, "depth must be"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be"),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sizes(**wrong)
