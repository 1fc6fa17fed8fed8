"""What the packages' tests share: the tolerance rule, small real-looking data, console commands in a subprocess.

Tests cannot import each other (pytest's importlib mode), so whatever two test files need lives here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["CliResult", "assert_close_to_reference", "run_cli", "tiny_images", "write_image_folder"]


def assert_close_to_reference(
    fast: Any, same_dtype: Any, reference: Any, *, eps: float | None = None, what: str = "result"
) -> None:
    """Assert that a fast path is at most twice as wrong as plain torch in the same precision, plus ``eps``.

    The rule needs no constant tuned to a case: ``max|fast - reference| <= 2 max|same_dtype - reference| + eps``, where
    both errors are measured against a reference in higher precision. NaN and infinities must sit in the same places.

    Args:
        fast: Result of the fast path, a tensor or a nest of tuples, lists and dicts of tensors.
        same_dtype: The same computed by plain torch in the dtype of ``fast``.
        reference: The same computed in float32 or float64.
        eps: Slack; by default one rounding step of the dtype at the reference's largest magnitude, for cases in which
            plain torch happens to hit the reference exactly.
        what: Name of the result in the message.

    Raises:
        AssertionError: If shapes, dtypes or values disagree; says by how much.
    """
    if isinstance(reference, dict):
        assert fast.keys() == same_dtype.keys() == reference.keys(), f"{what}: keys {fast.keys()} != {reference.keys()}"
        for key in reference:
            assert_close_to_reference(fast[key], same_dtype[key], reference[key], eps=eps, what=f"{what}[{key!r}]")
        return
    if isinstance(reference, list | tuple):
        assert len(fast) == len(same_dtype) == len(reference), f"{what}: {len(fast)} != {len(reference)} tensors"
        for i, parts in enumerate(zip(fast, same_dtype, reference, strict=True)):
            assert_close_to_reference(*parts, eps=eps, what=f"{what}[{i}]")
        return
    assert fast.shape == same_dtype.shape == reference.shape, (
        f"{what}: shapes {tuple(fast.shape)}, {tuple(same_dtype.shape)} and {tuple(reference.shape)} differ"
    )
    assert fast.dtype == same_dtype.dtype, f"{what}: dtype {fast.dtype}, but torch's result has {same_dtype.dtype}"
    if reference.numel() == 0:
        return
    exact = reference.detach().double().cpu()
    ours, theirs = fast.detach().double().cpu(), same_dtype.detach().double().cpu()
    finite = exact.isfinite()
    strange = ~finite
    assert torch.equal(ours.isfinite(), finite), f"{what}: not finite in other places than the reference"
    assert torch.equal(ours[strange].nan_to_num(), exact[strange].nan_to_num()), f"{what}: other infinities than due"
    assert torch.equal(theirs.isfinite(), finite), f"{what}: torch in {fast.dtype} overflows here, choose other inputs"
    if not finite.any():
        return
    error, allowed = _largest(ours, exact, finite), _largest(theirs, exact, finite)
    if eps is None:
        eps = torch.finfo(fast.dtype).eps * max(float(exact[finite].abs().max()), torch.finfo(fast.dtype).tiny)
    assert error <= 2 * allowed + eps, (
        f"{what}: error {error:.3e} against the reference exceeds 2 x {allowed:.3e} (torch in {fast.dtype}) + {eps:.1e}"
    )


def _largest(value: Tensor, exact: Tensor, where: Tensor) -> float:
    return float((value - exact)[where].abs().max())


def tiny_images(batch: int = 2, in_chans: int = 3, size: int = 32, *, seed: int = 0, dtype: Any = None) -> Tensor:
    """Return ``(batch, in_chans, size, size)`` standard-normal pixels that depend on nothing but the arguments."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, in_chans, size, size, generator=generator, dtype=torch.float64).to(dtype or torch.float32)


def write_image_folder(
    root: Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 4,
    size: tuple[int, int] = (40, 48),
    suffix: str = "png",
) -> Path:
    """Write a folder of pictures as ``data=imagefolder`` expects it; classes differ in colour, so they can be learnt.

    Args:
        root: The folder to fill.
        splits: Sub-folders.
        classes: Folders in each of them.
        count: Pictures per class and split.
        size: Height and width in pixels.
        suffix: File type, ``png`` or ``jpg``.

    Returns:
        ``root``.
    """
    from PIL import Image

    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                generator = torch.Generator().manual_seed(1000 * s + 100 * c + i)
                pixels = torch.randint(0, 96, (*size, 3), generator=generator)
                pixels[..., c % 3] += 128
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i}.{suffix}")
    return root


class CliResult(NamedTuple):
    """What a command left behind; unpacks as ``code, stdout, stderr``."""

    code: int
    stdout: str
    stderr: str


def run_cli(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> CliResult:
    """Run a console command in a process of its own, without a terminal, and wait for it.

    Args:
        argv: Command and arguments. A bare command name is looked up beside the running interpreter first, so that the
            environment under test is the one that answers; a name that is no command there is run as ``python -m
            NAME``.
        cwd: Working folder.
        env: Variables on top of the present ones; by default torch gets one thread and colours are off.
        timeout: Seconds after which the process is killed.

    Returns:
        Exit code (negative: killed by that signal), standard output and standard error.

    Raises:
        AssertionError: If it takes longer than ``timeout``; shows what it had printed.
    """
    first, *rest = [os.fspath(word) for word in argv]
    command = [first, *rest] if os.path.isabs(first) else [*_find_command(first), *rest]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**variables, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(
            f"{' '.join(command)} took longer than {timeout:g} s; it had printed {error.stdout!r} and {error.stderr!r}"
        ) from error
    return CliResult(done.returncode, done.stdout, done.stderr)


def _find_command(name: str) -> list[str]:
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return [beside] if beside else [sys.executable, "-m", name.replace("-", "_")]
