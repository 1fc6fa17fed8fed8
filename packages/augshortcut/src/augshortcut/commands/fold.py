"""Write an augmented model with plain operators where that is exact."""

from __future__ import annotations

import copy
from typing import Any

import torch

from augshortcut.commands.build import open_network, plain, set_up
from augshortcut.injection.fold import fold
from effkit.checkpoints import SUFFIXES, write_state
from effkit.cli import run_dir
from effkit.cost import measure
from effkit.outputs import check_output_file
from effkit.report import Report, Table

__all__ = ["run"]

_PARITY = 1e-9  # in float64, relative to the largest logit


def run(cfg: Any) -> Report:
    """Do what ``augshortcut fold`` does.

    Args:
        cfg: The composed config.

    Returns:
        What became of the blocks, cost before and after, and the check; exit code 1 if it failed.

    Raises:
        ValueError: If the model cannot be opened or has no paths.
    """
    device = set_up(cfg)
    name = plain(cfg, "out")["out"]
    out = run_dir() / "folded.safetensors" if name is None else check_output_file("out", name, SUFFIXES)
    found = open_network(cfg)
    model = found.model.to(device)
    folded = fold(model)
    side = found.preprocessing.size if found.preprocessing else _size(model)
    channels = found.preprocessing.channels if found.preprocessing else 3
    x = torch.randn(1, channels, *side, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    before, after = (measure(m, x.float()) for m in (model, folded))
    files = [write_state(out, folded.state_dict())]
    exact = copy.deepcopy(model).double()
    with torch.no_grad():  # folded in float64 too: sums of float32 weights would round otherwise
        expected, ours = exact(x), fold(exact)(x)
    far = float((expected - ours).abs().max())
    good = far <= _PARITY * float(expected.abs().max())
    rows = [
        ["before", before.params, before.macs, None, ""],
        ["after", after.params, after.macs, far, "match" if good else "differs"],
    ]
    note = "Difference of logits on a random picture in float64. Constants of frozen paths are buffers, not parameters."
    table = Table(f"{found.name}, folded", ["model", "params", "MACs", "largest difference", "verdict"], rows, note)
    kinds = sorted({type(m).__name__ for m in folded.modules() if "Block" in type(m).__name__})
    data = {"difference": far, "match": good, "blocks": kinds, "macs": [before.macs, after.macs]}
    return Report("augshortcut fold", [table], data=data, files=files, exit_code=0 if good else 1)


def _size(model: Any) -> tuple[int, int]:
    """Height and width of a model's pictures."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or getattr(model, "img_size", None)
    if size is None:
        size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[1:]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
