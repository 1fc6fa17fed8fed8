"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest

from effkit.testing import in_process, unread_keys
from greedy_enlarge.cli import main
from greedy_enlarge.commands.build import plain, read_spec

TINY = ["spec=tiny", "moves.width_step=4", "budget=230000", "delta=0.15", "delta_final=0.15", "steps=1"]
SMALL = ["trainer=cpu", "data.limit=34", "trainer.max_epochs=1", "threads=1"]
PROXY = [
    "evaluator=proxy_train",
    "evaluator.epochs=1",
    "moves.kinds=[depth]",
    "data.limit=34",
    "device=cpu",
    "threads=1",
]
RACING = "racing={samples: [34], keep: 0.5}"
# Small runs of each command, together all that it can do with its keys.
LINES = {
    "search": [
        [*TINY, *PROXY, "device=cpu", "threads=1", "racing={samples: [34], keep: 0.5}"],
        [*TINY, "executor=process", "workers=1"],
    ],
    "resume": [["run=earlier"]],
    "table": [
        [
            "device=cpu",
            "moves.kinds=[depth]",
            "steps=1",
            "budget=85000",
            "delta=0.2",
            "delta_final=0.2",
            "data.limit=34",
            "samples=[34]",
            "repeats=1",
            "threads=1",
        ],
        ["plan_only=true"],
    ],
    "regret": [[]],
    "savings": [
        [],
        ["searches=1", "path=made/table.csv", "racing={samples: [34], keep: 0.5}", "device=cpu", "threads=1"],
    ],
    "latency": [["spec=tiny", "moves.kinds=[depth]", "points=2", "min_rounds=1", "min_seconds=0.01", "device=cpu"]],
    "candidates": [["budget=445648184", "moves.max_params=9000000"], ["budget=686802832", "steps=4"]],
    "count": [["resolution=64"]],
    "scale": [["budget=686802832"], ["factor=2"]],
    "train": [["spec=tiny", *SMALL]],
    "eval": [["run=trained", "trainer=cpu"]],
    "report": [["run=earlier"], ["run=trained_search", "seeds=1", "epochs=1", "device=cpu", "threads=1"]],
    "export": [["spec=tiny"]],
    "bench": [["specs=[resnet18]", "population=100", "min_rounds=1", "min_seconds=0.01"]],
    "reproduce": [["table=fig2"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    if name in ("resume", "report"):
        assert run("search", *TINY, "hydra.run.dir=earlier").code == 0
    if name == "report":
        assert run("search", *TINY, *PROXY, "hydra.run.dir=trained_search").code == 0
    if name == "savings":
        assert run("table", *LINES["table"][0], "hydra.run.dir=made").code == 0
    if name == "eval":
        assert run("train", "spec=tiny", *SMALL, "hydra.run.dir=trained").code == 0
    assert unread_keys(main, name, run, *LINES[name]) == []


def test_helpers_take_plain_values():
    assert plain({"a": 1}) == {"a": 1}
    assert read_spec(read_spec("tiny")) == read_spec("tiny")
