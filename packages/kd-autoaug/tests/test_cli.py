"""The command line as a user meets it: what each command prints, and how mistakes are answered."""

import json

import pytest

from effkit.testing import assert_one_line_mistake, in_process
from kd_autoaug.cli import main

QUICK = ["min_rounds=2", "min_seconds=0.1", "threads=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def answer(run):
    def call(*words: str) -> dict:
        code, out, err = run(*words, "format=json")
        assert code == 0, err
        return json.loads(out)["data"]

    return call


def test_doctor_compares_with_pillow(answer):
    found = answer("doctor")
    by_name = {c["name"]: c for c in found["kd_autoaug"]}
    assert by_name["backend torch"]["available"]
    assert by_name["backend pil"]["available"]
    assert "equal Pillow's" in by_name["backend torch"]["reason"]


def test_summary_counts(answer):
    found = answer("summary", "networks=[wrn_40_2]", "num_classes=100")
    assert found["networks"] == [
        {"name": "wrn_40_2", "input": "3x32x32", "params": 2255156, "macs": 327599360 + 128 * 90}
    ]


def test_bench_augment(answer, tmp_path):
    words = ["batch_size=4", "size=16", "providers=[ours,pil,timm,torchvision]", "csv=b.csv", *QUICK]
    found = answer("bench", *words)
    assert set(found["seconds"]) == {"ours", "pil", "timm", "torchvision"}
    assert set(found["faster_than"]) == {"timm", "torchvision"}
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert sum("speedup_over_timm" in line for line in lines) == 3
    assert sum("ratio_to_torchvision" in line for line in lines) == 2


@pytest.mark.parametrize(("peer", "kind"), [("timm", "pillow"), ("torchvision", "tensor")])
def test_bench_single(answer, tmp_path, peer, kind):
    found = answer("bench", "single", f"peer={peer}", f"kind={kind}", "batch_size=4", "size=16", "csv=b.csv", *QUICK)
    assert set(found["seconds"]) == {"ours", peer}
    assert found["faster_than"] > 0
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert sum(f"speedup_over_{peer}" in line and f"{kind}, operators of {peer}" in line for line in lines) == 1


def test_bench_operators(answer, tmp_path):
    words = ["operators=[rotate,equalize]", "batch_size=2", "size=16", "min_seconds=0.1", "min_rounds=2"]
    found = answer("bench", "ops", *words)
    assert set(found) == {"rotate", "rotate bilinear", "rotate bicubic", "equalize"}
    assert set(found["rotate bicubic"]) == {"torch", "pil"}
    assert len(list((tmp_path / "runs").rglob("bench.png"))) == 1


def test_bench_step(answer, tmp_path):
    words = ["step", "batch_size=4", "size=32", "network=resnet20_cifar", "classes=10", "k=3", "csv=s.csv", *QUICK]
    found = answer("bench", *words)
    assert set(found["times_of_ce"]) == {"ce", "cached", "online"}
    assert (tmp_path / "s.csv").is_file()
    assert not list((tmp_path / "runs").rglob("logits.bin"))  # the cache it needed is gone


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["bench", "cook"], ["bench", "cook", "augment, single, ops, step, cache"]),
        (["bench", "ops", "augment"], ["one thing at a time"]),
        (["bench", "providers=[kornia]"], ["providers", "kornia", "timm"]),
        (["bench", "batch_size=0"], ["batch_size", "0"]),
        (["bench", "ops", "operators=[rotat]"], ["rotat", "rotate"]),
        (["bench", "interpolation=lanczos"], ["interpolation", "lanczos", "nearest"]),
        (["bench", "m=11"], ["m=11", "timm"]),
        (["bench", "single", "peer=timm", "kind=tensor"], ["kind='tensor'", "timm", "torchvision"]),
        (["bench", "single", "peer=kornia"], ["peer", "kornia", "timm"]),
        (["bench", "single", "providers=[ours]"], ["providers", "peer", "leave it out"]),
        (["bench", "step", "classes=10", "k=11"], ["k=11"]),
        (["bench", "step", "network=resnet21"], ["resnet21"]),
        (["summary", "networks=[wrn]"], ["wrn", "wrn_40_2"]),
        (["train", "expected.evidence=-inf"], ["expected.evidence=-inf", "list"]),
        (["train", "model.name=nan"], ["model.name=nan", "text"]),
        (["train", "model.name=resnet18", "+model.options.depth=3"], ["resnet18", "depth"]),
        (["train", "trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0", "at least 1"]),
        (["train", "trainer.check_val_every_n_epoch=0"], ["trainer.check_val_every_n_epoch=0", "at least 1"]),
        (["train", "policy.m=99", "trainer.max_epochs=1"], ["99"]),
        (["train", "loss=paper"], ["teacher", "distill"]),
        (["train", "policy=nope"], ["policy", "nope"]),
        (["train", "loss.label_smoothing=2"], ["label_smoothing", "2"]),
        (["distill"], ["teacher", "weights"]),
        (["distill", "loss.k=11", "teacher.weights=x.safetensors"], ["x.safetensors"]),
        (["distill", "loss.temperature=0"], ["temperature", "0"]),
        (["cache"], ["build", "verify", "info"]),
        (["cache", "info"], ["cache.path"]),
        (["cache", "build", "trainer.max_epochs=3"], ["trainer", "leave trainer.max_epochs=3 out"]),
        (["cache", "build", "teacher_view=clean"], ["no key 'teacher_view'"]),
        (["eval", "policy.m=3"], ["policy", "leave policy.m=3 out"]),
        (["train", "teacher.weights=x"], ["teacher", "leave teacher.weights=x out"]),
        (["bench", "precision=bf16"], ["precision=bf16", "step"]),
        (["preview", "device=cpu"], ["no key 'device'"]),
        (["reproduce", "full=perhaps"], ["full=perhaps", "true or false"]),
        (["train", "optimizer=sgd", "optimizer.momentum=2"], ["optimizer.momentum=2", "[0, 1)"]),
        (["cache", "info", "cache.path=nowhere"], ["nowhere"]),
        (["preview", "nowhere.png"], ["nowhere.png"]),
        (["preview", "operators=[rotat]"], ["rotat", "rotate"]),
        (["analyze", "teacher.options=-inf"], ["teacher.options=-inf", "mapping"]),
        (["analyze", "magnitudes=[-1]"], ["-1"]),
        (["suggest", "budget=2"], ["budget", "2"]),
    ],
)
def test_mistakes_are_one_line(words, mentioned, run):
    found = run(*words)
    assert_one_line_mistake("kd-autoaug", found, mentioned)
    rest = [line for line in found.stderr.strip().splitlines() if not line.startswith("run folder:")]
    assert len(rest) == 1, found.stderr
