"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.testing import in_process, unread_keys
from shiftghost_sr.cli import main
from shiftghost_sr.models.files import save_model
from shiftghost_sr.models.zoo import create_model

# Small runs of each command, together all that it can do with its keys.
TRAIN = [
    *("data=folder", "data.root=pictures", "data.val_root=pictures", "data.num_workers=0", "data.patch=16"),
    *("data.crops=8", "data.batch_size=4", "trainer=cpu", "trainer.max_epochs=1", "threads=1", "loss=mse"),
    "checkpoint_minutes=null",
]
DENSE, GHOST = "model=run/model.safetensors", "model=ghost.safetensors"
LINES = {
    "train": [["model=vdsr", "size.layers=3", "size.features=4", "ghost=default", *TRAIN]],
    "finetune": [[DENSE, "ghost=copy", "teacher=parent", *TRAIN], [GHOST, *TRAIN]],
    "evaluate": [
        ["run=run", "data=benchmark", "data.root=pictures", "threads=1", "tile=8"],
        [DENSE, "data=benchmark", "data.root=pictures", "threads=1", "overlap=0", "tile=8"],
        ["scale=2", "data=benchmark", "data.root=pictures"],
    ],
    "upscale": [
        ["small.png", "out", "run=run", "threads=1", "executor=process", "workers=2"],
        ["small.png", "one.jpg", GHOST, "scale=2", "threads=1", "replace=true", "ensemble=true"],
    ],
    "plot": [
        [f"what={what}", f"models=[{model}]", "picture=small.png", "threads=1", "rounds=1", "side=20", *words]
        for what, model, words in [
            ("rose", "ghost.safetensors", []),
            ("similarity", "run/model.safetensors", ["layer=output"]),
            ("before_after", "run/model.safetensors", ["names=[ours]", "scale=2"]),
            ("latency", "ghost.safetensors", ["out=x.png"]),
        ]
    ],
    "count": [["model=vdsr", "size.layers=3", "size.features=4", "hr=[16,24]"]],
    "convert": [[DENSE, "scale=2", "ghost_ratio=0.25"], [DENSE, "out=x.safetensors"]],
    "deploy": [[GHOST], [GHOST, "out=x.pt2"]],
    "export": [[GHOST, "to=torch_export"]],
    "bench": [
        [
            *("model=vdsr", "size.layers=3", "size.features=4", "frames=[[6,7]]", "threads=1", "min_rounds=1"),
            *("min_seconds=0.01", "providers=[dense,official,deployed_nhwc]", "device=cpu"),
        ]
    ],
    "reproduce": [["table=accuracy"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    torch.manual_seed(0)
    for file, ghost in (("run/model.safetensors", None), ("ghost.safetensors", "default")):
        save_model(create_model("vdsr", 2, ghost=ghost, layers=4, features=4), tmp_path / file)
    (tmp_path / "pictures").mkdir()
    for file in ("small.png", "pictures/a.png"):
        Image.fromarray(np.zeros((24, 30, 3), np.uint8)).save(tmp_path / file)
    assert unread_keys(main, name, run, *LINES[name]) == []
