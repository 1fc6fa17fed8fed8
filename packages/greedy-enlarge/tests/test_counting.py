"""The closed forms against networks that run, and what they refuse."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from effkit.cost import measure_image
from effkit.errors import UserError
from greedy_enlarge import reference
from greedy_enlarge.families import base, count_many, macs, params
from greedy_enlarge.networks.build import build
from greedy_enlarge.spec import ArchSpec

# 504 networks, of which the quick tests take a third; families whose networks are quick to build get more of them.
ROUNDS = {"efficientnet": 30, "ghostnet": 4, "ghostnet_large": 30, "resnet": 140, "regnet": 120, "custom": 180}
BLOCKS = ("ir_r1_k3_s{s}_e{e}_c8", "ir_r1_k5_s{s}_e{e}_c8_se0.25", "ds_r1_k3_s{s}_e1_c8_se0.25", "ds_r1_k5_s{s}_c8",
          "er_r1_k3_s{s}_e{e}_c8", "er_r1_k3_s{s}_e{e}_c8_se0.25_noskip", "cn_r1_k3_s{s}_c8", "cn_r1_k1_s{s}_c8_skip",
          "ir_r1_k3_s{s}_e{e}_c8_se0.5_nre")  # fmt: skip


def random_spec(family: str, draw: random.Random) -> ArchSpec:
    side, classes, chans = draw.randint(33, 130), draw.randint(1, 30), draw.choice([1, 3])
    more = {"classes": classes, "in_chans": chans}

    def depths(stages: int) -> tuple[int, ...]:
        return tuple(draw.choice([1, 1, 2]) for _ in range(stages))

    def widths(stages: int, grain: int, most: int) -> tuple[int, ...]:
        return tuple(grain * draw.randint(1 if grain > 3 else 4, most) for _ in range(stages))

    if family == "efficientnet":
        stem, head = draw.randint(4, 40), draw.randint(1, 90)
        return ArchSpec(family, depths(7), widths(7, draw.choice([1, 2, 8]), 9), side, stem, head, **more)
    if family == "ghostnet_large":
        return ArchSpec(family, depths(6), widths(6, draw.choice([1, 2, 4]), 20), side, **more)
    if family == "ghostnet":
        return base("ghostnet_100", resolution=side, **more)
    if family == "resnet":
        kind = draw.choice(["basic", "bottleneck"])
        wide = [*widths(3, 4, 30), 64]
        draw.shuffle(wide)  # a first stage as wide as the stem has no projection
        return ArchSpec(family, depths(4), tuple(wide), side, template=(kind,), **more)
    if family == "regnet":
        group = draw.choice([4, 8, 12])
        kind = f"{draw.choice('xy')}_g{group}"
        return ArchSpec(family, depths(4), widths(4, group, 8), side, draw.randint(3, 40), template=(kind,), **more)
    stages = draw.randint(1, 6)
    strides = [draw.choice([1, 2]) if i < 4 else 1 for i in range(stages)]
    template = tuple(draw.choice(BLOCKS).format(s=s, e=draw.choice(["1", "2.5", "3", "6"])) for s in strides)
    stem, head = draw.randint(4, 24), draw.randint(1, 40)
    return ArchSpec(family, depths(stages), widths(stages, 1, 40), side, stem, head, template=template, **more)


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("family", ROUNDS)
def test_closed_forms_never_disagree_with_a_network(family, share):
    draw = random.Random(family)
    wrong = []
    for _ in range(-(-ROUNDS[family] // share)):
        spec = random_spec(family, draw)
        model = build(spec, device="meta")
        counted = reference.macs(model, spec.resolution, spec.in_chans), reference.params(model)
        if counted != (macs(spec), params(spec)):
            wrong.append((spec.to_json(), counted, macs(spec), params(spec)))
    assert wrong == []


def test_reference_agrees_with_the_core():
    spec = base("tiny")
    found = measure_image(build(spec, device="meta"), spec.resolution, spec.in_chans)
    assert (found.macs, found.params) == (macs(spec), params(spec))


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "ghostnet_large", "ghostnet_100", "resnet18", "resnet50", "regnety_004", "tiny"]
)
@pytest.mark.parametrize("what", ["macs", "params"])
def test_populations_are_counted_as_single_networks(name, what):
    spec, rng, number = base(name), np.random.default_rng(0), 300
    moved = 0 if name == "ghostnet_100" else 1
    depths = np.array(spec.depths) + moved * rng.integers(0, 3, (number, spec.stages))
    widths = np.array(spec.widths) + moved * 8 * rng.integers(0, 4, (number, spec.stages))
    sides = spec.resolution + rng.integers(0, 40, number)
    found = count_many(spec, depths, widths, sides, what=what)
    assert found.dtype == np.int64
    one = macs if what == "macs" else params
    rows = zip(depths, widths, sides, found, strict=True)
    assert [int(f) for *_, f in rows] == [
        one(spec.replace(depths=d, widths=w, resolution=int(s))) for d, w, s in zip(depths, widths, sides, strict=True)
    ]


def test_large_populations_are_counted_in_pieces():
    spec = base("tiny")
    sides = np.arange(24, 24 + 20_000) % 100 + 24
    found = count_many(spec, resolutions=sides)
    assert found[17_000] == macs(spec.replace(resolution=int(sides[17_000])))
    assert count_many(spec, resolutions=np.zeros(0, dtype=int)).shape == (0,)


@pytest.mark.parametrize("name", ["efficientnet_b0", "ghostnet_large", "resnet50", "regnetx_002"])
def test_a_move_changes_only_what_it_touches(name):
    """A depth move changes its stage; a width move its stage and the next, and for some stages stem and head."""
    from greedy_enlarge.families import stage_shares

    spec = base(name)
    before = stage_shares(spec).macs
    ends = {0, spec.stages + 1}
    for i in range(spec.stages):
        deeper = list(spec.depths)
        deeper[i] += 1
        after = stage_shares(spec.replace(depths=deeper)).macs
        changed = {j for j, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        assert changed == {i + 1}, (i, changed)
        wider = list(spec.widths)
        wider[i] += 8
        after = stage_shares(spec.replace(widths=wider)).macs
        changed = {j for j, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        assert i + 1 in changed
        assert changed - {i + 1, i + 2} <= ends
        assert macs(spec.replace(widths=wider)) > macs(spec)


def test_ghost_tail_follows_the_last_block():
    """With depth 1 the tail is derived from the fifth width, from depth 2 on from the sixth: 672 and 960 channels."""
    spec = base("ghostnet_large")
    shallow = build(spec.replace(depths=(1, 2, 2, 4, 2, 1)), device="meta")
    deep = build(spec.replace(depths=(1, 2, 2, 4, 2, 2)), device="meta")
    assert (shallow.num_features, deep.num_features) == (672, 960)


BAD = {
    "lengths": (lambda: ArchSpec("resnet", (1, 1, 1), (8, 8, 8, 8), 32), "spec.depths has 3 stages and spec.widths 4"),
    "stages": (lambda: ArchSpec("efficientnet", (1, 1), (8, 8), 32), "efficientnet: it has 7"),
    "bool": (lambda: base("tiny", depths=(True, 1, 1)), "spec.depths[0]=True"),
    "fraction": (lambda: base("tiny", widths=(8, 12.5, 16)), "spec.widths[1]=12.5"),
    "zero": (lambda: base("tiny", depths=(0, 1, 1)), "spec.depths[0]=0"),
    "negative": (lambda: base("tiny", resolution=-4), "spec.resolution=-4"),
    "huge": (lambda: base("tiny", widths=(8, 12, 10**9)), "1..32768"),
    "text": (lambda: base("tiny", widths="8"), "spec.widths='8'"),
    "family": (lambda: ArchSpec("resnets", (1,), (1,), 1), "did you mean 'resnet'"),
    "base": (lambda: base("efficientnet_b9"), "base='efficientnet_b9' is not known"),
    "published ghostnet grows": (lambda: macs(base("ghostnet_100", depths=(1, 2, 2, 4, 2, 6))), "ghostnet_large"),
    "ghost stem": (lambda: macs(base("ghostnet_large", stem=16)), "spec.stem=16 follows"),
    "template": (lambda: macs(base("efficientnet_b0", template=("ir",))), "spec.template"),
    "resnet kind": (lambda: macs(base("resnet18", template=("wide",))), "['basic'] or ['bottleneck']"),
    "resnet stem": (lambda: macs(base("resnet18", stem=32)), "spec.stem=32"),
    "bottleneck": (lambda: macs(base("resnet50", widths=(256, 512, 1022, 2048))), "spec.widths[2]=1022"),
    "regnet kind": (lambda: macs(base("regnety_004", template=("z_g8",))), "['z_g8']"),
    "regnet group": (lambda: macs(base("regnety_004", widths=(48, 104, 204, 440))), "spec.widths[2]=204"),
    "block": (lambda: macs(base("tiny", template=("xx_r1_k3_s1_c8",) * 3)), "block 'xx'"),
    "word": (lambda: macs(base("tiny", template=("ir_r1_k3_s1_e3_c8_gs2",) * 3)), "'gs2'"),
    "word twice": (lambda: macs(base("tiny", template=("ir_r1_k3_s1_e3_c8_k5",) * 3)), "'k5'"),
    "no kernel": (lambda: macs(base("tiny", template=("ir_r1_s1_e3_c8",) * 3)), "lacks k"),
    "even kernel": (lambda: macs(base("tiny", template=("ir_r1_k4_s1_e3_c8",) * 3)), "k must be odd"),
    "stride": (lambda: macs(base("tiny", template=("ir_r1_k3_s3_e3_c8",) * 3)), "s 1 or 2"),
    "no squeeze": (lambda: macs(base("tiny", stem=1, template=("ir_r1_k3_s1_e6_c8_se0.25",) * 3)), "squeezes 1"),
    "json": (lambda: ArchSpec.from_json("{"), "spec is no JSON"),
    "json key": (lambda: ArchSpec.from_dict({"famly": "resnet"}), "did you mean 'family'"),
    "json lacks": (lambda: ArchSpec.from_dict({"family": "resnet"}), "spec lacks depths"),
    "population of floats": (lambda: count_many(base("tiny"), resolutions=[24.5]), "whole numbers"),
    "population shape": (lambda: count_many(base("tiny"), depths=[[1, 1]]), "has shape (1, 2)"),
    "population lengths": (lambda: count_many(base("tiny"), [[1, 1, 1]], resolutions=[1, 2]), "differ in length"),
    "population zero": (lambda: count_many(base("tiny"), depths=[[1, 0, 1]]), "spec.depths[1]=0"),
    "population group": (lambda: count_many(base("regnety_004"), widths=[[48, 104, 204, 440]]), "multiple of the"),
    "population nothing": (lambda: count_many(base("tiny")), "needs depths"),
    "too many": (
        lambda: count_many(
            base("efficientnet_b0"), [[1000] * 7] * 2, [[8] * 7, [32_768] * 7], resolutions=[8_192, 8_192]
        ),
        "too many to add up exactly",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(case):
    make, said = BAD[case]
    with pytest.raises(UserError) as error:
        make()
    assert said in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


def test_specs_travel_as_json():
    for name in ("efficientnet_b0", "ghostnet_large", "resnet50", "regnety_004", "tiny"):
        spec = base(name)
        again = ArchSpec.from_json(spec.to_json())
        assert again == spec
        assert hash(again) == hash(spec)
        assert again.to_json() == spec.to_json()
        assert spec.with_coordinates(spec.coordinates()) == spec
    assert ArchSpec("resnet", np.array([1, 1, 1, 1]), [64, 64, 64, 64], np.int64(32), template=["basic"]).to_json()


def test_building_on_the_meta_device_takes_no_memory_and_a_forward_pass_has_the_shape():
    spec = base("tiny")
    model = build(spec)
    assert model(torch.zeros(2, 1, 24, 24)).shape == (2, 17)
    assert all(p.is_meta for p in build(base("resnet50"), device="meta").parameters())
