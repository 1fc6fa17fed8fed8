"""The console script ``effkit``: list, doctor, reproduce."""

import importlib.metadata
import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from effkit.main import main
from effkit.report import Report

FAKE = {
    "good": EntryPoint("good", "listed_papers:GOOD", "effkit.papers"),
    "broken": EntryPoint("broken", "listed_papers:MISSING", "effkit.papers"),
}


@pytest.fixture
def papers(monkeypatch, tmp_path):
    """One paper that loads and one that does not, and nothing else."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "listed_papers.py").write_text(
        "from effkit.papers import Paper\nGOOD = Paper('good', 'good-dist', 'A good paper', 'Someone, 2020', list)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr("effkit.papers.installed.installed_papers", lambda: dict(FAKE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_shows_every_paper_even_one_that_does_not_load(papers, capfd):
    assert main(["list", "format=json"]) == 0
    found = json.loads(capfd.readouterr().out)["data"]["papers"]
    assert [paper["paper"] for paper in found] == ["good", "broken"]
    assert found[0]["title"] == "A good paper"
    assert found[1]["title"].startswith("cannot be loaded: AttributeError")


def test_list_without_papers_says_how_to_get_one(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr("effkit.papers.installed.installed_papers", dict)
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "No paper is installed" in capfd.readouterr().out


def test_list_names_the_version_of_the_distribution(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = importlib.metadata.entry_points(group="effkit.papers")
    assert main(["list", "format=json"]) == 0
    found = {paper["paper"]: paper["version"] for paper in json.loads(capfd.readouterr().out)["data"]["papers"]}
    assert found == {point.name: point.dist.version for point in points if point.dist is not None}


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_reporting_leaves_nothing_behind(papers, command):
    before = sorted(papers.rglob("*"))
    assert main([command]) == 0
    assert [p for p in sorted(papers.rglob("*")) if "__pycache__" not in str(p)] == before


def test_doctor_prints_environment_and_backends(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"torch +\d+\.\d+", out)
    assert re.search(r"triton interpreter +(yes|no)", out)
    assert main(["doctor", "format=json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert set(report["data"]) == {"environment", "backends"}


def test_version(capfd):
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"effkit {importlib.metadata.version('effkit')}\n"


def test_help_names_the_commands(capfd):
    assert main(["--help"]) == 0
    out = capfd.readouterr().out
    for command in ("list", "doctor", "reproduce"):
        assert re.search(rf"^  {command} +[A-Z].*\.$", out, re.M)


DEFAULTS = {
    "output": "report",
    "papers": None,
    "claims": True,
    "full": False,
    "jobs": None,
    "fresh": False,
    "serial": False,
    "executor": "process",
    "workers": None,
    "ray": {"address": None, "gpus": 0},
    "submitit": {"cluster": None, "partition": None, "minutes": 60, "memory_gb": None, "gpus": 0},
}


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ([], {}),
        (["papers=tnt-vit", "claims=false"], {"papers": "tnt-vit", "claims": False}),
        (["papers=[a,b]", "serial=true"], {"papers": ["a", "b"], "serial": True}),
        (["output=there/x"], {"output": "there/x"}),
        (["full=true", "jobs=3", "fresh=true"], {"full": True, "jobs": 3, "fresh": True}),
        (
            ["executor=ray", "workers=4", "ray.gpus=1"],
            {"executor": "ray", "workers": 4, "ray": {"address": None, "gpus": 1}},
        ),
    ],
)
def test_reproduce_hands_its_config_over(monkeypatch, tmp_path, capfd, words, changed):
    given, expected = {}, DEFAULTS | changed

    def reproduce_all(**kwargs):
        given.update(kwargs)
        page = Path(kwargs["output"], "index.html")
        page.write_text("<html>")
        return Report("reproduced", files=[page], exit_code=1)

    monkeypatch.setattr("effkit.reproduce.reproduce_all", reproduce_all)
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 1
    assert given == expected
    # Nothing but the report: no log, no copy of the config, no folder beside it.
    written = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()]
    assert written == [f"{expected['output']}/index.html"]
    assert "reproduced" in capfd.readouterr().out


def test_reproduce_writes_the_report_of_all_papers(papers, capfd):
    """One paper without rows and one that does not load: the report says so and is complete."""
    code = main(["reproduce", "serial=true", "claims=false", "format=json"])
    report = json.loads(capfd.readouterr().out)
    assert code == report["exit_code"] == 1
    document = json.loads((papers / "report" / "results.json").read_text())
    assert {paper["name"]: paper["status"] for paper in document["papers"]} == {"good": "ok", "broken": "crashed"}
    assert (papers / "report" / "index.html").stat().st_size > 0


def test_reproduce_refuses_a_paper_that_is_not_installed(papers, capfd):
    assert main(["reproduce", "papers=[god]"]) == 2
    assert capfd.readouterr().err == (
        "effkit: error: papers='god' is not known, choose one of good, broken; did you mean 'good'?\n"
    )
