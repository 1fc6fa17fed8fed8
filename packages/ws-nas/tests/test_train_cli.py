"""`ws-nas train`, `resume` and `eval`: every family on digits, what runs say of themselves, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from effkit.plots.sentence import read_description
from effkit.testing import assert_one_line_mistake, in_process, unread_keys
from ws_nas.cli import main
from ws_nas.families.registry import FAMILIES
from ws_nas.families.relaxed import Relaxed
from ws_nas.plots.architecture import COURSES
from ws_nas.spaces.registry import get_space

SMALL = [
    *("trainer=cpu", "threads=1", "data.limit=40", "data.batch_size=16", "trainer.max_epochs=2"),
    *("trainer.enable_progress_bar=false", "scoring.calibration=16"),
]
# What each needs besides, to be done in a second.
TINY = {
    "individual": ["family.candidates=2"],
    "enas": ["family.updates=1", "family.samples=2", "family.candidates=2"],
    "spos": ["family.search.limit={macs: 60000}"],
    "proxyless": ["family.warmup=0", "family.every=1"],
    "r_darts": ["family.every=1"],
    "pc_darts": ["space=darts_tiny", "family.warmup=1", "space.search_channels=4"],
    "ofa": [
        "space=ofa_tiny",
        "family.shares=[1,1,1,1,1,1]",
        "family.search.population=3",
        "family.search.parents=2",
        "family.search.generations=1",
        "family.search.exhaustive=0",
    ],
    "bignas": [
        "space=ofa_tiny",
        "family.search.population=3",
        "family.search.parents=2",
        "family.search.generations=1",
        "family.search.exhaustive=0",
    ],
    "p_darts": ["space=darts_tiny", "family.warmup=0", "family.cells=[3,3,3]", "trainer.max_epochs=3"],
}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    before = torch.get_num_threads()
    yield in_process(main, tmp_path, monkeypatch, capfd)
    torch.set_num_threads(before)


# Each takes a second; those whose commands differ from others are run always.
OFTEN = ("individual", "spos", "darts", "pc_darts")


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_every_family_trains_on_digits_and_derives_a_genotype(run, name):
    code, out, err = run("train", *SMALL, f"family={name}", *TINY.get(name, []), "format=json", "hydra.run.dir=r")
    assert code == 0, err
    found = json.loads(out)["data"]
    space = get_space(found["space"], **({"search_channels": 4} if name == "pc_darts" else {}))
    assert found["hash"] == space.hash
    genotype = space.parse(found["genotype"])
    assert (found["params"], found["macs"]) == space.cost(genotype)
    assert json.loads(Path("r/genotype.json").read_text())["genotype"] == found["genotype"]
    assert read_description("r/derived.png").startswith("Graph of a network's choices, ")
    if name == "spos":
        assert found["macs"] <= 60000
    if issubclass(FAMILIES[name], Relaxed):
        assert "Heat maps of the shares of operations" in read_description("r/operations.png")
        assert "nats from" in read_description("r/course.png")
    assert Path("r/course.png").is_file() == bool(set(FAMILIES[name].columns) & set(COURSES))
    if name == "pc_darts":  # has no sub-networks to score
        assert found["accuracy"] is None
        assert found["loss"] is None
    else:
        assert 0 <= found["accuracy"] <= 1
        assert found["loss"] > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of SPOS."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    before = torch.get_num_threads()
    assert main(["train", *SMALL, "space=nb201_tiny", "family.search.exhaustive=0", "family.search.population=4",
                 "family.search.parents=2", "family.search.generations=2", f"hydra.run.dir={folder}"]) == 0  # fmt: skip
    torch.set_num_threads(before)
    return folder


def test_eval_measures_what_was_derived_or_is_named(run, trained):
    derived = json.loads((trained / "genotype.json").read_text())["genotype"]
    code, out, err = run("eval", f"run={trained}", "format=json", "threads=1")
    assert code == 0, err
    (found,) = json.loads(out)["data"]["networks"]
    assert found["genotype"] == derived
    code, out, err = run("eval", f"run={trained}", "format=json", "genotypes=['000000',all_conv_3x3]", "threads=1")
    assert code == 0, err
    networks = json.loads(out)["data"]["networks"]
    assert [n["genotype"] for n in networks] == ["000000", "333333"]
    assert networks[0]["accuracy"] == pytest.approx(0.1, abs=0.06)  # nothing gets through
    assert networks[1]["params"] > networks[0]["params"]
    best = run("eval", f"run={trained}", "format=json", "weights=best", "threads=1")
    assert best.code == 0, best.err


def test_resume_of_a_finished_run_gives_the_same(run, trained):
    before = load_file(trained / "model.safetensors")
    genotype = (trained / "genotype.json").read_text()
    code, _, err = run("resume", f"run={trained}", "threads=1")
    assert code == 0, err
    assert (trained / "genotype.json").read_text() == genotype
    assert all(torch.equal(v, before[k]) for k, v in load_file(trained / "model.safetensors").items())


def test_resume_goes_on_with_the_words_of_the_run(run):
    words = ["train", *SMALL, "family=fairnas", "data.limit=30"]
    assert run(*words, "hydra.run.dir=whole").code == 0
    assert run(*words, "trainer.max_epochs=1", "hydra.run.dir=cut").code == 0
    # As a run that was stopped after its first epoch: its settings say two.
    file = Path("cut/.hydra/config.yaml")
    file.write_text(file.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    Path("cut/metrics.json").unlink()
    code, _, err = run("resume", "run=cut", "threads=1")
    assert code == 0, err
    assert "resuming" in err
    assert json.loads(Path("cut/metrics.json").read_text())["epochs"] == 2
    # A schedule that was laid out for one epoch has another rate in it, so that only the length is compared.
    assert load_file("cut/model.safetensors").keys() == load_file("whole/model.safetensors").keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "family=sops"], ["family", "sops"]),
        (["train", "+family.gene=1"], ["family.gene", "spos"]),
        (["train", "family=darts", "space=fairnas_chain", "data=digits"], ["1000 classes", "10"]),
        (["train", "family=pc_darts"], ["family=pc_darts", "space=digits_chain", "space=darts"]),
        (["train", "family=few_shot", "family.gene=4"], ["family.gene=4", "below 4"]),
        (["train", "family=darts", "family.order=second", "optimizer=adamw"], ["order=second", "AdamW"]),
        (["train", "held_out=1"], ["held_out=1", "at least 2"]),
        (["train", "scoring.metric=f1"], ["scoring.metric='f1'", "accuracy, loss"]),
        (["train", "+supernet.bias=true"], ["supernet='bias'", "affine"]),
        (["train", "family.search.limit={macs: 1}"], ["limit", "digits_chain"]),
        (["train", "trainer.accumulate_grad_batches=2"], ["accumulate_grad_batches=2"]),
        (
            ["train", "data=digits", "space=nas_bench_macro", "+space.classes=7"],
            ["7 classes", "10", "its own key classes"],
        ),
        (["resume", "run=nowhere"], ["run='nowhere'", "does not exist"]),
        (["eval", "run=nowhere"], ["run='nowhere'", "does not exist"]),
    ],
)
def test_mistakes_are_one_line(run, words, said):
    extra = [word for word in SMALL if words[0] == "train"]
    assert_one_line_mistake("ws-nas", run(words[0], *extra, *words[1:]), said)


def test_only_mixtures_are_derived_by_perturbation(run, trained):
    result = run("search", f"run={trained}", "strategy=perturbation", "threads=1", "device=cpu")
    assert_one_line_mistake("ws-nas", result, ["strategy=perturbation", "as DARTS trains them", "not for spos"])


def test_genotypes_of_other_spaces_are_refused(run, trained):
    result = run("eval", f"run={trained}", "genotypes=['0121']")
    assert_one_line_mistake("ws-nas", result, ["genotypes='0121'", "the run's space nb201_tiny"])


LINES = {
    "train": [[*SMALL, "+supernet.affine=false"]],
    "resume": [["run=trained"]],
    "eval": [["run=trained"]],
}


@pytest.mark.parametrize("name", LINES)
def test_every_key_is_read(run, name):
    if name != "train":
        assert run("train", *SMALL, "hydra.run.dir=trained").code == 0
    assert unread_keys(main, name, run, *LINES[name]) == []
