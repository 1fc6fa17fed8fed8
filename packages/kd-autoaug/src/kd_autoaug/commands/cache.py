"""``kd-autoaug cache build|verify|info``: make, check and describe a cache of teacher logits."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.arguments import check_arguments, named_path
from effkit.errors import UserError, choose
from effkit.executors import Choice
from effkit.outputs import check_output_folder
from effkit.progress import shown
from effkit.report import Report, Table
from kd_autoaug.cache.build import build_cache, check_build, shard_range, verify_cache
from kd_autoaug.cache.cache import LogitCache
from kd_autoaug.cache.files import never_left_empty
from kd_autoaug.commands.build import build_augment, build_data, build_loss, build_teacher, set_up
from kd_autoaug.commands.cache_shards import Source, build_in_shards
from kd_autoaug.commands.knowing import check_knowing
from kd_autoaug.training.caching import cache_fingerprints

__all__ = ["cache_report", "run"]

ACTIONS = ("build", "verify", "info")
_SHOWN = 20  # damaged records named one by one


def run(cfg: Any) -> Report:
    """Do what ``kd-autoaug cache`` was asked for, its progress shown.

    Args:
        cfg: Composed from ``cache.yaml``.
    """
    with shown("cache"):
        return cache_report(list(cfg["what"]), cfg)


def cache_report(what: str | Sequence[str], cfg: Mapping[str, Any]) -> Report:
    """Do one of the three things.

    Args:
        what: ``"build"``, ``"verify"`` or ``"info"``; as a word or a list of one.
        cfg: Keys of ``configs/cache.yaml``, composed or as a plain dictionary.

    Returns:
        The cache's facts, and what was done; ``verify`` that finds a wrong record has exit code 1.

    Raises:
        UserError: If the word or a value is not allowed, or the cache was made of something else.
    """
    words = [what] if isinstance(what, str) else list(what or [])
    if len(words) != 1:
        raise UserError(f"cache takes one word, {' or '.join(ACTIONS)}, got {' '.join(words) or 'none'}")
    action = choose("cache", words[0], ACTIONS)
    cfg = _plain(cfg)
    if cfg["cache"].get("path") is None:
        raise UserError("cache.path is not set: give the folder of the cache, e.g. cache.path=DIR")
    named_path("cache.path", cfg["cache"]["path"])
    check_arguments(_kinds, cfg)
    check_arguments(_cache_kinds, cfg["cache"], "cache.")
    choice = Choice.from_config(cfg)
    if action != "build" and choice.executor != "serial":
        raise UserError(f"executor={choice.executor} is of `cache build`: {action} runs in this process, leave it out")
    if action == "info":
        return _report(LogitCache.open(cfg["cache"]["path"]), "info")
    if action == "verify":
        return _verify(cfg)
    with never_left_empty(Path(str(cfg["cache"]["path"])).expanduser()):
        return _build(cfg, choice)


def _plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
    return copy.deepcopy(values)


def _kinds(
    shard: str | None, begin: int | None, end: int | None, sample: int, batch_size: int, seed: int | None
) -> None:
    """What the command's own keys hold."""


def _cache_kinds(k: int | None, dtype: str | None, temperatures: Sequence[float] | None) -> None:
    """What the group ``cache`` holds."""


def _build(cfg: Mapping[str, Any], choice: Choice) -> Report:
    check_output_folder("cache.path", cfg["cache"]["path"])
    source = _source(cfg)
    cache = _open_or_create(cfg["cache"], source)
    begin, end = shard_range(cfg["shard"], cache.num_samples)
    if cfg["begin"] is not None or cfg["end"] is not None:
        if cfg["shard"] is not None:
            raise UserError(f"shard={cfg['shard']!r} and begin/end exclude each other: give one of them")
        begin = 0 if cfg["begin"] is None else cfg["begin"]
        end = cache.num_samples if cfg["end"] is None else cfg["end"]
    where: dict[str, Any] = {"begin": begin, "end": end, "batch_size": cfg["batch_size"]}
    check_build(cache, source.teacher, source.augment, **where)
    check_knowing(cfg, source.data, source.teacher, source.device)
    lines: list[list[Any]] = []
    if choice.executor == "serial":
        written = build_cache(cache, source.teacher, source.pictures, source.augment, device=source.device, **where)
    else:
        if source.device.type == "cuda" and choice.one_machine and choice.workers is None:
            raise UserError("workers must be given with device=cuda: each holds a teacher on the GPU")
        written, lines = build_in_shards(cache, source, choice, **where)
        cache = LogitCache.open(cache.path)  # as the workers left it
    rows: list[list[Any]] = [["samples asked about", f"{begin} to {end}"], ["records written", written], *lines]
    return _report(cache, "build", rows)


