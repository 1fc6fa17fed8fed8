"""Predictions: the right classes with the right probabilities and names, and a warning where they mean nothing."""

import json

import pytest
import torch
from PIL import Image

import tnt_vit
from effkit.data import class_names, load_picture
from effkit.data.facts import known_class_names, known_preprocessing
from effkit.runs import config_of
from tnt_vit.checkpoints.origin import is_untrained, weights_note
from tnt_vit.commands.predict import predict_report, probabilities
from tnt_vit.inference.preprocessing import preprocessing

ARGS = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "inner_dim": 6,
    "depth": 1,
    "num_heads": 2,
    "inner_num_heads": 2,
}


def small(num_classes: int = 10, *, trained: bool = True, **kwargs) -> tnt_vit.TNT:
    torch.manual_seed(0)
    model = tnt_vit.TNT(**{**ARGS, **kwargs}, num_classes=num_classes).eval()
    if trained:
        with torch.no_grad():
            model.norm.weight.mul_(3.0)
            model.head.weight.mul_(10.0)
    return model


def run_file(folder, model, data: dict):
    """A checkpoint as a training run writes it."""
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    config = {"data": data, "model": {"name": "tnt_s", "num_heads": 2}}
    kept = known_preprocessing(data).to_dict()
    written = {"state_dict": state, "config": config, "preprocessing": kept, "pytorch-lightning_version": "2.6.6"}
    torch.save(written, path)
    return path


def test_probabilities_names_and_order():
    model = small()
    report = predict_report(model, ["china", "chelsea"], [f"name {i}" for i in range(10)], topk=3)
    x = preprocessing(model).batch(["china", "chelsea"])
    with torch.no_grad():
        want = model(x).softmax(-1)
    found = json.loads(json.dumps(report.to_json()))["data"]
    assert [p["file"] for p in found["pictures"]] == ["china", "chelsea"]
    for wanted, picture in zip(want, found["pictures"], strict=True):
        best = wanted.argsort(descending=True)[:3].tolist()
        assert [t["class"] for t in picture["top"]] == best
        assert [t["name"] for t in picture["top"]] == [f"name {i}" for i in best]
        assert [t["probability"] for t in picture["top"]] == pytest.approx(wanted[best].tolist(), abs=1e-6)
    assert len(report.tables[0].rows) == 6
    assert report.tables[0].rows[0][0] == "china"


def test_more_classes_asked_for_than_there_are():
    report = predict_report(small(3), ["coffee"], topk=5)
    top = report.data["pictures"][0]["top"]
    assert [t["name"] for t in top] == [f"class {t['class']}" for t in top]
    assert sum(t["probability"] for t in top) == pytest.approx(1, abs=1e-6)


def test_batches_do_not_change_the_result():
    model, names = small(), ["china", "flower", "coffee"]
    one = predict_report(model, names, batch_size=1).data["pictures"]
    all_ = predict_report(model, names, batch_size=3).data["pictures"]
    for a, b in zip(one, all_, strict=True):
        assert [t["class"] for t in a["top"]] == [t["class"] for t in b["top"]]
        assert [t["probability"] for t in a["top"]] == pytest.approx([t["probability"] for t in b["top"]], abs=1e-6)


def test_the_model_keeps_its_mode():
    model = small(drop_rate=0.5).train()
    first = predict_report(model, ["china"]).data["pictures"]
    assert model.training
    assert predict_report(model, ["china"]).data["pictures"] == first  # dropout was off


def test_random_weights_are_said_so():
    fresh = predict_report(small(trained=False), ["china"])
    assert fresh.data["random_weights"]
    assert any("random weights" in line for line in fresh.lines)
    trained = predict_report(small(), ["china"])
    assert not trained.data["random_weights"]
    assert trained.lines == []
    told = predict_report(small(), ["china"], pretrained=False)
    assert told.data["random_weights"]


def test_untrained_is_recognised():
    model = small(trained=False)
    assert is_untrained(model)
    with torch.no_grad():
        model.blocks[0].norm_out.bias[3] += 1e-3
    assert not is_untrained(model)
    assert weights_note(model, None) == "trained weights"
    assert weights_note(model, "runs/a/best.ckpt") == "weights: best.ckpt"


def test_imagenet_names_for_a_thousand_classes():
    names = class_names(1000)
    assert (names[0], names[281], names[999]) == (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue, toilet paper, bathroom tissue",
    )
    report = predict_report(small(1000), ["chelsea"])
    assert all(t["name"] == names[t["class"]] for t in report.data["pictures"][0]["top"])


