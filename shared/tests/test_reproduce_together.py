"""Papers side by side, stopped and resumed: what is kept, what runs again and why, and who may run in a folder."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from effkit.errors import UserError
from effkit.main import main
from effkit.reproduce import reproduce_all

# Claims of three parts, which write into a file what they compute; a part may be told to hang, with a child of its own.
PAPERS = """
import os, random, subprocess, time
from pathlib import Path
from effkit.papers import Claim, Findings, Paper
from effkit.reproduce import Row

def log(*words):
    with open(os.environ["CALLS"], "a") as file:
        file.write(" ".join(words) + "\\n")

def rows():
    return [Row("1", "x", "params", 1.0, "M", "", "printed", compute=lambda: 1.0)]

def paper(name, claim):
    return Paper(name, "resumables", name.title(), "", rows, claim, f"{name} reproduce")

def in_parts(name):
    def part(label, folder):
        log(name, label)
        (folder / "drawn.txt").write_text(label)
        if f"{name} {label}" in os.environ.get("HANG", "").split(","):
            child = subprocess.Popen(["sleep", "60"])
            log("pids", str(os.getpid()), str(child.pid))
            time.sleep(60)
        return {"drawn": random.random()}

    def claim(run):
        found = Findings()
        for label in "abc":
            found.add(label, "drawn", run.part(label, part, label, run.subfolder(label))["drawn"])
        return Claim(found.rows, [run.subfolder("a") / "drawn.txt"], notes=["full" if run.full else "short"])

    return paper(name, claim)

ALPHA, BETA, GAMMA = in_parts("alpha"), in_parts("beta"), in_parts("gamma")

def meets(name, other):
    def claim(run):
        here = Path(os.environ["CALLS"]).parent
        (here / name).touch()
        for _ in range(600):
            if (here / other).exists():
                return Claim(rows=[])
            time.sleep(0.05)
        raise TimeoutError(f"{other} does not run")
    return paper(name, claim)

LEFT, RIGHT = meets("left", "right"), meets("right", "left")

def threads(run):
    import torch
    found = Findings()
    found.add("torch", "threads", torch.get_num_threads())
    found.add("environment", "threads", int(os.environ["MKL_NUM_THREADS"]))
    return Claim(found.rows)

THREADS = paper("threads", threads)

def leaves_a_process(run):
    log("pids", str(subprocess.Popen(["sleep", "60"]).pid))
    return Claim(rows=[])

