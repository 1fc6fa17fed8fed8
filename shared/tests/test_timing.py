"""Timing against functions whose cost is known by construction, and the results schema."""

import dataclasses
import gc
import itertools
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from effkit import provenance as _provenance
from effkit.errors import UserError
from effkit.timing import (
    Comparison,
    Quantiles,
    ResultRow,
    Timing,
    append_csv,
    compare,
    machine_floor,
    read_csv,
)
from effkit.timing import clock as _clock
from effkit.timing import memory as _memory
from effkit.timing import rounds as _rounds
from effkit.timing.memory import peak_bytes

SCHEMA = "package,case,provider,mode,dtype,x_name,x,metric,unit,median,p20,p80,gpu,driver,torch,triton,commit,date"


def quick(candidates, **kwargs) -> Comparison:
    return compare(candidates, **{"min_rounds": 4, "min_seconds": 0, "memory": False, **kwargs})


def test_sleeping_twice_as_long_takes_twice_as_long() -> None:
    comparison = quick({"short": lambda: time.sleep(0.01), "long": lambda: time.sleep(0.02)})
    short, long = comparison.timings["short"], comparison.timings["long"]
    assert 0.01 <= short.p20 <= short.median <= short.p80
    assert long.p20 >= 0.02
    assert short.rounds == long.rounds == 4
    assert short.calls == 1
    assert comparison.ratio("short", "short") == (1, 1, 1)


def test_ratio_is_paired_within_rounds() -> None:
    # The machine slows down tenfold in the last round; the paired ratio does not notice.
    samples = {"a": (2.0, 2.0, 20.0), "b": (1.0, 1.0, 10.0)}
    timings = {name: Timing(*Quantiles.of(s), 3, samples=s) for name, s in samples.items()}
    comparison = Comparison(timings, "cpu", 1, "interleaved", "wall")
    assert comparison.ratio("a", "b") == (2, 2, 2)
    assert comparison.ratio("b", "a") == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="candidate='c'"):
        comparison.ratio("a", "c")


def test_quantiles() -> None:
    assert Quantiles.of(range(11)) == (5, 2, 8)
    assert Quantiles.of([3.0]) == (3, 3, 3)


DRAWN = "".join("".join(order) for order in itertools.islice(_rounds._orders("abc", 3), 1, 3))


def in_order(monkeypatch: pytest.MonkeyPatch, **kwargs) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr("effkit.timing.rounds.calls_per_sample", lambda call, device: 1)
    given = {"min_rounds": 3, "warmup": 2, **kwargs}
    quick({name: lambda name=name: calls.append(name) for name in "abc"}, **given)
    return calls


def test_candidates_take_turns_in_drawn_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = in_order(monkeypatch, max_rounds=300, min_rounds=300)[6:]
    assert calls == in_order(monkeypatch, max_rounds=300, min_rounds=300)[6:]  # the same draws every time
    assert all(sorted(calls[i : i + 3]) == ["a", "b", "c"] for i in range(0, 900, 3))
    after = Counter(itertools.pairwise(calls))
    # Nobody finds its own memory in the caches, and everybody comes after each of the others about as often.
    assert not {(name, name) for name in "abc"} & set(after)
    assert min(after.values()) > 0.8 * max(after.values())


def test_two_candidates_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("effkit.timing.rounds.calls_per_sample", lambda call, device: 1)
    quick({name: lambda name=name: calls.append(name) for name in "ab"}, min_rounds=3, warmup=1)
    assert "".join(calls) == "ab" + "ab" * 3


def test_sequential_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "".join(in_order(monkeypatch, order="sequential")) == "aabbcc" + "aaa" + "bbb" + "ccc"


def test_memory_is_taken_by_one_more_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "".join(in_order(monkeypatch, memory=True)) == "aabbcc" + "abc" + "abc" + DRAWN


def test_rounds_go_on_until_the_time_is_up_or_the_limit_reached() -> None:
    pause = {"pause": lambda: time.sleep(0.005)}
    assert quick(pause, min_rounds=1, min_seconds=0.05, max_rounds=50).timings["pause"].rounds > 1
    assert quick(pause, min_rounds=1, min_seconds=60, max_rounds=3).timings["pause"].rounds == 3


def test_short_calls_are_repeated_within_a_sample() -> None:
    timing = quick({"nothing": lambda: None}).timings["nothing"]
    assert timing.calls > 1000
    assert timing.median < 1e-5


