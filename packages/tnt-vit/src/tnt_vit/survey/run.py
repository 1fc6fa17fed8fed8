"""A survey: every network counted, timed in turns with others, and looked into; one row each, whatever happens."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.progress import display
from effkit.provenance import now
from effkit.report import write_bytes
from effkit.results import stamp
from effkit.timing import MachineFloor, machine_floor
from tnt_vit.survey.counting import count
from tnt_vit.survey.energy import Meter, NoMeter
from tnt_vit.survey.features import cka_matrix
from tnt_vit.survey.measure import Found, measure_alone, time_group
from tnt_vit.survey.models import Skipped
from tnt_vit.survey.registry import Backbone
from tnt_vit.survey.settings import Settings
from tnt_vit.survey.speed import Failure
from tnt_vit.survey.store import Store, settings_id

__all__ = ["between_models", "kept_features", "survey"]

_KILLED = (
    "an earlier run ended without a word while it measured this network alone, as the system does for want of memory; "
    "fresh=true tries again"
)


def features_file(folder: Path, name: str, identity: str) -> Path:
    """Where the features of a network's last block lie."""
    return folder / "features" / f"{name.replace('/', '_')}-{identity}.npy"


def _digest(sources: Iterable[Any]) -> str:
    """Of the bytes of the files among pictures; others are known by their names."""
    whole = hashlib.sha256()
    for source in sources:
        if isinstance(source, str | Path) and Path(source).is_file():
            whole.update(Path(source).read_bytes())
    return whole.hexdigest()[:12]


def survey(
    backbones: Sequence[Backbone],
    settings: Settings,
    folder: Path,
    pictures: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
) -> list[dict[str, Any]]:
    """Measure networks; what an earlier run into the same folder measured, and still stands, is kept.

    Args:
        backbones: In the order of the result.
        settings: How.
        folder: Gets ``survey.jsonl``, a line a network as soon as it is measured, and ``features/``.
        pictures: Name to file, bundled name or PIL picture, for the features.
        fresh: Keep nothing.

    Returns:
        One row a network. ``status`` is ``measured``, ``counted`` (structural), ``skipped``, ``failed`` or ``out of
        memory``, the last three with a ``reason``.
    """
    torch.manual_seed(settings.seed)
    run = _Run(settings, folder, dict(pictures or {}), fresh)
    with display() as shown:
        shown.start("survey")
        run.tell = lambda text: shown.update("survey", text, len(run.rows) / max(len(backbones), 1))
        run.all(backbones)
        shown.finish("survey", f"{len(run.rows)} networks, {run.kept} kept from an earlier run")
    return [run.rows[b.name] for b in backbones]


