"""What the meters say of a family that trains a mixture, and why some of them do not apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ws_nas.evaluation.scoring import score
from ws_nas.families.base import Family
from ws_nas.families.relaxed import Relaxed
from ws_nas.meters.discretization import DiscretizationGap, compare_losses
from ws_nas.meters.gap import NO_HYPERGRADIENT, NO_MIXTURE
from ws_nas.supernets.norm import Applying, Collecting

__all__ = ["discretization_of", "hypergradient_of"]


@torch.no_grad()
def discretization_of(
    family: Family, batches: Sequence[tuple[Tensor, Tensor]], calibration: Sequence[Tensor]
) -> DiscretizationGap | str:
    """M3 of a family: its mixture beside what it derives, statistics re-estimated for both, nothing re-trained.

    Args:
        family: The family.
        batches: Images and labels to take losses on.
        calibration: Images to re-estimate statistics by.

    Returns:
        The gap; or why not.
    """
    if not isinstance(family, Relaxed):
        return NO_MIXTURE
    if not family.inherits:
        return f"family={family.name} leaves no weights that a derived network could be held against the mixture with"
    mixture, everything = family.mixture, torch.cat(list(calibration))
    before = mixture.training
    mixture.eval()
    try:
        with Collecting() as session:
            family.soft_logits(everything)
        with Applying(session.moments()):
            logits = torch.cat([family.soft_logits(images).float() for images, _ in batches])
    finally:
        mixture.train(before)
    labels = torch.cat([y for _, y in batches])
    soft = float(torch.nn.functional.cross_entropy(logits, labels))
    genotype = family.derive()
    net: Any = family.net_of(genotype)
    hard = float(score(net, [genotype], batches, list(calibration)).loss)
    return compare_losses(soft, hard, [edge for table in family.shares() for edge in table])


def hypergradient_of(family: Family) -> str:
    """Why M5 is not measured on a trained family: what it is held against exists for small models at a minimum only."""
    if not isinstance(family, Relaxed):
        return NO_HYPERGRADIENT
    weights = sum(p.numel() for p in family.network.parameters())
    return (
        f"the exact gradient needs a minimum of the training loss and the Hessian of all {weights:,} weights there; "
        "meters.exact_hypergradient has it for small models"
    )
