"""What is added up while a family lists its layers: MACs, parameters, or everything apart.

A family lists every layer once, in closed form: ``conv(part, times, inputs, outputs, taps, area)`` is ``times`` equal
convolutions with ``inputs`` channels a group, ``outputs`` channels, ``taps`` weights a channel pair, and ``area``
output pixels. Numbers may be arrays, one entry a network.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Explained", "Macs", "MacsByPart", "MacsWithBias", "Params", "Sink"]


class Sink(Protocol):
    """Receives the layers of a network. Part 0 is the stem, then the stages, then the head."""

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None: ...  # fmt: skip

    def linear(self, part: int, inputs: Any, outputs: Any) -> None: ...

    def pool(self, part: int, channels: Any, area: Any) -> None: ...


class _Total:
    """One number for the whole network, of which pooling is no part."""

    def __init__(self) -> None:
        self.total: Any = 0

    def pool(self, part: int, channels: Any, area: Any) -> None:
        pass


class Macs(_Total):
    """MACs of convolutions and linear maps."""

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None:  # fmt: skip
        self.total += inputs * outputs * area * (taps * times)

    def linear(self, part: int, inputs: Any, outputs: Any) -> None:
        self.total += inputs * outputs


class MacsWithBias(Macs):
    """The same, and one addition an output element for each bias: what pycls counts."""

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None:  # fmt: skip
        self.total += (inputs * taps + bias) * outputs * area * times

    def linear(self, part: int, inputs: Any, outputs: Any) -> None:
        self.total += (inputs + 1) * outputs


class MacsByPart(Macs):
    """MACs per part.

    Args:
        parts: How many: the stages, stem and head.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts: list[Any] = [0] * parts

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None:  # fmt: skip
        self.parts[part] += inputs * outputs * taps * area * times

    def linear(self, part: int, inputs: Any, outputs: Any) -> None:
        self.parts[part] += inputs * outputs


class Params(_Total):
    """Parameters: weights, biases, and two numbers a normalised channel."""

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None:  # fmt: skip
        self.total += (inputs * taps + bias + 2 * norm) * outputs * times

    def linear(self, part: int, inputs: Any, outputs: Any) -> None:
        self.total += (inputs + 1) * outputs


class Explained:
    """Everything apart, per part: what other counters add, and what it comes to.

    Args:
        parts: How many.
    """

    KINDS = ("conv", "linear", "bias", "norm", "pool", "params")

    def __init__(self, parts: int) -> None:
        self.parts: list[dict[str, Any]] = [dict.fromkeys(self.KINDS, 0) for _ in range(parts)]

    def conv(
        self, part: int, times: Any, inputs: Any, outputs: Any, taps: int, area: Any, bias: bool = False,
        norm: bool = True,
    ) -> None:  # fmt: skip
        found, elements = self.parts[part], outputs * area * times
        found["conv"] += inputs * taps * elements
        found["bias"] += bias * elements
        found["norm"] += 2 * norm * elements  # a factor and an offset, as fvcore counts
        found["params"] += (inputs * taps + bias + 2 * norm) * outputs * times

    def linear(self, part: int, inputs: Any, outputs: Any) -> None:
        found = self.parts[part]
        found["linear"] += inputs * outputs
        found["bias"] += outputs
        found["params"] += (inputs + 1) * outputs

    def pool(self, part: int, channels: Any, area: Any) -> None:
        self.parts[part]["pool"] += channels * area