class _Run:
    def __init__(self, settings: Settings, folder: Path, pictures: dict[str, Any], fresh: bool) -> None:
        self.settings, self.folder, self.pictures = settings, folder, pictures
        self.store = Store(folder, fresh)
        self.record = settings.record(list(pictures), _digest(pictures.values()))
        self.stamp = stamp(settings.where)
        self.meter: Meter | None = None
        self.no_meter = ""
        if "energy" in settings.parts and not settings.structural:
            try:
                self.meter = Meter(settings.where)
            except NoMeter as reason:
                self.no_meter = str(reason)
            self.record["energy_meter"] = not self.no_meter  # with one, rows without energy are measured again
        self.rows: dict[str, dict[str, Any]] = {}
        self.kept = 0
        self.tell: Any = lambda text: None

    def identity(self, backbone: Backbone) -> str:
        return settings_id(self.settings.identity(backbone, self.record))

    def all(self, backbones: Sequence[Backbone]) -> None:
        todo: list[Backbone] = []
        counts: dict[str, dict[str, Any]] = {}
        for backbone in backbones:
            row = self.store.kept(backbone.name, self.identity(backbone))
            if row is not None:
                self.rows[backbone.name] = row
                self.kept += 1
                continue
            self.tell(f"counting {backbone.name}")
            try:
                counts[backbone.name] = count(backbone)
                todo.append(backbone)
            except Skipped as reason:
                self.add(backbone, Found("skipped", str(reason)), {})
            except UserError:
                raise
            except Exception as error:
                self.add(backbone, Found("failed", f"counting: {Failure.of(error).reason}"), {})
        if self.settings.structural:
            for backbone in todo:
                self.add(backbone, Found("counted"), counts[backbone.name])
            return
        there = [b for b in backbones if b in todo or self.rows[b.name]["status"] == "measured"]
        self.measure(todo, counts, there)

    def measure(self, todo: list[Backbone], counts: dict[str, dict[str, Any]], there: list[Backbone]) -> None:
        """Time and look into what is left, in groups that all hold the first network that is there."""
        killed = self.store.killed
        if len(killed) == 1:
            for backbone in [b for b in todo if b.name in killed]:
                self.add(backbone, Found("failed", _KILLED), counts[backbone.name], killed=True)
                todo.remove(backbone)
        if not todo:
            return
        self.tell("the machine's large matrix product and copy")
        floor = machine_floor(self.settings.where, self.settings.dtype, threads=self.settings.threads)
        suspects = [b for b in todo if b.name in killed]
        rest = [b for b in todo if b.name not in killed]
        size = self.settings.together - 1
        anchor = next((b for b in there if b.name not in killed), None)
        first = [] if anchor is None else [anchor]
        groups = [[*first, *(b for b in rest[i : i + size] if b is not anchor)] for i in range(0, len(rest), size)]
        for group in [*groups, *[[b] for b in suspects]]:
            self.group(group, counts, floor)

    def group(self, group: list[Backbone], counts: dict[str, dict[str, Any]], floor: MachineFloor) -> None:
        fresh = [b for b in group if b.name not in self.rows]
        speed = "speed" in self.settings.parts
        with self.store.measuring([b.name for b in group]):
            if speed:
                found = time_group(group, self.settings, floor, self.tell, self.meter)
            else:
                found = {b.name: Found() for b in group}
        for backbone in fresh:
            one = found[backbone.name]
            if self.no_meter:
                one.values["energy"] = {"absent": self.no_meter}
            if one.status == "measured":
                self.tell(f"memory and features of {backbone.name}")
                with self.store.measuring([backbone.name]):
                    measure_alone(backbone, self.settings, list(self.pictures.values()), one)
                if one.last_block is not None:
                    self.keep(backbone.name, self.identity(backbone), one.last_block)
            self.add(backbone, one, counts[backbone.name])

    def keep(self, name: str, identity: str, features: Tensor) -> None:
        """Features of the last block, for CKA between networks."""
        buffer = io.BytesIO()
        np.save(buffer, features.numpy())
        write_bytes(features_file(self.folder, name, identity), buffer.getvalue())

    def add(self, backbone: Backbone, found: Found, counts: dict[str, Any], *, killed: bool = False) -> None:
        row = {
            "name": backbone.name,
            "status": found.status,
            "reason": found.reason,
            "notes": found.notes,
            "date": now(),
            "counts": counts,
            **found.values,
            "backbone": dataclasses.asdict(backbone),
            "settings": self.record,
            "settings_id": self.identity(backbone),
            "stamp": self.stamp,
            **({"killed": True} if killed else {}),
        }
        self.rows[backbone.name] = self.store.add(row)


def kept_features(rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Tensor]:
    """What the last blocks put out, as they were kept.

    Args:
        rows: Of :func:`survey`.
        folder: Of the survey.

    Returns:
        Name to ``(B grid^2, d)``, rows of all networks at the same places of the same pictures; only those that are
        there.
    """
    found: dict[str, Tensor] = {}
    for row in rows:
        file = features_file(folder, row["name"], row["settings_id"])
        if row.get("cka") and file.is_file():
            found[row["name"]] = torch.from_numpy(np.load(file, allow_pickle=False))
    return found


def between_models(features: Mapping[str, Tensor]) -> tuple[list[str], list[list[float]]]:
    """CKA between the last blocks of the networks of a survey.

    Args:
        features: Of :func:`kept_features`.

    Returns:
        Names, and CKA of each with each; nothing if there are fewer than two.
    """
    return (list(features), cka_matrix(features)) if len(features) > 1 else ([], [])
