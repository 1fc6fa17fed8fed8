"""Uniform scaling."""

from __future__ import annotations

from typing import Any

from effkit.errors import UserError
from effkit.report import Report, Table
from greedy_enlarge.commands.build import plain, read_spec
from greedy_enlarge.families import macs, params
from greedy_enlarge.families.scaling import scale, scale_by_factor

__all__ = ["run"]


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge scale`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If not exactly one of budget and factor is given, or the budget cannot be met.
    """
    options = plain(cfg)
    spec, budget, factor = read_spec(options["spec"]), options["budget"], options["factor"]
    if (not budget) == (not factor):
        raise UserError("give either budget=MACS, which is met, or factor=NUMBER, which is rounded as pycls does")
    how = {"width_step": options["width_step"], "resolution_step": options["resolution_step"]}
    if factor:
        found = scale_by_factor(spec, factor, options["method"], **how)
        asked = factor * macs(spec)
    else:
        found = scale(spec, budget, options["method"], tolerance=options["tolerance"], **how)
        asked = budget
    cost, off = macs(found), 100 * (macs(found) / asked - 1)
    rows = [
        ["depths", str(list(spec.depths)), str(list(found.depths))],
        ["widths", str(list(spec.widths)), str(list(found.widths))],
        ["resolution", str(spec.resolution), str(found.resolution)],
        *([name, str(getattr(spec, name)), str(getattr(found, name))] for name in ("stem", "head")
          if getattr(found, name) is not None),
        ["MACs", f"{macs(spec):,}", f"{cost:,}"],
        ["params", f"{params(spec):,}", f"{params(found):,}"],
    ]  # fmt: skip
    table = Table(f"{options['method']} scaling", ["", "before", "after"], rows)
    data = {"spec": found.to_dict(), "macs": cost, "params": params(found), "deviation": off / 100}
    return Report(
        "greedy-enlarge scale", [table], data=data, lines=[f"{off:+.2f} % from the {asked:,.0f} MACs asked for"]
    )
