"""Two processes train as one does: the same draws, the same weights, the same genotype.

This file is also the program that the processes run: ``python test_processes.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from effkit.data import create_data
from effkit.data.selection import SelectionData
from effkit.lightning import train
from effkit.testing import run_cli
from ws_nas.commands.train import agreed
from ws_nas.families.registry import make_family
from ws_nas.spaces.space import Cost, Layout, Space
from ws_nas.supernets.supernet import Supernet
from ws_nas.training.data import stream_of
from ws_nas.training.module import FamilyModule
from ws_nas.training.pictures import Scoring

FAMILIES = {
    "spos": {},
    "fairnas": {},
    "enas": {"updates": 2, "samples": 3, "candidates": 3},
    "asng": {},
    "few_shot": {},
}


class Lines(Supernet):
    """Linear maps with a choice each; no batch normalisation, whose statistics would be those of half a batch."""

    def __init__(self, choices, space_id):
        super().__init__(choices, space_id)
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(0.1 * torch.randn(64, 8, generator=generator))
        self.layers = nn.ParameterList(nn.Parameter(0.4 * torch.randn(m, 8, 8, generator=generator)) for m in choices)
        self.head = nn.Parameter(torch.randn(8, 10, generator=generator))

    def run(self, x, genotype):
        x = x.flatten(1) @ self.first
        for layer, gene in zip(self.layers, genotype, strict=True):
            x = torch.tanh(x @ layer[gene])
        return x @ self.head

    def stem_bytes(self, x):
        return x.nbytes


class LineSpace(Space):
    def __init__(self):
        super().__init__("lines", (3, 3, 3), Layout(1, 8, 10), {})

    def format(self, genotype):
        return "".join(map(str, genotype))

    def read(self, text):
        return tuple(map(int, text))

    def cost(self, genotype):
        return Cost(1, 1)

    def build(self, genotype):
        raise NotImplementedError

    def supernet(self, **options):
        return Lines(self.choices, self.space_id)


def fit(folder, devices):
    """Train every family with a global batch of 16, in float64."""
    torch.set_num_threads(1)
    rank, found = int(os.environ.get("LOCAL_RANK", 0)), {}
    for name, options in FAMILIES.items():
        space = LineSpace()
        data = SelectionData(
            create_data("digits", image_size=8, in_chans=1, limit=80, batch_size=16 // devices, seed=3)
        )
        family = make_family(name, space, space.supernet(), 3, **options)
        hardware = {"accelerator": "cpu", "devices": devices, "precision": "64-true", "max_epochs": 2}
        if devices > 1:
            hardware["strategy"] = "ddp"
        cfg = {
            "trainer": {**hardware, "enable_progress_bar": False},
            "optimizer": {"opt": "momentum", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
            "seed": 3,
        }
        module = FamilyModule(family, 10, stream_of(data), optimizer=cfg["optimizer"], preprocessing=data.preprocessing)
        drawn = []
        before = family.training_step

        def step(batch, number, before=before, drawn=drawn, family=family):
            drawn.append([list(g) for g in family.paths(number)])
            return before(batch, number)

        family.training_step = step
        train(cfg, family.network, data, module=module, folder=Path(folder) / f"{name}{devices}")
        family.network.double()
        scoring = Scoring(family, data.data, data.val, data.train, metric="loss", calibration=16)
        scoring.batches = [(x.double(), y) for x, y in scoring.batches]
        scoring.calibration = [x.double() for x in scoring.calibration]
        family.scorer = scoring
        weights = torch.cat([p.detach().flatten() for p in family.network.parameters()])
        found[name] = {"drawn": drawn, "genotype": list(agreed(space, family)), "weights": weights.tolist()}
    (Path(folder) / f"{devices}-{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_one_and_two_processes_draw_learn_and_derive_the_same(tmp_path):
    code, _, err = run_cli([sys.executable, __file__, tmp_path], cwd=tmp_path, timeout=300)
    assert code == 0, err
    before = torch.get_num_threads()
    fit(tmp_path, 1)
    torch.set_num_threads(before)
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    for name in FAMILIES:
        assert first[name] == second[name], name
        assert first[name]["drawn"] == alone[name]["drawn"], name
        assert first[name]["genotype"] == alone[name]["genotype"], name
        assert first[name]["weights"] == pytest.approx(alone[name]["weights"], abs=1e-9), name


if __name__ == "__main__":
    fit(sys.argv[1], 2)
