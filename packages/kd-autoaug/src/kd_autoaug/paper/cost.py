"""Rows that are counted here and now: parameters and multiply-adds of networks, and sizes of caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from effkit.cost import count_params, measure_image
from effkit.rows import Row, Tolerance, counted_row
from kd_autoaug.paper import figures as paper
from kd_autoaug.paper.efficientnet import efficientnet
from kd_autoaug.paper.evidence import cite

__all__ = ["cache_rows", "structure_rows"]

CODE = "counted from the network code of Fast AutoAugment"
TIMM = "counted from timm's tf_efficientnet"
PLAN = "records x bytes of a record"
IMAGENET, CIFAR = 1_281_167, 50_000


@cache
def _network(name: str, num_classes: int) -> nn.Module:
    """A CIFAR network without memory for its weights."""
    from kd_autoaug.networks import create_network

    with torch.device("meta"):
        return create_network(name, num_classes, 3, 32).eval()


_count = partial(counted_row, source=cite("M", CODE))


def structure_rows() -> list[Row]:
    """Exact counts of the networks of the paper's tables."""
    rows = []
    for name, known in paper.STRUCTURE.items():
        for classes, figure in ((10, known.params10), (100, known.params100)):
            metric, live = f"params, {classes} classes", partial(_params, known.name, classes)
            if known.base:
                # The code of the published counts has a shortcut in every block and runs it only where channels change.
                whole = partial(_params_with_idle, known.name, classes, known.base)
                rows.append(_count("structure", name, f"{metric}, with idle shortcuts", figure, whole))
                rows.append(_count("structure", name, metric, None, live))
            elif figure is None:
                # The classifier is the only part that knows the number of classes.
                more = {"source": cite("M", f"{CODE}; 90 further rows of the classifier")}
                wide = known.params10 + 90 * (paper.PYRAMID_FEATURES + 1)
                rows.append(_count("structure", name, metric, wide, live, **more))
            else:
                rows.append(_count("structure", name, metric, figure, live))
        rows.append(_count("structure", name, "MACs, 10 classes", known.macs10, partial(_macs, known.name, 10)))
    for size, (params, side) in paper.EFFICIENTNET_COUNTS.items():
        name, same = f"EfficientNet-{size}", {"source": cite("M", TIMM)}
        rows.append(_count("structure", name, "params", params, _efficientnet_params(size), **same))
        if size in paper.EFFICIENTNET_MACS:
            macs = paper.EFFICIENTNET_MACS[size]
            rows.append(_count("structure", name, f"MACs at {side}", macs, _efficientnet_macs(size), **same))
    share: dict[str, Any] = {"source": cite("M", "one teacher forward over three passes of the student")}
    share |= {"unit": "steps", "tolerance": Tolerance("rounds_to")}
    rows.append(_count("structure", "B7 teacher on a B0 student", "added to a step", 33, _teacher_share, **share))
    return rows


def _params(name: str, num_classes: int) -> int:
    return count_params(_network(name, num_classes))


def _params_with_idle(name: str, num_classes: int, base: int) -> int:
    """Two 1x1 convolutions of half the channels and a batch norm, in three idle blocks of each of three stages."""
    idle = sum(3 * (width * width + 2 * width) for width in (base, 2 * base, 4 * base))
    return _params(name, num_classes) + idle


def _macs(name: str, num_classes: int) -> int:
    return measure_image(_network(name, num_classes), 32).macs


def _efficientnet_params(size: str) -> Callable[[], int]:
    return lambda: efficientnet(size).params


def _efficientnet_macs(size: str) -> Callable[[], int]:
    return lambda: efficientnet(size).macs


def _teacher_share() -> float:
    return efficientnet("B7").macs / (3 * efficientnet("B0").macs)


def cache_rows() -> list[Row]:
    """What cached answers of a teacher take on a disk."""

    def row(name: str, metric: str, figure: float, unit: str, compute: Callable[[], float]) -> Row:
        tolerance = Tolerance("exact" if metric == "record" else "rounds_to")
        return _count("cache", name, metric, figure, compute, unit=unit, source=cite("M", PLAN), tolerance=tolerance)

    return [
        row("K=5, float16", "record", 24, "B", lambda: _record(5, 1000)),
        row("ImageNet, 300 views, K=5", "size", 9.2, "GB", lambda: IMAGENET * 300 * _record(5, 1000) / 1e9),
        row("ImageNet, 300 views, all logits", "size", 769, "GB", lambda: IMAGENET * 300 * 1000 * 2 / 1e9),
        row("CIFAR, 200 views, K=5", "size", 240, "MB", lambda: CIFAR * 200 * _record(5, 100) / 1e6),
    ]


def _record(k: int, classes: int) -> int:
    """Bytes of K float16 logits, their classes and one float32 sum."""
    from kd_autoaug.cache.header import record_bytes

    return record_bytes(k, classes)
