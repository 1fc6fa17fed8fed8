"""The commands on spaces, stand-alone networks and files, as users type them."""

import json

import pytest
import torch

from effkit.testing import assert_one_line_mistake, in_process
from ws_nas.cli import main
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.spaces.registry import SPACES, get_space

QUICK = ["recipe.epochs=1", "recipe.batch_size=16", "threads=1", "device=cpu"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    before = torch.get_num_threads()
    yield in_process(main, tmp_path, monkeypatch, capfd)
    torch.set_num_threads(before)


def data_of(result):
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)["data"]


@pytest.mark.parametrize("name", SPACES)
def test_info_of_every_space(run, name):
    found, space = data_of(run("info", f"space={name}", "format=json")), get_space(name)
    assert (found["size"], found["hash"]) == (space.size(), space.hash)
    for key, genotype in space.named.items():
        assert (found["params"][key], found["macs"][key]) == space.cost(genotype)


def test_info_of_chosen_networks(run):
    found = data_of(run("info", "space=nas_bench_macro", "genotypes=[11111111,00000000]", "format=json"))
    assert found["params"] == {"11111111": 1_588_874, "00000000": 387_882}
    assert found["macs"] == {"11111111": 53_246_464, "00000000": 7_713_280}
    sized = data_of(run("info", "space=darts", "space.layers=8", "space.channels=16", "format=json"))
    assert sized["params"]["DARTS_V2"] < 400_000
    assert "6,561" in run("info").stdout


def test_a_table_is_what_its_networks_reach_alone(run, tmp_path):
    """Seed by seed; and an interrupted one trains only what is missing."""
    small = [*QUICK, "space.width=2", "parts=held_out", "data.limit=40"]
    assert run("build-table", *small, "seeds=[0,1]", "hydra.run.dir=whole").code == 0
    whole = tmp_path / "whole" / "digits_chain.csv"
    table = TabularBenchmark(whole, get_space("digits_chain", width=2))
    assert len(table) == 81
    alone = data_of(run("standalone", *small, "genotypes=[0000,1200]", "arch=3", "seed=1", "format=json"))
    assert [row["genotype"] for row in alone["networks"]] == ["0000", "1200", "0010"]
    for row in alone["networks"]:
        for split, key in (("valid", "val_accuracy"), ("test", "test_accuracy")):
            told = table.query(row["genotype"], f"digits_{split}_1_seed1")
            assert told == pytest.approx(100 * row[key], abs=1e-4)
    held = json.loads((tmp_path / "whole" / "trained.json").read_text())
    for genotype in ("0000", "2222"):
        del held["trained"][genotype]
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "trained.json").write_text(json.dumps(held))
    resumed = run("build-table", *small, "seeds=[0,1]", "resume=part", "out=again.csv")
    assert resumed.code == 0, resumed.stderr
    assert (tmp_path / "again.csv").read_text().splitlines()[1:] == whole.read_text().splitlines()[1:]
    other = run("build-table", *small, "seeds=[0,1]", "resume=part", "recipe.lr=0.2")
    assert_one_line_mistake("ws-nas", other, ["resume='part'", "recipe="])


def test_export(run, tmp_path):
    found = data_of(run("export", "space=nb201_tiny", "genotype=301243", "out=made/net.py", "format=json"))
    assert (found["params"], found["macs"]) == get_space("nb201_tiny").cost((3, 0, 1, 2, 4, 3))
    held = {"__file__": str(tmp_path / "made" / "net.py")}
    exec((tmp_path / "made" / "net.py").read_text(), held)
    assert held["load"]()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


MISTAKES = [
    (["info", "space=digits_chain", "genotypes=[0123]"], ["genotypes='0123'", "'3' is no layer"]),
    (["info", "genotypes=3"], ["genotypes=3", "list"]),
    (["info", "space.width=0.5", "space=digits_chain"], ["space.width=0.5"]),
    (["info", "space.width=0", "space=digits_chain"], ["space.width=0"]),
    (["standalone"], ["name at least one network"]),
    (["standalone", "arch=81"], ["arch=81", "0 to 80"]),
    (["standalone", "arch=1", "recipe.lr=-1"], ["recipe.lr=-1"]),
    (["standalone", "arch=1", "data.limit=9"], ["data.limit=9", "parts=held_out"]),
    (["standalone", "arch=1", "method=stack"], ["method='stack'", "stacked"]),
    (["standalone", "arch=1", "space=nb201_tiny", "method=stacked"], ["method=stacked", "nb201_tiny"]),
    (["build-table", "at_once={a:1}"], ["at_once=", "whole number"]),
    (["build-table", "space=darts_tiny"], ["darts_tiny", "networks"]),
    (["build-table", "space=ofa_tiny"], ["one digit a gene"]),
    (["build-table", "seeds=[1,1]"], ["seeds=[1, 1]"]),
    (["build-table", "resume=nowhere"], ["nowhere"]),
    (["build-table", "out=x.txt"], ["x.txt", ".csv"]),
    (["export"], ["genotype"]),
    (["export", "genotype=0000", "out=x.pt2"], ["x.pt2", ".py"]),
    (["bench", "cases=[fast]"], ["cases='fast'", "prefix"]),
    (["bench", "cells=0"], ["cells=0"]),
]


@pytest.mark.parametrize(("words", "parts"), MISTAKES, ids=lambda value: " ".join(value) if value else "")
def test_mistakes_are_one_line(run, words, parts):
    assert_one_line_mistake("ws-nas", run(*words), parts)
