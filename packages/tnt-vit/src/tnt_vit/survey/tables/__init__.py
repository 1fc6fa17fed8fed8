"""A survey as tables: structure, speed and memory beside what is printed; each kind of figure in columns of its own."""

from tnt_vit.survey.tables.published import agreement, listing, spearman
from tnt_vit.survey.tables.whole import all_tables, flat_table, trouble

__all__ = ["agreement", "all_tables", "flat_table", "listing", "spearman", "trouble"]
