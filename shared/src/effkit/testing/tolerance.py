"""The tolerance rule of the house."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["assert_close_to_reference"]


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
