"""``tnt-vit survey``: backbones measured on this machine; ``list`` shows the registry, ``compare A B`` two surveys."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments
from effkit.data import find_pictures
from effkit.device import environment, seed_everything, set_threads
from effkit.errors import UserError, choose
from effkit.lock import locked
from effkit.outputs import check_output_folder
from effkit.page import BADGES
from effkit.report import Report, write_json, write_text
from tnt_vit.commands.options import options
from tnt_vit.commands.survey_pictures import draw_survey
from tnt_vit.survey.comparing import compare_rows
from tnt_vit.survey.page import render_html, render_markdown
from tnt_vit.survey.registry import read_registry, select
from tnt_vit.survey.run import survey
from tnt_vit.survey.settings import Settings
from tnt_vit.survey.store import read_rows
from tnt_vit.survey.tables import all_tables, flat_table, listing

__all__ = ["compare_report", "list_report", "run", "survey_report"]

_VERBS = ("list", "compare")
_PICTURES = ("astronaut", "chelsea", "coffee", "china")
Rows = Sequence[Mapping[str, Any]]


def _lead(rows: Rows) -> list[str]:
    done = sum(row["status"] in ("measured", "counted") for row in rows)
    said = [f"{done} of {len(rows)} backbones of A Survey on Vision Transformer, counted or measured on this machine."]
    said.append("Accuracy is as published: no network was evaluated here.")
    if any(row.get("weights") == "random" for row in rows):
        said.append("What looks inside saw random weights; pretrained=true downloads those of the registry.")
    absent = dict.fromkeys(row["energy"]["absent"] for row in rows if row.get("energy", {}).get("absent"))
    said += [f"Energy was not measured: {reason}." for reason in absent]
    return said


def survey_report(
    backbones: Sequence[Any],
    settings: Settings,
    folder: Path,
    pictures: Mapping[str, Any],
    *,
    fresh: bool = False,
    tsne: bool = False,
    command: str = "tnt-vit survey",
) -> Report:
    """Measure and write ``survey.jsonl``, ``.csv``, ``.md``, ``index.html`` and the pictures into a folder.

    Args:
        backbones: What to measure.
        settings: How.
        folder: Where; an earlier run into it is gone on with.
        pictures: Name to file or bundled name, for what looks inside.
        fresh: Keep nothing of an earlier run.
        tsne: Also draw t-SNE of channel maps.
        command: For the page.

    Returns:
        The tables; exit code 1 if a network failed or ran out of memory.
    """
    rows = survey(backbones, settings, folder, pictures, fresh=fresh)
    tables, drawn, lead = all_tables(rows), draw_survey(rows, folder, tsne=tsne, seed=settings.seed), _lead(rows)
    flat_table(rows).to_csv(folder / "survey.csv")
    bad = sum(row["status"] in ("failed", "out of memory") for row in rows)
    words = ("measured", "counted", "skipped", "failed", "out of memory")
    counts = [(sum(row["status"] == word for row in rows), word, BADGES[word][0]) for word in words]
    title = "Vision backbones, measured here"
    page = render_html(
        title, lead, tables, pictures=drawn, tiles=[tile for tile in counts if tile[0]], command=command,
        environment={**environment(), "settings": settings.record(list(pictures))},
    )  # fmt: skip
    files = [folder / "survey.jsonl", folder / "survey.csv"]
    files.append(write_text(folder / "survey.md", render_markdown(title, lead, tables, drawn)))
    files.append(write_text(folder / "index.html", page))
    data = {"rows": rows}
    return Report("tnt-vit survey", tables, data=data, files=[*files, *drawn], lines=lead, exit_code=int(bad > 0))


def list_report(registry: Any, suite: str, models: Sequence[str] | None) -> Report:
    """The registry, or a part of it."""
    backbones = select(registry, suite, models)
    return Report(
        "tnt-vit survey list", [listing(backbones)], data={"backbones": [dataclasses.asdict(b) for b in backbones]}
    )


def compare_report(a: str, b: str, folder: Path) -> Report:
    """Two surveys side by side; writes ``compare.json``, ``.md`` and ``.html``.

    Args:
        a: A ``survey.jsonl`` or its folder.
        b: Another.
        folder: Where to write.

    Raises:
        UserError: If one is no survey, or they share no network.
    """
    one, two = read_rows(a, "A"), read_rows(b, "B")
    tables = compare_rows(one, two)
    title = "Two surveys beside each other"
    lead = [f"A: {_of(one)}.", f"B: {_of(two)}."]
    data = {"a": _of(one), "b": _of(two), "tables": [table.to_dict() for table in tables]}
    files = [
        write_json(folder / "compare.json", data),
        write_text(folder / "compare.md", render_markdown(title, lead, tables)),
        write_text(folder / "compare.html", render_html(title, lead, tables)),
    ]
    return Report("tnt-vit survey compare", tables, data=data, files=files, lines=lead)


def _of(rows: Rows) -> str:
    stamp = rows[0]["stamp"]
    commit = f", commit {stamp['commit']}" if stamp["commit"] else ""
    return f"{len(rows)} networks, {stamp['machine']}, torch {stamp['torch']}{commit}, {rows[0]['date']}"


def _named(sources: Sequence[Any]) -> dict[str, Any]:
    """Pictures by the name they have in a report, without the folders of this machine."""
    found = {Path(str(source)).name: source for source in sources}
    if len(found) < len(sources):
        raise UserError("images: two pictures have the same file name, by which the report tells them apart")
    return found


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit survey`` does.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If a name is unknown, a file is none of ours, or an argument does not fit.
    """
    words = list(cfg.what)
    verb = choose("what", str(words[0]), _VERBS) if words else "measure"
    if verb == "compare":
        if len(words) != 3:
            raise UserError(f"survey compare needs two surveys, A and B, got {len(words) - 1}")
        return compare_report(words[1], words[2], check_output_folder("output", cfg.output))
    registry = read_registry(cfg.registry)
    keys = options(cfg, "suite", "models", "images", "fresh", "tsne")
    check_arguments(select, {"suite": keys["suite"], "models": keys["models"]}, also=("suite",))
    check_arguments(survey_report, {"fresh": keys["fresh"], "tsne": keys["tsne"]})
    if verb == "list":
        if len(words) > 1:
            raise UserError(f"survey list takes no more words, got {' '.join(map(str, words[1:]))}")
        return list_report(registry, keys["suite"] or "all", keys["models"])
    settings = Settings(**options(cfg, *(field.name for field in dataclasses.fields(Settings))))
    backbones = select(registry, keys["suite"] or "small", keys["models"])
    pictures = _named(find_pictures(keys["images"] or list(_PICTURES)))
    folder = check_output_folder("output", cfg.output)
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(settings.seed)
    set_threads(settings.threads)
    asked = f"models=[{','.join(keys['models'])}]" if keys["models"] else f"suite={keys['suite'] or 'small'}"
    with locked(folder, tell=lambda line: print(line, file=sys.stderr)):
        return survey_report(
            backbones, settings, folder, pictures, fresh=keys["fresh"], tsne=keys["tsne"],
            command=f"tnt-vit survey {asked} fresh=true",
        )  # fmt: skip
