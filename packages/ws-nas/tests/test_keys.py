"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import numpy as np
import pytest
import torch

from effkit.testing import in_process, unread_keys
from ws_nas.cli import main
from ws_nas.spaces.registry import get_space

QUICK = ["recipe.epochs=1", "recipe.batch_size=16", "threads=1", "device=cpu"]
TRAINED = [
    *("trainer=cpu", "threads=1", "data.limit=40", "data.batch_size=16", "trainer.max_epochs=1"),
    *("trainer.enable_progress_bar=false", "scoring.calibration=16"),
]
TABLE = ["table=t.csv", "truth=d_test"]
COLUMN = [*TABLE, "scores=d_valid_3", "scores_table=t.csv", "space=digits_chain"]
BENCH = [
    *("cells=2", "chains=2", "trained=2", "pictures=64", "batch=2", "min_rounds=1", "min_seconds=0", "threads=1"),
    *("device=cpu", "cases=[batched,prefix,stacked,second_order,recompute]"),
]
# Small runs of each command, together all that it can do with its keys; train, resume and eval: test_train_cli.
LINES = {
    "info": [["space=nb201_tiny", "genotypes=[301243]"]],
    "standalone": [
        [*QUICK, "genotypes=[0000]", "arch=1"],
        [*QUICK, "arch=1", "parts=held_out", "data.limit=40"],
    ],
    "build-table": [
        [*QUICK, "seeds=[0]", "space.width=1", "parts=held_out", "data.limit=40"],
        ["recipe.epochs=1", "recipe.batch_size=899", "threads=1", "device=cpu", "seeds=[0]", "space.width=1"],
    ],
    "export": [["genotype=0000"], ["run=trained", "calibration=16"]],
    "bench": [BENCH],
    "gap": [COLUMN, [*TABLE, "run=trained", "count=10"]],
    "calibrate": [[*COLUMN, "known=30", "model=ridge"], [*TABLE, "run=trained", "known=30"]],
    "compare": [
        [*TRAINED, *TABLE, "families=[spos,darts]", "count=12", "+options.spos.label_smoothing=0.1"],
        [*TRAINED, *TABLE, "families=[spos]", "ceiling=0.5"],
    ],
    "search": [["table=t.csv", "scores=d_valid_3", "budget=12", "limit.macs=150000"], ["run=trained", "budget=2"]],
    "reproduce": [["table=spaces"]],
    "doctor": [[]],
}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """With a table of the digits chain at hand."""
    space, source = get_space("digits_chain"), np.random.default_rng(0)
    lines = ["arch,d_valid_3,d_test_seed0,d_test_seed1"]
    lines += [f"{space.str(g)},{','.join(f'{50 + sum(g) + source.normal():.3f}' for _ in range(3))}" for g in space]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    before = torch.get_num_threads()
    yield in_process(main, tmp_path, monkeypatch, capfd)
    torch.set_num_threads(before)


def test_every_command_is_here():
    assert set(LINES) | {"train", "resume", "eval"} >= set(main.commands)


@pytest.mark.parametrize("name", LINES)
def test_every_key_is_read(run, name):
    if any("run=trained" in line for line in LINES[name]):
        assert run("train", *TRAINED, "hydra.run.dir=trained").code == 0
    assert unread_keys(main, name, run, *LINES[name]) == []
