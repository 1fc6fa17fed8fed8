"""A file that was written from a model, held against the model itself.

The rule: against float64, the file may be wrong by at most twice as much as torch in float32 is, plus eight units in
the last place of the largest logit. That is what other orders of summation cost; a wrong weight or operator is orders
of magnitude above it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from effkit.report import Table
from tnt_vit.inference.formats import Runner
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT

__all__ = ["compare_with_torch", "tolerance"]

_ULPS = 8


def tolerance(reference: Tensor, ours: Tensor) -> float:
    """Largest error against ``reference`` that a correct export may have.

    Args:
        reference: Logits of torch in float64.
        ours: Logits of torch in float32.
    """
    rounding = float((ours.double() - reference).abs().max())
    return 2 * rounding + _ULPS * torch.finfo(torch.float32).eps * float(reference.abs().max())


def compare_with_torch(model: TNT | PyramidTNT, run: Runner, inputs: Iterable[tuple[str, Tensor]]) -> Table:
    """Compare a loaded file with torch.

    Args:
        model: What the file was written from; it stays as it is.
        run: The loaded file.
        inputs: Batches of pictures ``(B, C, H, W)`` with their names.

    Returns:
        A row a batch, the verdict (``match`` or ``differs``) last.
    """
    ours = copy.deepcopy(model).cpu().float().eval()
    if isinstance(ours, TNT):
        ours.backend = "torch"
    exact = copy.deepcopy(ours).double()
    rows: list[list[Any]] = []
    with torch.no_grad():
        for name, x in inputs:
            reference, logits, exported = exact(x.double()), ours(x), run(x)
            error, allowed = float((exported.double() - reference).abs().max()), tolerance(reference, logits)
            good = exported.shape == logits.shape and bool(torch.isfinite(exported).all()) and error <= allowed
            difference = float((exported - logits).abs().max())
            rows.append([name, len(x), difference, error, allowed, "match" if good else "differs"])
    note = (
        "Allowed: twice the float32 error of torch itself, plus 8 units in the last place of the largest logit; "
        "both errors against float64."
    )
    columns = ["input", "batch", "largest difference to torch", "error", "allowed", "verdict"]
    return Table("The file, loaded again, against torch", columns, rows, note)
