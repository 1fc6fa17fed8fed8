"""`cache build` on several workers: the bytes of a build in one process, whoever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from effkit.errors import UserError
from effkit.executors import Choice, TaskError
from effkit.testing import two_workers
from kd_autoaug.cache.build import build_cache, shard_range
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.cli import main
from kd_autoaug.commands.cache_shards import Source, build_in_shards, samples_a_page, shards
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.weights import save_weights
from kd_autoaug.networks import create_network

# Pictures whose reading kills the worker, once or always: in a module, as workers have to import it.
PICTURES = """
import os, signal
from pathlib import Path
import torch

class Pictures:
    def __init__(self, marks, kills, at=70):
        self.marks, self.kills, self.at = marks, kills, at
        self.images = torch.randint(256, (120, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def pictures(self, split, index, view):
        if self.at in index.tolist() and view == 1:
            mark = Path(self.marks, str(len(os.listdir(self.marks))))
            if len(os.listdir(self.marks)) < self.kills:
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]
"""


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_shards_are_cut_between_batches() -> None:
    assert shards(0, 100, 10, 4) == [(0, 20), (20, 50), (50, 70), (70, 100)]
    assert shards(5, 100, 30, 8) == [(5, 35), (35, 65), (65, 95), (95, 100)]
    assert shards(7, 7, 10, 4) == []
    for begin, end, batch, count, multiple in ((0, 1000, 7, 5, 1), (13, 5000, 64, 9, 16), (0, 100, 64, 9, 4096)):
        cut = shards(begin, end, batch, count, multiple)
        assert [a for a, _ in cut[1:]] == [b for _, b in cut[:-1]]
        assert (cut[0][0], cut[-1][1]) == (begin, end)
        assert len(cut) <= count
        assert all((a - begin) % batch == 0 and (a % multiple == 0 or a == begin) for a, _ in cut)


def test_pages_are_not_shared_between_machines(tmp_path: Path) -> None:
    cache = LogitCache.create(tmp_path / "c", num_samples=9000, num_views=2, num_classes=10, k=5)
    step = samples_a_page(cache)
    sizes = [kind.itemsize * torch.Size(shape[1:]).numel() for kind, shape in cache.header.arrays().values()]
    assert all(size * step % 4096 == 0 for size in sizes)
    assert len(shards(0, 9000, 256, 8, step)) > 2
    assert not Choice("ray", ray={"address": "head:6379"}).one_machine
    assert not Choice("submitit").one_machine
    assert Choice("ray").one_machine
    assert Choice("process").one_machine


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "killing_pictures.py").write_text(PICTURES)
    (tmp_path / "marks").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    import killing_pictures

    yield killing_pictures
    del sys.modules["killing_pictures"]


@pytest.mark.slow
def test_a_dead_workers_shard_is_built_again(site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = Teacher(create_network("digits_cnn", 10, 1, 8), 0.5, 0.25)
    sizes = {"num_samples": 120, "num_views": 2, "num_classes": 10, "k": 4, "dtype": "float16"}
    prints = {"teacher": teacher.fingerprint(), "augment": "none"}

    def source(kills: int) -> Source:
        data = site.Pictures(str(tmp_path / "marks"), kills)
        return Source(teacher, None, data, sizes, prints, torch.device("cpu"))

    def build(name: str, kills: int) -> int:
        cache = LogitCache.create(tmp_path / name, fingerprints=prints, **sizes)
        choice = Choice("process", workers=2, threads=2)
        return build_in_shards(cache, source(kills), choice, begin=0, end=120, batch_size=16)[0]

    plain = LogitCache.create(tmp_path / "plain", fingerprints=prints, **sizes)
    assert build_cache(plain, teacher, source(0).pictures, batch_size=16) == 240
    plain.flush()
    # The worker that died had written some records of the shard; the other one counts only those that were missing.
    assert 0 < build("once", 1) <= 240
    assert "samples 64 to 80: its worker died (killed by SIGKILL), running it once more" in caplog.text
    assert content(tmp_path / "once") == content(tmp_path / "plain")
    with pytest.raises(TaskError, match=r"^samples 64 to 80: its worker died twice, killed by SIGKILL$"):
        build("twice", 3)
    again = LogitCache.open(tmp_path / "twice", mode="readwrite")
    build_cache(again, teacher, source(0).pictures, batch_size=16)
    again.flush()
    assert content(tmp_path / "twice") == content(tmp_path / "plain")
    assert {p.name for p in tmp_path.iterdir()} == {"site", "marks", "plain", "once", "twice"}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small build; its teacher is untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_network("digits_cnn", 10, 1, 8)
    weights = save_weights(network, tmp_path_factory.mktemp("teacher") / "teacher.safetensors")
    return [
        "experiment=digits_kd",
        f"teacher.weights={weights}",
        "view.num_views=3",
        "batch_size=64",
        "device=cpu",
        "guessing_teacher=true",
    ]


@pytest.fixture(scope="module")
def workers():
    """Two processes for the tests whose workers live."""
    with two_workers():
        yield


@pytest.mark.slow
def test_the_command_gives_the_same_bytes(workers, words, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "build", *words, f"cache.path={tmp_path / 'a'}"]) == 0
    half = ["end=170", f"cache.path={tmp_path / 'b'}"]  # in the middle of a batch
    assert main(["cache", "build", *words, *half]) == 0
    capfd.readouterr()
    rest = ["executor=process", "workers=2", "format=json", f"cache.path={tmp_path / 'b'}"]
    assert main(["cache", "build", *words, *rest]) == 0
    out, err = capfd.readouterr()
    assert '"workers": 2' in out
    assert '"complete": true' in out
    assert (err.count("\n"), "guessing_teacher=true goes on with it" in err) == (1, True)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a", "b"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["executor=proces"], "executor='proces' is not known"),
        (["workers=2"], "workers=2 needs an executor other than serial"),
        (["ray.address=head:6379"], "ray.address='head:6379' needs executor=ray"),
        (["executor=process", "workers=0"], "workers=0 must be a whole number of at least 1"),
        (["executor=process", "batch_size=0"], "batch_size=0 at least 1"),
        (["executor=process", "end=100000"], "end=100000 must be in 0.."),
    ],
)
def test_mistakes_are_one_line(words, tmp_path: Path, capfd: pytest.CaptureFixture[str], more, message: str) -> None:
    assert main(["cache", "build", *words, f"cache.path={tmp_path / 'c'}", *more]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_killed_build_goes_on(words, tmp_path: Path) -> None:
    words = [*words, "view.num_views=40"]
    assert main(["cache", "build", *words, f"cache.path={tmp_path / 'a'}"]) == 0
    command = [sys.executable, "-m", "kd_autoaug", "cache", "build", *words, f"cache.path={tmp_path / 'b'}"]
    for seconds in (0.2, 0.4):  # after its workers began
        build = subprocess.Popen([*command, "executor=process", "workers=2"], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while build.poll() is None and time.monotonic() < end:
            if list(tmp_path.glob(f".b.*.{build.pid}.jobs/source.pickle")):
                break
            time.sleep(0.02)
        time.sleep(10 * seconds)
        build.send_signal(signal.SIGKILL)
        build.wait()
    assert main(["cache", "build", *words, f"cache.path={tmp_path / 'b'}", "executor=process", "workers=2"]) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a", "b"]


@pytest.mark.slow
def test_a_shard_of_a_build_is_cut_further(workers, words, tmp_path: Path) -> None:
    begin, end = shard_range("2/3", 400)
    path = tmp_path / "c"
    more = ["executor=process", "workers=2", "shard=2/3", "batch_size=16"]
    assert main(["cache", "build", *words, f"cache.path={path}", *more]) == 0
    cache = LogitCache.open(path)
    assert cache.count() == 3 * (end - begin)
    assert len(cache.missing(0, begin, end)) == 0
    with pytest.raises(UserError):
        cache.missing(0, 0, 10**6)
    assert os.listdir(tmp_path) == ["c"]
