"""What a cache of teacher logits says about itself: sizes, types, and fingerprints of what its records depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from effkit.errors import UserError, choose
from effkit.report import write_json

__all__ = ["DTYPES", "FORMAT", "Header", "library", "record_bytes"]

FORMAT = 2
"""Number of the layout on disk."""
DTYPES = ("float16", "float32")
NAME = "header.json"

_SIZES = {
    "num_samples": "number of samples",
    "num_views": "number of views",
    "num_classes": "number of classes",
    "k": "classes per record (k)",
    "dtype": "dtype of the logits",
}
# In this order: a cause is named before what follows from it (another normalisation is another teacher, too).
_PRINTS = {
    "normalisation": "the teacher's normalisation or size",
    "data": "the data: other samples, another order or another cut",
    "teacher": "the teacher: other weights, network, dtype or normalisation",
    "augment": "the augmentation: another seed, policy, crop, flip or cutout",
    "library": "the version of the library that made it",
}


def library() -> str:
    """The version that enters a cache's fingerprints."""
    return f"kd_autoaug {version('kd-autoaug')}"


def record_bytes(k: int, num_classes: int, dtype: str = "float16", temperatures: int = 1) -> int:
    """Bytes of one record: k logits, k classes, and a float32 sum for each temperature.

    Its checksum and its mark "done" are 5 more.
    """
    return k * (np.dtype(dtype).itemsize + class_dtype(num_classes).itemsize) + 4 * temperatures


def class_dtype(num_classes: int) -> np.dtype[Any]:
    """The integer type that holds the classes."""
    return np.dtype(np.int16 if num_classes <= 2**15 else np.int32)


@dataclass(frozen=True)
class Header:
    """The facts of a cache.

    Attributes:
        num_samples: Samples of the data set (N).
        num_views: Views of each (V); view v is found at v mod V.
        num_classes: Classes of the teacher (C).
        k: Classes kept in each record, ``1..C``.
        dtype: Of the logits: ``"float16"`` or ``"float32"``.
        temperatures: At which the sum over the other classes is kept.
        fingerprints: By name, of what the records depend on.

    Raises:
        UserError: If a value is out of range.
    """

    num_samples: int
    num_views: int
    num_classes: int
    k: int
    dtype: str = "float16"
    temperatures: tuple[float, ...] = (1.0,)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_views", "num_classes", "k"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"cache.{name}={value!r} must be a whole number of at least 1")
        if self.k > self.num_classes:
            raise UserError(f"cache.k={self.k} must be in 1..{self.num_classes}, the number of classes")
        choose("cache.dtype", self.dtype, DTYPES)
        if not self.temperatures or not all(0 < t < float("inf") for t in self.temperatures):
            raise UserError(f"cache.temperatures={list(self.temperatures)} must be at least one number above 0")

    def arrays(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Type and shape of each array on disk, by its file."""
        records = (self.num_samples, self.num_views)
        return {
            "logits.bin": (np.dtype(self.dtype), (*records, self.k)),
            "classes.bin": (class_dtype(self.num_classes), (*records, self.k)),
            "rest.bin": (np.dtype(np.float32), (*records, len(self.temperatures))),
            "sums.bin": (np.dtype(np.uint32), records),
            "done.bin": (np.dtype(np.uint8), records),
        }

    @property
    def record_bytes(self) -> int:
        """Bytes of one record, without its checksum and mark."""
        return record_bytes(self.k, self.num_classes, self.dtype, len(self.temperatures))

    @property
    def total_bytes(self) -> int:
        """Bytes of all arrays on disk."""
        return self.num_samples * self.num_views * (self.record_bytes + 5)

    def check(self, expect: Mapping[str, Any], where: Path | str) -> None:
        """Refuse a cache of something else.

        Args:
            expect: Any of the sizes (``num_samples``, ``num_views``, ``num_classes``, ``dtype``; ``k``: at least so
                many), and fingerprints by name. What the header has beyond is not compared, except ``library``.
            where: The cache, for the message.

        Raises:
            UserError: For the first that differs, with what was expected and found.
        """
        for name, what in _SIZES.items():
            if name not in expect or expect[name] is None:
                continue
            found, wanted = getattr(self, name), expect[name]
            if found != wanted and not (name == "k" and found > wanted):
                least = "at least " if name == "k" else ""
                raise UserError(f"the cache {where} does not fit: {what} is {found}, expected {least}{wanted}")
        prints = {**{k: v for k, v in expect.items() if k not in _SIZES}, "library": library()}
        for name in sorted(prints, key=lambda n: list(_PRINTS).index(n) if n in _PRINTS else -1):
            found = self.fingerprints.get(name)
            if found != prints[name]:
                raise UserError(
                    f"the cache {where} was made of something else; {name} differs ({_PRINTS.get(name, name)}): "
                    f"expected {_short(name, prints[name])}, found {_short(name, found)}. Build another one"
                )

    def write(self, folder: Path) -> None:
        """Write it into a folder, under a temporary name first."""
        write_json(folder / NAME, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Header:
        """Read it from a folder.

        Raises:
            UserError: If there is none, it is damaged, or of another format.
        """
        file = folder / NAME
        if not file.is_file():
            raise UserError(f"{str(folder)!r} is not a cache of logits: it has no {NAME}")
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            number = values.pop("format")
            if number == FORMAT:
                values["temperatures"] = tuple(float(t) for t in values["temperatures"])
                return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the cache {str(folder)!r} has a damaged {NAME}: {error}") from error
        raise UserError(f"the cache {str(folder)!r} has format {number!r}, this library reads {FORMAT}: build it anew")


def _short(name: str, text: str | None) -> str:
    return "nothing" if text is None else text if name == "library" else text[:12]
