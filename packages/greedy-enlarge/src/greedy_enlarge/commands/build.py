"""From keys of a config to architectures, moves and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from effkit.arguments import named_path
from effkit.errors import UserError, choose, written
from greedy_enlarge.families import BASES, base, family_of, params
from greedy_enlarge.search.evaluators import RandomChoice, Synthetic, TableLookup, ZeroCost
from greedy_enlarge.search.greedy import Settings
from greedy_enlarge.search.latency import read_latency
from greedy_enlarge.search.moves import Limit, Moves
from greedy_enlarge.search.racing import Racing
from greedy_enlarge.search.tasks import Evaluator
from greedy_enlarge.spec import ArchSpec

__all__ = ["make_evaluator", "make_moves", "make_racing", "make_settings", "plain", "read_spec"]

EVALUATORS = ("synthetic", "random", "zero_cost", "table", "proxy_train")


def plain(cfg: Any) -> dict[str, Any]:
    """A config as plain values."""
    found: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    return found


def read_spec(value: Any) -> ArchSpec:
    """A network as a user names it.

    Args:
        value: A name, the path of a JSON file, JSON text, or a mapping; a file or mapping may hold ``spec`` inside, as
            those of a search do.

    Raises:
        UserError: If it is none of these, or not a network.
    """
    if isinstance(value, ArchSpec):
        return value
    if isinstance(value, Mapping):
        mapping = dict(value)
        named = mapping.pop("base", None)
        # With a base: a known network with some fields changed.
        spec = ArchSpec.from_dict(mapping) if named is None else _changed(str(named), mapping)
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        spec = ArchSpec.from_json(value)
    elif isinstance(value, str) and (value.endswith(".json") or "/" in value):
        file = Path(value).expanduser()
        if not file.is_file():
            raise UserError(f"spec={value!r} is not a file")
        spec = ArchSpec.from_json(file.read_text(encoding="utf-8"))
    else:
        spec = base(choose("spec", value, list(BASES)))
    family_of(spec)
    return spec


def _changed(name: str, changes: Mapping[str, Any]) -> ArchSpec:
    fields = [f.name for f in dataclasses.fields(ArchSpec)]
    for key in changes:
        choose("field of spec", key, fields)
    return base(name, **changes)


def make_moves(options: Mapping[str, Any], spec: ArchSpec) -> Moves:
    """The group ``moves`` of a config.

    Args:
        options: The group.
        spec: Where the moves start.

    Raises:
        UserError: If a value is out of range.
    """
    given = dict(options)
    limits = []
    most = given.pop("max_params", None)
    if most is not None:
        if isinstance(most, bool) or not isinstance(most, int | float) or most <= 0:
            raise UserError(f"moves.max_params={most!r} must be a number above 0")
        limits.append(Limit("params", float(most), params))
    largest = {k: v for k, v in (given.pop("largest", None) or {}).items() if v is not None}
    kinds = _tuple("moves.kinds", given["kinds"])
    limits += _latency_limits(given.pop("latency_table", None), given.pop("max_latency_ms", None), spec, largest, kinds)
    return Moves(
        depth_step=given["depth_step"],
        width_step=given["width_step"],
        resolution_step=given["resolution_step"],
        capped=given["capped"],
        largest=largest,
        kinds=kinds,
        frozen=_tuple("moves.frozen", given["frozen"]),
        pairs=given["pairs"],
        limits=tuple(limits),
    )


def _latency_limits(
    path: Any, most: Any, spec: ArchSpec, largest: Mapping[str, Any], kinds: Sequence[str]
) -> list[Limit]:
    """A maximum of latency, from a table that covers all that the moves can come to."""
    if (path is None) != (most is None):
        raise UserError("moves.latency_table and moves.max_latency_ms belong together: give both, or neither")
    if path is None:
        return []
    if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most < float("inf"):
        raise UserError(f"moves.max_latency_ms={most!r} must be a number of milliseconds above 0")
    table = read_latency(named_path("moves.latency_table", path))
    stay = {"width": max(spec.widths), "resolution": spec.resolution}  # what no move changes
    table.check(spec, {**largest, **{k: v for k, v in stay.items() if k not in kinds}})
    return [Limit("latency in ms", float(most), lambda net: 1e3 * table.seconds(net))]


def _tuple(field: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise UserError(f"{field}={value!r} must be a list")
    return tuple(value)


def make_settings(options: Mapping[str, Any]) -> Settings:
    """All that shapes a search, from a config's keys.

    Raises:
        UserError: If a value is out of range.
    """
    keys = ("steps", "delta", "delta_final", "beam", "repeats", "tie_margin", "samples", "seed")
    racing = options.get("racing")
    return Settings(
        **{key: options[key] for key in keys},
        moves=make_moves(options["moves"], read_spec(options["spec"])),
        racing=make_racing(racing) if racing else None,
    )


def make_racing(options: Any) -> Racing:
    """The key ``racing`` of a config.

    Raises:
        UserError: If it is no mapping of ``samples`` and ``keep``, or a value is out of range.
    """
    if not isinstance(options, Mapping):
        raise UserError(f"racing={written(options)} must be a mapping, e.g. {{samples: [2550, 5100], keep: 0.3333}}")
    for key in options:
        choose("key of racing", str(key), ["samples", "keep"])
    if "samples" not in options:
        raise UserError("racing.samples is not set: give training samples of the rungs, e.g. [2550, 5100]")
    return Racing(_tuple("racing.samples", options["samples"]), options.get("keep", 1 / 3))


def make_evaluator(cfg: Mapping[str, Any], folder: Path, spec: ArchSpec) -> Evaluator:
    """The group ``evaluator`` of a config.

    Args:
        cfg: The whole config: proxy training also reads ``data``, ``device`` and ``threads``.
        folder: Where states are kept.
        spec: The start.

    Raises:
        UserError: If its name is not known or its file cannot be read.
    """
    options = cfg["evaluator"]
    name = choose("evaluator.name", options["name"], EVALUATORS)
    if name == "synthetic":
        return Synthetic()
    if name == "random":
        return RandomChoice()
    if name == "zero_cost":
        return ZeroCost(options["metric"])
    if name == "proxy_train":
        from greedy_enlarge.training.proxy import ProxyTrain

        how = {key: value for key, value in options.items() if key != "name"}
        shared = {"device": cfg["device"], "threads": cfg["threads"]}
        found = ProxyTrain.for_search(spec, folder=str(folder / "states"), data=cfg["data"], **how, **shared)
        found.check_samples(cfg["samples"], (cfg.get("racing") or {}).get("samples"))
        return found
    from greedy_enlarge.search.recording import Recorded
    from greedy_enlarge.search.tables import read_table

    table, n_val = read_table(options["path"]), options["n_val"]
    if isinstance(table, Recorded):
        n_val = table.about["n_val"] if n_val is None else n_val
        return TableLookup(table.rows, options["metric"], n_val, table.curves)
    return TableLookup(table, options["metric"], n_val or 0)
