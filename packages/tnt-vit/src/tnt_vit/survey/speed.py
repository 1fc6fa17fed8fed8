"""Latency and throughput of several networks in turns, so that what drifts meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from effkit.bench import inference
from effkit.errors import UserError
from effkit.intervals import median_interval
from effkit.timing import Comparison, Timing, compare
from tnt_vit.survey.models import is_out_of_memory, reason_of

__all__ = ["Failure", "Speed", "run_case", "summarise"]

NOISY = 0.05  # interquartile range over median, above which a run is called noisy
_PERCENTILES = {"p50": (50, 1), "p90": (90, 10), "p99": (99, 100)}  # and how many samples one needs to mean something


@dataclass(frozen=True)
class Failure:
    """A network that could not be measured: ``out of memory`` or ``failed``, and why."""

    status: str
    reason: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """From what was raised."""
        return cls("out of memory" if is_out_of_memory(error) else "failed", reason_of(error))


@dataclass(frozen=True)
class Speed:
    """How a case is timed."""

    device: torch.device
    dtype: torch.dtype
    threads: int | None = None
    min_rounds: int = 10
    min_seconds: float = 5.0

    def compare(self, calls: Mapping[str, Callable[[], Any]], clock: Literal["auto", "wall"]) -> Comparison:
        """Time functions against each other."""
        return compare(
            calls, device=self.device, warmup=2, min_rounds=self.min_rounds, min_seconds=self.min_seconds,
            threads=self.threads, clock=clock,
        )  # fmt: skip


def run_case(
    models: Mapping[str, nn.Module], sizes: Mapping[str, int], batch: int, speed: Speed, clock: Literal["auto", "wall"]
) -> tuple[dict[str, Timing], Comparison | None, dict[str, Failure]]:
    """Time networks at one batch size, in turns.

    One that fails is left out and named; if it fails among the others only, all are timed one by one.

    Args:
        models: Name to network, on its device.
        sizes: Side of each one's pictures.
        batch: Pictures a call.
        speed: How.
        clock: ``wall`` includes what it takes to launch, which is what the user of a single picture feels.

    Returns:
        Times by name, the comparison that holds the ratios (none if they were timed one by one), and what failed.
    """
    calls: dict[str, Callable[[], Any]] = {}
    failed: dict[str, Failure] = {}
    for name, model in models.items():
        try:
            x = torch.randn(batch, 3, sizes[name], sizes[name], device=speed.device, dtype=speed.dtype)
            call = inference(model, x)
            call()
            calls[name] = call
        except Exception as error:
            failed[name] = Failure.of(error)
    if not calls:
        return {}, None, failed
    try:
        together = speed.compare(calls, clock)
        return dict(together.timings), together, failed
    except UserError:
        raise
    except Exception:
        alone: dict[str, Timing] = {}
        for name, call in calls.items():
            try:
                alone |= speed.compare({name: call}, clock).timings
            except Exception as error:
                failed[name] = Failure.of(error)
        return alone, None, failed


def summarise(timing: Timing, batch: int) -> dict[str, Any]:
    """One case of one network as plain values.

    Args:
        timing: Its samples.
        batch: Pictures a call.

    Returns:
        Seconds a call (median, its 95 % interval where 6 rounds or more give one, percentiles that the number of rounds
        can tell), images/s, whether it is noisy, and the memory one call takes.
    """
    samples = np.asarray(timing.samples)
    q1, q3 = np.quantile(samples, [0.25, 0.75])
    found = {
        name: float(np.percentile(samples, q)) for name, (q, least) in _PERCENTILES.items() if len(samples) >= least
    }
    return {
        "batch": batch,
        "seconds": timing.median,
        "interval": median_interval(timing.samples),
        **{name: found.get(name) for name in _PERCENTILES},
        "images_per_second": batch / timing.median,
        "noisy": bool((q3 - q1) / timing.median > NOISY),
        "rounds": timing.rounds,
        "peak_bytes": timing.peak_bytes,
        "samples": [float(f"{s:.6g}") for s in timing.samples],
    }
