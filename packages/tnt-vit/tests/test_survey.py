"""`tnt-vit survey`: the registry, counts, features, and a whole run in which some networks cannot be measured."""

import json
import math

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from effkit.timing import Timing
from tnt_vit.survey.counting import count
from tnt_vit.survey.features import block_features, cka_matrix, diversity, linear_cka, on_grid
from tnt_vit.survey.fronts import pareto
from tnt_vit.survey.memory import largest
from tnt_vit.survey.models import Skipped, build, is_out_of_memory
from tnt_vit.survey.registry import read_registry, select
from tnt_vit.survey.settings import Settings
from tnt_vit.survey.speed import Speed, run_case, summarise
from tnt_vit.survey.store import Store, read_rows
from tnt_vit.survey.tables import spearman

# Parameters and GMACs, counted once with timm 1.0.31 and transformers 5.23 by another counter; activations in millions
# by ours, checked by hand for DeiT in test_survey_costs.
QUICK = {
    "resnet50": (25_557_032, 4.089, 11.11),
    "efficientnet_b1": (7_794_184, 0.687),
    "deit_tiny": (5_717_416, 1.254, 5.97),
    "tnt_s": (23_768_584, 5.217, 24.37),
    "swin_tiny": (28_288_354, 4.491, 17.06),
    "twins_svt_small": (24_060_776, 2.927, 13.75),
}
ALL = {
    "resnet101": (44_549_160, 7.801), "resnet152": (60_192_808, 11.514), "efficientnet_b0": (5_288_548, 0.386),
    "efficientnet_b3": (12_233_232, 1.827), "efficientnet_b4": (19_341_616, 4.394), "deit_small": (22_050_664, 4.599),
    "deit_base": (86_567_656, 17.564), "tnt_b": (65_428_680, 14.049), "tnt_s_timm": (23_768_584, 5.217),
    "swin_small": (49_606_258, 8.741), "swin_base": (87_768_224, 15.431), "twins_svt_large": (99_271_400, 15.112),
    "volo_d1": (26_632_040, 6.919), "volo_d2": (58_678_336, 14.305), "volo_d4": (192_961_520, 44.263),
    "volo_d5": (295_455_584, 72.301), "pvt_small": (24_485_864, 3.816), "pvt_medium": (44_208_104, 6.659),
    "pvt_large": (61_369_320, 9.814), "pvt_v2_b2": (25_362_856, 4.027), "xcit_small": (26_253_304, 4.796),
    "levit_256": (18_893_876, 1.127), "visformer_small": (40_219_592, 4.879), "convit_small": (27_777_322, 5.747),
    "coat_lite_small": (19_838_504, 3.944), "nest_small": (38_351_176, 10.323), "crossvit_15": (27_528_464, 5.791),
    "mixer_b16": (59_880_472, 12.602), "resmlp_24": (30_020_680, 5.961), "regnety_080": (39_180_068, 7.963),
    "regnety_160": (83_590_140, 15.912), "twins_pcpvt_small": (24_106_216, 3.809),
}  # fmt: skip


def check_counts(name, expected):
    found = count(read_registry()[name])
    assert found["params"] == expected[0]
    assert found["macs"] / 1e9 == pytest.approx(expected[1], abs=6e-4)
    assert sum(found["macs_by"].values()) == found["macs"]
    assert [round(found["activations"] / 1e6, 2)] * len(expected[2:]) == [*expected[2:]]


