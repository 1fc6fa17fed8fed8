"""The benchmark compares like with like and writes the results schema; speed itself is not asserted."""

import pytest
import torch

from effkit.results import read_csv
from tnt_vit.commands.bench import bench_report, build_provider

CPU = torch.device("cpu")


def test_providers_share_their_weights():
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outs = {n: build_provider(n, "tnt_s3_patch16_224", CPU, torch.float32)(x) for n in ("ours", "ours_module")}
        outs |= {n: build_provider(n, "tnt_s_patch16_224", CPU, torch.float32)(x) for n in ("timm", "ours_words_first")}
    torch.testing.assert_close(outs["ours"], outs["ours_module"], rtol=0, atol=1e-4)
    torch.testing.assert_close(outs["timm"], outs["ours_words_first"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["inference", pytest.param("train", marks=pytest.mark.slow)])
def test_rows_ratios_and_floor(tmp_path, mode):
    providers = ["ours_module", "deit"] if mode == "train" else ["ours", "deit"]
    csv = tmp_path / "out.csv"
    folder = tmp_path / "run"
    report = bench_report(
        "tnt_s4_patch16_224",
        batch_sizes=[1],
        providers=providers,
        mode=mode,
        device="cpu",
        min_rounds=2,
        min_seconds=0.0,
        threads=1,
        csv=csv,
        folder=folder if mode == "train" else None,
    )
    rows = read_csv(csv)
    assert {(r.provider, r.metric) for r in rows} >= {(p, "time") for p in [*providers, "floor"]}
    assert all(r.threads == 1 and r.case == "tnt_s4_patch16_224" and r.x == 1 for r in rows)
    found = report.data["batch_1"]
    assert found["seconds"].keys() == set(providers)
    assert found["faster_than_deit"]["deit"] == 1.0
    # Two rounds say nothing about which is faster; that is what the committed results are for.
    (floor,) = (r.median for r in rows if (r.provider, r.metric) == ("floor", "time"))
    assert found["floor_seconds"] == pytest.approx(floor, rel=1e-5)  # the file keeps six digits
    assert floor > 0
    assert report.files == ([csv, folder / "bench.png"] if mode == "train" else [csv])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"providers": ["tim"]}, "timm"),
        ({"providers": []}, "empty"),
        ({"mode": "training"}, "inference"),
        ({"mode": "train"}, "ours_module"),
        ({"batch_sizes": [0]}, "batch_sizes"),
        ({"variant": "tnt_x"}, "tnt_s_patch16_224"),
        ({"variant": "tnt_ti_patch16_224"}, "timm has no"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        bench_report(**{"min_rounds": 1, "min_seconds": 0.0, **kwargs})
