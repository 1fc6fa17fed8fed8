"""Tables and reports: the same values for a terminal, Markdown, CSV and JSON; plots; files that are whole or absent."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from effkit.errors import UserError
from effkit.plots import describe, figure, save_png
from effkit.report import Report, Table, format_cell, plain, write_json, write_text

TABLE = Table(
    "Sizes [of models]",
    ["model", "params", "top-1", "verdict"],
    [["TNT-S", 23_768_584, 81.5, "match"], ["a|b [red]", None, None, "differs"]],
    note="printed figures",
)


def printed(report: Report, width: int = 100) -> str:
    buffer = io.StringIO()
    report.print(Console(file=buffer, width=width, no_color=True))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (23_768_584, "23,768,584"),
        (-5, "-5"),
        (0.0, "0"),
        (97.21666, "97.22"),
        (54.0, "54"),
        (1234.56, "1,234.6"),
        (2_000_000.0, "2,000,000"),
        (0.00012345, "0.000123"),
        (1.5e18, "1.5e+18"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (torch.tensor(3), "3"),
        (np.float32(0.5), "0.5"),
        (Path("a") / "b", os.path.join("a", "b")),
        ("text", "text"),
    ],
)
def test_format_cell(value, text) -> None:
    assert format_cell(value) == text


def test_plain_values_survive_json() -> None:
    value = {
        1: float("nan"),
        "path": Path("a"),
        "tensor": torch.tensor([1, 2]),
        "scalar": np.int64(4),
        "nested": ({"x": float("-inf")}, {3}),
        "dtype": torch.float32,
    }
    expected = {
        "1": None,
        "path": "a",
        "tensor": [1, 2],
        "scalar": 4,
        "nested": [{"x": None}, [3]],
        "dtype": "torch.float32",
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def test_markdown() -> None:
    assert TABLE.to_markdown() == (
        "| model | params | top-1 | verdict |\n"
        "| --- | ---: | ---: | --- |\n"
        "| TNT-S | 23,768,584 | 81.5 | match |\n"
        "| a\\|b [red] |  |  | differs |\n"
        "\nprinted figures\n"
    )


def test_csv_is_unformatted_and_written(tmp_path: Path) -> None:
    text = TABLE.to_csv(tmp_path / "new" / "table.csv")
    assert (tmp_path / "new" / "table.csv").read_text() == text
    assert list(csv.reader(io.StringIO(text))) == [
        ["model", "params", "top-1", "verdict"],
        ["TNT-S", "23768584", "81.5", "match"],
        ["a|b [red]", "", "", "differs"],
    ]


def test_dict_round_trip() -> None:
    assert Table.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


def test_a_row_of_the_wrong_length_is_refused() -> None:
    table = Table("t", ["a", "b"], [[1, 2], [3]])
    for use in (table.to_markdown, table.to_csv, table.to_dict, table.to_rich):
        with pytest.raises(ValueError, match=r"table 't': row 1 has 1 cells, expected 2 \(a, b\)"):
            use()


def test_report_prints_everything_literally() -> None:
    text = printed(Report("run [bold]", [TABLE], files=[Path("plot.png")], lines=["a [dim] line"]))
    for part in ("run [bold]", "Sizes [of models]", "23,768,584", "a|b [red]", "a [dim] line", "wrote plot.png"):
        assert part in text


def test_a_narrow_terminal_wraps_words_but_no_figure() -> None:
    rows = [["a rather long name of a model", 5_216_875_008, 23_768_584, "needs the weights and the data of the paper"]]
    text = printed(Report("", [Table("", ["model", "MACs", "params", "reason"], rows)]), width=50)
    assert "5,216,875,008" in text
    assert "23,768,584" in text
    assert max(map(len, text.splitlines())) <= 50


def test_report_without_tables_prints_its_lines() -> None:
    assert printed(Report("", lines=["only this"])).strip() == "only this"


def test_report_in_a_pipe_is_not_folded_to_80_columns(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    words = ["word" * 8] * 4
    Report("wide", [Table("", ["a", "b", "c", "d"], [words])]).print()
    assert any(line.count("word" * 8) == 4 for line in capsys.readouterr().out.splitlines())


def test_report_json_document() -> None:
    report = Report("t", [TABLE], {"accuracy": torch.tensor(0.5)}, [Path("x.png")], ["line"], exit_code=1)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["data"] == {"accuracy": 0.5}
    assert document["tables"][0]["rows"][0][1] == 23_768_584
    assert (document["files"], document["lines"], document["exit_code"]) == (["x.png"], ["line"], 1)


def test_writing_replaces_whole_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a" / "result.json"
    write_json(path, {"x": 1})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    write_text(tmp_path / "a" / "note.txt", "é")
    assert json.loads(path.read_text()) == {"x": 1}
    assert sorted(p.name for p in path.parent.iterdir()) == ["note.txt", "result.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_failed_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "file", "old")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def draw(path: Path) -> Path:
    with figure(width=4, height=3) as fig:
        axes = fig.subplots()
        axes.plot([1, 2, 3], [3, 1, 2], label="ours")
        axes.set(xlabel="epoch", ylabel="accuracy, %")
        axes.legend()
        describe(fig, "A line with an edge at its second point.")
        return save_png(fig, path)


def test_plot_is_a_small_picture_and_the_same_every_time(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = draw(tmp_path / "plots" / "a.png"), draw(tmp_path / "b.png")
    assert dict(matplotlib.rcParams) == before
    assert size_of(first) == (480, 360)
    assert first.read_bytes() == second.read_bytes()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_noisy_plot_stays_below_the_limit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((600, 600, 3))
    with figure(width=6, height=6) as fig:
        fig.subplots().imshow(noise)
        describe(fig, "Noise in all colours, from edge to edge.")
        path = save_png(fig, tmp_path / "noise.png")
    assert path.stat().st_size < 300 * 1024
    assert min(size_of(path)) > 300


def test_figure_size_must_be_positive() -> None:
    with pytest.raises(UserError, match="width=0"), figure(width=0):
        pass


def test_importing_is_light() -> None:
    code = "import sys, effkit.report; print([m for m in ('torch', 'rich', 'matplotlib', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
