"""What tests of kernels share: the mode they run in, the device, the compiler.

Fixtures are picked up by a test file or a ``conftest.py`` that takes them as its own names::

    from effkit.testing import kernels

    device, interpreter = kernels.device, kernels.interpreter

A file that needs more of one (smaller tiles, say) takes it under another name and builds its own on it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from effkit.triton import installed, loading

__all__ = [
    "SPILLED",
    "compiler",
    "device",
    "interpreter",
    "launched_on_gpu",
    "needs_triton",
    "no_triton",
    "waiting_is_an_error",
]

SPILLED = 16  # bytes a thread: some versions of ptxas put one or two numbers of the prologue aside

_ABSENT = "triton is not installed"

needs_triton = pytest.mark.skipif(not installed(), reason=_ABSENT)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run kernels in the interpreter for one test; they are built per mode, so other tests keep theirs."""
    if not installed():
        pytest.skip(_ABSENT)
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run: interpreted on the CPU, or compiled on a GPU.

    The test file's own fixture ``interpreter`` is the one that is used.
    """
    if request.param == "interpreter":
        request.getfixturevalue("interpreter")
        return "cpu"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return "cuda"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compile for real, which needs no GPU, and leave nothing in the home folder; skip where that cannot be."""
    if not installed():
        pytest.skip(_ABSENT)
    from triton import knobs

    for tool in ("ptxas", "cuobjdump"):
        try:
            getattr(knobs.nvidia, tool).path  # noqa: B018
        except (AttributeError, RuntimeError) as error:
            pytest.skip(f"this build of triton has no {tool}: {error}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the packages believe that there is no triton, as on macOS."""
    monkeypatch.setattr(loading, "HAS_TRITON", False)


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Inside, whatever makes the host wait for a GPU raises; outside it never does, whatever happened inside.

    Some versions of torch warn of the mode itself, after having entered it: where warnings are errors, it would stay.
    """
    import torch

    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(before)


def launched_on_gpu(call: Callable[[], Any]) -> list[str]:
    """Names of all kernels that a call launches on a GPU, torch's own included; run it once before, so it is compiled.

    Args:
        call: Runs it.

    Returns:
        One name a launch, copies and fills included.
    """
    import torch

    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
