"""Several forms of one product, of which a short measurement at first use says the fastest here.

A product over memory can be asked of several libraries inside torch, and which of them reads fastest depends on the
processor, the type, the size and the threads: what reads an 8-bit matrix at the memory's speed on one machine takes
five times as long on another. So every product that a decoding step spends its time in has its forms here, by name.

Forms differ in the order of their sums, thus in the last bits of the type they sum in. Whoever needs the same bits
every time pins a form (``cpu_forms`` of the configuration) or takes ``"first"``, which measures nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from effkit.errors import UserError, choose

__all__ = ["PRODUCTS", "Asked", "Product", "Race", "Size", "measured"]

# What is asked for: to measure, the first form that runs, or forms by the names of their products (others: measured).
Asked = Literal["auto", "first"] | Mapping[str, str]

PRODUCTS: dict[str, Product] = {}  # by name; each stands beside its forms

# What a form raises whose library is absent or does not take these types.
_CANNOT = (RuntimeError, AttributeError, TypeError, NotImplementedError)
_ROUNDS = 4
_SLOWER = 1.5  # times slower than the fastest: not timed again
_BETTER = 0.95  # of the time of the first form, else noise would decide


class Size(NamedTuple):
    """For what a measurement holds: the type, the number of numbers up to a power of two, and how rows lie."""

    dtype: torch.dtype
    bits: int
    width: int
    apart: int
    threads: int

    @classmethod
    def of(cls, rows: Tensor) -> Size:
        """Of a matrix ``(..., M, R)`` and the threads in force."""
        return cls(rows.dtype, rows.numel().bit_length(), rows.shape[-1], rows.stride(-2), torch.get_num_threads())

    def __str__(self) -> str:
        """In words."""
        apart = "" if self.apart == self.width else f" that begin {self.apart} apart"
        name = str(self.dtype).removeprefix("torch.")
        return f"{name}, below 2^{self.bits} numbers, rows of {self.width}{apart}, {self.threads} threads"


@dataclass
class Race:
    """What a measurement found.

    Attributes:
        form: The one taken.
        seconds: Of each that runs, the least.
        failed: Why the others do not.
    """

    form: str
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """In words."""
        ranked = sorted(self.seconds.items(), key=lambda item: item[1])
        times = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in ranked)
        failed = "; ".join(f"not {name}: {why}" for name, why in self.failed.items())
        return self.form + (f", of {times}" if times else "") + (f" ({failed})" if failed else "")


class Product:
    """A product in forms that give the same but for the last bits.

    Args:
        name: By which it is pinned and reported.
        forms: By name, the best guess first; all take the same arguments. The last must always run: it is what the
            others are compared with.
        tolerance: By how much a form may differ from it, as a share of the largest number; a function of the type.
        clock: Seconds.

    Attributes:
        remembered: What was measured in this process.
    """

    def __init__(
        self,
        name: str,
        forms: Mapping[str, Callable[..., Tensor]],
        tolerance: Callable[[torch.dtype], float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.forms, self.tolerance, self.clock = name, dict(forms), tolerance, clock
        self.remembered: dict[tuple[Size, bool], Race] = {}

    def __call__(self, asked: Asked, size: Size, *arguments: Any) -> Tensor:
        """The product.

        Args:
            asked: Which form.
            size: For what a measurement holds.
            *arguments: Of the forms.

        Raises:
            UserError: If a form was asked for by name that does not exist or cannot do it here.
        """
        if not isinstance(asked, str) and self.name in asked:
            return self._pinned(choose(f"cpu_forms.{self.name}", asked[self.name], list(self.forms)), arguments)
        key = size, asked != "first"
        race = self.remembered.get(key)
        if race is None:
            expected = self.forms[[*self.forms][-1]](*arguments)
            bound = self.tolerance(size.dtype) * float(expected.abs().max())
            if not math.isfinite(bound):
                return expected  # nothing to compare with, and nothing to remember
            race = self.remembered[key] = self._race(arguments, expected, bound, timed=key[1])
        return self.forms[race.form](*arguments)

    def _pinned(self, form: str, arguments: tuple[Any, ...]) -> Tensor:
        try:
            return self.forms[form](*arguments)
        except _CANNOT as error:
            others = ", ".join(name for name in self.forms if name != form)
            raise UserError(
                f"cpu_forms.{self.name}={form!r} cannot be used here ({_line(error)}); leave it out, or take one of "
                f"{others}"
            ) from error

    def _race(self, arguments: tuple[Any, ...], expected: Tensor, bound: float, timed: bool) -> Race:
        """Leave out what cannot or differs, and time the rest in turns."""
        race = Race(form="")
        running: list[str] = []
        for name, form in self.forms.items():
            try:
                found = form(*arguments)  # compiles and allocates, too
            except _CANNOT as error:
                race.failed[name] = _line(error)
                continue
            if found.shape != expected.shape or not float((found - expected).abs().max()) <= bound:
                race.failed[name] = "gives other numbers here"
                continue
            running.append(name)
            if not timed:
                break
        race.form = running[0]
        if len(running) == 1:
            return race
        race.seconds = dict.fromkeys(running, math.inf)
        for number in range(_ROUNDS):
            fastest = min(race.seconds.values())
            for name in running:
                if number == 0 or race.seconds[name] <= _SLOWER * fastest:
                    start = self.clock()
                    self.forms[name](*arguments)
                    race.seconds[name] = min(race.seconds[name], self.clock() - start)
        best = min(race.seconds, key=lambda name: race.seconds[name])
        if race.seconds[best] < _BETTER * race.seconds[race.form]:
            race.form = best
        return race

    def describe(self) -> list[str]:
        """What was measured in this process, a line for each size."""
        return [f"{self.name} ({size}): {race}" for (size, _), race in self.remembered.items()]


def measured() -> list[str]:
    """What was measured of all products in this process, a line for each size."""
    return [line for product in PRODUCTS.values() for line in product.describe()]


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
