"""The benchmark compares like with like and writes the results schema; speed itself is not asserted."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from effkit.results import read_csv
from tnt_vit.commands.bench import bench_report, build_provider
from tnt_vit.commands.bench.products import products

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
    alone = ["products"] if mode == "inference" else []
    assert {(r.provider, r.metric) for r in rows} >= {(p, "time") for p in [*providers, *alone, "floor"]}
    assert all(r.threads == 1 and r.case == "tnt_s4_patch16_224" and r.x == 1 for r in rows)
    found = report.data["batch_1"]
    assert found["seconds"].keys() == set(providers)
    assert found.get("share_of_products", 0.5) > 0
    assert found["faster_than_deit"]["deit"] == 1.0
    # Two rounds say nothing about which is faster; that is what the committed results are for.
    (floor,) = (r.median for r in rows if (r.provider, r.metric) == ("floor", "time"))
    assert found["floor_seconds"] == pytest.approx(floor, rel=1e-5)  # the file keeps six digits
    assert floor > 0
    assert report.files == ([csv, folder / "bench.png"] if mode == "train" else [csv])


def test_products_are_those_of_the_network():
    """By shapes: the same linear maps in the same order but for the classifier, and attention's two products each."""
    model, x = build_provider("ours", "tnt_s4_patch16_224", CPU, torch.float32), torch.randn(2, 3, 224, 224)
    seen = []
    alone = products(model, x)
    with Shapes(seen):
        alone()
    whole = []
    with Shapes(whole), torch.inference_mode():
        model(x)
    assert [s for name, s in seen if name == "linear"] == [s for name, s in whole if name == "linear"][:-1]
    heads, tokens = model.outer[0].num_heads, 197
    full = [((2 * heads, tokens, 64), (2 * heads, 64, tokens)), ((2 * heads, tokens, tokens), (2 * heads, tokens, 64))]
    single = [((2 * heads, 1, 64), (2 * heads, 64, tokens)), ((2 * heads, 1, tokens), (2 * heads, tokens, 64))]
    words = [((392, 64, 24), (392, 24, 16)), ((392, 64, 16), (392, 16, 24))]
    assert [shapes for name, shapes in seen if name == "bmm"] == words + 11 * full + single


class Shapes(TorchDispatchMode):
    """Notes the shapes of products; a linear map's whatever kernel it runs on."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func._schema.name.partition("::")[2]
        if name == "bmm":
            self.seen.append((name, (tuple(args[0].shape), tuple(args[1].shape))))
        if name in ("_linear_pointwise", "_mkl_linear", "linear"):
            self.seen.append(("linear", (tuple(args[0].shape), tuple(out.shape))))
        return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_parts_are_the_whole(tmp_path, precision):
    kwargs = {"batch_sizes": [1], "providers": ["ours"], "mode": "parts", "device": "cpu", "precision": precision}
    report = bench_report(
        "tnt_s4_patch16_224", **kwargs, min_rounds=1, min_seconds=0.0, threads=1, csv=tmp_path / "parts.csv"
    )
    parts = report.data["batch_1"]
    kinds = {"products", "attention", "norms", "sums and copies"}
    assert parts.keys() >= {f"{region}: {kind}" for region in ("words", "sentences") for kind in kinds}
    assert parts.keys() >= {"words to sentences: products", "stem and head", "calls"}
    rows = [row for row in read_csv(report.files[0]) if row.unit == "share"]
    assert sum(row.median for row in rows) == pytest.approx(1, abs=1e-4)
    assert {row.metric for row in rows} == {f"{precision} batch 1 share"}
    assert sum(line[1] for line in report.tables[0].rows) == pytest.approx(1e3 * sum(parts.values()))
    # Attention has two products and a softmax a block: much more than the sums beside it.
    assert parts["sentences: attention"] > parts["sentences: sums and copies"]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"providers": ["tim"]}, "timm"),
        ({"providers": []}, "empty"),
        ({"mode": "training"}, "inference"),
        ({"mode": "train"}, "ours_module"),
        ({"mode": "parts"}, "one of ours apart"),
        ({"mode": "parts", "providers": ["ours"], "compile": True}, "compile=false"),
        ({"batch_sizes": [0]}, "batch_sizes"),
        ({"variant": "tnt_x"}, "tnt_s_patch16_224"),
        ({"variant": "tnt_ti_patch16_224"}, "timm has no"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        bench_report(**{"min_rounds": 1, "min_seconds": 0.0, **kwargs})
