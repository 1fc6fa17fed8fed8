"""What a column of a table holds: an accuracy of a data set, split and protocol, a latency of a device, or a count.

Validation and test figures are different types with different names, and a protocol is always in the name: 12 epochs
are never taken for 200.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Accuracy", "Column", "Count", "Latency", "TestAccuracy", "ValidationAccuracy", "read_column"]

_ACCURACY = re.compile(r"(?P<data>[a-z0-9]+)_(?P<split>valid|test)(_(?P<epochs>\d+))?(_seed(?P<seed>\d+))?")
_LATENCY = re.compile(r"lat_(?P<device>[a-z0-9_]+?)(_b(?P<batch>\d+))?_ms")


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracies in percent.

    Attributes:
        name: The column's.
        dataset: As the table calls it.
        epochs: Of the training; ``None`` where the table has one protocol only.
        seed: Of the training; ``None`` where the figure is a mean, or of the only one.
    """

    name: str
    dataset: str
    epochs: int | None
    seed: int | None
    unit = "%"


@dataclass(frozen=True)
class ValidationAccuracy(Accuracy):
    """On pictures that architectures may be chosen by."""

    split = "valid"


@dataclass(frozen=True)
class TestAccuracy(Accuracy):
    """On pictures that nothing may be chosen by."""

    __test__ = False  # no test case of pytest
    split = "test"


@dataclass(frozen=True)
class Latency:
    """Milliseconds on a device.

    Attributes:
        name: The column's.
        device: As the table calls it.
        batch: Pictures at a time; ``None`` where the table does not say.
    """

    name: str
    device: str
    batch: int | None
    unit = "ms"


@dataclass(frozen=True)
class Count:
    """Parameters or multiply-adds.

    Attributes:
        name: ``params`` or ``macs``.
    """

    name: str
    unit = ""


Column: TypeAlias = ValidationAccuracy | TestAccuracy | Latency | Count


def read_column(name: str) -> Column | None:
    """What a column is, from its name; ``None`` if it is no figure.

    Example:
        >>> read_column("c10_valid_12")
        ValidationAccuracy(name='c10_valid_12', dataset='c10', epochs=12, seed=None)
        >>> read_column("lat_titanrtx_b256_ms")
        Latency(name='lat_titanrtx_b256_ms', device='titanrtx', batch=256)
    """
    if name in ("params", "macs"):
        return Count(name)
    if found := _LATENCY.fullmatch(name):
        return Latency(name, found["device"], int(found["batch"]) if found["batch"] else None)
    if found := _ACCURACY.fullmatch(name):
        kind = ValidationAccuracy if found["split"] == "valid" else TestAccuracy
        epochs, seed = (None if found[key] is None else int(found[key]) for key in ("epochs", "seed"))
        return kind(name, found["data"], epochs, seed)
    return None
