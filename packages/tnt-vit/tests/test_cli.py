"""The commands, run in this process: what they print, write and return, and how they answer mistakes."""

import json

import pytest
import torch

from effkit.testing import assert_one_line_mistake, in_process
from tnt_vit.cli import main

SMALL = ["model=tnt_digits", "model.depth=1", "threads=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def test_train_eval_predict_and_resume(run, tmp_path):
    folder = tmp_path / "out"
    words = ["train", *SMALL, "data.limit=128", "trainer=cpu", f"hydra.run.dir={folder}", "format=json"]
    code, out, _ = run(*words, "trainer.max_epochs=2", "scheduler=none")
    assert code == 0
    first = json.loads(out)["data"]
    assert first["epochs"] == 2
    for name in ("metrics.csv", "metrics.json", "model.safetensors", "checkpoints/last.ckpt", ".hydra/config.yaml"):
        assert (folder / name).is_file(), name

    code, out, _ = run(*words, "trainer.max_epochs=3", "scheduler=none", f"resume={folder}")
    assert code == 0
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["0", "1", "2"] or [row.split(",")[0] for row in rows] == [
        "1",
        "2",
        "3",
    ]

    weights = f"model.pretrained={folder / 'model.safetensors'}"
    code, out, _ = run("eval", *SMALL, "data=digits", "data.limit=64", weights, "format=json")
    assert code == 0
    assert json.loads(out)["data"]["images"] == 64

    # The paper's figure stands beside ours where an experiment names one.
    code, out, _ = run("eval", *SMALL, "data=digits", "data.limit=64", weights, "expected.top1=81.5", "format=json")
    assert code == 0
    assert ["paper's top1", 81.5] in json.loads(out)["tables"][0]["rows"]

    # A checkpoint for other classes is refused: its accuracy would be chance.
    code, _, err = run("eval", *SMALL, "data=photos", "data.image_size=32", weights)
    assert code == 2
    assert "10 classes" in err


def test_summary_lists_every_variant(run, tmp_path):
    code, out, _ = run("summary", "format=json")
    assert code == 0
    text = json.dumps(json.loads(out))
    for name in ("tnt_ti", "tnt_s", "tnt_b", "tnt_s1", "tnt_s4", "23768584", "5216875008"):
        assert name in text, name
    assert list(tmp_path.iterdir()) == []  # a report leaves nothing behind


def test_reproduce_selects_a_table_and_its_structure_holds(run):
    code, out, _ = run("reproduce", "table=5", "format=json")
    assert code == 0
    document = json.dumps(json.loads(out))
    assert "TNT-S-1" in document
    assert "match" in document


def test_doctor_says_what_loads(run, tmp_path):
    code, out, _ = run("doctor", "format=json")
    assert code == 0
    assert "triton" in json.dumps(json.loads(out))
    (kernels,) = json.loads(out)["data"]["kernels"]
    assert kernels["name"] == "fused inner block"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], ["trian", "train"]),
        (["train", "model.name=null"], ["model.name is null"]),
        (["train", "model=tnt_x"], ["tnt_x", "tnt_s"]),
        (["train", "trainer.max_epoch=3"], ["max_epoch", "max_epochs"]),
        (["train", "data=imagenet"], ["data.root"]),
        (["train", "model.tnt_blocks=[5]"], ["tnt_blocks", "1..4"]),
        (["train", "model.num_heads=5"], ["num_heads=5", "embed_dim=48"]),
        (["train", "model.img_size=64", "data.image_size=32"], ["64", "32"]),
        (["train", "model.pretrained=nowhere.pth"], ["nowhere.pth"]),
        (["train", "optimizer.opt=adamv"], ["adamv", "adam"]),
        (["train", "optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]", "2 numbers"]),
        (["train", "scheduler.min_lr=-1"], ["scheduler.min_lr=-1", "at least 0"]),
        (["train", "data.drop_last=maybe"], ["data.drop_last=maybe", "true or false"]),
        (["train", "device=cpu", "trainer.accelerator=gpu"], ["device=cpu", "trainer.accelerator=gpu"]),
        (["train", "resume=nowhere"], ["nowhere"]),
        (["eval", "optimizer.lr=1"], ["optimizer", "leave optimizer.lr=1 out"]),
        (["eval", "data=digits", "model=tnt_digits", "device=cpu", "precision=fp16"], ["fp16", "bf16"]),
        (["predict", "chelsea", "precision=fp99"], ["fp99", "bf16"]),
        (["predict", "chelsea", "exported=a.onnx", "precision=bf16"], ["a.onnx", "precision"]),
        (["export", "precision=bf16"], ["no key 'precision'"]),
        (["convert", "src=a.pth", "dst=b.pth", "seed=1"], ["no key 'seed'"]),
        (["reproduce", "claim=maybe"], ["claim=maybe", "true or false"]),
        (["reproduce", "threads=2"], ["no key 'threads'"]),
        (["reproduce", "table=99"], ["99", "5"]),
        (["reproduce", "full=true"], ["full=true", "claim=true"]),
        (["bench", "providers=[tim]"], ["tim", "timm"]),
        (["bench", "batch_sizes=[-1]"], ["batch_sizes", "-1"]),
        (["summary", "variants=[tnt_q]"], ["tnt_q", "tnt_s"]),
        (["predict"], ["images"]),
        (["predict", "nowhere.jpg"], ["nowhere.jpg"]),
        (["visualize", "nowhere.jpg", "model=tnt_ti"], ["nowhere.jpg"]),
        (["convert", "src=nowhere.pth", "dst=x.pth"], ["nowhere.pth"]),
        (["export", "to=tflite", "model=tnt_ti"], ["tflite", "onnx"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_are_one_line_with_value_and_fix(run, words, said):
    assert_one_line_mistake("tnt-vit", run(*words), said)


def test_convert_and_export(run, tmp_path):
    import tnt_vit

    torch.manual_seed(0)
    model = tnt_vit.create_model("tnt_ti", depth=1)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "a.pth.tar")
    code, _, err = run("convert", "src=a.pth.tar", "dst=b.safetensors")
    assert code == 0, err
    again = tnt_vit.create_model("tnt_ti", depth=1, pretrained=tmp_path / "b.safetensors")
    assert torch.equal(again.head.weight, model.head.weight)
    code, out, err = run("export", *SMALL, "model.num_classes=10", "to=torch_export", "format=json")
    assert code == 0, err
    assert json.loads(out)["files"]
