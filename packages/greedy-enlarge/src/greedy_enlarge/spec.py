"""The architecture a search moves through: widths and depths per stage, and the picture side.

A stage is a block group of the family's template (EfficientNet has 7, GhostNet 6, ResNet and RegNet 4), as in the
released networks of the paper; the paper itself speaks of all layers whose feature maps have one size.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from effkit.errors import UserError, choose

__all__ = ["STAGES", "ArchSpec"]

STAGES: dict[str, int | None] = {
    "efficientnet": 7,
    "ghostnet": 6,
    "ghostnet_large": 6,
    "resnet": 4,
    "regnet": 4,
    "custom": None,  # as many as its template has strings
}
"""Families, with the number of their stages."""

# Beyond these a count could leave 64-bit integers, and nothing could be built anyway.
_LARGEST = {"depths": 1_000, "widths": 32_768, "resolution": 8_192, "stem": 32_768, "head": 65_536}
_LARGEST |= {"classes": 1_000_000, "in_chans": 1_024}


@dataclass(frozen=True)
class ArchSpec:
    """One network: hashable, comparable, and as JSON.

    Args:
        family: One of :data:`STAGES`.
        depths: Blocks per stage.
        widths: Output channels per stage.
        resolution: Side of the square picture in pixels.
        stem: Channels of the stem; ``None`` where the family derives them (GhostNet: from the first width) and for the
            family's default.
        head: Channels before the classifier; ``None`` likewise (GhostNet: ``max(1280, 5 * widths[-1])``).
        classes: Outputs of the classifier.
        in_chans: Channels of the picture.
        template: What the family needs beside: for ``custom`` one timm arch string a stage, whose ``r`` and ``c`` are
            replaced by depth and width; for ``resnet`` ``("basic",)`` or ``("bottleneck",)``; for ``regnet`` kind and
            group width, e.g. ``("y_g8",)``; empty for the others.

    Raises:
        UserError: If a field is no whole number in range, or lengths do not fit.

    Example:
        >>> depths, widths = (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)
        >>> ArchSpec("efficientnet", depths, widths, 224, stem=32, head=1280).stages
        7
    """

    family: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    resolution: int
    stem: int | None = None
    head: int | None = None
    classes: int = 1000
    in_chans: int = 3
    template: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choose("spec.family", self.family, list(STAGES))
        if isinstance(self.template, str) or not isinstance(self.template, Iterable):
            raise UserError(f"spec.template={self.template!r} must be a list of strings")
        object.__setattr__(self, "template", tuple(map(str, self.template)))
        for field in ("depths", "widths"):
            value = getattr(self, field)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise UserError(f"spec.{field}={value!r} must be a list of whole numbers, one per stage")
            numbers = tuple(_whole(f"spec.{field}[{i}]", v, _LARGEST[field]) for i, v in enumerate(value))
            object.__setattr__(self, field, numbers)
        if len(self.depths) != len(self.widths):
            raise UserError(f"spec.depths has {len(self.depths)} stages and spec.widths {len(self.widths)}: give both")
        stages = STAGES[self.family]
        if stages is None:
            stages = len(self.template)
            if not stages:
                raise UserError("spec.template must hold one timm arch string a stage for the family custom, got none")
        if len(self.depths) != stages:
            what = "its template has" if self.family == "custom" else "it has"
            raise UserError(f"spec.depths has {len(self.depths)} stages, but {self.family}: {what} {stages}")
        for field in ("resolution", "classes", "in_chans"):
            object.__setattr__(self, field, _whole(f"spec.{field}", getattr(self, field), _LARGEST[field]))
        for field in ("stem", "head"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _whole(f"spec.{field}", getattr(self, field), _LARGEST[field]))

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.depths)

    def replace(self, **changes: Any) -> ArchSpec:
        """The same network with some fields changed."""
        return dataclasses.replace(self, **changes)

    def coordinates(self) -> tuple[int, ...]:
        """Depths, widths and resolution in one row, the order of moves."""
        return (*self.depths, *self.widths, self.resolution)

    def with_coordinates(self, values: Iterable[int]) -> ArchSpec:
        """The network at another point of the lattice.

        Args:
            values: As :meth:`coordinates` gives them.
        """
        row = tuple(int(v) for v in values)
        s = self.stages
        return self.replace(depths=row[:s], widths=row[s : 2 * s], resolution=row[2 * s])

    def includes(self, other: ArchSpec) -> bool:
        """Whether ``other`` is a sub-component: of the same kind, and not larger in any coordinate."""
        same = (self.family, self.template) == (other.family, other.template)
        return same and all(a >= b for a, b in zip(self.coordinates(), other.coordinates(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields that hold nothing are left out."""
        found = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v is not None and v != ()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ArchSpec:
        """The inverse of :meth:`to_dict`.

        Raises:
            UserError: If a key is not known or missing.
        """
        if not isinstance(value, Mapping):
            raise UserError(f"spec={value!r} must be a mapping of family, depths, widths and resolution")
        fields = [f.name for f in dataclasses.fields(cls)]
        for key in value:
            choose("field of spec", str(key), fields)
        absent = [key for key in ("family", "depths", "widths", "resolution") if value.get(key) is None]
        if absent:
            raise UserError(f"spec lacks {', '.join(absent)}")
        return cls(**{str(k): v for k, v in value.items()})

    def to_json(self) -> str:
        """One line of canonical JSON: equal networks give equal text, so it is the key of a network everywhere."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ArchSpec:
        """The inverse of :meth:`to_json`.

        Raises:
            UserError: If it is no JSON, or no network.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UserError(f"spec is no JSON: {' '.join(str(error).split())}") from error
        return cls.from_dict(value)


def _whole(field: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 1 <= int(value) <= most:
        raise UserError(f"{field}={value!r} must be a whole number in 1..{most}")
    return int(value)
