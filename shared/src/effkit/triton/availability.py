"""Can the kernels run here, and if not, why."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from effkit.errors import UserError
from effkit.triton.loading import ABSENT, installed, interpreted

if TYPE_CHECKING:
    import torch

__all__ = ["check_runs", "check_tensors", "why_not"]

_PREFIX = "backend='triton' "
_TORCH = "use backend='torch'"
_ADVICE = "move it to one, set TRITON_INTERPRET=1 (slow, for tests), or {}"
_OLDEST = (8, 0)  # Ampere


def why_not(
    device: torch.device,
    dtypes: Collection[torch.dtype] = (),
    *,
    got: str | None = None,
    interpreted_on: Collection[str] = ("cpu", "cuda"),
    auto: bool = False,
) -> str | None:
    """Say why the kernels cannot run on tensors of a device.

    Args:
        device: Where the tensors are.
        dtypes: Types of what the kernels compute with.
        got: What is there, for the message; by default ``tensors on device 'cpu'``.
        interpreted_on: Types of devices that interpreted kernels take: the interpreter copies tensors of a GPU to the
            host and back.
        auto: Nobody asked for the kernels by name. Then it is also a reason that they would run but not as they are
            meant to: interpreted, or on a GPU that they are not written for.

    Returns:
        The reason, to be read after "backend='triton'" or in brackets; ``None`` if they can run.
    """
    import torch

    got = got or f"tensors on device '{device}'"
    if not installed():
        return ABSENT.removeprefix(_PREFIX).partition(";")[0]
    if interpreted():
        if auto:
            return "TRITON_INTERPRET=1 is for tests"
        on_host = device.type in interpreted_on
        return None if on_host else f"needs tensors on the CPU while TRITON_INTERPRET is set, got {got}"
    if device.type != "cuda":
        return f"needs a CUDA device, got {got}"
    if torch.float64 in dtypes:
        return "no kernels in float64" if auto else "on a GPU takes float16, bfloat16 or float32, got float64"
    if auto and (torch.version.cuda is None or torch.cuda.get_device_capability(device) < _OLDEST):
        return "the kernels are written for NVIDIA GPUs from Ampere on"
    return None


def check_runs(
    device: torch.device,
    dtypes: Collection[torch.dtype] = (),
    *,
    got: str | None = None,
    interpreted_on: Collection[str] = ("cpu", "cuda"),
    advice: str | None = None,
    plain: str = "torch",
) -> None:
    """Refuse ``backend='triton'``, asked for by name, where it cannot run.

    Args:
        device: See :func:`why_not`.
        dtypes: Likewise.
        got: Likewise.
        interpreted_on: Likewise.
        advice: What to do about the device, at the end of the line.
        plain: The backend to use instead, in messages.

    Raises:
        UserError: Saying why and what to do.
    """
    if not installed():
        raise UserError(ABSENT.replace(_TORCH, f"use backend='{plain}'"))
    reason = why_not(device, dtypes, got=got, interpreted_on=interpreted_on)
    if reason is not None:
        on_gpu = device.type == "cuda" and not interpreted()  # then it is not the device that is wrong
        use = f"use backend='{plain}'"
        raise UserError(f"{_PREFIX}{reason}; {use if on_gpu else advice or _ADVICE.format(use)}")


def check_tensors(**tensors: torch.Tensor | None) -> None:
    """Check that all tensors of a call are on one device, that the kernels can run there, and in the tensors' types.

    Args:
        **tensors: By the names of the arguments; those that are ``None`` are left out.

    Raises:
        UserError: Naming the first tensor that does not fit: without triton, off a CUDA device, on several devices,
            or in float64 on a GPU.
    """
    import torch

    if not installed():
        raise UserError(ABSENT)
    interpret = interpreted()
    device = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if device is None:
            device = tensor.device
            check_runs(device, got=f"{name} on device '{device}'")
        if tensor.device != device:
            raise UserError(f"{name} must be on device '{device}' like the other tensors, got '{tensor.device}'")
        if tensor.dtype == torch.float64 and not interpret:
            raise UserError(f"{name} must be float16, bfloat16 or float32 on a GPU, got {tensor.dtype}; {_TORCH}")
