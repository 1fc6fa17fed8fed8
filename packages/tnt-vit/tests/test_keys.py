"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest

from effkit.testing import in_process, unread_keys
from tnt_vit import create_model
from tnt_vit.checkpoints.weights import save_checkpoint
from tnt_vit.cli import main

SMALL = ["model=tnt_digits", "model.depth=1", "threads=1"]
TIMES = ["batch_sizes=[1]", "mode=train", "providers=[ours_module]", "min_rounds=1", "min_seconds=0.01"]
SURVEY = ["registry=mine.toml", "images=[chelsea]", "batch_sizes=[1]", "min_rounds=1", "min_seconds=0", "threads=1"]
MINE = """
[[backbone]]
name = "mine"
model = "tnt_s_patch16_224"
source = "tnt_vit"
size = 32
blocks = 'blocks\\.\\d+'
args = {img_size = 32, depth = 1}
"""
# Small runs of each command, together all that it can do with its keys.
LINES = {
    "train": [[*SMALL, "data.limit=64", "trainer=cpu", "trainer.max_epochs=1"]],
    "eval": [[*SMALL, "data=digits", "data.limit=64"]],
    "predict": [["chelsea", *SMALL, "model.num_classes=10"]],
    "bench": [["model=tnt_ti", "threads=1", *TIMES]],
    "summary": [["variants=[tnt_ti,pyramid_tnt_ti]"], ["layers_of=tnt_ti"]],
    "reproduce": [["table=5"]],
    "export": [[*SMALL, "model.num_classes=10", "to=torch_export"]],
    "convert": [["src=a.safetensors", "dst=b.safetensors"]],
    "visualize": [["chelsea", *SMALL, "figures=[word_maps,inner_attention,feature_maps]"]],
    "survey": [["models=[mine]", *SURVEY], ["models=[mine]", "registry=mine.toml", "suite=small", "structural=true"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    if name == "survey":
        (tmp_path / "mine.toml").write_text(MINE)
    if name == "convert":
        save_checkpoint(create_model("tnt_ti"), tmp_path / "a.safetensors")
    assert unread_keys(main, name, in_process(main, tmp_path, monkeypatch, capfd), *LINES[name]) == []