@pytest.mark.parametrize("name", QUICK)
def test_counts(name):
    check_counts(name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_counts_of_the_rest(name):
    pytest.importorskip("transformers")
    check_counts(name, ALL[name])


@pytest.mark.slow
def test_every_backbone_that_can_be_built_has_the_blocks_it_names():
    for backbone in read_registry().values():
        if backbone.source == "none":
            continue
        with torch.device("meta"):
            net = build(backbone).net
        if backbone.blocks:
            from tnt_vit.survey.models import block_names

            assert len(block_names(net, backbone.blocks)) > 3, backbone.name


def test_the_registry_holds_the_whole_table():
    registry = read_registry()
    rows = select(registry, "table2")
    assert len(rows) == 37  # 34 rows with figures, and three that are not copied
    assert sum(bool(b.published) for b in rows) == 34
    assert all(len(b.published) == 4 for b in rows if b.published)
    assert registry["deit_small"].published == {"params_m": 22, "flops_g": 4.6, "v100": 940, "top1": 79.8}
    assert registry["swin_small"].weights == "swin_small_patch4_window7_224.ms_in1k"
    # Weights are of ImageNet-1k alone, or a note says otherwise.
    assert [b.name for b in registry.values() if "in1k" not in b.tag and b.source == "timm"] == []
    assert all("21k" in b.note for b in registry.values() if "21k" in b.tag or "22k" in b.tag)
    assert select(registry, "small")[0].name == "resnet50"
    (found,) = select(registry, "all", ["timm:deit_tiny_patch16_*"])  # a pattern of timm's names
    assert (found.name, found.size) == ("deit_tiny_patch16_224", 224)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[backbone]]\nmodel = 'x'", ["needs a name"]),
        ("[[backbone]]\nname = 'x'\nmodle = 'y'", ["modle", "model"]),
        ("[[backbone]]\nname = 'x'\nmodel = 'y'\nsource = 'tim'", ["tim", "timm"]),
        ("[[backbone]]\nname = 'x'", ["model="]),
        ("[[backbone]]\nname = 'x'\nsource = 'none'", ["absent"]),
        ("[[backbone]]\nname = 'x'\nmodel = 'y'\nsize = 'big'", ["size='big'", "whole number"]),
        ("[[backbone]]\nname = 'x'\nmodel = 'y'\nblocks = '('", ["regular expression"]),
        ("[[backbone]]\nname = 'x'\nmodel = 'y'\npublished = {top1 = -1}", ["top1=-1", "positive"]),
        ("[[backbone]]\nname = 'x'\nmodel = 'y'\n[[backbone]]\nname = 'x'\nmodel = 'y'", ["two backbones"]),
        ("backbone = 3", ["no [[backbone]]"]),
        ("[[", ["no TOML"]),
    ],
)
def test_a_registry_of_the_user_is_checked(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_registry(str(file))
    assert all(word in str(error.value) for word in [*said, "mine.toml"])
    assert "\n" not in str(error.value)


def test_settings_and_names_are_checked():
    registry = read_registry()
    for given, word in (
        ({"parts": ["sped"]}, "speed"), ({"together": 1}, "at least 2"), ({"batch_sizes": [0]}, "batch_sizes"),
        ({"batch_sizes": [2, 2]}, "different"), ({"min_seconds": math.inf}, "finite"), ({"min_rounds": "a"}, "min_r"),
        ({"largest_batch": True, "device": "cpu"}, "CUDA"), ({"precision": "fp8"}, "bf16"), ({"train_batch": 0}, "t"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=word):
            Settings(**given)
    with pytest.raises(UserError, match="deit_small"):
        select(registry, "small", ["deit_smal"])
    with pytest.raises(UserError, match="fits no name"):
        select(registry, "small", ["timm:nothing_like_it*"])
    with pytest.raises(Skipped, match="in neither timm"):
        build(registry["t2t_vit_14"])
    assert Settings(device="cpu", batch_sizes=[8, 2]).batches == (1, 2, 8)


# --- features ---------------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """A network whose one block puts out what it is given."""

    def __init__(self):
        super().__init__()
        self.block = nn.Identity()

    def forward(self, x):
        return self.block(x)


def test_diversity_of_equal_and_of_orthogonal_tokens():
    equal = diversity(Given(), torch.ones(2, 16, 1) * torch.randn(2, 1, 5), "block")[0]
    assert [equal[k] for k in ("cosine", "relative_residual", "effective_rank")] == pytest.approx([1, 0, 1], abs=1e-6)
    other = diversity(Given(), torch.eye(9)[None], "block")[0]
    assert [other[k] for k in ("cosine", "effective_rank")] == pytest.approx([0, 9], abs=1e-6)


def test_cka_of_rotated_and_of_independent_features():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 100, generator=draw, dtype=torch.float64)  # fewer samples than columns
    rotation = torch.linalg.qr(torch.randn(100, 100, generator=draw, dtype=torch.float64))[0]
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1)
    others = [linear_cka(x, torch.randn(40, 100, generator=draw, dtype=torch.float64)) for _ in range(20)]
    assert abs(sum(others) / 20) < 0.02  # the plain estimate calls them alike: 0.7
    matrix = cka_matrix([x, x @ rotation, torch.zeros(40, 2)])
    assert matrix[0][1] == matrix[1][0] == pytest.approx(1)
    assert math.isnan(matrix[0][2])
    with pytest.raises(UserError, match="same samples"):
        linear_cka(x, x[:-1])