UNTIDY = paper("untidy", leaves_a_process)
"""
NAMES = ("alpha", "beta", "gamma", "left", "right", "threads", "untidy")
THREE = ["alpha", "beta", "gamma"]


class Site:
    """A fake distribution, visible to this process and those it starts, and the file its claims write into."""

    def __init__(self, folder: Path) -> None:
        self.module = folder / "resumable_papers.py"
        self.info = folder / "resumables-1.5.dist-info"
        self.calls_file = folder / "calls"
        self.info.mkdir()
        self.module.write_text(PAPERS)
        self.version("1.5")
        points = "\n".join(f"{name} = resumable_papers:{name.upper()}" for name in NAMES)
        (self.info / "entry_points.txt").write_text(f"[effkit.papers]\n{points}\n")
        self.calls_file.touch()

    def version(self, version: str) -> None:
        (self.info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: resumables\nVersion: {version}\n")

    def calls(self) -> Counter:
        """How often each part was computed."""
        return Counter(line for line in self.calls_file.read_text().splitlines() if not line.startswith("pids"))

    def pids(self) -> list[int]:
        """Processes of the parts that hang."""
        lines = self.calls_file.read_text().splitlines()
        return [int(pid) for line in lines if line.startswith("pids") for pid in line.split()[1:]]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("CALLS", str(site.calls_file))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("resumable_papers", None)  # that of another test
    return site


def papers(output: Path) -> dict[str, dict]:
    return {paper["name"]: paper for paper in json.loads((output / "results.json").read_text())["papers"]}


def parts(*names: str) -> dict[str, int]:
    return {f"{name} {label}": 1 for name in names for label in "abc"}


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(*words: str, hang: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "effkit.main", "reproduce", *words]
    environment = {**os.environ, "HANG": hang}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def without_times(output: Path) -> str:
    def clean(value):
        if isinstance(value, dict):
            left_out = ("seconds", "date", "jobs", "environment")
            return {k: clean(v) for k, v in value.items() if k not in left_out}
        return [clean(v) for v in value] if isinstance(value, list) else value

    return json.dumps(clean(json.loads((output / "results.json").read_text())), indent=1)


def test_side_by_side_one_by_one_and_in_this_process_give_the_same(site: Site, tmp_path: Path) -> None:
    reports = {
        "together": reproduce_all(tmp_path / "together", THREE, jobs=3),
        "alone": reproduce_all(tmp_path / "alone", THREE, jobs=1),
        "here": reproduce_all(tmp_path / "here", THREE, serial=True),
    }
    found = {name: without_times(tmp_path / name) for name in reports}
    assert found["together"] == found["alone"] == found["here"]
    assert [row[0] for row in reports["together"].tables[0].rows] == THREE
    assert [report.data["jobs"] for report in reports.values()] == [3, 1, 1]
    assert (
        reports["together"]
        .tables[0]
        .note.startswith("Short forms of the claims (full=true runs the full ones); 3 papers on 3 workers, ")
    )


def test_papers_really_run_at_the_same_time(site: Site, tmp_path: Path) -> None:
    report = reproduce_all(tmp_path / "report", ["left", "right"], jobs=2)  # each waits for the other
    assert report.exit_code == 0


@pytest.mark.parametrize("how", [{"jobs": 1}, {"serial": True}])
def test_a_paper_computes_with_one_thread(site: Site, tmp_path: Path, how, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    try:
        reproduce_all(tmp_path / "report", "threads", **how)
        assert torch.get_num_threads() == 2
        assert os.environ["MKL_NUM_THREADS"] == "2"
    finally:
        torch.set_num_threads(before)
    found = papers(tmp_path / "report")["threads"]["claim"]["outcomes"]
    assert [o["ours"] for o in found] == [1, 1]


def test_by_default_one_paper_a_core(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, jobs in ((1, 1), (2, 2), (64, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)), raising=False)
        assert reproduce_all(tmp_path / "report", THREE, claims=False).data["jobs"] == jobs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jobs=0"], "jobs=0: it must be a whole number of at least 1; leave it out for one a core"),
        (["jobs=-2"], "jobs=-2: it must be"),
        (["workers=0"], "workers=0: it must be a whole number of at least 1"),
        (["jobs=many"], "jobs='many' must be a whole number or null"),
        (["jobs=1.5"], "jobs=1.5 must be a whole number or null"),
        (["jobs=true"], "jobs=true must be a whole number or null"),
        (["jobs=2", "workers=3"], "jobs=2 and workers=3 are two names of one number"),
        (["serial=true", "jobs=2"], "jobs=2 does not go with serial=true"),
        (["serial=true", "executor=ray"], "executor=ray does not go with serial=true"),
        (["executor=serial", "workers=2"], "workers=2 needs an executor other than serial"),
        (["executor=rya"], "executor='rya' is not known, choose one of serial, process, ray, submitit; did you mean"),
        (["executor=submitit", "submitit.cluster=slrum"], "submitit.cluster='slrum' is not known"),
        (["full=much"], "full=much must be true or false"),
        (["fresh=2"], "fresh=2 must be true or false"),
    ],
)
def test_mistakes_are_one_line(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str], words, message) -> None:
    assert main(["reproduce", "papers=[alpha,beta,gamma]", "output=report", *words]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"effkit: error: {message}")
    assert error.count("\n") == 1
    assert site.calls() == {}


def test_a_second_run_keeps_what_is_finished(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report"
    reproduce_all(output, THREE)
    first = papers(output)
    capfd.readouterr()
    report = reproduce_all(output, ["beta", "alpha"])
    assert site.calls() == parts(*THREE)
    again = papers(output)
    assert list(again) == ["beta", "alpha"]
    for name, paper in again.items():
        assert paper == first[name] | {"kept": True}
    when = first["beta"]["date"]
    read = f"{when[:10]}, {when[11:16]} UTC"
    assert capfd.readouterr().err.splitlines()[0].startswith(f"beta: kept from {when}: 1 match, 3 nothing to compare (")
    assert [row[5:7] for row in report.tables[0].rows] == [["short", "kept"], ["short", "kept"]]
    assert report.tables[0].note.endswith("2 kept from an earlier run (fresh=true runs all again).")
    page = (output / "index.html").read_text()
    assert f"Kept from the run of {read}, which took " in page
    assert "of which the short form of the claim" in page
    assert "effkit reproduce fresh=true" in page
    assert sorted(p.name for p in output.iterdir() if p.is_file()) == ["index.html", "results.json"]


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ("source", {}, "its source files changed"),
        ("version", {}, "package resumables 1.5 -> resumables 1.6"),
        ("", {"full": True}, "form short -> full"),
        ("", {"claims": False}, "claims true -> false"),
        ("figure", {}, "alpha/claim/a/drawn.txt is missing"),
        ("", {"fresh": True}, ""),
    ],
)
def test_what_has_changed_runs_again_and_says_why(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str, options: dict, reason: str
) -> None:
    output = tmp_path / "report"
    reproduce_all(output, "alpha")
    if change == "source":
        site.module.write_text(PAPERS + "# a remark\n")
    elif change == "version":
        site.version("1.6")
    elif change == "figure":
        (output / "alpha" / "claim" / "a" / "drawn.txt").unlink()
    capfd.readouterr()
    reproduce_all(output, "alpha", **options)
    error = capfd.readouterr().err.splitlines()
    assert error[:-1] == ["alpha: started"] + [f"alpha: again: {reason}"] * bool(reason)
    paper = papers(output)["alpha"]
    assert paper["note"] == (f"again: {reason}" if reason else "")
    assert not paper["kept"]
    computed = site.calls()
    if options == {"claims": False}:
        assert computed == parts("alpha")
        reproduce_all(output, "alpha")  # the parts of its claim still stand
        assert site.calls() == parts("alpha")
        assert papers(output)["alpha"]["claim"]["kept_parts"] == ["a", "b", "c"]
    elif change == "figure":
        assert computed == {"alpha a": 2, "alpha b": 1, "alpha c": 1}
    else:
        assert computed == dict.fromkeys(parts("alpha"), 2)
    if options == {"full": True}:
        assert paper["claim"]["notes"] == ["full"]
        assert paper["claim"]["outcomes"][0]["command"] == "alpha reproduce claim=true full=true"
        page = (output / "index.html").read_text()
        assert "Full forms of the claims; 1 paper on " in page
        assert "effkit reproduce full=true fresh=true" in page


def test_other_libraries_are_another_run(site: Site, tmp_path: Path) -> None:
    from effkit.reproduce.resume import difference, make_stamp

    stamp = make_stamp("effkit", "effkit.papers", full=False)
    assert stamp["libraries"]["torch"]
    assert difference(json.loads(json.dumps(stamp)), stamp) == ""
    older = stamp | {"libraries": stamp["libraries"] | {"torch": "1.0"}}
    assert difference(older, stamp) == f"torch 1.0 -> {stamp['libraries']['torch']}"
    assert difference(stamp | {"source files of effkit": "x"}, stamp) == "the source files of effkit changed"
    assert difference(stamp | {"python": "2.7"}, stamp).startswith("python 2.7 -> 3")
    nowhere = make_stamp("", "no_such_module", full=False)
    assert difference(nowhere, nowhere) == "its source files cannot be read"
    assert difference(None, stamp) == "its result has no stamp"


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@needs_proc
def test_a_killed_run_goes_on_where_it_was(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "report"
    words = ["papers=[alpha,beta]", "output=report", "jobs=2"]
    run = start(*words, hang="alpha b")
    try:
        done = output / "beta" / "result.json"
        wait_for(lambda: len(site.pids()) == 2 and done.exists() and '"holds"' in done.read_text())
    finally:
        run.kill()
        run.communicate()
    wait_for(lambda: not any(map(alive, site.pids())))  # the worker looks after its parent, and ends what it started
    assert not (output / "results.json").exists()
    assert site.calls() == {**parts("beta"), "alpha a": 1, "alpha b": 1}
    reproduce_all(tmp_path / "whole", ["alpha", "beta"])  # never stopped
    computed = site.calls()
    report = reproduce_all(output, ["alpha", "beta"])
    assert report.exit_code == 0
    assert site.calls() - computed == {"alpha b": 1, "alpha c": 1}
    found = papers(output)
    assert found["beta"]["kept"]
    assert found["alpha"]["claim"]["kept_parts"] == ["a"]
    assert found["alpha"]["claim"]["outcomes"] == papers(tmp_path / "whole")["alpha"]["claim"]["outcomes"]
    error = capfd.readouterr().err
    assert f"taking over {output}: the run that held it, process {run.pid}, is gone\n" in error
    assert "alpha: goes on: 1 part of its claim kept\n" in error
    assert "from an earlier run: a)" in (output / "index.html").read_text()


@needs_proc
def test_a_killed_paper_leaves_the_others_and_goes_on_later(site: Site, tmp_path: Path) -> None:
    run = start("papers=[alpha,beta]", "output=report", "jobs=1", hang="alpha c")
    wait_for(lambda: len(site.pids()) == 2)
    os.kill(site.pids()[0], signal.SIGKILL)
    wait_for(lambda: len(site.pids()) == 4)  # it runs once more, from the part it was in
    os.kill(site.pids()[2], signal.SIGKILL)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert error.count("alpha: claim: its worker died (killed by SIGKILL), running it once more\n") == 1
    assert "alpha: crashed: its worker died twice, killed by SIGKILL" in error
    wait_for(lambda: not any(map(alive, site.pids())))
    found = papers(tmp_path / "report")
    assert (found["alpha"]["status"], found["beta"]["status"]) == ("crashed", "ok")
    assert found["alpha"]["outcomes"][0]["verdict"] == "match"
    reproduce_all(tmp_path / "report", ["alpha", "beta"])
    assert site.calls() == {**parts("alpha", "beta"), "alpha c": 3}
    assert papers(tmp_path / "report")["alpha"]["note"] == "goes on: 2 parts of its claim kept"


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_all_it_started(site: Site, tmp_path: Path, number: int) -> None:
    run = start("papers=[alpha,beta,gamma]", "output=report", "jobs=2", hang="alpha a,beta a")
    wait_for(lambda: len(site.pids()) == 4)
    assert all(map(alive, site.pids()))
    run.send_signal(number)
    _, error = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    assert error.endswith("effkit: interrupted\n")
    assert not any(map(alive, site.pids()))
    assert "gamma" not in error  # the one that waited for its turn did not begin
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["alpha", "beta"]


@needs_proc
def test_what_a_paper_leaves_behind_is_ended(site: Site, tmp_path: Path) -> None:
    start = time.monotonic()
    assert reproduce_all(tmp_path / "report", "untidy").exit_code == 0
    assert time.monotonic() - start < 30
    wait_for(lambda: not alive(site.pids()[0]), 5)


@needs_proc
def test_two_runs_do_not_share_a_folder(site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = start("papers=alpha", "output=report", hang="alpha a")
    try:
        wait_for(lambda: len(site.pids()) == 2)
        assert main(["reproduce", "papers=beta", "output=report"]) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert f"output='{tmp_path / 'report'}' is in use by another run since " in error
        assert f"(process {run.pid} on {platform.node()})" in error
        assert all(map(alive, site.pids()))
        assert reproduce_all(tmp_path / "elsewhere", "beta").exit_code == 0
    finally:
        run.terminate()
        run.communicate()
    assert reproduce_all(tmp_path / "report", "beta").exit_code == 0  # it went in order: there is nothing to take over
    assert "taking over" not in capfd.readouterr().err


def test_two_threads_do_not_share_a_folder(site: Site, tmp_path: Path) -> None:
    refused: list[str] = []

    def run() -> None:
        try:
            reproduce_all(tmp_path / "report", ["left", "right"], jobs=2)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert "is in use by another run" in refused[0]


def test_the_lock_of_another_host_is_for_a_person_to_judge(site: Site, tmp_path: Path) -> None:
    lock = tmp_path / "report" / "lock"
    lock.parent.mkdir()
    lock.write_text('{"host": "elsewhere", "pid": 7, "since": "yesterday"}')
    with pytest.raises(UserError, match=r"process 7 on elsewhere\); if that run is gone, delete '.*lock'"):
        reproduce_all(lock.parent, "beta")
    lock.unlink()
    assert reproduce_all(lock.parent, "beta").exit_code == 0


def test_a_lock_file_that_says_nothing_is_taken_over(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text("{")
    assert reproduce_all(tmp_path, "beta", claims=False).exit_code == 0
    assert "taking over" in capfd.readouterr().err
    assert not (tmp_path / "lock").exists()


def test_without_locks_the_process_named_in_the_file_decides(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from effkit import lock

    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        def flock(self, file, how) -> None:
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "fcntl", NoLocks())
    content = {"host": platform.node(), "pid": os.getpid(), "since": "now"}
    (tmp_path / "lock").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is in use by another run"):
        reproduce_all(tmp_path, "beta", claims=False)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lock").write_text(json.dumps(content | {"pid": ended.pid}))
    assert reproduce_all(tmp_path, "beta", claims=False).exit_code == 0
