"""Papers: what a package declares, and how the installed ones are found.

A package names one `Paper` in its `pyproject.toml`; nothing in the core knows which papers exist:

    [project.entry-points."effkit.papers"]
    tnt-vit = "tnt_vit.paper.rows:PAPER"

Its rows are an order of tables and a list of functions (`collect_rows`); its laptop-scale claim takes a `ClaimRun`,
does its work in parts that are kept, and judges what it found with `Findings`.
"""

from effkit.papers.claim_run import ClaimRun
from effkit.papers.findings import Findings, judge
from effkit.papers.installed import GROUP, installed_papers, load_paper, select_papers
from effkit.papers.paper import Claim, Paper
from effkit.papers.tables import collect_rows, table_names

__all__ = [
    "GROUP",
    "Claim",
    "ClaimRun",
    "Findings",
    "Paper",
    "collect_rows",
    "installed_papers",
    "judge",
    "load_paper",
    "select_papers",
    "table_names",
]
