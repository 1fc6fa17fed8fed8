"""Writes what the READMEs say of measured figures from the results files; ``--check`` says whether it is current.

A package's README marks the place of a table with ``<!-- table results/cpu.csv -->`` and ``<!-- /table -->``, the
root's that of the highlights with ``<!-- highlights -->`` and ``<!-- /highlights -->``; what is between is generated.
Sentences that repeat such figures are listed in sentences.py, and get theirs from the same files.

    uv run python scripts/update_readmes.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from highlights import highlights_table
from sentences import with_figures

from effkit.report import Table, write_text
from effkit.results import ResultRow, read_csv

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (?P<path>\S+\.csv) -->\n)(?P<body>.*?)(<!-- /table -->)", re.DOTALL)
HIGHLIGHTS = re.compile(r"(<!-- highlights -->\n).*?(<!-- /highlights -->)", re.DOTALL)


def speed_table(rows: list[ResultRow]) -> str:
    """Markdown of a results file: one line a measurement, with its ratio and where it was measured."""
    ratios = {_key(r): r for r in rows if r.metric.startswith("speedup_over_")}
    baselines = list(dict.fromkeys(r.metric.removeprefix("speedup_over_") for r in ratios.values()))
    peaks = {_key(r): r for r in rows if r.metric == "peak_memory"}
    # A case is named where a line would stand twice without it.
    named = Counter((row.mode, row.dtype, row.x, row.provider) for row in rows if row.metric == "time")
    several = max(named.values(), default=0) > 1
    lines = []
    for row in rows:
        if row.metric != "time":
            continue
        spread = "" if row.p20 is None or row.p80 is None else f"{_ms(row.p20)} to {_ms(row.p80)}"
        ratio, peak = ratios.get(_key(row)), peaks.get(_key(row))
        lines.append(
            [
                " ".join([*([row.case] if several else []), row.mode, row.dtype]),
                f"{row.x:g}",
                row.provider,
                _ms(row.median),
                spread,
                "" if ratio is None else _ratio(ratio, baselines),
                "" if peak is None else f"{peak.median / 2**20:.0f}",
            ]
        )
    names = "/".join(dict.fromkeys(row.x_name for row in rows))
    than = f"times faster than {baselines[0]}" if len(baselines) == 1 else "times faster"
    columns = ["what", names, "side", "ms", "20 to 80 %", than, "peak MiB"]
    if not any(line[-1] for line in lines):
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    return _with_origin(Table("", columns, lines), rows)


def figures_table(rows: list[ResultRow]) -> str:
    """Markdown of a results file without times: a line a provider, a column a figure."""
    metrics = dict.fromkeys((row.metric, row.unit) for row in rows)
    found = {(row.provider, row.metric): row for row in rows}
    lines = [
        [provider, *(_figure(found.get((provider, metric))) for metric, _ in metrics)]
        for provider in dict.fromkeys(row.provider for row in rows)
    ]
    columns = [f"{metric.replace('_', ' ')}, {'%' if unit == 'share' else unit}" for metric, unit in metrics]
    return _with_origin(Table("", ["way", *columns], lines), rows)


def table(rows: list[ResultRow]) -> str:
    """Markdown of a results file."""
    return speed_table(rows) if any(row.metric == "time" for row in rows) else figures_table(rows)


def _with_origin(body: Table, rows: list[ResultRow]) -> str:
    """A table, and below it where its figures were measured."""
    where = sorted({f"{r.machine}, {_threads(r)}torch {r.torch}, commit {r.commit}, {r.date[:10]}" for r in rows})
    return f"{body.to_markdown().strip()}\n\nMeasured on: {'; '.join(where)}.\n"


def _threads(row: ResultRow) -> str:
    """The threads, where a row knows them."""
    return f"{row.threads} threads, " if row.threads else ""


def _figure(row: ResultRow | None) -> str:
    """A figure that is no time, shares in percent."""
    if row is None:
        return ""
    return f"{100 * row.median:.1f}" if row.unit == "share" else f"{row.median:.{2 if row.unit == 'x' else 1}f}"


def _ms(seconds: float) -> str:
    """Milliseconds with one decimal, or with two digits below one."""
    return f"{1e3 * seconds:.1f}" if seconds >= 1e-3 else f"{1e3 * seconds:.2g}"


def _ratio(row: ResultRow, baselines: list[str]) -> str:
    """A ratio, with what it is over where a table has several baselines."""
    than = row.metric.removeprefix("speedup_over_")
    return f"{row.median:.2f}" if len(baselines) == 1 else f"{row.median:.{2 if row.median < 100 else 0}f} than {than}"


def _key(row: ResultRow) -> tuple:
    return row.case, row.mode, row.dtype, row.x, row.provider, row.date


def updated(readme: Path) -> str:
    """The README's text with every marked place made anew."""

    def fill(match: re.Match[str]) -> str:
        return match[1] + table(read_csv(readme.parent / match["path"])) + match[4]

    text = BLOCK.sub(fill, readme.read_text(encoding="utf-8"))
    text = with_figures(text, readme.parent.name, readme.parent / "results")
    return HIGHLIGHTS.sub(lambda match: match[1] + highlights_table(ROOT) + match[2], text)


def main() -> int:
    """Update or check all READMEs."""
    stale = []
    for readme in [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]:
        text = updated(readme)
        if text != readme.read_text(encoding="utf-8"):
            stale.append(readme.relative_to(ROOT))
            if "--check" not in sys.argv[1:]:
                write_text(readme, text)
    for path in stale:
        print(f"{path}: {'stale' if '--check' in sys.argv[1:] else 'updated'}")
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
