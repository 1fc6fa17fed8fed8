"""A network as one Python file."""

from __future__ import annotations

from typing import Any

from effkit.cli import run_dir
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.report.files import write_text
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.families import macs, params
from greedy_enlarge.networks.standalone import check_name, standalone_source

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge export`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If the network or the name does not fit.
    """
    options = plain(cfg)
    spec, name = read_spec(options["spec"]), check_name(options["name"])
    out = run_dir() / f"{name}.py" if options["out"] is None else check_output_file("out", options["out"])
    source = standalone_source(spec, name)
    file = write_text(out, source)
    rows = [["family", spec.family], ["MACs", f"{macs(spec):,}"], ["params", f"{params(spec):,}"]]
    data = {"spec": spec.to_dict(), "name": name}
    return Report("greedy-enlarge export", [Table(name, ["", ""], rows)], data=data, files=[file])
