"""Papers checked: `PACKAGE reproduce` for one paper's tables, `effkit reproduce` for all installed ones in one report.

A paper declares `Row`s and perhaps a laptop-scale `Claim`; this package evaluates them, says which figures match, and
saves what it saw: `results.json` for machines, `index.html` for people, both at the end, whole or not at all.
"""

from effkit.papers import Claim, ClaimRun, Paper, installed_papers
from effkit.progress import report_progress
from effkit.reproduce.single import paper_report
from effkit.reproduce.summary import count_verdicts
from effkit.reproduce.together import reproduce_all
from effkit.rows import Evidence, Outcome, Row, Tolerance, Verdict, evaluate, outcome_tables

__all__ = [
    "Claim",
    "ClaimRun",
    "Evidence",
    "Outcome",
    "Paper",
    "Row",
    "Tolerance",
    "Verdict",
    "count_verdicts",
    "evaluate",
    "installed_papers",
    "outcome_tables",
    "paper_report",
    "report_progress",
    "reproduce_all",
]
