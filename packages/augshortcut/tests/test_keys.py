"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest
import torch

from augshortcut.cli import main
from augshortcut.reference import official_logits
from effkit.testing import in_process, unread_keys

SMALL = ["model=vit_digits", "model.depth=1", "threads=1"]
TIMES = ["batch_sizes=[1]", "tokens=5", "width=192", "min_rounds=1", "min_seconds=0.01", "threads=1"]
# Small runs of each command, together all that it can do with its keys.
LINES = {
    "train": [[*SMALL, "data.limit=64", "trainer=cpu", "trainer.max_epochs=1"]],
    "eval": [[*SMALL, "data=digits", "data.limit=64"]],
    "summary": [["variants=[aug_deit_tiny_patch16_224]"]],
    "diversity": [["chelsea", *SMALL, "bound=true"]],
    "bench": [[*TIMES, "providers=[ours,official]"]],
    "convert": [["src=a.pth", "dst=b.safetensors"]],
    "fold": [[*SMALL, "model.num_classes=10"]],
    "reproduce": [["table=recipe"]],
    "list-models": [[]],
    "doctor": [[]],
}


def _official() -> dict[str, torch.Tensor]:
    """A tiny checkpoint of the official code."""
    import timm

    arguments = {"depth": 1, "embed_dim": 64, "num_heads": 1, "img_size": 32, "patch_size": 16, "num_classes": 3}
    state = dict(timm.create_model("deit_tiny_patch16_224", **arguments).state_dict())
    for group in ("augs_attn", "augs"):
        state[f"blocks.0.{group}.weight_list"], state[f"blocks.0.{group}.bias"] = torch.randn(256), torch.randn(64)
    assert official_logits(state, torch.zeros(1, 3, 32, 32), 1, 1.0).shape == (1, 3)
    return state


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    if name == "convert":
        torch.save(_official(), tmp_path / "a.pth")
    assert unread_keys(main, name, in_process(main, tmp_path, monkeypatch, capfd), *LINES[name]) == []
