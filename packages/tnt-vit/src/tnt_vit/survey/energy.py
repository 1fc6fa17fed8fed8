"""What a picture costs in energy, by the counter of an NVIDIA GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from effkit.timing.clock import wall_seconds

__all__ = ["Meter", "NoMeter", "energy"]


class NoMeter(Exception):
    """Energy cannot be measured here; says why."""


class Meter:
    """The energy counter of a GPU (NVML; Volta and later), of all that it does, idling included.

    Args:
        device: The GPU.

    Raises:
        NoMeter: If there is none, or NVML or its Python package ``nvidia-ml-py`` is missing.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise NoMeter(f"device={device} has no energy counter, only an NVIDIA GPU has")
        try:
            import pynvml
        except ImportError:
            raise NoMeter("nvidia-ml-py is not installed: pip install 'tnt-vit[energy]'") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._gpu = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
            self.joules()
        except pynvml.NVMLError as error:
            raise NoMeter(f"NVML gives no energy of {device}: {error}") from None

    def joules(self) -> float:
        """Since the driver was loaded."""
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1e3

    def clock_mhz(self) -> int:
        """Of the multiprocessors, now."""
        return int(self._nvml.nvmlDeviceGetClockInfo(self._gpu, self._nvml.NVML_CLOCK_SM))


def _uuid(device: torch.device) -> str:
    """The GPU's name in NVML, which does not know what ``CUDA_VISIBLE_DEVICES`` leaves out."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def energy(
    call: Callable[[], Any],
    meter: Meter,
    device: torch.device,
    *,
    batch: int,
    call_seconds: float,
    seconds: float,
) -> dict[str, Any]:
    """Run a call for some seconds and see what the counter says.

    Args:
        call: Warm: it ran before.
        meter: Of the device.
        device: Where it runs.
        batch: Pictures a call.
        call_seconds: What a call takes.
        seconds: For how long; the counter moves on some ten times a second, so that a second or two are little.

    Returns:
        ``joules_per_image``, ``watts``, ``batch``, ``calls`` and the clock at the end, ``sm_clock_mhz``.
    """
    calls = max(1, math.ceil(seconds / call_seconds))
    wall_seconds(call, 1, device)
    before = meter.joules()
    took = calls * wall_seconds(call, calls, device)
    clock = meter.clock_mhz()
    used = meter.joules() - before
    found = {"joules_per_image": used / (calls * batch), "watts": used / took, "batch": batch, "calls": calls}
    return found | {"sm_clock_mhz": clock}
