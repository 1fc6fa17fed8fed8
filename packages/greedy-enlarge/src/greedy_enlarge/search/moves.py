"""The moves of a step, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from effkit.errors import UserError, choose
from greedy_enlarge.families import FAMILIES, family_of
from greedy_enlarge.spec import ArchSpec

__all__ = ["KINDS", "Limit", "Moves", "move_names"]

KINDS = ("depth", "width", "resolution")


def move_names(spec: ArchSpec) -> list[str]:
    """Names of the single moves, in the order of coordinates: ``depth_1`` ... ``width_1`` ... ``resolution``."""
    stages = range(1, spec.stages + 1)
    return [*(f"depth_{i}" for i in stages), *(f"width_{i}" for i in stages), "resolution"]


@dataclass(frozen=True)
class Limit:
    """A maximum beside the MACs budget.

    Attributes:
        name: What is limited, e.g. ``params``.
        most: The maximum.
        measure: Of a network.
    """

    name: str
    most: float
    measure: Callable[[ArchSpec], float]


@dataclass(frozen=True)
class Moves:
    """Which moves there are, and how far they go. The paper's own step sizes are not known to us; these are ours.

    Args:
        depth_step: Blocks a step.
        width_step: Channels a step; ``None`` takes the family's (8; GhostNet 4; RegNet its group width).
        resolution_step: Pixels a step.
        capped: Whether a coordinate may at most double in one move (a depth: ``2 d + 1``).
        largest: Greatest ``depth``, ``width`` and ``resolution`` of any network; kinds not named are free.
        kinds: Which kinds of moves there are.
        frozen: Moves that are not made: stages by number (``3``), or names (``"width_2"``, ``"resolution"``).
        pairs: Also raise two coordinates at once.
        limits: Maxima beside the MACs budget.
    """

    depth_step: int = 1
    width_step: int | None = None
    resolution_step: int = 8
    capped: bool = True
    largest: Mapping[str, int] = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    frozen: tuple[int | str, ...] = ()
    pairs: bool = False
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        for name in ("depth_step", "width_step", "resolution_step"):
            value = getattr(self, name)
            if value is None and name == "width_step":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"moves.{name}={value!r} must be a whole number of at least 1")
        if isinstance(self.kinds, str) or not self.kinds:
            raise UserError(f"moves.kinds={self.kinds!r} must be a list of some of {', '.join(KINDS)}")
        for kind in self.kinds:
            choose("moves.kinds", kind, KINDS)
        for kind, value in self.largest.items():
            choose("kind in moves.largest", kind, KINDS)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"moves.largest.{kind}={value!r} must be a whole number of at least 1")

    def width_step_of(self, spec: ArchSpec) -> int:
        """Channels a step for a network's family."""
        if self.width_step is not None:
            return self.width_step
        family = FAMILIES[spec.family]
        grain = family.width_grain(spec)
        return grain * max(1, -(-family.width_step // grain))

    def check(self, spec: ArchSpec) -> None:
        """Refuse a start that these moves cannot lead anywhere from.

        Raises:
            UserError: If a width is no multiple of the step, the picture is smaller than the total stride, the family
                cannot grow, or a frozen move is none.
        """
        family = family_of(spec)
        if not family.grows:
            raise UserError(f"spec.family={spec.family} is fixed and cannot grow; ghostnet_large is what scales")
        names = move_names(spec)
        for frozen in self.frozen:
            if isinstance(frozen, int) and not isinstance(frozen, bool):
                choose("moves.frozen", frozen, range(1, spec.stages + 1))
            else:
                choose("moves.frozen", str(frozen), names)
        step = self.width_step_of(spec)
        grain = family.width_grain(spec)
        if step % grain:
            raise UserError(f"moves.width_step={step} must be a multiple of {grain}, as widths of {spec.family} are")
        allowed = self.allowed(spec)
        for i, width in enumerate(spec.widths):
            if f"width_{i + 1}" in allowed and width % step:
                raise UserError(
                    f"spec.widths[{i}]={width} is no multiple of moves.width_step={step}; change one of them"
                )
        total = family.total_stride(spec)
        if spec.resolution < total:
            raise UserError(f"spec.resolution={spec.resolution} must be at least the total stride {total}")

    def allowed(self, spec: ArchSpec) -> list[str]:
        """Names of the single moves that may be made, in order.

        Raises:
            UserError: If none is left.
        """
        out = set(map(str, self.frozen))
        out |= {f"{kind}_{i}" for i in self.frozen if isinstance(i, int) for kind in ("depth", "width")}
        found = [n for n in move_names(spec) if n not in out and n.split("_")[0] in self.kinds]
        if not found:
            raise UserError("moves.frozen and moves.kinds leave no move")
        return found

    def step(self, spec: ArchSpec, name: str) -> int:
        """Step of a move."""
        kind = name.split("_")[0]
        return {"depth": self.depth_step, "width": self.width_step_of(spec), "resolution": self.resolution_step}[kind]

    def highest(self, spec: ArchSpec, name: str, most: int) -> int:
        """Greatest value a coordinate may take in one move from ``spec``.

        Args:
            spec: Where the move starts.
            name: The move.
            most: Greatest value there is.
        """
        kind = name.split("_")[0]
        now = spec.coordinates()[move_names(spec).index(name)]
        found = min(most, self.largest.get(kind, most))
        if self.capped:
            found = min(found, 2 * now + 1 if kind == "depth" else 2 * now)
        return found

    def fingerprint(self, spec: ArchSpec) -> dict[str, object]:
        """What of this shapes a search, as plain values."""
        return {
            "depth_step": self.depth_step,
            "width_step": self.width_step_of(spec),
            "resolution_step": self.resolution_step,
            "capped": self.capped,
            "largest": dict(self.largest),
            "kinds": list(self.kinds),
            "frozen": list(self.frozen),
            "pairs": self.pairs,
            "limits": {limit.name: limit.most for limit in self.limits},
        }
