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

from effkit.testing import assert_one_line_mistake, in_process
from effkit.testing.papers import assert_installed, assert_rows_are_complete, composed_commands
from greedy_enlarge.cli import main
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
    assert len(pictures) == 2
    assert all(os.path.getsize(tmp_path / p) > 5_000 for p in pictures)
    assert "fast" in run("report", "run=found").stdout


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


def test_a_killed_search_is_resumed_by_the_command(tmp_path):
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
    done = subprocess.run([*command, "resume", "run=run", "format=json"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = journal.read_bytes()
    assert after.startswith(before)
    results = [json.loads(line) for line in after.splitlines() if b'"key"' in line]
    assert len({r["key"] for r in results}) == len(results)
    assert json.loads(done.stdout)["data"]["evaluated"] == len(results) - finished


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


MISTAKES = {
    "name": (["count", "spec=efficientnet_b"], ["spec='efficientnet_b'", "did you mean"]),
    "file": (["count", "spec=nowhere/net.json"], ["spec='nowhere/net.json' is not a file"]),
    "key": (["count", "spec={base: resnet18, depth: 3}"], ["did you mean 'depths'"]),
    "by": (["count", "by=stages"], ["by='stages'"]),
    "below": (["search", "budget=1000"], ["MACs below the start's"]),
    "no budget": (["search"], ["budget"]),
    "evaluator": (["search", f"budget={B1}", "evaluator.name=magic"], ["evaluator.name='magic'"]),
    "table": (["search", f"budget={B1}", "evaluator=table"], ["evaluator.path"]),
    "executor": (["search", f"budget={B1}", "executor=cluster"], ["executor='cluster'"]),
    "workers": (["search", f"budget={B1}", "workers=0"], ["workers=0"]),
    "racing": (["search", f"budget={B1}", "racing={samples: [3, 1], keep: 0.5}"], ["racing.samples"]),
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
