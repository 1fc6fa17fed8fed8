"""What a command has to say: tables, lines and files, for people and for machines.

A `Report` is built from plain values (numbers, strings, paths). The same values become a terminal table, Markdown, CSV
or JSON, so a figure is never typed twice. Rich is imported where it is used.
"""

from effkit.report.cells import format_cell, plain
from effkit.report.files import write_bytes, write_json, write_text
from effkit.report.report import Report
from effkit.report.table import Table

__all__ = ["Report", "Table", "format_cell", "plain", "write_bytes", "write_json", "write_text"]
