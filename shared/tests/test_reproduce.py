"""Papers as `effkit reproduce` meets them: good ones, wrong ones, and ones that crash in every way a process can."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effkit.errors import UserError
from effkit.papers import installed_papers, load_paper, select_papers
from effkit.progress import display, listening, report_progress, shown
from effkit.progress import part as progress_part
from effkit.reproduce import Claim, ClaimRun, Paper, Row, Tolerance, paper_report, reproduce_all
from effkit.reproduce.page import render_html
from effkit.rows import evaluate

# A distribution with one paper per way to end. It is installed by its dist-info folder on the path, as pip would do it.
PAPERS = """
import ctypes, os, sys, time
from pathlib import Path
from effkit.plots import describe, figure, save_png
from effkit.report import Table
from effkit.reproduce import Claim, Paper, Row, Tolerance, evaluate, report_progress

def row(ours=23.77, **changes):
    fields = dict(table="1", name="TNT-S <b>", metric="params", paper=23.8, unit="M", source="Table 1")
    fields |= dict(evidence="printed", compute=lambda: ours, tolerance=Tolerance("rounds_to"))
    return Row(**(fields | changes))

def rows():
    top1 = row(metric="top-1", paper=81.5, unit="%", compute=None, not_measured="needs ImageNet", command="x y=1")
    return [row(), top1]

def claim(run):
    report_progress("epoch 1 of 1", 0.5)
    print("noise on standard output")
    with figure(width=3, height=2) as fig:
        fig.subplots().plot([1, 2])
        describe(fig, "A line that rises from 1 to 2 <in> one step.")
        plot = save_png(fig, run.folder / "learning_curve.png")
    floor = Tolerance("at_least")
    accuracy = row(97.2, table="claim", metric="accuracy", paper=95.5, tolerance=floor, evidence="measured")
    tables = [Table("Training", ["model", "accuracy"], [["ours", 97.2], ["baseline", 97.8]])]
    return Claim(evaluate([accuracy]), [plot], tables, ["The baseline wins."])

def low_claim(run):
    return Claim(evaluate([row(94.0, table="claim", paper=95.5, tolerance=Tolerance("at_least"), evidence="measured")]))

def raises(*_):
    raise KeyError("this is wrong")

def leaves(run):
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)

def segfaults(run):
    ctypes.string_at(0)

def sleeps(run):
    (run.folder / "pid").write_text(str(os.getpid()))
    report_progress("sleeping")
    time.sleep(60)

def paper(name, rows=rows, claim=None):
    return Paper(name, "fakes", f"Title of {name} & more", "A. Author, 2021", rows, claim, f"{name} reproduce")