def test_tokens_are_brought_to_one_grid():
    places = torch.arange(16.0).view(1, 16, 1)
    assert on_grid(places, grid=2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    with_class = torch.cat([torch.full((1, 1, 1), 1e6), places], dim=1)
    assert torch.equal(on_grid(with_class, prefix=1, grid=2), on_grid(places, prefix=1, grid=2))
    with pytest.raises(UserError, match="no square"):
        on_grid(torch.zeros(1, 15, 1))
    assert block_features(Given(), torch.rand(2, 49, 3), "block")["block"].shape == (98, 3)
    with pytest.raises(UserError, match="blocks='blok'"):
        diversity(Given(), torch.rand(1, 4, 3), "blok")


# --- parts ------------------------------------------------------------------------------------------------------------


def test_bisection_finds_a_planted_limit():
    for limit in (0, 1, 2, 7, 64, 100, 4095, 4096, 9999):
        tried: list[int] = []
        found = largest(lambda n, limit=limit, tried=tried: tried.append(n) or n <= limit)
        assert found == min(limit, 4096)
        assert len(tried) <= 25


def test_what_few_samples_cannot_tell_is_left_out():
    found = summarise(Timing(0.2, 0.1, 0.3, 9, samples=tuple(0.02 * i for i in range(6, 15))), 4)
    assert found["p50"] == found["seconds"] == 0.2
    assert found["p90"] is None
    assert found["images_per_second"] == pytest.approx(20)
    assert found["noisy"]
    quiet = summarise(Timing(1.0, 1.0, 1.0, 100, samples=(1.0,) * 100), 1)
    assert not quiet["noisy"]
    assert quiet["interval"] == (1.0, 1.0)
    assert quiet["p99"] == 1.0


def test_a_network_that_fails_leaves_the_others():
    class Bad(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            raise self.error

    models = {"good": nn.Flatten(), "wrong": Bad(ValueError("no")), "large": Bad(RuntimeError("CUDA out of memory."))}
    speed = Speed(torch.device("cpu"), torch.float32, min_rounds=2, min_seconds=0.0)
    times, together, failed = run_case(models, dict.fromkeys(models, 4), 1, speed, "wall")
    assert list(times) == ["good"]
    assert together is not None
    assert {name: f.status for name, f in failed.items()} == {"wrong": "failed", "large": "out of memory"}
    assert failed["wrong"].reason == "ValueError: no"
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("memory"))


def test_rank_correlation_and_front():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(math.sqrt(0.9))
    assert math.isnan(spearman([1, 1], [1, 2]))
    points = {"a": (1.0, 5.0), "b": (2.0, 4.0), "c": (1.5, 3.0), "d": (3.0, 1.0)}
    assert pareto(points) == ["a", "b", "d"]


def test_a_store_goes_on_where_it_was_killed(tmp_path):
    row = {"status": "measured", "settings": {}, "settings_id": "x", "backbone": {}}
    store = Store(tmp_path)
    store.add(row | {"name": "a"})
    store.add(row | {"name": "b", "status": "failed"})
    with pytest.raises(KeyboardInterrupt), store.measuring(["c"]):
        raise KeyboardInterrupt
    assert Store(tmp_path).killed == []
    with open(store.file, "a") as file:
        file.write('{"name": "c", "sta')  # killed while it wrote
    (tmp_path / "begun.json").write_text('["c"]')
    again = Store(tmp_path)
    assert again.killed == ["c"]
    assert again.kept("a", "x")
    assert again.kept("a", "y") is None
    assert again.kept("b", "x") is None  # tried again
    again.add(row | {"name": "c"})
    again.add(row | {"name": "a", "settings_id": "z", "status": "counted"})  # takes nothing away
    assert read_rows(tmp_path)[0]["status"] == "measured"
    assert [r["name"] for r in read_rows(tmp_path)] == ["a", "b", "c"]
    assert all(map(json.loads, store.file.read_text().splitlines()))
    assert Store(tmp_path, fresh=True).kept("a", "x") is None
    for text, said in (("[1]\n{}\n", "line 1"), ("", "holds no row")):
        (tmp_path / "wrong.jsonl").write_text(text)
        with pytest.raises(UserError, match=said):
            read_rows(tmp_path / "wrong.jsonl")
