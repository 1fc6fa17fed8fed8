"""From a composed config to the reports of ``analyze``, ``suggest`` and ``preview``: what the command line calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from effkit.progress import shown
from effkit.report import Report

if TYPE_CHECKING:
    from kd_autoaug.analysis.subject import Subject
    from kd_autoaug.policies.policy import Policy

__all__ = ["analyze_command", "preview_command", "suggest_command"]

_MEASURE = (
    "operators", "magnitudes", "space", "extrapolate", "draws", "seed", "probe", "probe_epochs", "policy_layers",
    "resamples", "level",
)  # fmt: skip


def analyze_command(cfg: Mapping[str, Any], folder: str | os.PathLike[str]) -> Report:
    """``kd-autoaug analyze``.

    Args:
        cfg: Composed from ``analyze.yaml``.
        folder: The run's folder.

    Raises:
        UserError: If a value does not fit.
    """
    from kd_autoaug.analysis.report import analyze_report

    subject = _subject(cfg)
    with shown("analyze"):
        return analyze_report(subject, folder, **_options(cfg))


def suggest_command(cfg: Mapping[str, Any], folder: str | os.PathLike[str]) -> Report:
    """``kd-autoaug suggest``; measures nothing if ``analysis`` names an earlier run.

    Args:
        cfg: Composed from ``suggest.yaml``.
        folder: The run's folder.

    Raises:
        UserError: If a value does not fit.
    """
    from kd_autoaug.analysis.report import suggest_report
    from kd_autoaug.analysis.suggest import check_advice

    advice = {k: cfg[k] for k in ("budget", "use_upper", "mass")}
    check_advice(advice["budget"], advice["mass"])
    if cfg.get("analysis"):
        return suggest_report(folder, analysis=cfg["analysis"], **advice)
    subject = _subject(cfg)
    with shown("suggest"):
        return suggest_report(folder, subject=subject, **advice, **_options(cfg))


def preview_command(cfg: Mapping[str, Any], folder: str | os.PathLike[str]) -> Report:
    """``kd-autoaug preview``.

    Args:
        cfg: Composed from ``preview.yaml``.
        folder: The run's folder.

    Raises:
        UserError: If a value does not fit.
    """
    from effkit.lightning.optim import plain_options
    from kd_autoaug.analysis.photos import BUNDLED
    from kd_autoaug.analysis.preview import preview_report

    options = plain_options(cfg)
    keys = ("operators", "magnitudes", "space", "extrapolate", "size", "views", "seed")
    images = options["images"] or [name for name in BUNDLED if name in ("chelsea", "china")]
    return preview_report(images, folder, policy=_policy(cfg), **{k: options[k] for k in keys})


def _subject(cfg: Mapping[str, Any]) -> Subject:
    from effkit.lightning.optim import plain_options
    from kd_autoaug.analysis.subject import Subject
    from kd_autoaug.training.build import build_data, build_teacher, set_up

    device = set_up(cfg)
    data = build_data(cfg)
    spec = plain_options(cfg["teacher"])
    teacher = build_teacher(cfg, data) if spec.get("weights") or spec.get("pretrained") else None
    limits = {k: cfg[k] for k in ("split", "limit", "train_limit")}
    return Subject.of(data, teacher, network=spec, seed=cfg["seed"], device=device, **limits)


def _options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    from effkit.lightning.optim import plain_options

    options = plain_options(cfg)
    policy = _policy(cfg)
    chosen = {k: options[k] for k in _MEASURE}
    return {**chosen, "batch_size": options["batch_size"], "policies": [] if policy is None else [policy]}


def _policy(cfg: Mapping[str, Any]) -> Policy | None:
    """The policy of the group ``policy``, which is drawn or measured as it is; ``None`` for none."""
    from effkit.lightning.optim import plain_options
    from kd_autoaug.policies.policy import Policy

    options = plain_options(cfg.get("policy") or {})
    return None if options.get("name") in (None, "none", "identity") else Policy.from_config(options)
