"""From a composed config to what ``analyze`` and ``suggest`` measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effkit.arguments import check_arguments
from effkit.lightning.optim import plain_options
from kd_autoaug.analysis.measure import measure
from kd_autoaug.analysis.subject import Subject
from kd_autoaug.commands.build import build_data, build_teacher, chosen_policy, set_up

__all__ = ["MEASURED", "build_subject", "measure_options"]

# What one cell is measured with, and the key that lists them.
MEASURED = {"m": "magnitudes", "operator": "operators"}

_MEASURE = (
    "operators", "magnitudes", "space", "extrapolate", "draws", "seed", "probe", "probe_epochs", "policy_layers",
    "resamples", "level",
)  # fmt: skip


def build_subject(cfg: Mapping[str, Any]) -> Subject:
    """What is analysed: pictures of the group ``data``, and the teacher of the group ``teacher`` if it has weights."""
    limits = {k: plain_options(cfg)[k] for k in ("split", "limit", "train_limit")}
    check_arguments(Subject.of, limits)
    device = set_up(cfg)
    data = build_data(cfg)
    spec = plain_options(cfg["teacher"])
    teacher = build_teacher(cfg, data) if spec.get("weights") or spec.get("pretrained") else None
    return Subject.of(data, teacher, network=spec, seed=cfg["seed"], device=device, **limits)


def measure_options(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`kd_autoaug.analysis.measure.measure`."""
    options = plain_options(cfg)
    policy = chosen_policy(cfg)
    chosen = {k: options[k] for k in (*_MEASURE, "batch_size")}
    check_arguments(measure, chosen)
    return {**chosen, "policies": [] if policy is None else [policy]}
