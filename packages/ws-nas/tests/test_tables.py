"""Tables of trained networks and of latencies: what they hold, and what they refuse."""

import json

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from ws_nas.meters.tables.benchmark import ArchIndex, TabularBenchmark
from ws_nas.meters.tables.columns import Count, Latency, TestAccuracy, ValidationAccuracy, read_column
from ws_nas.meters.tables.latency import LatencyTable, latency_lookup
from ws_nas.spaces.registry import get_space

SPACE = get_space("digits_chain")
ROWS = [("0120", 7, 81.5, 90.25, 90.5), ("2210", 3, 83.0, 91.0, 90.0), ("0000", 9, 70.0, 72.0, 72.5)]


def _write(path, rows=ROWS, first="", heading="index,arch,c10_valid_12,d_test_seed0,d_test_seed1,lat_x_b8_ms"):
    lines = [
        f"{number},{arch},{v},{a},{b},{0.001 if arch == '0000' else float(v) / 10}" for arch, number, v, a, b in rows
    ]
    path.write_text("\n".join([*([first] if first else []), heading, *lines]) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    return TabularBenchmark(_write(tmp_path / "t.csv"), SPACE)


def test_names_say_what_columns_hold():
    assert read_column("c10_test_200") == TestAccuracy("c10_test_200", "c10", 200, None)
    assert read_column("digits_valid_30_seed2") == ValidationAccuracy("digits_valid_30_seed2", "digits", 30, 2)
    assert read_column("lat_gtx1080ti_b1_ms") == Latency("lat_gtx1080ti_b1_ms", "gtx1080ti", 1)
    assert read_column("lat_xeon_gold_6226_ms") == Latency("lat_xeon_gold_6226_ms", "xeon_gold_6226", None)
    assert read_column("macs") == Count("macs")
    assert read_column("index") is read_column("arch") is read_column("c10_train_12") is None


def test_figures_of_a_genotype(table):
    assert table.query("0120", "c10_valid_12") == table.query((0, 1, 2, 0), "c10_valid_12") == 81.5
    assert [table.space.str(g) for g in table] == [row[0] for row in ROWS]
    assert table.values("d_test_seed0", [(2, 2, 1, 0), (0, 1, 2, 0)]).tolist() == [91.0, 90.25]
    assert table.truth("d_test").tolist() == [[90.25, 91.0, 72.0], [90.5, 90.0, 72.5]]
    assert table.truth("c10_valid_12").tolist() == [81.5, 83.0, 70.0]
    assert (table.kind("d_test"), table.kind("c10_valid_12")) == (TestAccuracy, ValidationAccuracy)
    assert (0, 0, 0, 0) in table
    assert (1, 1, 1, 1) not in table


@pytest.mark.parametrize("metric", ["c10_valid", "c10_valid_200", "c10", "d_test", "valid", "arch", "index"])
def test_a_metric_is_never_guessed(table, metric):
    with pytest.raises(UserError, match=rf"metric='{metric}'.*c10_valid_12"):
        table.query("0120", metric)


def test_an_index_carries_its_space(table):
    index = table.index((2, 2, 1, 0))
    assert index == ArchIndex(SPACE.space_id, 3)
    assert table.at(index) == (2, 2, 1, 0)
    assert table.query(index, "c10_valid_12") == 83.0
    with pytest.raises(UserError, match="of which space"):
        table.at(3)
    with pytest.raises(UserError, match="nas_bench_macro"):
        table.at(ArchIndex(get_space("nas_bench_macro").space_id, 3))
    with pytest.raises(UserError, match="index=4 is not in"):
        table.at(ArchIndex(SPACE.space_id, 4))


def test_genotypes_of_others_are_refused(table):
    with pytest.raises(UserError, match="1111 is not in table"):
        table.query("1111", "c10_valid_12")
    with pytest.raises(UserError, match="digits_chain"):
        table.query((0, 1, 2), "c10_valid_12")
    with pytest.raises(UserError, match="digits_chain"):
        table.query((0, 1, 2, 3), "c10_valid_12")


@pytest.mark.parametrize(
    ("rows", "heading", "said"),
    [
        ([("012", 1, 1, 1, 1)], None, "'012' of row 1"),
        ([("0123", 1, 1, 1, 1)], None, r"'0123' of row 1.*choices"),
        ([ROWS[0], ROWS[0]], None, "a genotype twice"),
        ([ROWS[0], ("0000", 7, 1, 1, 1)], None, "an index twice"),
        ([], None, "no rows"),
        (ROWS, "index,code,a,b,c,d", "no column ops or arch"),
        (ROWS, "index,arch,c10_valid_12,c10_valid_12,d_test_seed1,lat_x_b8_ms", "a column twice"),
    ],
)
def test_damaged_tables(tmp_path, rows, heading, said):
    path = _write(tmp_path / "t.csv", rows, **({} if heading is None else {"heading": heading}))
    with pytest.raises(UserError, match=said):
        TabularBenchmark(path, SPACE).query("0120", "c10_valid_12")


def test_a_cell_that_is_no_number(tmp_path):
    (tmp_path / "t.csv").write_text("arch,c10_valid_12\n0120,many\n")
    with pytest.raises(UserError, match="column c10_valid_12"):
        TabularBenchmark(tmp_path / "t.csv", SPACE).query("0120", "c10_valid_12")


def test_a_table_of_another_space_is_refused(tmp_path):
    path = _write(tmp_path / "t.csv", first="# " + json.dumps({"space_id": "digits_chain:0123456789abcdef"}))
    with pytest.raises(UserError, match=r"is of space digits_chain:0123456789abcdef, not of digits_chain:"):
        TabularBenchmark(path, SPACE)
    own = _write(tmp_path / "own.csv", first="# " + json.dumps({"space_id": SPACE.space_id}))
    assert TabularBenchmark(own, SPACE).about["space_id"] == SPACE.space_id
    with pytest.raises(UserError, match="does not exist"):
        TabularBenchmark(tmp_path / "none.csv", SPACE)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no table"):
        TabularBenchmark(tmp_path / "b.csv", SPACE)


def test_opening_reads_the_heading_only(tmp_path):
    path = _write(tmp_path / "t.csv", [("012", 1, 1, 1, 1)])
    assert list(TabularBenchmark(path, SPACE).columns)[:2] == ["c10_valid_12", "d_test_seed0"]


def _latency(**more):
    entries = [[0.1 * i + 0.01 * k for k in range(3)] for i in range(4)]
    return LatencyTable(SPACE.space_id, "cpu", 1, entries, **{"constant": 2.0, **more})


def test_latency_adds_up(tmp_path):
    table = _latency()
    assert table.latency((0, 1, 2, 0)) == pytest.approx(2.0 + 0 + 0.11 + 0.22 + 0.3)
    for gene, option in ((0, 1), (3, 2)):
        pi = [torch.full((3,), 1 / 3, requires_grad=True) for _ in range(4)]
        table.expected(pi).backward()
        assert float(pi[gene].grad[option]) == pytest.approx(table.entries[gene][option])
    one_hot = [torch.nn.functional.one_hot(torch.tensor(k), 3).double() for k in (0, 1, 2, 0)]
    assert float(table.expected(one_hot)) == pytest.approx(table.latency((0, 1, 2, 0)))
    file = tmp_path / "l.json"
    file.write_text(table.to_json())
    assert LatencyTable.read(file, SPACE) == table


def test_latency_of_another_device_batch_or_space(tmp_path):
    table = _latency()
    table.check(SPACE, "cpu", 1)
    for arguments, said in (
        ((SPACE, "gpu"), "device='cpu', not 'gpu'"),
        ((SPACE, "cpu", 8), "batch=1, not 8"),
        ((get_space("nas_bench_macro"),), "nas_bench_macro"),
    ):
        with pytest.raises(UserError, match=said):
            table.check(*arguments)
    with pytest.raises(UserError, match="does not fit"):
        table.latency((0, 1, 2))
    with pytest.raises(UserError, match=">= 0"):
        _latency(constant=-1.0)
    with pytest.raises(UserError, match="gene 0, option 0"):
        LatencyTable(SPACE.space_id, "cpu", 1, [[float("nan")]])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match="no latency table"):
        LatencyTable.read(tmp_path / "x.json", SPACE)
    with pytest.raises(UserError, match="not a file"):
        LatencyTable.read(tmp_path / "none.json", SPACE)


def test_measured_latencies_leave_out_what_cannot_be(table, tmp_path):
    assert latency_lookup(table, "lat_x_b8_ms") == {(0, 1, 2, 0): 8.15, (2, 2, 1, 0): 8.3}
    with pytest.raises(UserError, match=r"metric='c10_valid_12' is no latency.*lat_x_b8_ms"):
        latency_lookup(table, "c10_valid_12")


def test_a_sum_of_parts_is_found_again(tmp_path):
    true, genotypes = _latency(), SPACE.sample_many(60, 0)
    lines = [f"{SPACE.str(g)},{true.latency(g)!r}" for g in genotypes]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["arch,lat_cpu_ms", *lines]) + "\n")
    table = TabularBenchmark(path, SPACE)
    fitted = LatencyTable.fit(table, "lat_cpu_ms", batch=1)
    assert [fitted.latency(g) for g in SPACE] == pytest.approx([true.latency(g) for g in SPACE])
    assert fitted.about["tau-b"] == pytest.approx(1)
    assert np.array(fitted.entries).min() >= 0
    with pytest.raises(UserError, match="give batch="):
        LatencyTable.fit(table, "lat_cpu_ms")
