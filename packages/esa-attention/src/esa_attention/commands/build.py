"""From a composed config to a model and its ESA configuration."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from effkit.arguments import check_arguments, named_below, named_path, renamed
from effkit.device import resolve_device, resolve_precision, seed_everything, set_threads
from effkit.errors import choose
from effkit.report import Report
from esa_attention.commands.subject import Subject
from esa_attention.compression.geometry import geometry
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.registry import FROM_PATH, build_model, load_tokenizer

__all__ = ["build_subject", "esa_config", "in_keys", "plain"]


def plain(value: Any) -> Any:
    """A config node as plain Python values."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def in_keys(run: Callable[[Any], Report]) -> Callable[[Any], Report]:
    """Let errors of a command name its keys: fields of `ESAConfig` are those of ``esa``, a path is the model's.

    Args:
        run: The command's function; what has the name of one of its own keys keeps it.
    """

    @functools.wraps(run)
    def named(cfg: Any) -> Report:
        keys = {field.name: f"esa.{field.name}" for field in dataclasses.fields(ESAConfig)}
        keys |= {"path": "model.path", "strict": "compressor.strict", "num_tokens": "compressor.num_tokens"}
        with renamed({name: key for name, key in keys.items() if name not in cfg}):
            return run(cfg)

    return named


def esa_config(esa: dict[str, Any], sizes: dict[str, Any], trained_context: int) -> ESAConfig:
    """ESA's configuration: what the user gave, then what suits the model, then the paper's sizes cut to its context.

    Args:
        esa: Fields of :class:`ESAConfig`; ``None`` where the user gave nothing.
        sizes: The model group's.
        trained_context: Longest sequence the model was trained on.
    """
    given = {k: v for k, v in {**sizes, **{k: v for k, v in esa.items() if v is not None}}.items() if v is not None}
    known = {f.name for f in dataclasses.fields(ESAConfig)}
    for name in given:
        choose("esa field", name, sorted(known))
    with named_below("esa.", known):
        return ESAConfig.for_context(trained_context, **given)


def _group_kinds(name: str, options: Mapping[str, Any], sizes: Mapping[str, Any], rank: int | None) -> None:
    """What a model group holds."""


def build_subject(cfg: Any) -> Subject:
    """Build the model of a command, set threads and seed.

    Args:
        cfg: Composed config with ``model`` and ``esa``.

    Raises:
        UserError: If the model cannot be had or something does not fit.
    """
    group = plain(cfg.model)
    check_arguments(build_model, {k: group[k] for k in ("path", "device_map")}, "model.")
    check_arguments(_group_kinds, group, "model.")
    check_arguments(ESAConfig, plain(cfg.esa), "esa.", also=plain(cfg.esa))
    set_threads(cfg.get("threads"))
    seed_everything(cfg.get("seed", 0))
    device = resolve_device(cfg.get("device", "auto"))
    dtype = resolve_precision(cfg.get("precision", "auto"), device)
    name, path = group["name"], group["path"]
    if path is not None:
        named_path("model.path", path)
    options = {k: v for k, v in group["options"].items() if v is not None}
    if group["device_map"] is not None:
        options["device_map"] = group["device_map"]
    options |= {"device": device, "dtype": dtype}
    with named_below("model.options.", group["options"]):
        model = build_model(name, path, **options)
    shape = geometry(model)
    config = esa_config(plain(cfg.esa), group["sizes"], shape.trained_context)
    rank = min(group["rank"] or 128, shape.key_dim)
    # What was made here (a model trained for some seconds above all) would not come out the same in a worker.
    remake = (build_model, (name, path), options) if name in FROM_PATH else None
    return Subject(name, model, load_tokenizer(name, path), config, shape, rank, remake)
