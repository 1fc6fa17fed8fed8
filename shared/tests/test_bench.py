"""Providers by cases: rows, ratios, floors, tables and the picture."""

import re
import time

import pytest
import torch

from effkit.bench import Bench, check_counts, check_providers, draw_times, inference, training_step
from effkit.bench.bench import _floor
from effkit.errors import UserError
from effkit.plots import read_description
from effkit.results import read_csv
from effkit.timing import MachineFloor


def _bench(**more) -> Bench:
    return Bench("demo", device="cpu", threads=1, min_rounds=3, min_seconds=0.0, memory=False, **more)


def _sleeper(seconds: float):
    return lambda: time.sleep(seconds)


def test_rows_ratios_and_one_floor_for_all(tmp_path):
    bench = _bench()
    calls = {"ours": _sleeper(0.002), "peer": _sleeper(0.006), "other": _sleeper(0.004)}
    measured = bench.run(
        calls, case="nap", mode="wall", x=8, baseline="peer", peers=("peer", "other"), limits=0.001, limit_note="clock"
    )
    assert measured.seconds.keys() == calls.keys()
    assert measured.faster_than("peer") == {n: measured.result.ratio("peer", n).median for n in calls}
    assert measured.faster_than("peer")["ours"] > 1
    report = bench.report("demo bench", {"floor_seconds": 0.001}, csv=tmp_path / "out.csv", folder=tmp_path)
    rows = read_csv(tmp_path / "out.csv")
    assert {(r.provider, r.metric) for r in rows} == {
        *((name, "time") for name in (*calls, "floor")),
        ("ours", "speedup_over_peer"),
        ("other", "speedup_over_peer"),
        ("ours", "ratio_to_other"),
    }
    by_name = {(r.provider, r.metric): r for r in rows}
    assert by_name["floor", "time"].median == 0.001
    assert by_name["floor", "time"].note == "clock"
    assert by_name["ours", "ratio_to_other"].median == pytest.approx(2, rel=0.3)
    assert all(
        (r.package, r.case, r.mode, r.dtype, r.x_name, r.x) == ("demo", "nap", "wall", "fp32", "batch", 8) for r in rows
    )
    assert report.data == {"floor_seconds": 0.001}
    assert [f.name for f in report.files] == ["out.csv", "bench.png"]
    assert re.match(r"Bar chart of the median time of a call, .*: .* ms.*\.$", read_description(tmp_path / "bench.png"))


def test_what_the_machine_can_do_is_measured_once_for_all_jobs_of_a_process(monkeypatch):
    asked = []

    def measured(device, dtype, threads):
        asked.append((device.type, dtype, threads))
        return MachineFloor(1e9, 1e9, "cpu", "float32", threads)

    monkeypatch.setattr("effkit.bench.bench.machine_floor", measured)
    _floor.cache_clear()
    try:
        assert _bench().floor is _bench().floor
        assert Bench("demo", device="cpu", threads=2).floor.threads == 2
        assert Bench("demo", device="cpu").floor.threads == torch.get_num_threads()
    finally:
        _floor.cache_clear()
    assert asked[:2] == [("cpu", torch.float32, 1), ("cpu", torch.float32, 2)]
    assert len(asked) == len({threads for _, _, threads in asked})


def test_floors_by_provider_stand_in_the_table():
    bench = _bench(x_name="length")
    limits = {"ours": 0.001, "full": 0.004}
    measured = bench.run(
        {"ours": _sleeper(0.002), "full": _sleeper(0.005)},
        case="c",
        mode="decode",
        x=64,
        baseline="full",
        limits=limits,
    )
    table = measured.table
    assert table.columns[-3:] == ["floor ms", "bound on the ratio", "faster than full"]
    assert [row[-3] for row in table.rows] == [1.0, 4.0]
    assert [row[-2] for row in table.rows] == [4.0, 1.0]
    assert "Peak" not in table.note
    floors = {r.provider: r.median for r in bench.rows if r.provider.startswith("floor")}
    assert floors == {"floor_ours": 0.001, "floor_full": 0.004}


def test_without_a_baseline_there_is_no_bound():
    bench = _bench()
    measured = bench.run({"a": _sleeper(0.001)}, case="c", mode="m", x=1, limits={"a": 0.0005}, share=0.5)
    assert measured.table.columns[-1] == "floor ms"
    assert bench.report("nothing written").files == []


def test_calls_compute_and_leave_gradients():
    model = torch.nn.Linear(3, 2)
    x = torch.ones(4, 3)
    out = inference(model.eval(), x)()
    assert not out.requires_grad
    training_step(model, x, torch.bfloat16)()
    assert model.training
    assert model.weight.grad is not None
    want = torch.autograd.grad(model(x).square().mean(), model.weight)[0]
    training_step(model, x)()
    torch.testing.assert_close(model.weight.grad, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: check_providers(["tim"], ["timm", "ours"]), "timm"),
        (lambda: check_providers([], ["timm", "ours"]), "empty"),
        (lambda: check_counts("batch_sizes", [1, 0]), "batch_sizes must be whole numbers of at least 1, got 0"),
        (lambda: check_counts("batch_sizes", [True]), "True"),
        (lambda: check_counts("lengths", []), "lengths is empty"),
        (lambda: check_counts("size", "7"), "'7'"),
        (lambda: draw_times([], "x.png"), "no case"),
        (lambda: _bench(precision="fp99"), "fp99"),
    ],
)
def test_mistakes(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_counts_take_one_number_too():
    assert check_counts("size", 7) == [7]
    assert check_counts("sizes", (1, 2)) == [1, 2]
