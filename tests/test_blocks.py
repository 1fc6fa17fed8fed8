"""Every code block of the documents runs, from top to bottom in one folder, as a reader would type it.

All of it is slow: CI runs it by document (`.github/workflows/docs.yml`). ``RUN`` stands for the newest folder of a
training or search, as it does for the reader; a command with another word in capitals needs what only the reader has (a
data set, published weights, a cluster), and programs that are not ours (pip, uv, git) are not called.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from effkit.testing import CliResult, run_cli
from effkit.testing.documents import Block, blocks, placeholder, without_uv_run

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ["README.md", "CONTRIBUTING.md", "shared/README.md", "packages/*/README.md", "docs/*.md", "docs/*/*.md"]
DOCUMENTS = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
# Commands whose runs a later RUN means.
MAKERS = ("train", "distill", "finetune", "search")
# What starts processes of its own does so from a process of its own.
OTHER_PROCESSES = ("-m", "--multirun", "executor=", "jobs=", "trainer.devices=", "papers=")
MINUTES = 15


def document_id(path: Path) -> str:
    """``package-README`` of a package, ``howto-PAGE`` of the site, ``root-FILE`` of the rest: what CI selects by."""
    place = path.relative_to(ROOT).parent
    where = {"shared": "effkit", "": "root", ".": "root", "docs": "howto"}.get(str(place), place.name)
    return f"{where}-{path.stem}"


def newest_run(folder: Path) -> str:
    """The newest run folder of a command that trains or searches, or one that the document named."""
    found = [run for name in (*MAKERS, "") for run in folder.glob(f"runs/{name}/*" if name else "runs/*")]
    runs = [run for run in found if (run / "status.json").is_file() and (run.parent.name in (*MAKERS, "runs"))]
    assert runs, "a document says RUN before anything was trained"
    return str(max(runs, key=lambda run: (run / "status.json").stat().st_mtime).relative_to(folder))


def for_this_folder(word: str, folder: Path) -> str | None:
    """A word with what a reader would fill in, or None if only a reader can."""
    what = placeholder(word)
    if what == "RUN":
        return word.replace("RUN", newest_run(folder))
    if what == "DIR":
        return word.replace("DIR", "dir")
    return None if what else word


def run_command(app: Any, words: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Run one command of ours to its end; return what is wrong, "" if nothing is."""
    filled = [for_this_folder(word, folder) for word in words[1:]]
    if None in filled:
        return ""
    given = [word for word in filled if word is not None]
    if any(word.startswith(OTHER_PROCESSES) for word in given):
        done = run_cli([words[0], *given], cwd=folder, timeout=60 * MINUTES)
    else:  # in this process, which has torch already
        done = CliResult(app(given), *capfd.readouterr())
    ends = f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return "" if done.code == 0 else f"{' '.join(words)}: exit code {done.code}\n{ends}"


def run_python(block: Block, document: Path, names: dict[str, Any]) -> None:
    """Run a Python block in the namespace of its document."""
    exec(compile("\n" * block.line + block.body, str(document), "exec"), names)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.filterwarnings("default")  # of other libraries: a reader sees them, and goes on
@pytest.mark.parametrize("document", DOCUMENTS, ids=document_id)
def test_blocks_run_in_their_order(document, members, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    # Pictures that documents call their reader's.
    from skimage import data

    for name in ("photo.jpg", "my.jpg", "7.png", "scans/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_small(data.astronaut(), tmp_path / name)
    apps = {script: member.load(script) for member in members for script in member.scripts}
    names: dict[str, Any] = {"__name__": "__main__"}
    wrong = []
    for block in blocks(document.read_text(encoding="utf-8")):
        if not block.is_run:
            continue
        if block.language == "python":
            run_python(block, document, names)
        commands = [without_uv_run(words) for words in block.commands()]
        wrong += [run_command(apps[words[0]], words, tmp_path, capfd) for words in commands if words[0] in apps]
    if any(wrong):
        pytest.fail("\n\n".join(filter(None, wrong)), pytrace=False)
    shutil.rmtree(tmp_path)


def save_small(pixels: Any, path: Path) -> None:
    """Write a small picture."""
    from PIL import Image

    Image.fromarray(pixels).resize((96, 96)).save(path)


def test_ci_runs_the_blocks_of_every_document():
    """Each document is selected by one entry of the matrix of `docs.yml`, as ``-k`` selects."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text(encoding="utf-8"))["jobs"]
    entries = jobs["blocks"]["strategy"]["matrix"]["document"]
    for path in DOCUMENTS:
        assert sum(document_id(path).startswith(f"{entry}-") for entry in entries) == 1, document_id(path)
    for entry in entries:
        assert any(document_id(path).startswith(f"{entry}-") for path in DOCUMENTS), entry


def test_markers_say_why_and_are_few():
    """A block that nobody runs has a reason, and there are few of them."""
    marked = [b for path in DOCUMENTS for b in blocks(path.read_text(encoding="utf-8")) if not b.is_run]
    assert all(len(block.marker.removeprefix("not run:").split()) >= 3 for block in marked)
    runnable = [b for path in DOCUMENTS for b in blocks(path.read_text(encoding="utf-8")) if b.is_run]
    runnable = [b for b in runnable if b.language == "python" or b.is_shell]
    assert 10 * len(marked) <= len(runnable), f"{len(marked)} of {len(marked) + len(runnable)} blocks are not run"


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("run=RUN", "RUN"),
        ("spec=RUN/spec.json", "RUN"),
        ("ray.address=HOST:6379", "HOST"),
        ("key=...", "..."),
        ("T", ""),
    ],
)
def test_placeholders_are_told_from_words(word, what):
    assert placeholder(word) == what


def test_a_block_knows_its_marker_and_its_commands():
    text = "# T\n\n<!-- not run: needs a cluster -->\n```bash\nuv run --extra x tnt-vit train a=1 | tail # c\n```\n"
    (block,) = blocks(text)
    assert (block.marker, block.line, block.is_run) == ("not run: needs a cluster", 4, False)
    assert [without_uv_run(words) for words in block.commands()] == [["tnt-vit", "train", "a=1"], ["tail"]]