def _open_or_create(options: Mapping[str, Any], source: Source) -> LogitCache:
    path = Path(str(options["path"])).expanduser()
    if not path.exists():
        return LogitCache.create(
            path, **source.sizes, fingerprints=source.fingerprints, temperatures=options["temperatures"]
        )
    cache = LogitCache.open(path, expect={**source.sizes, **source.fingerprints}, mode="readwrite")
    absent = [t for t in options["temperatures"] if t not in cache.header.temperatures]
    if absent and cache.k < cache.num_classes:
        raise UserError(
            f"the cache {path} keeps temperatures {list(cache.header.temperatures)}, asked for {absent} too"
        )
    return cache


def _verify(cfg: Mapping[str, Any]) -> Report:
    source = _source(cfg)
    sizes = {k: v for k, v in source.sizes.items() if k not in ("k", "dtype")}
    cache = LogitCache.open(cfg["cache"]["path"], expect={**sizes, **source.fingerprints})
    found = verify_cache(
        cache, source.teacher, source.pictures, source.augment,
        sample=cfg["sample"], seed=cfg["seed"] or 0, batch_size=cfg["batch_size"], device=source.device,
    )  # fmt: skip
    rows: list[list[Any]] = [
        ["records read", found.read],
        ["records damaged", len(found.damaged)],
        ["records checked", found.checked],
        ["records wrong", found.wrong],
        ["largest difference (share of the largest logit)", found.worst],
        ["allowed (rounding)", found.tolerance],
    ]
    if found.first is not None:
        rows.append(["first wrong record (sample, view)", f"{found.first[0]}, {found.first[1]}"])
    if found.damaged:
        shown = "; ".join(f"{sample}, {view}" for sample, view in found.damaged[:_SHOWN])
        more = f" and {len(found.damaged) - _SHOWN} more" if len(found.damaged) > _SHOWN else ""
        rows.append(["damaged records (sample, view), which `cache build` asks about again", shown + more])
    return _report(cache, "verify", rows, exit_code=0 if found.ok else 1)


def _source(cfg: Mapping[str, Any]) -> Source:
    """Data, augmentation and teacher just as ``distill`` builds them, so that their fingerprints are the same."""
    device = set_up(cfg)
    data, loss, augment = build_data(cfg), build_loss(cfg), build_augment(cfg)
    if data.num_views is None:
        raise UserError("view.num_views=null would need a cache without end: give the number of views, e.g. 50")
    # "readwrite": a teacher without weights is refused here, even where a cache to read exists.
    teacher = build_teacher({**cfg, "cache": {**cfg["cache"], "mode": "readwrite"}}, data)
    if teacher is None:
        raise UserError("teacher=null: a cache holds a teacher's answers, give teacher and teacher.weights")
    teacher.to(device)
    options = cfg["cache"]
    k = options["k"] if options["k"] is not None else loss.k
    if options["temperatures"] is None:
        options["temperatures"] = [loss.temperature]
    sizes = {
        "num_samples": data.num_train,
        "num_views": data.num_views,
        "num_classes": data.num_classes,
        "k": data.num_classes if k == -1 else k,
        "dtype": options["dtype"],
    }
    prints = cache_fingerprints(data, augment, teacher) | {"normalisation": teacher.normalisation_fingerprint()}
    return Source(teacher, augment, data, sizes, prints, device)


def _report(cache: LogitCache, action: str, rows: Sequence[Sequence[Any]] = (), exit_code: int = 0) -> Report:
    info = cache.info()
    facts = [[k.replace("_", " "), v] for k, v in info.items() if k not in ("fingerprints", "temperatures", "share")]
    facts += [["temperatures", ", ".join(f"{t:g}" for t in info["temperatures"])]]
    facts += [[f"fingerprint: {k}", v[:16]] for k, v in sorted(info["fingerprints"].items())]
    tables = [Table("Cache of teacher logits", ["field", "value"], [list(r) for r in facts])]
    if rows:
        tables.insert(0, Table(f"cache {action}", ["what", "value"], [list(r) for r in rows]))
    left = cache.num_samples * cache.num_views - info["records"]
    lines = [f"{left:,} records are missing: `kd-autoaug cache build` goes on where it stopped"] if left else []
    data = {**info, **{str(k): v for k, v in rows}}
    return Report(f"kd-autoaug cache {action}", tables, data=data, lines=lines, exit_code=exit_code)
