"""The command ``summary``: what the networks cost and what the policies hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from effkit.arguments import check_arguments, renamed
from effkit.cost import measure_image
from effkit.errors import UserError
from effkit.lightning.optim import plain_options
from effkit.report import Report, Table
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.networks import NETWORKS, create_network

__all__ = ["POLICIES", "run", "summary_report"]

POLICIES = (
    "autoaugment-imagenet",
    "autoaugment-cifar10",
    "autoaugment-svhn",
    "timm-v0",
    "timm-v0r",
    "timm-original",
    "timm-originalr",
    "randaugment(n=2,m=9,space=tf_tpu)",
    "randaugment(n=2,m=9,space=ra_pytorch)",
    "randaugment(n=2,m=9,space=torchvision)",
    "randaugment(n=2,m=9,space=timm)",
    "trivialaugment-wide",
    "fast-aa-cifar10",
    "fast-aa-imagenet",
    "fast-aa-svhn",
)


def run(cfg: Any) -> Report:
    """Count the networks that are asked for, and describe the policies."""
    options = plain_options(cfg)
    given = {k: options[k] for k in ("networks", "num_classes")}
    check_arguments(summary_report, given)
    return summary_report(**given)


def summary_report(networks: Sequence[str] | None = None, *, num_classes: int = 10) -> Report:
    """Count parameters and MACs, and describe the policies.

    Args:
        networks: Names; all built-in ones if ``None``.
        num_classes: Of the classifiers.

    Raises:
        UserError: If a network is not known.
    """
    if networks is not None and not networks:
        raise UserError(f"networks is an empty list: name some of {', '.join(NETWORKS)}, or leave it out for all")
    costs: list[list[Any]] = []
    for name in networks or list(NETWORKS):
        side, channels = (8, 1) if name == "digits_cnn" else (32, 3)
        with torch.device("meta"), renamed({"model.name": "networks"}):
            model = create_network(name, num_classes, channels, image_size=side)
        cost = measure_image(model, side, channels)
        costs.append([name, f"{channels}x{side}x{side}", cost.params, cost.macs])
    policies = []
    for name in POLICIES:
        policy = Policy.from_name(name)
        policies.append([name, policy.num_layers, len(policy.rows), len(policy.operators()), policy.space.name])
    tables = [
        Table(f"Networks, {num_classes} classes", ["network", "pictures", "params", "MACs"], costs),
        Table("Policies", ["policy", "operators a picture", "rows to draw from", "operators", "space"], policies),
    ]
    data = {
        "networks": [dict(zip(("name", "input", "params", "macs"), row, strict=True)) for row in costs],
        "policies": [dict(zip(("name", "layers", "rows", "operators", "space"), row, strict=True)) for row in policies],
    }
    return Report("kd-autoaug summary", tables, data=data)