def test_garbage_collection_is_off_in_rounds_and_threads_are_restored() -> None:
    before = torch.get_num_threads()
    seen: list[tuple[bool, int]] = []
    comparison = quick(
        {"look": lambda: seen.append((gc.isenabled(), torch.get_num_threads()))}, threads=1, max_rounds=4
    )
    assert seen[-1] == (False, 1)
    assert comparison.threads == 1
    assert gc.isenabled()
    assert torch.get_num_threads() == before


def test_state_is_restored_when_a_candidate_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("effkit.timing.rounds.calls_per_sample", lambda call, device: 1)
    left = iter([None, None])

    def breaks() -> None:
        next(left)

    with pytest.raises(StopIteration):
        quick({"breaks": breaks}, warmup=1, threads=before + 1)
    assert gc.isenabled()
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not _memory._reset_high_water_mark(), reason="the kernel's high-water mark cannot be reset here")
def test_peak_memory_on_the_cpu_is_the_growth_of_the_process() -> None:
    # 48 MiB in the call, of which 32 MiB at once beyond what was held before.
    size = 16 * 2**20
    held = torch.ones(size // 4)

    def call() -> torch.Tensor:
        twice = held + held
        return twice + twice

    call()
    peak = peak_bytes(call, torch.device("cpu"))
    assert peak is not None
    assert 32 <= peak / 2**20 <= 36
    small = peak_bytes(lambda: held.sum(), torch.device("cpu"))
    assert small is not None
    assert small < 4 * 2**20


def test_peak_memory_without_a_resettable_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effkit.timing.memory._reset_high_water_mark", lambda: False)
    assert peak_bytes(lambda: None, torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": {"a": 3}}, r"candidates\['a'\] must be a function"),
        ({"warmup": 0}, "warmup must be a whole number of at least 1, got 0"),
        ({"min_rounds": 0}, "min_rounds must be a whole number of at least 1, got 0"),
        ({"min_rounds": 5, "max_rounds": 4}, "max_rounds must be at least min_rounds=5, got 4"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"min_seconds": []}, r"min_seconds must be a number of at least 0, got \[\]"),
        ({"min_seconds": float("nan")}, "min_seconds must be a number of at least 0, got nan"),
        ({"min_rounds": []}, r"min_rounds must be a whole number of at least 1, got \[\]"),
        ({"threads": 1e30}, "threads must be a whole number of at least 1, got 1e"),
        ({"order": "interleave"}, "did you mean 'interleaved'"),
        ({"clock": "sundial"}, "clock='sundial'"),
        ({"clock": "events"}, "needs a CUDA device"),
    ],
)
def test_bad_arguments(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        quick(kwargs.pop("candidates", {"a": lambda: None}), **kwargs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for an absent device")
def test_absent_device() -> None:
    with pytest.raises(UserError, match="device='cuda' cannot be used"):
        quick({"a": lambda: None}, device="cuda")


def test_table_and_rows() -> None:
    samples = {"ours": (1e-3, 2e-3, 3e-3), "timm": (2e-3, 4e-3, 6e-3)}
    timings = {n: Timing(*Quantiles.of(s), 3, peak_bytes=2**20, samples=s) for n, s in samples.items()}
    comparison = Comparison(timings, "cpu", 2, "interleaved", "wall")
    table = comparison.table(baseline="timm")
    assert table.columns[-1] == "faster than timm"
    assert table.rows[0][0] == "ours"
    assert table.rows[0][1] == pytest.approx(2.0)
    assert table.rows[0][-1] == "2.00 (2.00 to 2.00)"
    rows = comparison.rows(package="tnt-vit", case="tnt_s", mode="forward", dtype="fp32", x=8, baseline="timm")
    assert [(r.provider, r.metric, r.unit) for r in rows] == [
        ("ours", "time", "s"),
        ("ours", "peak_memory", "bytes"),
        ("ours", "speedup_over_timm", "x"),
        ("timm", "time", "s"),
        ("timm", "peak_memory", "bytes"),
    ]
    assert rows[0].median == 2e-3
    assert rows[2].median == 2
    assert all((r.gpu, r.driver, r.threads, r.x) == ("", "", 2, 8) for r in rows)
    assert all(r.machine and r.torch == torch.__version__ and r.date.endswith("Z") for r in rows)


ROW = ResultRow("tnt-vit", "tnt_s", "ours", "forward", "fp32", "batch", 8.0, "time", "s", 0.25, 0.125, 0.5)


def test_csv_round_trip_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu.csv"
    noted = dataclasses.replace(ROW, p20=None, p80=None, threads=2, rounds=10, note='a "quoted", note')
    append_csv(path, [ROW])
    append_csv(path, [noted, ROW])
    assert read_csv(path) == [ROW, noted, ROW]
    header, first, *_ = path.read_text().splitlines()
    assert header == SCHEMA + ",machine,threads,rounds,note"
    assert first.startswith("tnt-vit,tnt_s,ours,forward,fp32,batch,8,time,s,0.25,0.125,0.5,,,")
    assert [p.name for p in path.parent.iterdir()] == ["cpu.csv"]


def test_csv_of_another_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="columns must be package,case"):
        append_csv(path, [ROW])
    assert path.read_text() == "a,b\n1,2\n"
    path.write_text("")
    with pytest.raises(UserError, match="an empty file"):
        read_csv(path)


def test_csv_with_a_broken_line(tmp_path: Path) -> None:
    path = append_csv(tmp_path / "cpu.csv", [ROW])
    whole = path.read_text()
    path.write_text(whole.replace("0.125", "quick"))
    with pytest.raises(UserError, match="line 2: p20='quick' is not a number"):
        read_csv(path)
    path.write_text(whole + "half,a,li\n")
    with pytest.raises(UserError, match="line 3 has 3 cells"):
        append_csv(path, [ROW])


def test_machine_floor() -> None:
    floor = machine_floor(matrix_size=128, copy_bytes=2**20, min_seconds=0, threads=1)
    assert floor.flops_per_second > 1e7
    assert floor.bytes_per_second > 1e7
    assert (floor.device, floor.dtype, floor.threads) == ("cpu", "float32", 1)
    assert floor.seconds(macs=1000) == 2000 / floor.flops_per_second
    assert floor.seconds(macs=1, moved_bytes=10**9) == 10**9 / floor.bytes_per_second


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_is_that_of_tracked_files_only(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours.py", tmp_path / "site-packages.py"
    commit_hash = _provenance.commit_hash.__wrapped__
    ours.write_text("1\n")
    other.write_text("1\n")
    assert commit_hash(str(ours)) == ""  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "ours.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = commit_hash(str(ours))
    assert len(clean) == 10
    assert int(clean, 16) >= 0
    assert commit_hash(str(other)) == ""  # in the folder of a repository, but not part of it
    ours.write_text("2\n")
    assert commit_hash(str(ours)) == clean + "-dirty"


def test_no_git_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _provenance.commit_hash.__wrapped__() == ""
    assert _provenance.package_version("a-distribution-that-is-not-there") == ""


def test_calls_per_sample_stops() -> None:
    assert _clock.calls_per_sample(lambda: None, torch.device("cpu")) <= 100_000


def test_long_calls_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes a call: one to warm up and one a round."""
    monkeypatch.setattr(_rounds, "_LONG", 0.01)
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.02)

    timings = compare({"slow": slow}, warmup=1, min_rounds=2, min_seconds=0, memory=False).timings
    assert (len(calls), timings["slow"].calls, timings["slow"].rounds) == (3, 1, 2)


@pytest.mark.gpu
def test_cuda_times_memory_and_floor() -> None:
    a = torch.randn(2048, 2048, device="cuda")
    comparison = compare({"once": lambda: a @ a, "thrice": lambda: a @ (a @ (a @ a))}, device="cuda", min_seconds=0.2)
    assert comparison.clock == "events"
    assert 2 < comparison.ratio("thrice", "once").median < 4
    assert comparison.timings["once"].peak_bytes == a.numel() * 4
    rows = comparison.rows(package="effkit", case="gemm", mode="forward", dtype="fp32")
    assert all(r.gpu == r.machine == torch.cuda.get_device_name() and r.driver for r in rows)
    wall = compare({"once": lambda: a @ a}, device="cuda", clock="wall", min_seconds=0.1).timings["once"]
    assert wall.calls == 1
    floor = machine_floor("cuda", torch.bfloat16, min_seconds=0.2)
    assert floor.flops_per_second > 1e12
    assert floor.bytes_per_second > 1e11
