"""A whole `tnt-vit survey` over small networks of the user's own, some of which cannot be measured."""

import json
import signal
import subprocess
import sys

import pytest

from effkit.plots import read_description
from effkit.testing import assert_one_line_mistake, in_process
from tnt_vit.cli import main

TOYS = """
import os, signal
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)
    def forward(self, x):
        return x + self.mlp(self.norm(x))

class Toy(nn.Module):
    def __init__(self, width=8, fault=None):
        super().__init__()
        self.stem, self.fault = nn.Conv2d(3, width, 8, 8), fault
        self.blocks = nn.Sequential(*(Block(width) for _ in range(4)))
        self.head = nn.Linear(width, 5)
    def forward(self, x):
        if self.fault and x.device.type != "meta":
            self.fault(x)
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1))

def wrong(x):
    raise ValueError("a fault of the network")

def large(x):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

def batches(x):
    if len(x) > 1:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")

def deadly(x):
    if os.environ.get("DEADLY"):
        os.kill(os.getpid(), signal.SIGKILL)

def make(width=8, fault=""):
    return Toy(width, globals().get(fault))
"""
ENTRY = """
[[backbone]]
name = "{0}"
source = "python"
model = "toys_of_the_survey:make"
size = 32
group = "toys"
blocks = 'blocks\\.\\d+'
args = {{{1}}}
published = {{top1 = {2}, v100 = {3}}}
"""
QUICK = ["min_rounds=2", "min_seconds=0", "batch_sizes=[1,2]", "threads=1", "device=cpu", "registry=toys.toml"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    (folder / "toys_of_the_survey.py").write_text(TOYS)
    entries = [("slim", "", 60, 100), ("wide", "width = 16", 70, 50), ("wrong", "fault = 'wrong'", 50, 9)]
    entries += [("large", "fault = 'large'", 50, 9), ("batches", "fault = 'batches'", 50, 9)]
    entries += [("deadly", "fault = 'deadly'", 50, 9)]
    text = "".join(ENTRY.format(*entry) for entry in entries)
    text += "\n[[backbone]]\nname = 'absent'\nsource = 'python'\nmodel = 'no_such_module_here:make'\n"
    (folder / "toys.toml").write_text(text)
    return folder


@pytest.fixture
def run(home, monkeypatch, capfd):
    monkeypatch.syspath_prepend(str(home))
    return in_process(main, home, monkeypatch, capfd)


@pytest.mark.slow
def test_a_survey_in_which_some_fail(run, home):
    names = "models=[slim,wide,wrong,large,batches,absent,t2t_vit_14]"
    words = [names, *QUICK, "output=first", "format=json", "images=[chelsea,coffee]", "tsne=true"]
    code, out, err = run("survey", *words)
    assert code == 1, err  # some failed, and the others are there
    rows = {row["name"]: row for row in json.loads(out)["data"]["rows"]}
    expected = {"slim": "measured", "wide": "measured", "wrong": "failed", "large": "out of memory"}
    expected |= {"batches": "measured", "absent": "skipped", "t2t_vit_14": "skipped"}
    assert {name: row["status"] for name, row in rows.items()} == expected
    assert "no_such_module_here" in rows["absent"]["reason"]
    assert rows["wrong"]["reason"] == "a picture: ValueError: a fault of the network"
    slim = rows["slim"]
    assert slim["counts"]["params"] == 3 * 64 * 8 + 8 + 4 * (16 + 72) + 45
    assert slim["counts"]["macs"] == 16 * 3 * 64 * 8 + 4 * 16 * 64 + 40
    assert [case["batch"] for case in slim["sweep"]] == [1, 2]
    assert slim["throughput"] == max(case["images_per_second"] for case in slim["sweep"])
    assert rows["wide"]["anchor"] == "slim"
    assert rows["wide"]["sweep"][0]["ratio"]["median"] > 0
    assert slim["train"]["batch"] == 2
    assert [row["layer"] for row in slim["diversity"]] == [f"blocks.{i}" for i in range(4)]
    assert slim["cka"][0][0] == pytest.approx(1)
    assert slim["weights"] == "random"
    assert [case["batch"] for case in rows["batches"]["sweep"]] == [1]
    assert any("batch 2: out of memory" in note for note in rows["batches"]["notes"])
    folder = home / "first"
    assert len((folder / "survey.csv").read_text().splitlines()) == 8
    page, markdown = (folder / "index.html").read_text(), (folder / "survey.md").read_text()
    for word in ("slim", "a fault of the network", "out of memory", "Published only", "chelsea"):
        assert word in page, word
        assert word in markdown, word
    assert str(home) not in page + markdown + (folder / "survey.jsonl").read_text()
    pictures = {file.stem for file in folder.glob("*.png")}
    # A step of a network this small may not show in the memory of the process.
    assert pictures | {"accuracy_memory"} == {
        *("accuracy_throughput", "accuracy_macs", "accuracy_latency", "accuracy_memory", "paper_here", "sweep"),
        *("roofline", "diversity", "cka_blocks", "cka_networks", "tsne"),
    }
    assert all(len(read_description(file).split()) > 8 for file in folder.glob("*.png"))
    assert page.count("<img ") == len(pictures)
    lines = (folder / "survey.jsonl").read_text().splitlines()
    # Once more: what stands is kept, what failed is tried again, and other settings are other figures.
    code, out, _ = run("survey", *words)
    again = {row["name"]: row["date"] for row in json.loads(out)["data"]["rows"]}
    kept = [name for name in rows if expected[name] in ("measured", "out of memory")]
    added = [json.loads(line)["name"] for line in (folder / "survey.jsonl").read_text().splitlines()[len(lines) :]]
    assert sorted(added) == sorted(set(rows) - set(kept))
    assert all(again[name] == rows[name]["date"] for name in kept)
    code, out, _ = run("survey", "models=[slim]", *QUICK, "output=first", "format=json", "structural=true")
    assert code == 0
    (row,) = json.loads(out)["data"]["rows"]
    assert (row["status"], row["counts"]) == ("counted", slim["counts"])


@pytest.mark.slow
def test_a_network_that_kills_its_process_is_named_by_the_next_run(run, home):
    words = ["survey", "models=[deadly]", *QUICK, "parts=[speed]", "output=killed", "format=json"]
    call = f"import sys; sys.path.insert(0, '.'); from tnt_vit.cli import main; main({words})"
    environment = {"DEADLY": "1", "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", call], cwd=home, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    code, out, err = run(*words)
    assert code == 1, err
    (row,) = json.loads(out)["data"]["rows"]
    assert row["status"] == "failed"
    assert "ended without a word" in row["reason"]
    assert run(*words).code == 1  # kept
    assert run(*words, "fresh=true").code == 0


def test_two_surveys_beside_each_other(run, home):
    code, out, err = run("survey", "models=[slim,wide]", *QUICK, "output=a", "parts=[speed,energy]")
    assert code == 0, err
    assert (out + err).count("Energy was not measured: device=cpu has no energy counter") == 1
    rows = [json.loads(line) for line in (home / "a" / "survey.jsonl").read_text().splitlines()[:1]]
    (home / "b").mkdir()
    for row in rows:
        row["settings"]["torch"] = "9.9"
        for case in row["sweep"]:
            case["samples"] = [2 * s for s in case["samples"]]
    (home / "b" / "survey.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run("survey", "compare", "a", "b/survey.jsonl", "output=c", "format=json")
    assert code == 0, err
    speed, other = (json.loads(out)["tables"][i] for i in (0, -1))
    assert speed["rows"][0][:2] == ["slim", 1]
    assert speed["rows"][-1] == ["wide", *[None] * 6, "only in A"]
    assert all(row[4] == pytest.approx(2.0) for row in speed["rows"][:2])  # the same samples, twice as long
    assert ["torch", rows[0]["settings"]["torch"]] == [other["rows"][0][0], other["rows"][0][2]]
    for suffix in ("json", "md", "html"):
        assert (home / "c" / f"compare.{suffix}").is_file()


def test_energy_is_a_column_of_its_own(run, home, monkeypatch):
    class Meter:
        def __init__(self, device):
            self.looks = 0

        def joules(self):
            self.looks += 1
            return 3.0 * self.looks

        def clock_mhz(self):
            return 1500

    monkeypatch.setattr("tnt_vit.survey.run.Meter", Meter)
    monkeypatch.setattr("tnt_vit.commands.survey.draw_survey", lambda *_, **__: [])  # other tests look at pictures
    words = ["survey", "models=[slim]", *QUICK, "output=joules", "parts=[speed,energy]", "format=json"]
    code, out, err = run(*words)
    assert code == 0, err
    found = json.loads(out)
    (row,) = found["data"]["rows"]
    assert row["energy"]["joules_per_image"] == 3 / row["best_batch"]  # min_seconds=0: a single call
    speed = next(table for table in found["tables"] if table["title"] == "Speed")
    assert dict(zip(speed["columns"], speed["rows"][0], strict=True))["J/image"] == 3 / row["best_batch"]
    header, line = (home / "joules" / "survey.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    assert float(cells["joules_per_image"]) == 3 / row["best_batch"]
    assert float(cells["share_of_roof"]) > 0
    assert cells["roof_made_by"] in ("memory", "products")
    assert cells["attention_entropy_first"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compaer"], ["compaer", "compare"]),
        (["compare", "a"], ["two surveys"]),
        (["compare", "nowhere", "nowhere"], ["A='nowhere'"]),
        (["list", "more"], ["no more words"]),
        (["suite=tabel2"], ["tabel2", "table2"]),
        (["models=slim"], ["models='slim'", "list"]),
        (["registry=none.toml"], ["none.toml", "does not exist"]),
        (["parts=[sped]"], ["sped", "speed"]),
        (["fresh=maybe"], ["fresh=", "true or false"]),
        (["images=[nowhere.jpg]"], ["nowhere.jpg"]),
    ],
    ids=" ".join,
)
def test_mistakes(run, words, said):
    assert_one_line_mistake("tnt-vit", run("survey", *words), said)


def test_the_list(run):
    code, out, _ = run("survey", "list", "format=json")
    assert code == 0
    rows = {row[0]: row for row in json.loads(out)["tables"][0]["rows"]}
    assert rows["swin_tiny"][1:3] == ["Swin-T", "pure transformer"]
    assert len(rows) > 50
    code, out, _ = run("survey", "list", "suite=small", "format=json")
    assert len(json.loads(out)["tables"][0]["rows"]) == 7
