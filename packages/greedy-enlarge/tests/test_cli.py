"""The commands, as users type them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch

from effkit.cli import compose
from effkit.lightning.optim import create_optimizer, create_scheduler
from effkit.testing import assert_one_line_mistake, in_process
from effkit.testing.papers import assert_installed, assert_rows_are_complete, composed_commands
from greedy_enlarge.cli import main
from greedy_enlarge.commands.build import plain
from greedy_enlarge.families import base, macs, params
from greedy_enlarge.paper.rows import ORDER, PAPER, paper_rows
from greedy_enlarge.spec import ArchSpec

B1 = 686_802_832
KNOWN = [f"budget={B1}", "steps=4", "delta_final=0.05", "moves.capped=false"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def data_of(result):
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)["data"]


def test_count_gives_params_macs_and_stages(run):
    found = data_of(run("count", "spec=efficientnet_b0", "format=json"))
    assert (found["params"], found["macs"]) == (5_288_548, 385_814_752)
    assert [s["name"] for s in found["stages"]] == ["stem", *(f"stage {i}" for i in range(1, 8)), "head"]
    assert sum(s["macs"] for s in found["stages"]) == found["macs"]
    assert sum(s["params"] for s in found["stages"]) == found["params"]
    assert data_of(run("count", "count_bias=true", "format=json"))["macs"] == 385_825_092
    shown = run("count", "explain=true", "by=resolution").stdout
    assert "399,352,864" in shown
    assert "1/16" in shown


def test_a_network_is_named_in_four_ways(run, tmp_path):
    spec = base("resnet18").replace(depths=(3, 2, 2, 2))
    (tmp_path / "net.json").write_text(spec.to_json())
    words = ["spec=net.json", "spec={base: resnet18, depths: [3, 2, 2, 2]}",
             "spec={family: resnet, depths: [3,2,2,2], widths: [64,128,256,512], resolution: 224, template: [basic]}",
             f"spec='{spec.to_json()}'"]  # fmt: skip
    for word in words:
        assert data_of(run("count", word, "format=json"))["macs"] == macs(spec)


def test_candidates(run):
    found = data_of(run("candidates", "budget=445648184", "moves.capped=false", "format=json"))
    assert len(found["candidates"]) == 15
    whole = data_of(run("candidates", f"budget={B1}", "steps=4", "moves.capped=false", "format=json"))
    assert whole["candidates"] == found["candidates"]
    assert "Moves that lead nowhere" in run("candidates", "budget=445648184").stdout


def test_scale(run):
    found = data_of(run("scale", f"budget={B1}", "method=fast", "format=json"))
    assert abs(found["deviation"]) <= 0.01
    assert macs(ArchSpec.from_dict(found["spec"])) == found["macs"]
    assert data_of(run("scale", "factor=2", "method=fast", "format=json"))["macs"] == 781_816_464


def test_search_report_and_resume(run, tmp_path):
    folder = "hydra.run.dir=found"
    result = run("search", *KNOWN, folder)
    assert result.code == 0, result.stderr
    assert result.stdout.index("Plan") < result.stdout.index("Path")
    assert ArchSpec.from_json((tmp_path / "found/spec.json").read_text()).depths == (13, 2, 2, 3, 3, 4, 2)
    again = data_of(run("resume", "run=found", "format=json"))
    assert again["evaluated"] == 0
    assert (again["macs"], again["moves"]) == (709_261_600, ["depth_1", "depth_7", "width_3", "width_2"])
    report = run("report", "run=found", "format=json")
    pictures = [f for f in json.loads(report.stdout)["files"] if f.endswith(".png")]
    assert [os.path.basename(p) for p in pictures] == ["path.png", "ranking.png", "steps.png"]
    found = data_of(report)
    assert [c["evaluations"] for c in found["costs"]] == [0, 15, 15, 15, 15]
    assert set(found["networks"]) == {"start", "searched", "compound", "fast", "random path"}
    assert all(os.path.getsize(tmp_path / p) > 5_000 for p in pictures)
    assert "fast" in run("report", "run=found").stdout


TRAINS = ["spec=tiny", "budget=230000", "steps=1", "delta=0.15", "delta_final=0.15", "moves.width_step=4",
          "moves.kinds=[depth]", "evaluator=proxy_train", "evaluator.epochs=1", "data.limit=170", "device=cpu",
          "threads=1"]  # fmt: skip


@pytest.mark.slow
def test_report_measures_fresh_seeds_on_the_test_split_and_keeps_them(run, tmp_path):
    assert run("search", *TRAINS, "hydra.run.dir=found").code == 0
    words = ["report", "run=found", "seeds=2", "epochs=1", "device=cpu", "threads=1", "format=json"]
    first = run(*words)
    found = data_of(first)
    assert {len(v) for v in found["test_accuracy"].values()} == {2}
    assert all(0 <= x <= 100 for v in found["test_accuracy"].values() for x in v)
    assert [os.path.basename(f) for f in json.loads(first.stdout)["files"]][-1] == "accuracy.png"
    (journal,) = (tmp_path / "found/fresh").glob("*/journal.jsonl")
    before = journal.read_bytes()
    assert data_of(run(*words))["test_accuracy"] == found["test_accuracy"]
    assert journal.read_bytes() == before
    assert list((tmp_path / "found/fresh").rglob("*.pt")) == []
    assert_one_line_mistake("greedy-enlarge", run("report", "run=found", "seeds=-1"), ["seeds=-1"])


TABLE = ["table", "moves.kinds=[depth]", "steps=1", "budget=85000", "delta=0.2", "delta_final=0.2", "data.limit=34",
         "samples=[34,68]", "repeats=2", "device=cpu", "threads=1"]  # fmt: skip


def rows_of(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.slow
def test_a_table_that_was_stopped_goes_on_and_comes_to_the_same(run, tmp_path, monkeypatch):
    result = run(*TABLE, "hydra.run.dir=whole", "format=json")
    networks = data_of(result)["networks"]
    expected = rows_of(tmp_path / "whole/table.csv")
    assert len(expected) == 1 + networks * 2 * 2
    from greedy_enlarge.training.proxy import ProxyTrain

    calls, evaluate = [], ProxyTrain.evaluate

    def dying(self, task):
        calls.append(task)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(ProxyTrain, "evaluate", dying)
        assert run(*TABLE, "hydra.run.dir=stopped").code != 0
    assert not (tmp_path / "stopped/table.csv").exists()
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(ProxyTrain, "evaluate", lambda self, task: calls.append(task) or evaluate(self, task))
        again = run("resume", "run=stopped")
    assert again.code == 0, again.stderr
    assert len(calls) == networks * 2 * 2 - 3
    assert rows_of(tmp_path / "stopped/table.csv") == expected
    # The table is one that searches and rules can be run on.
    words = ["steps=1", "delta=0.2", "delta_final=0.2", "moves.kinds=[depth]", "space=textures", "budget=85000"]
    searched = run("search", *words, "evaluator=table", "evaluator.path=whole/table.csv", "repeats=2", "format=json")
    found = data_of(run("regret", "path=whole/table.csv", "format=json"))["rules"]
    assert data_of(searched)["spec"]["depths"]
    assert found["optimum"]["regret"] == 0 <= found["greedy"]["regret"]
    saved = data_of(run("savings", "path=whole/table.csv", "format=json"))["ways"]
    for wrong in ("searches=-1", "searches=x", "searches=1.5"):
        refused = run("savings", "path=whole/table.csv", wrong)
        assert (refused.code, "must be a whole number of at least 0" in refused.stderr) == (2, True)
    assert {w["way"] for w in saved} >= {"racing 34 68", "everything, one training each"}


def test_real_searches_are_held_against_the_table(run, tmp_path):
    assert run(*TABLE, "hydra.run.dir=whole").code == 0
    words = ["savings", "path=whole/table.csv", "searches=1", "racing={samples: [34], keep: 0.5}", "device=cpu",
             "threads=1", "format=json"]  # fmt: skip
    ways = data_of(run(*words, "hydra.run.dir=saved", "csv=saved.csv"))["ways"]
    assert ways[-1]["on"] == "real searches"
    assert ways[-1]["steps"] == 1
    assert ways[-1]["same"] <= ways[-1]["tied"] <= 1
    assert ways[-1]["share"] == pytest.approx((2 * 34 + 2 * 34 * 3) / (3 * 2 * 68))
    assert "samples_over_everything" in (tmp_path / "saved.csv").read_text()


@pytest.mark.parametrize("recipe", ["ghost1x", "s_ghost_b4"])
def test_recipes_of_the_releases_make_an_optimizer_and_a_schedule(recipe):
    from greedy_enlarge.networks.build import build

    words = [f"recipe={recipe}", "data=imagenet", "data.root=PATH"]
    options = plain(compose("greedy-enlarge", "greedy_enlarge.configs", "train", words))
    optimizer = create_optimizer(build(base("tiny")), options["optimizer"])
    epochs = options["trainer"]["max_epochs"]
    schedule = create_scheduler(optimizer, options["scheduler"], epochs=epochs, updates_per_epoch=10)
    rates = []
    for _ in range(10 * epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    if recipe == "ghost1x":
        assert (rates[0], options["ema"], options["drop_rate"]) == (1e-6, 0.9999, 0.2)
        assert rates[24 * 20] == pytest.approx(0.048 * 0.97**20)
    else:
        assert (rates[0], options["drop_path_rate"], options["label_smoothing"]) == (1e-4, 0.1, 0.1)
        assert rates[10 * 225] == pytest.approx((0.6 + 1e-6) / 2, rel=1e-3)
        assert len(optimizer.param_groups) == 1  # all weights decay
    assert options["data"]["augment"]["crop"] == "rrc"


def test_plan_only_evaluates_nothing(run, tmp_path):
    result = run("search", f"budget={B1}", "plan_only=true", "hydra.run.dir=plan")
    assert result.code == 0
    assert "at most" in result.stdout
    assert not (tmp_path / "plan/search").exists()


def test_a_search_in_processes_decides_the_same(run, tmp_path):
    words = ["spec=tiny", "budget=280000", "steps=3", "delta=0.1", "delta_final=0.1", "moves.width_step=4"]
    assert run("search", *words, "hydra.run.dir=one").code == 0
    assert run("search", *words, "executor=process", "workers=2", "hydra.run.dir=two").code == 0
    logs = [(tmp_path / f / "search/decisions.jsonl").read_bytes() for f in ("one", "two")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_killed_search_is_resumed_by_the_command(run, tmp_path):
    """Kill -9 in the middle of a search whose evaluations build networks."""
    command = [sys.executable, "-m", "greedy_enlarge"]
    words = ["spec=tiny", "budget=400000", "evaluator=zero_cost", "delta=0.1", "delta_final=0.1", "moves.width_step=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "search", *words, "hydra.run.dir=run"], cwd=tmp_path, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    journal = tmp_path / "run/search/journal.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    finished = before[: before.rfind(b"\n") + 1].count(b'"status": "ok"')
    assert finished >= 1
    found = data_of(run("resume", "run=run", "format=json"))
    after = journal.read_bytes()
    assert after.startswith(before)
    results = [json.loads(line) for line in after.splitlines() if b'"key"' in line]
    assert len({r["key"] for r in results}) == len(results)
    assert found["evaluated"] == len(results) - finished


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "s_ghostnet_b1", "ghostnet_100", "resnet50", "regnety_004", "tiny"]
)
def test_export_needs_torch_and_timm_only(run, tmp_path, name):
    from greedy_enlarge.networks.build import build

    assert run("export", f"spec={name}", f"name=ours_{name}", f"out={name}.py").code == 0
    source = (tmp_path / f"{name}.py").read_text()
    assert "effkit" not in source
    assert "greedy_enlarge" not in source
    found = importlib.util.spec_from_file_location(f"exported_{name}", tmp_path / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # as an import does, for timm's registry
    found.loader.exec_module(module)
    try:
        spec = base(name)
        model = timm.create_model(f"ours_{name}").eval()
        assert sum(p.numel() for p in model.parameters()) == params(spec)
        ours = build(spec).eval()
        ours.load_state_dict(model.state_dict())
        x = torch.randn(1, spec.in_chans, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), model(x))
        assert timm.create_model(f"ours_{name}", num_classes=3).num_classes == 3
    finally:
        del sys.modules[found.name]


LATENCY = ["spec=tiny", "moves.kinds=[depth]", "points=2", "device=cpu"]

MISTAKES = {
    "name": (["count", "spec=efficientnet_b"], ["spec='efficientnet_b'", "did you mean"]),
    "file": (["count", "spec=nowhere/net.json"], ["spec='nowhere/net.json' is not a file"]),
    "key": (["count", "spec={base: resnet18, depth: 3}"], ["did you mean 'depths'"]),
    "by": (["count", "by=stages"], ["by='stages'"]),
    "below": (["search", "budget=1000"], ["MACs below the start's"]),
    "no budget": (["search"], ["budget"]),
    "evaluator": (["search", f"budget={B1}", "evaluator.name=magic"], ["evaluator.name='magic'"]),
    "table": (["search", f"budget={B1}", "evaluator=table", "evaluator.path=null"], ["evaluator.path"]),
    "executor": (["search", f"budget={B1}", "executor=cluster"], ["executor='cluster'"]),
    "workers": (["search", f"budget={B1}", "workers=0"], ["workers=0"]),
    "racing": (["search", f"budget={B1}", "racing={samples: [3, 1], keep: 0.5}"], ["racing.samples"]),
    "racing keys": (["search", f"budget={B1}", "racing={sample: [3]}"], ["key of racing", "did you mean 'samples'"]),
    "racing text": (["search", f"budget={B1}", "racing=fast"], ["racing='fast' must be a mapping"]),
    "other space": (["search", f"budget={B1}", "evaluator=table"], ["recorded for another space"]),
    "a path that is none": (["regret", "path=-inf"], ["path=-inf", "must be a path"]),
    "rounds that are none": (["latency", *LATENCY, "min_rounds=[]"], ["min_rounds", "[]"]),
    "threads that are none": (["latency", *LATENCY, "threads=1e30"], ["threads", "1e+30"]),
    "no run": (["eval", "run=[]"], ["run=[]", "path"]),
    "no file": (["export", "spec=tiny", "out=3.7"], ["out=3.7"]),
    "no share": (["train", "drop_path_rate=-inf"], ["drop_path_rate=-inf", "[0, 1)"]),
    "no rate": (["train", "drop_rate=null"], ["drop_rate=null", "[0, 1)"]),
    "no table": (["regret", "path=nowhere.csv"], ["path='nowhere.csv'"]),
    "table budget": (["table", "budget=100"], ["MACs below the start's"]),
    "table samples": (["table", "samples=[100]"], ["samples=100: proxy training goes by whole epochs"]),
    "table rungs": (["table", "samples=[5100, 2550]"], ["samples=[5100, 2550] must be increasing"]),
    "table inherits": (["table", "evaluator.inherits=true"], ["evaluator.inherits=true"]),
    "table evaluator": (["table", "evaluator=synthetic"], ["evaluator.name='synthetic'"]),
    "ema": (
        ["search", "spec=tiny", "budget=280000", "evaluator=proxy_train", "moves.width_step=4", "evaluator.ema=2"],
        ["evaluator.ema=2"],
    ),
    "classes": (
        ["search", "spec=tiny", "budget=280000", "evaluator=proxy_train", "moves.width_step=4", "data=digits"],
        ["spec has 17 classes, but data=digits has 10"],
    ),
    "folder": (
        [
            "search",
            "spec=tiny",
            "budget=280000",
            "evaluator=proxy_train",
            "moves.width_step=4",
            "data=imagefolder",
            "data.root=nowhere",
        ],
        ["data.root='nowhere' is not a folder"],
    ),
    "workers of bench": (["bench", "workers=1"], ["workers=1"]),
    "params": (["search", f"budget={B1}", "moves.max_params=-1"], ["moves.max_params=-1"]),
    "frozen": (["search", f"budget={B1}", "moves.frozen=3"], ["moves.frozen=3 must be a list"]),
    "both": (["scale", f"budget={B1}", "factor=2"], ["either budget=MACS"]),
    "neither": (["scale"], ["either budget=MACS"]),
    "method": (["scale", "factor=2", "method=depths"], ["did you mean 'depth'"]),
    "run": (["resume", "run=nowhere"], ["run='nowhere' is no folder of a search"]),
    "report": (["report", "run=nowhere"], ["run='nowhere'"]),
    "export": (["export", "name=My-Net"], ["name='My-Net'"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(run, case):
    words, said = MISTAKES[case]
    assert_one_line_mistake("greedy-enlarge", run(*words), said)


def test_a_changed_config_is_refused_by_the_same_journal(run, tmp_path):
    assert run("search", *KNOWN, "hydra.run.dir=found").code == 0
    settings = json.loads((tmp_path / "found/search.json").read_text())
    (tmp_path / "found/search.json").write_text(json.dumps({**settings, "seed": 1}))
    assert_one_line_mistake("greedy-enlarge", run("resume", "run=found"), ["seed (0 there, 1 now)"])


def test_rows():
    rows = paper_rows()
    assert_rows_are_complete(rows, ORDER)
    assert_installed(PAPER)
    assert [r.name for r in paper_rows("networks")][:2] == ["efficientnet_b0"] * 2
    bad = [o for o in (r.evaluate() for r in rows if r.compute) if o.verdict != "match"]
    assert bad == []


def test_commands_of_rows_compose():
    assert len(list(composed_commands(main, paper_rows()))) > 5


def test_doctor_and_reproduce(run):
    assert run("doctor").code == 0
    result = run("reproduce", "table=fig2")
    assert result.code == 0, result.stderr
    assert "match" in result.stdout


@pytest.mark.slow
def test_two_workers_decide_as_one_does(run, tmp_path):
    words = ["bench", "specs=[]", "workers=2", "min_rounds=1", "min_seconds=0.01", "csv=bench.csv", "format=json"]
    found = data_of(run(*words))
    assert found["workers"]["same_decisions"] is True
    assert found["workers"]["trainings"] == 16  # four candidates, four repeats
    assert found["workers"]["speedup"] > 0
    assert 0 < found["search"]["seconds_per_candidate"] < 1
    assert "speedup_over_1 worker" in (tmp_path / "bench.csv").read_text()


def test_train_and_eval(run, tmp_path):
    words = ["spec=tiny", "data.limit=170", "trainer=cpu", "trainer.max_epochs=1", "threads=1", "hydra.run.dir=trained"]
    trained = run("train", *words, "format=json")
    assert (tmp_path / "trained/model.safetensors").is_file(), trained.stderr
    assert data_of(trained)["macs"] == macs(base("tiny"))
    found = data_of(run("eval", "run=trained", "trainer=cpu", "format=json"))
    assert found["images"] == 170
    assert 0 <= found["test_top1"] <= 100
    assert_one_line_mistake("greedy-enlarge", run("train", "spec=tiny", "data=photos"), ["spec", "of 1 channels"])
    assert_one_line_mistake("greedy-enlarge", run("eval", "run=nowhere"), ["run='nowhere'"])
