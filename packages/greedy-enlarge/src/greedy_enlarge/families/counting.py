"""MACs and parameters by closed form: of one network in microseconds, of a population as arrays.

MACs are multiply-adds of convolutions and linear maps: no biases, norms, activations, pooling or gates; the house's
definition, and half of what ``torch.utils.flop_counter`` reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from effkit.errors import UserError, choose
from greedy_enlarge.families.net import Net
from greedy_enlarge.families.registry import FAMILIES, net_of
from greedy_enlarge.families.sinks import Explained, Macs, MacsByPart, MacsWithBias, Params
from greedy_enlarge.ops.numbers import EXACT
from greedy_enlarge.spec import ArchSpec

__all__ = ["Shares", "count_many", "explain", "macs", "params", "part_names", "stage_shares"]

_CHUNK = 16384  # networks whose arrays stay in the processor's cache


def macs(spec: ArchSpec, *, count_bias: bool = False) -> int:
    """Multiply-adds of a network for one picture of its resolution.

    Args:
        spec: The network.
        count_bias: Also count one addition an output element for each bias, as pycls does.

    Raises:
        UserError: If the network is not one its family can be.

    Example:
        >>> from greedy_enlarge.families import base
        >>> macs(base("efficientnet_b0"))
        385814752
    """
    sink = MacsWithBias() if count_bias else Macs()
    FAMILIES[spec.family].walk(net_of(spec), sink)
    return sink.total


def params(spec: ArchSpec) -> int:
    """Parameters of a network: weights, biases, norms.

    Raises:
        UserError: As :func:`macs`.
    """
    sink = Params()
    FAMILIES[spec.family].walk(net_of(spec), sink)
    return sink.total


def count_many(
    spec: ArchSpec,
    depths: Any = None,
    widths: Any = None,
    resolutions: Any = None,
    *,
    what: Literal["macs", "params"] = "macs",
    count_bias: bool = False,
) -> np.ndarray:
    """Count a population of networks that differ in depths, widths and resolution.

    Args:
        spec: What they share, and the values of what is not given.
        depths: Whole numbers ``(N, stages)``.
        widths: Likewise.
        resolutions: ``(N,)``.
        what: ``macs`` or ``params``.
        count_bias: As for :func:`macs`.

    Returns:
        int64 ``(N,)``.

    Raises:
        UserError: If shapes do not fit, a value is out of range, or a count would be 2**53 or more.
    """
    choose("what", what, ["macs", "params"])
    given: dict[str, Any] = {"depths": depths, "widths": widths, "resolutions": resolutions}
    arrays = {key: _whole_numbers(key, value) for key, value in given.items() if value is not None}
    if not arrays:
        raise UserError("count_many needs depths, widths or resolutions of a population")
    counts = {key: len(a) for key, a in arrays.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"the population's arrays differ in length: {counts}")
    for key, array in arrays.items():
        shape = (len(array),) if key == "resolutions" else (len(array), spec.stages)
        if array.shape != shape:
            raise UserError(f"{key} has shape {array.shape}, expected {shape}")
    number = next(iter(counts.values()))
    if number == 0:
        return np.zeros(0, dtype=np.int64)
    _check_range(spec, arrays, what, count_bias)
    net = net_of(spec)
    found = np.empty(number, dtype=np.int64)
    for start in range(0, number, _CHUNK):
        part = slice(start, start + _CHUNK)
        rows = {key: np.ascontiguousarray(a[part].T, dtype=np.float64) for key, a in arrays.items()}
        chunk = Net(
            list(rows["depths"]) if "depths" in rows else net.depths,
            list(rows["widths"]) if "widths" in rows else net.widths,
            rows.get("resolutions", net.side),
            net.stem, net.head, net.classes, net.in_chans, net.blocks,
        )  # fmt: skip
        sink = Params() if what == "params" else MacsWithBias() if count_bias else Macs()
        FAMILIES[spec.family].walk(chunk, sink)
        found[part] = sink.total
    return found


def _whole_numbers(key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{key} must hold whole numbers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def _check_range(spec: ArchSpec, arrays: dict[str, np.ndarray], what: str, count_bias: bool) -> None:
    """Refuse what is not of the family or cannot be added up exactly, by the smallest and largest corner."""
    for reduce in (np.min, np.max):
        corner = spec.replace(
            **{
                {"resolutions": "resolution"}.get(key, key): (
                    int(reduce(a)) if a.ndim == 1 else tuple(int(v) for v in reduce(a, axis=0))
                )
                for key, a in arrays.items()
            }
        )
        largest = params(corner) if what == "params" else macs(corner, count_bias=count_bias)
        if largest >= EXACT:
            raise UserError(
                f"{what} of the population's largest network, {largest:.3g}, are too many to add up exactly"
            )
    grain = FAMILIES[spec.family].width_grain(spec)
    if "widths" in arrays and (arrays["widths"] % grain).any():
        raise UserError(f"widths of this {spec.family} must be multiples of {grain}")


def part_names(spec: ArchSpec) -> list[str]:
    """Names of the parts of a network, in the order they are counted."""
    return ["stem", *(f"stage {i + 1}" for i in range(spec.stages)), "head"]


@dataclass(frozen=True)
class Shares:
    """Where the MACs of a network are.

    Attributes:
        names: Stem, stages and head; or sides of the feature maps.
        macs: Per name.
    """

    names: tuple[str, ...]
    macs: tuple[int, ...]

    @property
    def percent(self) -> tuple[float, ...]:
        """Share of each, in percent."""
        total = sum(self.macs)
        return tuple(100 * m / total for m in self.macs)


def stage_shares(spec: ArchSpec, by: Literal["stage", "resolution"] = "stage") -> Shares:
    """Where the MACs of a network are.

    Args:
        spec: The network.
        by: ``stage`` (stem, block groups, head) or ``resolution``: block groups whose outputs are of one size together,
            as the paper's text defines a stage.

    Raises:
        UserError: As :func:`macs`.
    """
    choose("by", by, ["stage", "resolution"])
    sink = MacsByPart(spec.stages + 2)
    family = FAMILIES[spec.family]
    family.walk(net_of(spec), sink)
    parts = [int(p) for p in sink.parts]
    if by == "stage":
        return Shares(tuple(part_names(spec)), tuple(parts))
    sums: dict[str, int] = defaultdict(int)
    sums["stem"] += parts[0]
    for stride, cost in zip(family.stage_strides(spec), parts[1:-1], strict=True):
        sums[f"1/{stride}"] += cost
    sums["head"] += parts[-1]
    return Shares(tuple(sums), tuple(sums.values()))


def explain(spec: ArchSpec) -> list[dict[str, Any]]:
    """What each part of a network costs, kind by kind, and what other counters add.

    Returns:
        One dictionary a part: ``name``, multiply-adds of ``conv`` and ``linear``, additions of ``bias``, two operations
        a normalised element (``norm``), one an element pooled before the head (``pool``), and ``params``.

    Raises:
        UserError: As :func:`macs`.
    """
    sink = Explained(spec.stages + 2)
    FAMILIES[spec.family].walk(net_of(spec), sink)
    named: Iterable[tuple[str, dict[str, Any]]] = zip(part_names(spec), sink.parts, strict=True)
    return [{"name": name, **{k: int(v) for k, v in part.items()}} for name, part in named]
