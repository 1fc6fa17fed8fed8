"""What results amount to: counts of verdicts, the word for a paper, the summary table, the lines on what failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from effkit.report import Table, format_cell
from effkit.rows import Outcome

__all__ = [
    "all_outcomes",
    "count_verdicts",
    "counted",
    "failed",
    "forms",
    "in_a_word",
    "summary_table",
    "verdict",
    "what_failed",
]


def count_verdicts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes match, differ, could not be measured here, or have nothing to compare with."""
    counts = {"match": 0, "differs": 0, "not measured here": 0, "nothing to compare": 0}
    for outcome in outcomes:
        counts[outcome.verdict] += 1
    return counts


def all_outcomes(result: dict[str, Any]) -> list[Outcome]:
    """Those of a paper's rows and of its claim."""
    claim = result["claim"] or {"outcomes": []}
    return [Outcome.from_dict(o) for o in [*result["outcomes"], *claim["outcomes"]]]


def failed(result: dict[str, Any]) -> bool:
    """Whether a paper crashed or one of its figures differs."""
    return result["status"] == "crashed" or any(o.verdict == "differs" for o in all_outcomes(result))


def verdict(result: dict[str, Any]) -> str:
    """The word for a paper: holds, differs or crashed."""
    return "crashed" if result["status"] == "crashed" else "differs" if failed(result) else "holds"


def counted(counts: dict[str, int]) -> str:
    """Counts as half a sentence: "12 match, 1 differ"."""
    words = {"differs": "differ"}
    return ", ".join(f"{n} {words.get(word, word)}" for word, n in counts.items() if n) or "no rows"


def in_a_word(result: dict[str, Any]) -> str:
    """What the progress line of a paper ends with."""
    if result["status"] == "crashed":
        return f"crashed: {result['reason']}"
    text = f"{counted(count_verdicts(all_outcomes(result)))} ({result['seconds']:.0f} s)"
    return f"kept from {result['date']}: {text}" if result["kept"] else text


def what_failed(result: dict[str, Any]) -> list[str]:
    """One line for the crash of a paper and one for each figure that differs."""
    lines = []
    if result["status"] == "crashed":
        lines.append(f"{result['name']} crashed: {result['reason']}")
    for o in all_outcomes(result):
        if o.verdict == "differs":
            ours, paper = format_cell(o.ours) or "none", format_cell(o.paper)
            lines.append(
                f"{result['name']}, table {o.table}, {o.name}, {o.metric}: {ours}, expected {paper}: {o.reason}"
            )
    return lines


def forms(document: dict[str, Any]) -> str:
    """One sentence on a whole run: the form of the claims, how many workers, seconds, what was kept."""
    results = document["papers"]
    if not document["claims"]:
        text = "Rows only, no claims"
    elif document["full"]:
        text = "Full forms of the claims"
    else:
        text = "Short forms of the claims (full=true runs the full ones)"
    papers, workers = f"{len(results)} paper{'s' * (len(results) != 1)}", document["jobs"]
    text += f"; {papers} on {workers} worker{'s' * (workers != 1)}, {document['seconds']:.0f} s"
    kept = sum(result["kept"] for result in results)
    return f"{text}; {kept} kept from an earlier run (fresh=true runs all again)." if kept else f"{text}."


def summary_table(document: dict[str, Any]) -> Table:
    """One row a paper."""
    columns = ["paper", "match", "differ", "not measured here", "claim", "form", "run", "seconds", "verdict"]
    table = Table("Papers", columns, note=forms(document))
    for result in document["papers"]:
        counts = count_verdicts(all_outcomes(result))
        figures = [counts["match"], counts["differs"], counts["not measured here"]]
        form = result["claim"]["form"] if result["claim"] else None
        run = "kept" if result["kept"] else "now"
        cells = [result["name"], *figures, result["claim_status"], form, run, result["seconds"], verdict(result)]
        table.rows.append(cells)
    return table