GOOD = paper("good", claim=claim)
ROWS_ONLY = paper("rows-only")
DIFFERS = paper("differs", lambda: [row(24.9)])
LOW = paper("low", claim=low_claim)
RAISES = paper("raises", raises)
CLAIM_RAISES = paper("claim-raises", claim=raises)
LEAVES = paper("leaves", claim=leaves)
SEGFAULTS = paper("segfaults", claim=segfaults)
SLEEPS = paper("sleeps", claim=sleeps)
NO_PAPER = "a string"
"""
ENTRY_POINTS = """
[effkit.papers]
good = fake_papers:GOOD
rows-only = fake_papers:ROWS_ONLY
differs = fake_papers:DIFFERS
low = fake_papers:LOW
raises = fake_papers:RAISES
claim-raises = fake_papers:CLAIM_RAISES
leaves = fake_papers:LEAVES
segfaults = fake_papers:SEGFAULTS
sleeps = fake_papers:SLEEPS
no-paper = fake_papers:NO_PAPER
no-module = fake_module_that_is_absent:PAPER
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the fake distribution is installed in."""
    site = tmp_path_factory.mktemp("site")
    info = site / "fakes-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakes\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "fake_papers.py").write_text(PAPERS)
    return site


@pytest.fixture
def fakes(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, visible to this process and to those it starts."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


def results(output: Path) -> dict:
    return json.loads((output / "results.json").read_text())


def by_name(output: Path) -> dict[str, dict]:
    return {paper["name"]: paper for paper in results(output)["papers"]}


def test_a_good_paper(fakes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = reproduce_all(tmp_path / "report", "good")
    assert report.exit_code == 0
    assert report.tables[0].rows[0][:5] == ["good", 2, 0, 1, "holds"]
    assert report.tables[0].rows[0][-1] == "holds"
    assert [f.name for f in report.files] == ["results.json", "index.html"]
    assert report.lines == []
    paper = by_name(tmp_path / "report")["good"]
    assert (paper["status"], paper["distribution"], paper["version"]) == ("ok", "fakes", "1.5")
    assert [o["verdict"] for o in paper["outcomes"]] == ["match", "not measured here"]
    assert [o["command"] for o in paper["outcomes"]] == ["good reproduce table=1", "x y=1"]
    assert paper["claim"]["outcomes"][0]["command"] == "good reproduce claim=true"
    assert paper["claim"]["figures"] == ["good/claim/learning_curve.png"]
    assert "noise on standard output" in (tmp_path / "report" / "good" / "log-claim.txt").read_text()
    out, err = capfd.readouterr()
    assert out == ""  # standard output is for the report alone
    assert re.fullmatch(r"good: started\ngood: 2 match, 1 not measured here \(\d+ s\)\n", err)


def test_the_page(fakes: Path, tmp_path: Path) -> None:
    reproduce_all(tmp_path, ["good", "claim-raises"])
    page = (tmp_path / "index.html").read_text()
    for part in (
        "All 3 checked figures match; 1 paper crashed",
        "Title of good &amp; more",
        "TNT-S &lt;b&gt;",
        "A. Author, 2021 · fakes 1.5",
        "✓</span> match",
        "–</span> not measured here",
        "✗</span> crashed",
        "needs ImageNet",
        "<code>good reproduce table=1</code>",
        "<code>x y=1</code>",
        "<code>good reproduce claim=true</code>",
        "The baseline wins.",
        "claim crashed: KeyError",
        "prefers-color-scheme: dark",
        'name="viewport"',
        'alt="A line that rises from 1 to 2 &lt;in&gt; one step."',
        "2026-",
        "<h2>Environment</h2>",
    ):
        assert part in page, part
    assert page.count("data:image/png;base64,iVBOR") == 1
    assert "http://" not in page
    assert "https://" not in page
    assert str(tmp_path) not in page.split("<h2>Environment")[0].split("End of its log")[0]


def test_without_claims(fakes: Path, tmp_path: Path) -> None:
    report = reproduce_all(tmp_path, ["segfaults", "rows-only"], claims=False)
    assert report.exit_code == 0
    assert [row[4] for row in report.tables[0].rows] == ["not run", "none"]


@pytest.mark.parametrize("name", ["differs", "low"])
def test_what_does_not_hold_fails(fakes: Path, tmp_path: Path, name: str) -> None:
    report = reproduce_all(tmp_path, name)
    assert report.exit_code == results(tmp_path)["exit_code"] == 1
    assert report.tables[0].rows[0][-1] == "differs"
    expected = {
        "differs": "differs, table 1, TNT-S <b>, params: 24.9, expected 23.8: rounds to 24.9, not 23.8",
        "low": "low, table claim, TNT-S <b>, params: 94, expected 95.5: below 95.5",
    }
    assert report.lines == [expected[name]]
    claim_status = by_name(tmp_path)[name]["claim_status"]
    assert claim_status == {"differs": "none", "low": "does not hold"}[name]


CRASHES = {
    "raises": ("KeyError: 'this is wrong'", "KeyError: 'this is wrong'", 0),
    "claim-raises": ("claim crashed: KeyError: 'this is wrong'", "KeyError: 'this is wrong'", 1),
    "leaves": ("ended early with exit code 7", "last words", 1),
    "segfaults": ("killed by SIGSEGV", "Segmentation fault", 1),
    "no-paper": ("must name an effkit Paper, got 'a string'", "must name an effkit Paper", 0),
    "no-module": ("ModuleNotFoundError: No module named 'fake_module_that_is_absent'", "ModuleNotFoundError", 0),
}


def test_crashes_are_reported_and_the_others_still_run(fakes: Path, tmp_path: Path) -> None:
    report = reproduce_all(tmp_path, [*CRASHES, "good"])
    assert report.exit_code == 1
    papers = by_name(tmp_path)
    for name, (reason, tail, matches) in CRASHES.items():
        paper = papers[name]
        assert paper["status"] == "crashed"
        assert reason in paper["reason"]
        assert tail in paper["log"]
        # What was measured before the crash is kept.
        assert sum(o["verdict"] == "match" for o in paper["outcomes"]) == matches
    assert papers["segfaults"]["claim_status"] == "crashed"
    assert papers["good"]["status"] == "ok"
    assert [row[-1] for row in report.tables[0].rows] == ["crashed"] * len(CRASHES) + ["holds"]
    assert sum("crashed: " in line for line in report.lines) >= len(CRASHES)


def test_serial_runs_here(fakes: Path, tmp_path: Path) -> None:
    report = reproduce_all(tmp_path, ["raises", "no-module", "good"], serial=True)
    assert [row[-1] for row in report.tables[0].rows] == ["crashed", "crashed", "holds"]
    assert by_name(tmp_path)["raises"]["reason"] == "KeyError: 'this is wrong'"


def test_files_in_the_working_directory_are_not_imported(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    assert reproduce_all(tmp_path / "report", "rows-only").exit_code == 0


def test_an_old_result_is_not_taken_for_a_new_one(fakes: Path, tmp_path: Path) -> None:
    stale = tmp_path / "raises" / "result.json"
    stale.parent.mkdir()
    stale.write_text('{"outcomes": [], "status": "ok"}')
    assert reproduce_all(tmp_path, "raises").exit_code == 1
    assert not stale.exists()


def test_unknown_and_missing_papers(fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"papers='godo' is not known, choose one of .*; did you mean 'good'"):
        reproduce_all(tmp_path / "report", ["godo"])
    assert not (tmp_path / "report").exists()
    monkeypatch.setattr("effkit.papers.installed.installed_papers", dict)
    report = reproduce_all(tmp_path / "report")
    assert report.exit_code == 1
    assert "No paper is installed" in report.lines[0]


def test_discovery_imports_nothing(fakes: Path) -> None:
    sys.modules.pop("fake_papers", None)
    found = installed_papers()
    assert {"good", "no-module"} <= set(found)
    assert list(found) == sorted(found)
    assert "fake_papers" not in sys.modules
    assert load_paper(found["good"]).title == "Title of good & more"
    assert list(select_papers(["low", "good"])) == ["low", "good"]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_kills_its_worker_and_writes_no_report(fakes: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "index.html").write_text("the report of an earlier run")
    code = "import sys; from effkit.reproduce import reproduce_all; reproduce_all(sys.argv[1], 'sleeps')"
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    pid_file = tmp_path / "sleeps" / "claim" / "pid"
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        worker = int(pid_file.read_text())
        assert alive(worker)
        parent.send_signal(number)
        assert parent.wait(timeout=20) == -number
        wait_for(lambda: not alive(worker))
    finally:
        parent.kill()
        parent.wait()
    assert (tmp_path / "index.html").read_text() == "the report of an earlier run"
    assert not (tmp_path / "results.json").exists()
    assert not list(tmp_path.rglob(".*"))  # no half-written file


def row(ours=23.77, **changes) -> Row:
    fields = {
        "table": "1",
        "name": "TNT-S",
        "metric": "params",
        "paper": 23.8,
        "unit": "M",
        "source": "Table 1",
        "evidence": "printed",
        "compute": lambda: ours,
        "tolerance": Tolerance("rounds_to"),
    }
    return Row(**(fields | changes))


def a_claim(run: ClaimRun) -> Claim:
    report_progress("training", 0.1)
    (run.folder / "notes.txt").write_text("x")
    return Claim(evaluate([row(table="claim")]), notes=["a note"])


def a_row() -> list[Row]:
    return [row()]


PAPER = Paper("tnt", "tnt-vit", "TNT", "", lambda: [row(), row(table="5", ours=22.0)], a_claim, "tnt-vit reproduce")


def test_paper_report_all_rows() -> None:
    report = paper_report(PAPER)
    assert [t.title for t in report.tables] == ["Table 1", "Table 5"]
    assert report.exit_code == 1
    assert report.lines == ["1 match, 1 differ."]
    assert report.data["summary"]["differs"] == 1
    assert [o["command"] for o in report.data["outcomes"]] == [
        "tnt-vit reproduce table=1",
        "tnt-vit reproduce table=5",
    ]
    json.dumps(report.to_json(), allow_nan=False)


def test_paper_report_of_some_tables() -> None:
    assert paper_report(PAPER, table=1).exit_code == 0
    assert [t.title for t in paper_report(PAPER, table=["1"]).tables] == ["Table 1"]
    with pytest.raises(UserError, match="table='2' is not known, choose one of 1, 5, claim"):
        paper_report(PAPER, table=2)


def test_paper_report_takes_every_spelling_of_a_table() -> None:
    for spelling in ("table 5", "Table5", [5]):
        assert [t.title for t in paper_report(PAPER, table=spelling).tables] == ["Table 5"]


def test_paper_report_of_the_full_form(tmp_path: Path) -> None:
    computed: list[str] = []

    def claim(run: ClaimRun) -> Claim:
        form = run.part("training", lambda: computed.append("x") or ("full" if run.full else "short"))
        return Claim(evaluate([row(table="claim")]), notes=[form])

    paper = Paper("tnt", "tnt-vit", "TNT", "", a_row, claim, "tnt-vit reproduce")
    short = paper_report(paper, claim=True, run_dir=tmp_path)
    assert short.lines[0] == "short"
    assert short.data["claim"]["form"] == "short"
    full = paper_report(paper, claim=True, run_dir=tmp_path, full=True)
    assert full.lines[0] == "full"
    assert full.data["claim"]["outcomes"][0]["command"] == "tnt-vit reproduce claim=true full=true"
    assert len(computed) == 2
    again = paper_report(paper, claim=True, run_dir=tmp_path, full=True)
    assert len(computed) == 2
    assert again.lines[:2] == ["full", "Kept from an earlier run into this folder: training."]
    with pytest.raises(UserError, match="full=true is the full form of the claim: it needs claim=true"):
        paper_report(paper, full=True)


def test_paper_report_computes_with_one_thread(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threads = row(paper=1, tolerance=Tolerance(), compute=torch.get_num_threads)
        assert paper_report(Paper("tnt", "", "TNT", "", lambda: [threads])).exit_code == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_paper_report_with_the_claim(tmp_path: Path) -> None:
    report = paper_report(PAPER, table="claim", run_dir=tmp_path / "run")
    assert [t.title for t in report.tables] == ["Laptop-scale claim"]
    assert report.exit_code == 0
    assert report.lines == ["a note", "1 match."]
    assert (tmp_path / "run" / "notes.txt").exists()
    both = paper_report(PAPER, table=1, claim=True, run_dir=tmp_path)
    assert [t.title for t in both.tables] == ["Table 1", "Laptop-scale claim"]
    with pytest.raises(UserError, match="run_dir is required"):
        paper_report(PAPER, claim=True)
    without = Paper("tnt", "tnt-vit", "TNT", "", lambda: [row()])
    with pytest.raises(UserError, match="has no laptop-scale claim"):
        paper_report(without, claim=True, run_dir=tmp_path)
    with pytest.raises(UserError, match="table='claim' is not known"):
        paper_report(without, table="claim")


def test_paper_report_of_a_crashing_claim(tmp_path: Path) -> None:
    def breaks(run: ClaimRun) -> Claim:
        raise OSError("disk full")

    report = paper_report(Paper("tnt", "", "TNT", "", lambda: [row()], breaks), claim=True, run_dir=tmp_path)
    assert report.exit_code == 1
    assert report.lines == ["1 match.", "claim crashed: OSError: disk full"]


def test_a_claim_must_return_a_claim(tmp_path: Path) -> None:
    report = paper_report(Paper("tnt", "", "TNT", "", lambda: [row()], lambda _: None), claim=True, run_dir=tmp_path)
    assert "must return an effkit Claim, got NoneType" in report.lines[-1]


def test_progress_goes_to_the_innermost_listener() -> None:
    told: list[tuple[str, str, float | None]] = []
    report_progress("nobody listens")
    with listening(lambda text, fraction: told.append(("outer", text, fraction))):
        report_progress("a", 0.5)
        with listening(lambda text, fraction: told.append(("inner", text, fraction))):
            report_progress("b")
    report_progress("nobody listens")
    assert told == [("outer", "a", 0.5), ("inner", "b", None)]


def test_progress_of_a_part_fills_its_share_of_the_whole() -> None:
    told: list[tuple[str, float | None]] = []
    with progress_part("unheard", 0.0, 1.0):
        report_progress("nobody listens", 0.5)
    with listening(lambda text, fraction: told.append((text, fraction))):
        with progress_part("first", 0.2, 0.6):
            report_progress("half", 0.5)
            with progress_part("", 0.5, 1.0):
                report_progress("unknown")
                report_progress("end", 1.0)
        report_progress("whole", 0.9)
    expected = [("first", 0.2), ("first: half", 0.4), ("first: ", 0.4), ("first: unknown", 0.4), ("first: end", 0.6)]
    assert [text for text, _ in told] == [text for text, _ in [*expected, ("whole", 0.9)]]
    assert [fraction for _, fraction in told] == pytest.approx([f for _, f in [*expected, ("whole", 0.9)]])


def test_a_command_shows_its_progress_on_a_terminal_only(capsys, monkeypatch) -> None:
    with shown("reading"):
        report_progress("half", 0.5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown("reading"):
        report_progress("half", 0.5)
    assert "reading" in capsys.readouterr().err


def test_progress_in_a_log_is_sparse(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("effkit.progress.time.monotonic", lambda: now)
    with display() as shown:
        shown.start("tnt")
        shown.update("tnt", "too soon", 0.1)
        now += 11
        shown.update("tnt", "epoch 2", 0.25)
        shown.update("tnt", "too soon", None)
        shown.finish("tnt", "done")
    assert capsys.readouterr().err == "tnt: started\ntnt: epoch 2 (25%)\ntnt: done\n"


def test_progress_of_several_jobs_in_a_log_is_a_line_a_tenth(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("effkit.progress.time.monotonic", lambda: now)
    with display() as shown:
        shown.start("tnt")
        shown.start("esa")
        for step in range(40):  # the one is twice as fast as the other
            now += 3
            shown.update("tnt", "training", step / 20 if step < 20 else 1.0)
            shown.update("esa", "training", step / 40)
        shown.note("esa: goes on")
        for _ in range(21):  # and then does not know how long it will take
            now += 3
            shown.update("esa", "waiting", None)
        shown.finish("esa", "done")
        shown.finish("kept", "kept")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["tnt: started", "esa: started"]
    assert [line for line in lines if line.startswith("tnt: t")] == [
        f"tnt: training ({tenth}0%)" for tenth in range(1, 11)
    ]
    assert [line for line in lines if line.startswith("esa: t")] == [
        f"esa: training ({tenth}0%)" for tenth in range(1, 10)
    ]
    assert lines[-5:] == ["esa: goes on", "esa: waiting", "esa: waiting", "esa: done", "kept: kept"]


def test_progress_on_a_terminal() -> None:
    pty = pytest.importorskip("pty")
    code = (
        "from effkit.progress import display\n"
        "with display() as shown:\n"
        "    shown.start('tnt'); shown.update('tnt', 'epoch [1]', 0.5); shown.update('tnt', 'x', None)\n"
        "    shown.note('tnt: again: [x]'); shown.finish('esa', 'kept')\n"
        "    shown.finish('tnt', 'all match')\n"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", code], stderr=follower, env=environment, check=True, timeout=60)
    os.close(follower)
    text = ""
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(4096):
                text += chunk.decode()
        except OSError:  # Linux says so at the end of a pseudo-terminal
            pass
    assert "tnt" in text
    assert "all match" in text
    assert "tnt: again: [x]" in text
    assert re.search(r"esa .*kept", text)


def test_page_of_a_run_without_checked_figures(tmp_path: Path) -> None:
    document = {
        "title": "t",
        "date": "now",
        "effkit": "0",
        "commit": "abc",
        "claims": True,
        "full": False,
        "jobs": 2,
        "seconds": 1.0,
        "environment": {"gpu": None, "versions": {"torch": "2"}, "threads": [1, 2]},
        "papers": [],
    }
    page = render_html(document, tmp_path)
    assert "No figure was checked" in page
    assert "commit abc" in page
    assert "torch 2" in page
