"""What augmentation does to a classifier's answers, as pure functions of its logits.

Shapes: ``clean (n, C)`` are the logits of n pictures as they are, ``views (n, r, C)`` those of r augmented views of
each, ``labels (n,)``. Everything is computed in float64, and every function returns one number per picture (the mean
over its draws), so that intervals can be had by resampling pictures, which are what was sampled; the draws of one
picture are not independent. Entropies and divergences are in nats, label information is in bits.

Nothing here is clipped: a negative confidence drop (the augmentation helped) or a negative label information (the probe
is worse than knowing the class frequencies alone) is what it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = [
    "accuracy",
    "check_logits",
    "confidence_drop",
    "entropy",
    "label_entropy",
    "label_information",
    "log_probs",
    "outliers",
    "smallest_k",
    "teacher_stddev",
    "top_mass",
    "view_kl",
]


def check_logits(clean: Tensor, views: Tensor, labels: Tensor) -> None:
    """Refuse logits that do not belong together.

    Raises:
        UserError: If a shape is off, a label is out of range, or a logit is not finite.
    """
    if views.ndim != 3 or clean.ndim != 2 or labels.ndim != 1:
        raise UserError(
            f"clean must be (n, C), views (n, r, C), labels (n,); got {tuple(clean.shape)}, {tuple(views.shape)}, "
            f"{tuple(labels.shape)}"
        )
    n, draws, classes = views.shape
    if clean.shape != (n, classes) or len(labels) != n or n < 1 or draws < 1:
        raise UserError(
            f"views {tuple(views.shape)} do not fit clean {tuple(clean.shape)} and {len(labels)} labels; at least one "
            "picture and one draw are needed"
        )
    if labels.is_floating_point() or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"labels must be whole numbers in 0..{classes - 1}, got {labels.min()} to {labels.max()}")
    for name, logits in (("clean", clean), ("views", views)):
        if not torch.isfinite(logits).all():
            raise UserError(f"{name}: the teacher's logits hold values that are not finite")


def log_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Logarithms of the class probabilities, float64 ``(..., C)``."""
    return torch.log_softmax(logits.double() / temperature, dim=-1)


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    """Pick the label's entry: ``(n, C)`` to ``(n,)``, ``(n, r, C)`` to ``(n, r)``."""
    index = labels.view(-1, *[1] * (values.ndim - 1)).expand(*values.shape[:-1], 1)
    return values.gather(-1, index).squeeze(-1)


def confidence_drop(clean: Tensor, views: Tensor, labels: Tensor) -> Tensor:
    """How much probability the label loses: ``pT(y|x) - pT(y|t(x))``, mean over draws, ``(n,)``."""
    before = _of_label(log_probs(clean), labels).exp()
    after = _of_label(log_probs(views), labels).exp()
    return (before[:, None] - after).mean(1)


def outliers(clean: Tensor, views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Parts of the outlier rate ``P(argmax pT(t(x)) != y | argmax pT(x) = y)``.

    Returns:
        Numerator ``(n,)``, the share of a picture's draws that are answered wrongly if the picture itself is answered
        rightly, else 0; and denominator ``(n,)``, 1 or 0. The rate is the ratio of their sums.
    """
    right = (clean.argmax(-1) == labels).double()
    wrong = (views.argmax(-1) != labels[:, None]).double().mean(1)
    return right * wrong, right


def accuracy(views: Tensor, labels: Tensor) -> Tensor:
    """Share of a picture's draws that are answered rightly, ``(n,)``."""
    return (views.argmax(-1) == labels[:, None]).double().mean(1)


def view_kl(clean: Tensor, views: Tensor) -> Tensor:
    """``KL(pT(x) || pT(t(x)))`` in nats, mean over draws, ``(n,)``; exactly 0 for equal logits."""
    before, after = log_probs(clean)[:, None], log_probs(views)
    return (before.exp() * (before - after)).sum(-1).mean(1)


def entropy(views: Tensor) -> Tensor:
    """Entropy of the teacher's answer on the views in nats, mean over draws, ``(n,)``."""
    logs = log_probs(views)
    return -(logs.exp() * logs).sum(-1).mean(1)


def label_entropy(labels: Tensor, classes: int) -> float:
    """``H(Y)`` of the labels at hand in bits: the most that any view could tell about them."""
    share = torch.bincount(labels, minlength=classes).double() / len(labels)
    share = share[share > 0]
    return float(-(share * share.log2()).sum())


def label_information(views: Tensor, labels: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """What a view tells about the label through these logits, in bits: ``log2 p(y|t(x)) - log2 P(y)``, ``(n,)``.

    The mean over pictures is ``H(Y) + E[log2 p(y|t(x))]``, a lower bound on the mutual information of label and view,
    whatever the classifier; ``P(y)`` is the frequency among ``labels``. A classifier that does not look at the view
    cannot get above 0.

    Args:
        views: ``(n, r, C)``.
        labels: ``(n,)``.
        temperature: Of the classifier, one number or one per picture ``(n,)``.
    """
    per_picture = torch.as_tensor(temperature, dtype=torch.float64, device=views.device).expand(len(labels))
    logs = torch.log_softmax(views.double() / per_picture[:, None, None], dim=-1)
    frequency = torch.bincount(labels, minlength=views.shape[-1]).double() / len(labels)
    return (_of_label(logs, labels).mean(1) - frequency[labels].log()) / math.log(2)


def top_mass(views: Tensor) -> Tensor:
    """Teacher probability on its K largest classes for K = 1..C, mean over draws, ``(n, C)``."""
    return log_probs(views).exp().sort(dim=-1, descending=True).values.cumsum(-1).mean(1)


def smallest_k(mass: Tensor, at_least: float = 0.9) -> int:
    """Smallest K whose mean mass reaches ``at_least``.

    Args:
        mass: Mean mass for K = 1..C, ``(C,)``, non-decreasing.
        at_least: In (0, 1].

    Raises:
        UserError: If ``at_least`` is out of range.
    """
    if not 0 < at_least <= 1:
        raise UserError(f"mass={at_least!r} must be in (0, 1]: the share of the teacher's probability to keep")
    reached = (mass >= at_least - 1e-12).nonzero()  # all classes together sum to 1 up to rounding
    return int(reached[0]) + 1 if len(reached) else len(mass)


def teacher_stddev(views: Tensor, batch_size: int = 64, batches: int = 5, seed: int = 0) -> float | None:
    """T. stddev of Wang et al. (NeurIPS 2022): how much the teacher's mean answer varies; lower suits KD better.

    The views come in a shuffled order in mini-batches, as in training; the answers of each group of mini-batches are
    averaged, and the (n - 1) standard deviation over groups is averaged over classes. It says nothing of labels.

    Args:
        views: ``(n, r, C)``.
        batch_size: Views in a mini-batch (64 in the authors' code).
        batches: Mini-batches in a group (the authors take 5, and 10 where two pictures are mixed).
        seed: Of the order.

    Returns:
        The figure, or ``None`` if there are fewer than two full groups. Comparable only at equal sizes.

    Raises:
        UserError: If a size is below 1.
    """
    for name, value in (("batch_size", batch_size), ("batches", batches)):
        if value < 1:
            raise UserError(f"{name}={value!r} must be at least 1")
    probs = log_probs(views).exp().flatten(0, 1)
    size = batch_size * batches
    groups = len(probs) // size
    if groups < 2:
        return None
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(seed)).to(probs.device)
    means = probs[order[: groups * size]].view(groups, size, -1).mean(1)
    return float(means.std(0).mean())
