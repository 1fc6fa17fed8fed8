"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest

from effkit.testing import in_process, unread_keys
from kd_autoaug.cli import main
from kd_autoaug.distillation.weights import save_weights
from kd_autoaug.networks import build_network

TRAIN = ["data=digits_small", "data.limit=64", "trainer=cpu", "trainer.max_epochs=1", "threads=1"]
TEACHER = ["teacher.weights=teacher.safetensors", "guessing_teacher=true"]
CACHE = ["data=digits_small", "data.limit=32", "view.num_views=1", "cache.path=cache", "threads=1", *TEACHER]
COUNTS = ["limit=20", "train_limit=50", "draws=1", "policy_layers=0", "resamples=10", "batch_size=32", "threads=1"]
GRID = ["operators=[rotate]", "magnitudes=[9]", "extrapolate=true", "probe=true", "probe_epochs=1", *COUNTS]
TIMES = ["batch_size=2", "min_rounds=1", "min_seconds=0.01", "threads=1"]
# Small runs of each command, together all that it can do with its keys.
LINES = {
    "train": [TRAIN],
    "distill": [[*TEACHER, *TRAIN]],
    "eval": [["data.limit=64", "threads=1"]],
    "cache": [["build", *CACHE, "end=16"], ["verify", *CACHE]],
    "analyze": [GRID],
    "suggest": [GRID],
    "preview": [["chelsea", "operators=[rotate]", "magnitudes=[60]", "extrapolate=true", "views=2", "size=32"]],
    "bench": [
        ["augment", "size=16", "providers=[ours,timm]", *TIMES],
        ["single", "size=16", "peer=timm", *TIMES],
        ["ops", "size=16", "operators=[invert]", *TIMES],
        ["step", "network=resnet20_cifar", "classes=10", "k=3", *TIMES],
        [
            "cache",
            "network=resnet20_cifar",
            "classes=10",
            "k=3",
            "samples=4",
            "views=1",
            "workers=2",
            "rounds=1",
            *TIMES,
        ],
    ],
    "summary": [["networks=[wrn_40_2]"]],
    "reproduce": [["table=structure"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    if TEACHER[0] in LINES[name][0]:
        network = build_network({"name": "digits_cnn"}, num_classes=10, in_chans=1, image_size=8)
        save_weights(network, tmp_path / "teacher.safetensors")
    assert unread_keys(main, name, in_process(main, tmp_path, monkeypatch, capfd), *LINES[name]) == []
