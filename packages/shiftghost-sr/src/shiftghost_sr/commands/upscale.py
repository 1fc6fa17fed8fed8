"""Enlarge pictures and folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effkit.cli import run_dir
from effkit.errors import UserError
from effkit.executors import Choice
from effkit.progress import shown
from effkit.report import Report, Table
from shiftghost_sr.commands.parts import network_file, precision_of, set_up
from shiftghost_sr.inference.many import Options, Outcome, upscale_files
from shiftghost_sr.inference.opening import open_network
from shiftghost_sr.inference.plan import plan_errands

__all__ = ["run"]

SHOWN = 20  # rows of the table; the JSON document holds all


def run(cfg: Any) -> Report:
    """Do what ``shiftghost-sr upscale`` does.

    Args:
        cfg: The composed config.

    Returns:
        What became of each picture; exit code 1 if one could not be enlarged.

    Raises:
        UserError: If a value cannot be used; nothing has been written then.
    """
    device = set_up(cfg)
    paths = [str(path) for path in cfg.paths]
    if len(paths) < 2:
        raise UserError(f"paths={paths} must be pictures or folders, and last where to: upscale photo.jpg enlarged")
    if isinstance(cfg.quality, bool) or not isinstance(cfg.quality, int) or not 1 <= cfg.quality <= 100:
        raise UserError(f"quality={cfg.quality!r} must be a whole number from 1 to 100")
    options = Options(
        str(network_file(cfg)), str(device), precision_of(cfg, device), cfg.scale, cfg.tile, cfg.overlap, cfg.ensemble,
        cfg.quality,
    )  # fmt: skip
    scale = int(open_network(options.model, "cpu", scale=cfg.scale).scale)  # type: ignore[arg-type]
    errands, folder = plan_errands(paths[:-1], paths[-1], scale=scale, name=str(cfg.name), suffix=cfg.suffix)
    choice = Choice.from_config(cfg, folder=run_dir() / "submitit")
    with shown("upscale"):
        outcomes = upscale_files(errands, folder, options, choice, replace_files=cfg.replace)
    return _report(outcomes, scale)


def _report(outcomes: list[Outcome], scale: int) -> Report:
    by_state: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_state.setdefault(outcome.state, []).append(outcome)
    written, failed = by_state.get("written", []), by_state.get("failed", [])
    rows = [
        [_name(o.source), _name(o.target), "x".join(map(str, o.size)), o.seconds, o.tile, o.precision]
        for o in written[:SHOWN]
    ]
    columns = ["picture", "written", "pixels", "seconds", "tile", "precision"]
    tables = [Table(f"Enlarged {scale} times", columns, rows)] if rows else []
    lines = [f"{_name(o.source)}: {note}" for o in written for note in o.notes]
    if len(written) > SHOWN:
        lines.append(f"and {len(written) - SHOWN} more")
    if failed:
        tables.append(Table("Not enlarged", ["picture", "why"], [[o.source, o.why] for o in failed]))
    lines.append(", ".join(f"{len(found)} {state}" for state, found in by_state.items()))
    data = {
        "scale": scale,
        "pictures": [
            {"source": o.source, "target": str(o.target), "state": o.state, "why": o.why, "seconds": o.seconds,
             "size": list(o.size), "tile": o.tile, "precision": o.precision, "notes": list(o.notes)}
            for o in outcomes
        ],
    }  # fmt: skip
    return Report("shiftghost-sr upscale", tables, data=data, lines=lines, exit_code=1 if failed else 0)


def _name(path: str | Path) -> str:
    return Path(path).name
