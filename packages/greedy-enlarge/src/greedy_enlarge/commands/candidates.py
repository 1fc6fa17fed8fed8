"""The candidates of one step."""

from __future__ import annotations

from typing import Any

from effkit.report import Report, Table
from greedy_enlarge.commands.build import make_moves, plain, read_spec
from greedy_enlarge.families import macs
from greedy_enlarge.search.greedy import Settings, check_search
from greedy_enlarge.search.moves import Moves
from greedy_enlarge.search.propose import Proposal, propose
from greedy_enlarge.search.schedule import Schedule
from greedy_enlarge.spec import ArchSpec

__all__ = ["proposal_tables", "run"]


def proposal_tables(spec: ArchSpec, proposal: Proposal) -> list[Table]:
    """Candidates and dropped moves as tables.

    Args:
        spec: Where the step starts.
        proposal: Its candidates.
    """
    from greedy_enlarge.search.moves import move_names

    names, start = move_names(spec), spec.coordinates()
    rows: list[list[Any]] = []
    for c in proposal.candidates:
        after = c.spec.coordinates()
        changes = [f"{start[names.index(n)]} -> {after[names.index(n)]}" for n in c.move.split("+")]
        rows.append([c.move, ", ".join(changes), c.macs, round(100 * c.deviation, 2), c.params])
    title = f"Candidates at {proposal.budget:,} MACs"
    tables = [Table(title, ["move", "change", "MACs", "off by %", "params"], rows)]
    if proposal.dropped:
        dropped = [[d.move, d.nearest, d.reason] for d in proposal.dropped]
        tables.append(Table("Moves that lead nowhere", ["move", "nearest MACs", "why"], dropped))
    return tables


def run(cfg: Any) -> Report:
    """Do what ``greedy-enlarge candidates`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If a value does not fit, or there is no candidate.
    """
    options = plain(cfg)
    spec = read_spec(options["spec"])
    moves = make_moves(options["moves"], spec)
    proposal, budget = _first_step(spec, options, moves)
    data = {
        "macs": macs(spec),
        "budget": budget,
        "candidates": [
            {"move": c.move, "macs": c.macs, "params": c.params, "deviation": c.deviation, "spec": c.spec.to_dict()}
            for c in proposal.candidates
        ],
        "dropped": [{"move": d.move, "nearest": d.nearest, "reason": d.reason} for d in proposal.dropped],
    }
    return Report("greedy-enlarge candidates", proposal_tables(spec, proposal), data=data)


def _first_step(spec: ArchSpec, options: dict[str, Any], moves: Moves) -> tuple[Proposal, int]:
    if options["steps"] is None:  # the budget is that of the step itself
        budget = options["budget"]
        Schedule.plan(macs(spec), budget, 1, options["delta"])
        return propose(spec, budget, options["delta"], moves), budget
    settings = Settings(steps=options["steps"], delta=options["delta"], moves=moves)
    schedule, proposal = check_search(spec, options["budget"], settings)
    return proposal or Proposal(schedule.target, (), ()), schedule.budget(1)
