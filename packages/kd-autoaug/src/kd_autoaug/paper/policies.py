"""Rows about operators and policies: bits against Pillow, lengths of lists, the size of the search space, settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from effkit.rows import Row, Tolerance
from kd_autoaug.paper import figures as paper
from kd_autoaug.paper.evidence import cite, evidence

__all__ = ["operator_rows", "policy_rows"]

SETTING = "a setting of others, not a result; the command shows pictures under it"
# Operators, probabilities and magnitudes that AutoAugment's search can choose, for 5 sub-policies of two operators.
OPERATORS, PROBABILITIES, MAGNITUDES, CHOICES = 16, 11, 10, 10
# What RandAugment draws from, by space.
DRAWN_FROM = {"tf_tpu": 16, "ra_pytorch": 16, "torchvision": 14, "timm": 15, "resmooth": 14}
_SIZES = ((1, 1), (5, 17), (33, 20))


def _row(
    name: str, metric: str, figure: float, mark: str, source: str, compute: Callable[[], float], **more: Any
) -> Row:
    found = {"table": "policies", "unit": "", "evidence": evidence(mark), "source": cite(mark, source), **more}
    return Row(name=name, metric=metric, paper=figure, compute=compute, **found)


def operator_rows() -> list[Row]:
    """How far the operators are from Pillow's bits, backend by backend."""
    return [
        _row(
            f"{what}, all operators and interpolations, backend {backend}",
            "differing bytes",
            0,
            "V",
            "the recipes of Pillow 13, compared on photographs, noise and flat pictures",
            partial(_differing, backend),
            table="operators",
            evidence="measured",
        )
        for backend, what in (("torch", "RGB and grey, 1x1 to 33x20"), ("pil", "RGB and grey, 1x1 to 33x20"))
    ]


def _differing(backend: str) -> int:
    from kd_autoaug.ops.parity import sweep

    return sweep(sizes=_SIZES, backend=backend).differing


def policy_rows() -> list[Row]:
    """Lists, spaces and settings."""
    rows = [
        _row(
            f"AutoAugment, {data}", "sub-policies", 25, "V", "torchvision and the AutoAugment paper",
            partial(_subpolicies, name),
        )
        for data, name in (("ImageNet", "imagenet"), ("CIFAR-10", "cifar10"), ("SVHN", "svhn"))
    ]  # fmt: skip
    for name, count in paper.FAST_AA_COUNTS.items():
        source = "archive.py of kakaobrain/fast-autoaugment"
        rows.append(_row(name, "sub-policies", count, "V", source, partial(_fast, name)))
    for space, count in DRAWN_FROM.items():
        source = "code that the space is named after"
        rows.append(_row(f"RandAugment in {space}", "operators", count, "V", source, partial(_drawn_from, space)))
    rows.append(
        _row(
            "AutoAugment's search space, 5 sub-policies",
            "policies, in 10^32",
            2.9,
            "M",
            "(16 operators x 11 probabilities x 10 magnitudes)^10",
            lambda: (OPERATORS * PROBABILITIES * MAGNITUDES) ** CHOICES / 1e32,
            tolerance=Tolerance("rounds_to"),
        )
    )
    for setting in paper.SETTINGS:
        command = f"kd-autoaug preview policy=randaugment policy.n={setting.n} policy.m={setting.m} {setting.words}"
        for metric, figure in (("operators per picture, N", setting.n), ("magnitude, M", setting.m)):
            rows.append(
                Row(
                    "policies", setting.name, metric, figure, "", cite(setting.mark, setting.source),
                    evidence(setting.mark), not_measured=SETTING, command=command,
                )
            )  # fmt: skip
    return rows


def _subpolicies(name: str) -> int:
    from kd_autoaug.augmentation.policies import autoaugment

    return len(getattr(autoaugment, name.upper()))


def _fast(name: str) -> int:
    from kd_autoaug.augmentation.policies.learnt import learnt

    return len(learnt(name.rpartition("-")[2]))


def _drawn_from(space: str) -> int:
    from kd_autoaug.augmentation.policies.policy import Policy

    return len(Policy.random(n=2, m=5, space=space).operators())