def test_class_names_from_everywhere(tmp_path):
    assert class_names(10, "digits") == [str(i) for i in range(10)]
    assert class_names(2, known=known_class_names({"name": "photos"})) == ["china", "flower"]
    assert class_names(10, known=known_class_names({"name": "cifar10"}))[:2] == ["airplane", "automobile"]
    for name in ("train/dog", "train/cat"):
        (tmp_path / name).mkdir(parents=True)
    folder = {"name": "imagefolder", "root": str(tmp_path)}
    assert class_names(2, known=known_class_names(folder)) == ["cat", "dog"]
    assert class_names(2, known=known_class_names({**folder, "root": str(tmp_path / "gone")})) == ["class 0", "class 1"]
    assert class_names(3, known=known_class_names(folder)) == [
        "class 0",
        "class 1",
        "class 2",
    ]  # the folder changed since
    (tmp_path / "names.txt").write_text("one\ntwo\n\n")
    assert class_names(2, str(tmp_path / "names.txt")) == ["one", "two"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a"], "1 names.*10 classes"),
        ("digit", "digits"),
        ("no/file.txt", "does not exist"),
        ("imagenet", "1000 names"),
    ],
)
def test_unfit_class_names_are_refused(names, words):
    with pytest.raises(ValueError, match=words):
        predict_report(small(), ["china"], names)


def test_a_run_tells_names_and_normalisation(tmp_path):
    model = small()
    path = run_file(tmp_path, model, {"name": "cifar10", "root": None, "crop_pct": 1.0, "mean": None, "std": None})
    assert config_of(path)["data"]["name"] == "cifar10"
    report = predict_report(model, ["china"], pretrained=str(path))
    top = report.data["pictures"][0]["top"]
    known = known_preprocessing({"name": "cifar10", "crop_pct": 1.0})
    assert known.mean == (0.4914, 0.4822, 0.4465)
    mean, std = (torch.tensor(values)[:, None, None] for values in (known.mean, known.std))
    half = preprocessing(model, crop_pct=1.0)(load_picture("china"))
    with torch.no_grad():
        want = model(((half * 0.5 + 0.5 - mean) / std)[None]).softmax(-1)[0]
    assert [t["class"] for t in top] == want.argsort(descending=True)[:5].tolist()
    assert top[0]["probability"] == pytest.approx(float(want.max()), abs=1e-5)
    assert top[0]["name"] in class_names(10, "cifar10")
    assert report.data["weights"] == "weights: best.ckpt"


def test_a_run_folder_tells_as_much_as_its_checkpoint(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 3\ndata: {name: digits, batch_size: 32, seed: '${seed}'}\n")
    model = small()
    path = tnt_vit.save_checkpoint(model, tmp_path / "model.safetensors")
    assert config_of(path)["data"]["seed"] == 3
    names = {t["name"] for t in predict_report(model, ["china"], pretrained=path).data["pictures"][0]["top"]}
    assert names <= {str(i) for i in range(10)}
    assert config_of(tmp_path / "checkpoints" / "none.ckpt")["data"]["name"] == "digits"
    assert config_of(tmp_path.parent / "elsewhere.pth") == {}


def test_precision_is_the_type_of_the_matrix_products():
    torch.manual_seed(0)
    model = small()
    x = torch.rand(2, model.in_chans, *model.img_size)
    full, half = probabilities(model, x), probabilities(model, x, torch.bfloat16)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0, atol=0.02)
    tables = [predict_report(model, ["china"], precision=p).data["pictures"] for p in ("fp32", "auto", "bf16")]
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_bad_arguments(tmp_path):
    model = small()
    with pytest.raises(ValueError, match=r"precision='fp99'"):
        predict_report(model, ["china"], precision="fp99")
    with pytest.raises(ValueError, match=r"topk.*0"):
        predict_report(model, ["china"], topk=0)
    with pytest.raises(ValueError, match=r"batch_size.*1\.5"):
        predict_report(model, ["china"], batch_size=1.5)
    with pytest.raises(ValueError, match=r"crop_pct.*2"):
        predict_report(model, ["china"], crop_pct=2)
    with pytest.raises(ValueError, match="num_classes=0"):
        predict_report(small(0, trained=False), ["china"])
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        predict_report(model, [tmp_path / "good.png", tmp_path / "missing.png"])
