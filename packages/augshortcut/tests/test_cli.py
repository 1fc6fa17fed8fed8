"""The commands, run in this process: what they print, write and return, and how they answer mistakes."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from augshortcut.checkpoints.files import load_paths
from augshortcut.cli import main
from effkit.testing import assert_one_line_mistake, in_process

SMALL = ["model=vit_digits", "model.depth=1", "threads=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def test_train_eval_fold_and_diversity_of_a_run(run, tmp_path):
    folder = tmp_path / "out"
    words = [
        "train",
        *SMALL,
        "data.limit=64",
        "trainer=cpu",
        f"hydra.run.dir={folder}",
        "scheduler=none",
        "format=json",
    ]
    code, out, err = run(*words, "trainer.max_epochs=1")
    assert code == 0, err
    assert json.loads(out)["data"]["path_params"] == 2 * 2 * (4 * 48 + 48)
    for name in ("metrics.csv", "metrics.json", "model.safetensors", "paths.safetensors", "checkpoints/last.ckpt"):
        assert (folder / name).is_file(), name

    code, out, err = run("eval", f"run={folder}", "data.limit=32", "format=json")
    assert code == 0, err
    first = json.loads(out)["data"]
    assert first["images"] == 32
    weights = f"model.pretrained={folder / 'model.safetensors'}"
    code, out, err = run("eval", *SMALL, weights, "data=digits", "data.limit=32", "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["test_loss"] == pytest.approx(first["test_loss"], rel=1e-5)

    code, out, err = run("fold", f"run={folder}", f"out={tmp_path / 'folded.safetensors'}", "format=json")
    assert code == 0, err
    assert json.loads(out)["data"]["match"]
    assert (tmp_path / "folded.safetensors").is_file()

    code, out, err = run("diversity", "chelsea", f"run={folder}", "bound=true", "format=json")
    assert code == 0, err
    document = json.loads(out)
    assert [row["layer"] for row in document["data"]["rows"]] == ["blocks.0"]
    assert all(row["holds"] for row in document["data"]["bound"])
    assert sorted(file.rsplit("/", 1)[-1] for file in document["files"]) == [
        "bound.png",
        "diversity.png",
        "paths.png",
        "similarity.png",
    ]


def test_only_the_paths_learn_and_travel_alone(run, tmp_path):
    torch.manual_seed(0)
    arguments = {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": 32, "patch_size": 8, "num_classes": 10}
    base = timm.create_model("vit_tiny_patch16_224", **arguments)
    torch.save(base.state_dict(), tmp_path / "base.pth")
    words = [
        "train",
        *SMALL,
        "aug=retrofit",
        "learn=paths",
        "model.pretrained=base.pth",
        "data.limit=64",
        "trainer=cpu",
    ]
    code, _, err = run(*words, "trainer.max_epochs=1", "scheduler=none", "hydra.run.dir=out")
    assert code == 0, err
    load_paths(base, tmp_path / "out" / "paths.safetensors")
    assert float(base.blocks[0].aug_attn.gate.detach().abs().sum()) > 0


def test_summary_has_the_three_columns(run, tmp_path):
    code, out, _ = run("summary", "variants=[augvit_small_circulant2]", "format=json")
    assert code == 0
    assert json.loads(out)["data"]["augvit_small_circulant2"] == {
        "params": 22_142_824,
        "macs_executed": 4_947_468_288,
        "macs_dense_equivalent": 5_993_226_240,
        "macs_paper": 4_676_355_312,
    }
    assert list(tmp_path.iterdir()) == []  # a report leaves nothing behind


def test_bench_gives_ratios_and_floors(run, tmp_path):
    quick = ["width=192", "batch_sizes=[1]", "tokens=9", "min_rounds=2", "min_seconds=0.01", "threads=1", "format=json"]
    code, out, err = run("bench", *quick, "providers=[ours,crt1,dense,fft,frozen,official]", "device=cpu")
    assert code == 0, err
    data = json.loads(out)["data"]["batch_1"]
    assert data["macs"]["official"] == data["macs"]["dense"] == 9 * 4 * 192 * 192
    assert data["macs"]["ours"] == 9 * 4 * 192 * 192 // 4
    assert set(data["faster_than_official"]) == set(data["seconds"]) == set(data["floor_seconds"])
    code, out, err = run("bench", "what=block", "mode=train", *quick, "device=cpu", "csv=rows.csv")
    assert code == 0, err
    assert (tmp_path / "rows.csv").is_file()


def test_bench_providers_compute_the_same():
    from augshortcut.commands.bench import BLOCKS, PATHS, build_provider

    x = torch.randn(2, 7, 192)
    for what, names in (("paths", PATHS), ("block", BLOCKS)):
        with torch.no_grad():
            outs = {n: build_provider(n, what, 192).eval()(x) for n in names if n != "triton"}
        same = [outs[n] for n in PATHS if n in outs]
        for out in same[1:]:
            torch.testing.assert_close(out, same[0], rtol=1e-4, atol=1e-5)
        if what == "block":
            torch.testing.assert_close(outs["bottleneck_folded"], outs["bottleneck"])


def test_list_models_and_doctor(run, tmp_path):
    code, out, _ = run("list-models", "pattern=aug_swin_tiny*", "format=json")
    assert code == 0
    assert json.loads(out)["data"]["names"] == ["aug_swin_tiny_patch4_window7_224"]
    code, out, _ = run("doctor", "format=json")
    assert code == 0
    (kernels,) = json.loads(out)["data"]["kernels"]
    assert kernels["name"] == "fused paths"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], ["trian", "train"]),
        (["train", "model=vit_digit"], ["vit_digit", "vit_digits"]),
        (["train", "aug=offical"], ["offical", "official"]),
        (["train", "aug.num_blocks=5"], ["num_blocks=5", "48"]),
        (["train", "aug.act=tanh"], ["act", "tanh", "gelu"]),
        (["train", "aug.num_paths=-1"], ["num_paths", "-1"]),
        (["train", "learn=path"], ["learn", "path", "paths"]),
        (["train", "aug=none", "learn=paths"], ["no paths"]),
        (["train", "model=timm_any", "model.name=resnet18"], ["no block"]),
        (["train", "model=timm_any", "model.name=vit_smal"], ["vit_smal"]),
        (["train", "+model.args.wings=2"], ["wings"]),
        (["train", "model.args=xyz"], ["model.args='xyz'", "mapping"]),
        (["train", "model.in_chans=3.7"], ["model.in_chans=3.7", "whole number"]),
        (["train", "model.name=0"], ["model.name=0", "text"]),
        (["train", "model.num_heads=5"], ["model.num_heads=5", "divisible"]),
        (["train", "model.patch_size=-1"], ["model.patch_size=-1"]),
        (["train", "model.paths=7"], ["model.paths=7", "text"]),
        (["train", "trainer.devices=99999999999"], ["trainer", "99999999999"]),
        (["diversity", "metrics=0"], ["metrics=0", "list"]),
        (["fold", "out=[1,xyz]"], ["out=", "xyz"]),
        (["fold", "out=here.bin"], ["here.bin", ".safetensors"]),
        (["convert", "src={}", "dst=x.pth"], ["src={}", "path"]),
        (["convert", "src=x.pth", "dst=null"], ["dst"]),
        (["train", "model.img_size=64"], ["64", "32"]),
        (["train", "model.pretrained=nowhere.pth"], ["nowhere.pth"]),
        (["train", "model.paths=nowhere.safetensors", "aug=none"], ["nowhere.safetensors"]),
        (["eval", "run=nowhere"], ["nowhere"]),
        (["summary", "variants=[augvit_smal]"], ["augvit_smal", "augvit_small"]),
        (["diversity", "nowhere.jpg", "model=vit_digits"], ["nowhere.jpg"]),
        (["diversity", "chelsea", "model=vit_digits", "metrics=[cosin]"], ["cosin", "cosine"]),
        (["bench", "providers=[offical]"], ["offical", "official"]),
        (["bench", "width=200"], ["width", "200"]),
        (["bench", "mode=train", "providers=[frozen,official]"], ["frozen"]),
        (["bench", "providers=[triton,official]", "device=cpu", "width=192"], ["triton", "CUDA"]),
        (["convert", "src=nowhere.pth", "dst=x.pth"], ["nowhere.pth"]),
        (["convert", "src=nowhere.pth", "dst=x.bin"], ["x.bin", ".safetensors"]),
        (["fold", "aug=none"], ["no paths to fold"]),
        (["list-models", "pattern=nothing*"], ["nothing"]),
        (["reproduce", "table=9"], ["9", "2"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_are_one_line_with_value_and_fix(run, words, said, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert_one_line_mistake("augshortcut", run(*words), said)
