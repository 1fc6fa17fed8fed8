"""Device, precision, seeds and threads of a run; what this machine cannot do raises, only ``auto`` chooses."""

from __future__ import annotations

import contextlib
import os
import random
from typing import Any

import numpy as np
import torch

from effkit.device.optional import why_no_cuda
from effkit.errors import UserError, choose

__all__ = ["PRECISIONS", "autocast", "resolve_device", "resolve_precision", "seed_everything", "set_threads"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_THREADS = 4096  # more than any machine has cores; torch takes a C int


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn a name into a device of this machine.

    Args:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Returns:
        The device; a CUDA device always with its index.

    Raises:
        UserError: If the name is unknown or this machine has no such device.
    """
    name, _, index = str(device).partition(":")
    choose("device", name, ["auto", "cpu", "cuda", "mps"])
    if index and (name != "cuda" or not index.isdecimal()):
        raise UserError(f"device={str(device)!r} is not known, write cpu, mps, cuda or cuda:0, cuda:1, ...")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"device={str(device)!r} cannot be used: {why_no_cuda()}; use cpu or auto")
        number = int(index) if index else torch.cuda.current_device()
        if number >= count:
            raise UserError(f"device={str(device)!r} does not exist, choose one of cuda:0 ... cuda:{count - 1}")
        return torch.device("cuda", number)
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device={str(device)!r} cannot be used: this machine has no Metal GPU; use cpu or auto")
    return torch.device(name)


def resolve_precision(precision: str = "auto", device: str | torch.device = "cpu") -> torch.dtype:
    """Turn a name into the dtype of matrix products and convolutions.

    Args:
        precision: ``"auto"`` (bf16 on a GPU that has it, fp16 on an older one, fp32 elsewhere), ``"fp32"``, ``"bf16"``
            or ``"fp16"``.
        device: Where the model runs.

    Raises:
        UserError: If the name is unknown, or the GPU computes no bf16.
    """
    choose("precision", precision, ["auto", *PRECISIONS])
    device = torch.device(device)
    bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if bf16 else torch.float16
    if precision == "bf16" and not bf16:
        raise UserError(f"precision='bf16' is not supported by {torch.cuda.get_device_name(device)}, use fp16 or fp32")
    return PRECISIONS[precision]


def autocast(device: str | torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Context in which torch computes in ``dtype`` where that is safe; does nothing for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


def seed_everything(seed: int) -> int:
    """Seed Python, NumPy and torch (all devices), and the data workers and ranks that Lightning starts.

    Args:
        seed: 0 to 2**32 - 1.

    Returns:
        The seed.

    Raises:
        UserError: If the seed is no integer in that range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(f"seed must be an integer in 0..{2**32 - 1}, got {seed!r}")
    # Lightning reads these two in every process it starts, as after its own function of this name.
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    os.environ["PL_SEED_WORKERS"] = "1"
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  third-party transforms still draw from the global generator
    torch.manual_seed(seed)
    return seed


def set_threads(threads: int | None = None) -> int:
    """Set the number of CPU threads of torch's operators.

    Args:
        threads: 1 to 4,096; `None` leaves torch's choice (``OMP_NUM_THREADS``, or the number of cores).

    Returns:
        The number in use.

    Raises:
        UserError: If it is no integer in that range.
    """
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS:
            raise UserError(f"threads must be an integer from 1 to {_MOST_THREADS} or null, got {threads!r}")
        torch.set_num_threads(threads)
    return torch.get_num_threads()
