"""One figure of a paper against ours: the row, how close is close enough, and the outcome.

A row says where the paper's figure comes from and how sure we are of it; ours is computed when the row is evaluated. A
row that cannot be measured here (it needs ImageNet, weights, a V100) says why, and is shown with an empty cell instead
of being left out.
"""

from effkit.rows.counted import counted_network, counted_row
from effkit.rows.outcome import Evidence, Outcome, Verdict, outcome_tables, table_title
from effkit.rows.row import Row, evaluate
from effkit.rows.tolerance import Kind, Tolerance

__all__ = [
    "Evidence",
    "Kind",
    "Outcome",
    "Row",
    "Tolerance",
    "Verdict",
    "counted_network",
    "counted_row",
    "evaluate",
    "outcome_tables",
    "table_title",
]
