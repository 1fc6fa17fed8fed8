"""What packages build their rows and claims from: tables by name, judged findings, parts that are kept."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from effkit.errors import UserError
from effkit.papers import Claim, ClaimRun, Findings, Paper, collect_rows, judge, table_names
from effkit.progress import listening
from effkit.rows import Row


def row(table: str, name: str = "x") -> Row:
    return Row(table, name, "params", 1.0, "M", "", "printed", compute=lambda: 1.0)


def first() -> list[Row]:
    return [row("5", "a"), row("1", "b")]


def second() -> list[Row]:
    return [row("fig2", "c"), row("5", "d")]


def names(table=None) -> list[str]:
    return [r.name for r in collect_rows([first, second], ["1", "5", "fig2", "8"], table)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        (5, ["5"]),
        ("5", ["5"]),
        ("table5", ["5"]),
        ("Table 5", ["5"]),
        ("TABLE_5", ["5"]),
        ("fig 2", ["fig2"]),
        ("Figure-2", ["fig2"]),
        ([7, "figure2", " claim ", "cost"], ["7", "fig2", "claim", "cost"]),
        ([], []),
    ],
)
def test_tables_have_several_spellings(given, expected):
    assert table_names(given) == expected


def test_rows_come_in_reading_order_and_inside_a_table_as_written():
    assert names() == ["b", "a", "d", "c"]
    assert names("Table 5") == ["a", "d"]
    assert names(["fig 2", 1]) == ["b", "c"]


def test_rows_of_a_table_that_does_not_exist():
    # A table of the order that has no row is none either.
    with pytest.raises(UserError, match="table='8' is not known, choose one of 1, 5, fig2"):
        names(8)
    with pytest.raises(AssertionError, match="tables 8 are not in the reading order 1"):
        collect_rows([lambda: [row("8")]], ["1"])


def test_a_finding_is_judged():
    good = judge("TNT", "accuracy", 97.2, 95.5, unit="%", seconds=1.26, command="x y")
    assert (good.table, good.verdict, good.source, good.evidence) == ("claim", "match", "our claim", "measured")
    assert (good.seconds, good.command, good.unit) == (1.3, "x y", "%")
    assert judge("TNT", "accuracy", 95.0, 95.5).verdict == "differs"
    assert judge("TNT", "accuracy", 95.0, 95.5, slack=1.0).verdict == "match"
    assert judge("TNT", "params", 7, 7, "exact", evidence="computed", source="closed form").source == "closed form"
    shown = judge("ViT", "accuracy", 97.8)
    assert (shown.verdict, shown.source) == ("nothing to compare", "shown beside it")


def test_findings_share_what_most_of_them_have():
    found = Findings(unit="points", command="kd-autoaug reproduce claim=true")
    assert found.add("digits", "gain", torch.tensor(3.0), 2.0).verdict == "match"
    found.add("digits", "time", 12, unit="s", source="this machine", command="other")
    assert [(o.unit, o.command) for o in found.rows] == [
        ("points", "kd-autoaug reproduce claim=true"),
        ("s", "other"),
    ]
    assert Findings().rows == []  # not shared between two


STAMP = {"package": "fakes 1", "form": "short", "libraries": {"torch": "2"}}


def test_a_part_is_computed_once(tmp_path: Path):
    calls: list[int] = []

    def compute(n: int) -> dict:
        calls.append(n)
        return {
            "pair": (n, 0.1),
            "scalar": np.float64(2.5),
            "vector": torch.arange(3),
            "none": float("nan"),
            7: "seven",
        }

    runs = [ClaimRun(tmp_path, stamp=STAMP) for _ in range(2)]
    told: list[str] = []
    with listening(lambda text, fraction: told.append(text)):
        values = [run.part("training", compute, 3) for run in runs]
    assert calls == [3]
    # The same whether computed or kept: what JSON makes of it.
    assert json.dumps(values[0]) == json.dumps(values[1])
    assert values[0]["pair"] == [3, 0.1]
    assert (values[0]["scalar"], values[0]["vector"], values[0]["7"]) == (2.5, [0, 1, 2], "seven")
    assert [run.parts["training"].kept for run in runs] == [False, True]
    assert told == ["training: kept from an earlier run"]


@pytest.mark.parametrize("changed", [None, {**STAMP, "form": "full"}, {**STAMP, "libraries": {"torch": "3"}}])
def test_a_part_of_something_else_is_computed_again(tmp_path: Path, changed):
    ClaimRun(tmp_path, stamp=STAMP).part("a", lambda: 1)
    assert ClaimRun(tmp_path, stamp=changed).part("a", lambda: 2) == 2
    assert ClaimRun(tmp_path, stamp=STAMP).part("a", lambda: 3) == 3  # and the first one is gone


def test_a_part_has_a_folder_of_its_own(tmp_path: Path):
    def writes(folder: Path, text: str) -> str:
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "curve.csv").write_text(text)
        return text

    def run(text: str) -> str:
        claim_run = ClaimRun(tmp_path, stamp=STAMP)
        return claim_run.part("a", writes, claim_run.subfolder("a"), text)

    assert run("first") == run("kept") == "first"
    curve = tmp_path / "a" / "sub" / "curve.csv"
    curve.write_text("cut")  # half of it
    assert run("again") == "again"
    curve.unlink()
    assert run("and again") == "and again"
    (tmp_path / "a" / "part.json").write_text('{"stamp": ')
    assert run("once more") == curve.read_text() == "once more"


def test_a_part_that_fails_leaves_nothing_that_looks_whole(tmp_path: Path):
    def fails() -> None:
        (tmp_path / "a" / "half").write_text("x")
        raise OSError("disk full")

    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            ClaimRun(tmp_path, stamp=STAMP).part("a", fails)
    assert ClaimRun(tmp_path, stamp=STAMP).part("a", lambda: 5) == 5
    assert not (tmp_path / "a" / "half").exists()


def test_parts_that_are_wrong(tmp_path: Path):
    run = ClaimRun(tmp_path, stamp=STAMP)
    with pytest.raises(TypeError, match="part 'a' must return what JSON can hold: object is not JSON"):
        run.part("a", object)
    assert run.part("b", lambda: 1) == 1
    with pytest.raises(ValueError, match="there are two parts 'b'"):
        run.part("b", lambda: 1)
    for name in ("", "..", "A", "a/b", "a b"):
        with pytest.raises(ValueError, match="cannot name a folder"):
            run.part(name, lambda: 1)


def test_chance_does_not_depend_on_which_parts_were_kept(tmp_path: Path):
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    def claim(folder: Path) -> list:
        run = ClaimRun(folder, stamp=STAMP)
        return [run.part(name, draw) for name in ("a", "b")]

    through = claim(tmp_path / "one")
    ClaimRun(tmp_path / "two", stamp=STAMP).part("a", draw)
    torch.manual_seed(99)
    assert claim(tmp_path / "two") == through
    assert through[0] != through[1]


def a_claim(run: ClaimRun) -> Claim:
    return Claim([judge("x", "y", 1, 1)], notes=["full" if run.full else "short"])


def test_a_claim_is_imported_when_it_is_wanted(tmp_path: Path):
    named = Paper("p", "", "P", "", list, "test_papers_module:claim")
    with pytest.raises(ModuleNotFoundError, match="test_papers_module"):
        named.run_claim(ClaimRun(tmp_path))
    for claim in (a_claim, f"{__name__}:a_claim"):
        assert Paper("p", "", "P", "", list, claim).run_claim(ClaimRun(tmp_path, full=True)).notes == ["full"]
    with pytest.raises(TypeError, match="the claim of p must return an effkit Claim, got int"):
        Paper("p", "", "P", "", list, lambda run: 3).run_claim(ClaimRun(tmp_path))
