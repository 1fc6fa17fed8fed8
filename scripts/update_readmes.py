"""Writes the speed tables of the packages' READMEs from their results files; ``--check`` says whether they are current.

A README marks the place with ``<!-- table results/cpu.csv -->`` and ``<!-- /table -->``; what stands between them is
generated.

    uv run python scripts/update_readmes.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from effkit.report import Table, write_text
from effkit.results import ResultRow, read_csv

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table (?P<path>\S+\.csv) -->\n)(?P<body>.*?)(<!-- /table -->)", re.DOTALL)


def speed_table(rows: list[ResultRow]) -> str:
    """Markdown of a results file: one line a measurement, with its ratio and where it was measured."""
    ratios = {_key(r): r for r in rows if r.metric.startswith("speedup_over_")}
    baseline = next((r.metric.removeprefix("speedup_over_") for r in ratios.values()), "the baseline")
    peaks = {_key(r): r for r in rows if r.metric == "peak_memory"}
    lines = []
    for row in rows:
        if row.metric != "time":
            continue
        spread = "" if row.p20 is None or row.p80 is None else f"{_ms(row.p20)} to {_ms(row.p80)}"
        ratio, peak = ratios.get(_key(row)), peaks.get(_key(row))
        lines.append(
            [
                f"{row.mode} {row.dtype}",
                f"{row.x:g}",
                row.provider,
                _ms(row.median),
                spread,
                "" if ratio is None else f"{ratio.median:.2f}",
                "" if peak is None else f"{peak.median / 2**20:.0f}",
            ]
        )
    names = "/".join(dict.fromkeys(row.x_name for row in rows))
    columns = ["what", names, "side", "ms", "20 to 80 %", f"times faster than {baseline}", "peak MiB"]
    if not peaks:
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    where = sorted(
        {f"{r.machine}, {r.threads} threads, torch {r.torch}, commit {r.commit}, {r.date[:10]}" for r in rows}
    )
    return f"{Table('', columns, lines).to_markdown().strip()}\n\nMeasured on: {'; '.join(where)}.\n"


def _ms(seconds: float) -> str:
    """Milliseconds with one decimal, or with two digits below one."""
    return f"{1e3 * seconds:.1f}" if seconds >= 1e-3 else f"{1e3 * seconds:.2g}"


def _key(row: ResultRow) -> tuple:
    return row.case, row.mode, row.dtype, row.x, row.provider, row.date


def updated(readme: Path) -> str:
    """The README's text with every marked table made anew."""

    def fill(match: re.Match[str]) -> str:
        return match[1] + speed_table(read_csv(readme.parent / match["path"])) + match[4]

    return BLOCK.sub(fill, readme.read_text(encoding="utf-8"))


def main() -> int:
    """Update or check all packages."""
    stale = []
    for readme in sorted(ROOT.glob("packages/*/README.md")):
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
