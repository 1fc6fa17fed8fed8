"""The pieces of the distillation loss: the teacher's best classes in a fixed order, and divergences over them.

Everything is plain tensor arithmetic in the dtype of its inputs; ``loss.py`` decides that dtype. ``reference_loss.py``
says the same in naive loops.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from effkit.errors import UserError

__all__ = ["TopLogits", "dense_logits", "divergence", "kl", "top_distributions", "top_logits"]


class TopLogits(NamedTuple):
    """A teacher's K largest logits of each picture, and what the others weigh.

    Attributes:
        values: Logits, largest first, ``(B, K)``.
        classes: Their classes, int64 ``(B, K)``; among equal logits the smaller class comes first.
        logsumexp: log sum exp(z / temperature) over all C classes, ``(B,)``.
        temperature: The temperature of ``logsumexp`` and ``rest``.
        rest: The same sum over the C - K other classes, ``(B,)``; ``-inf`` where K = C. Kept beside ``logsumexp``
            because their difference loses all digits where the top classes hold nearly all of the mass. ``None``: not
            known, it is computed from that difference.
    """

    values: Tensor
    classes: Tensor
    logsumexp: Tensor
    temperature: float
    rest: Tensor | None = None

    def head(self, k: int) -> TopLogits:
        """The ``k`` largest; the classes left out join the rest.

        Args:
            k: At most the number held.
        """
        if k == self.values.shape[1]:
            return self
        dropped = torch.logsumexp(self.values[:, k:] / self.temperature, 1)
        rest = torch.logaddexp(self.outside(), dropped)
        return TopLogits(self.values[:, :k], self.classes[:, :k], self.logsumexp, self.temperature, rest)

    def outside(self) -> Tensor:
        """``rest``, or what is left of ``logsumexp`` where it is not known, ``(B,)``."""
        if self.rest is not None:
            return self.rest
        inside = torch.logsumexp(self.values / self.temperature, 1)
        return _log_difference(self.logsumexp, inside)

    def to(self, device: torch.device | str) -> TopLogits:
        """The same on another device."""
        values, classes, total = (t.to(device, non_blocking=True) for t in self[:3])
        rest = None if self.rest is None else self.rest.to(device, non_blocking=True)
        return TopLogits(values, classes, total, self.temperature, rest)


def _log_difference(total: Tensor, part: Tensor) -> Tensor:
    """log(e^total - e^part). Where rounding leaves nothing, half a unit in the last place of the total is left."""
    remaining = -torch.expm1((part - total).clamp(max=0))
    return total + remaining.clamp(min=torch.finfo(total.dtype).eps / 2).log()


def top_logits(logits: Tensor, k: int, temperature: float) -> TopLogits:
    """Return the ``k`` largest logits of each row, by (score descending, class ascending) on every device.

    ``torch.topk`` promises nothing about equal scores; a stable sort does.

    Args:
        logits: ``(B, C)``.
        k: ``1..C``.
        temperature: Of the sums over all and over the other classes.

    Raises:
        UserError: If ``k`` or ``temperature`` is out of range.
    """
    count = logits.shape[1]
    if not 1 <= k <= count:
        raise UserError(f"k={k!r} must be in 1..{count}, the number of classes")
    if not temperature > 0:
        raise UserError(f"temperature={temperature!r} must be above 0")
    values, classes = torch.sort(logits, dim=1, descending=True, stable=True)
    scaled = values / temperature
    rest = torch.full_like(scaled[:, 0], -torch.inf) if k == count else torch.logsumexp(scaled[:, k:], 1)
    return TopLogits(values[:, :k], classes[:, :k], torch.logsumexp(scaled, 1), temperature, rest)


def dense_logits(top: TopLogits) -> Tensor:
    """Put logits that hold all classes back in class order: ``(B, C)``, bit-equal to what they were taken from."""
    return torch.empty_like(top.values).scatter_(1, top.classes, top.values)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) of each row, ``(B,)``; with unnormalised rows the bare sum p (log p - log q).

    Args:
        log_p: ``(B, K)``.
        log_q: ``(B, K)``.
    """
    return (log_p.exp() * (log_p - log_q)).sum(1)


def top_distributions(student: Tensor, teacher: TopLogits, temperature: float, mode: str) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities that a mode compares.

    Args:
        student: Logits ``(B, C)``.
        teacher: Its K < C best classes.
        temperature: Softmax temperature of both.
        mode: ``"renorm"``: softmax over the K classes alone, ``(B, K)``. ``"partial"``: full softmax, only its entries
            in the K classes, ``(B, K)``. ``"bucket"``: those, and the mass of all other classes, ``(B, K + 1)``.

    Returns:
        Of the student and of the teacher.
    """
    scaled = student / temperature
    ours, theirs = scaled.gather(1, teacher.classes), teacher.values / temperature
    if mode == "renorm":
        return F.log_softmax(ours, 1), F.log_softmax(theirs, 1)
    if mode == "bucket":
        # The others' mass is summed up by itself: one minus the top classes' mass would lose its digits.
        others = torch.logsumexp(scaled.scatter(1, teacher.classes, -torch.inf), 1, keepdim=True)
        ours, theirs = torch.cat([ours, others], 1), torch.cat([theirs, teacher.outside()[:, None]], 1)
        return F.log_softmax(ours, 1), F.log_softmax(theirs, 1)
    total = torch.logsumexp(scaled, 1, keepdim=True)
    return ours - total, theirs - teacher.logsumexp[:, None]


def divergence(student: Tensor, teacher: Tensor | TopLogits, temperature: float, mode: str, direction: str) -> Tensor:
    """Return D_K of each picture, ``(B,)``, without the factor temperature squared.

    Args:
        student: Logits ``(B, C)``.
        teacher: Logits ``(B, C)``, where all modes are the ordinary KL divergence; or the K < C best classes.
        temperature: Softmax temperature of both.
        mode: ``"renorm"``, ``"partial"`` or ``"bucket"``, see :func:`top_distributions`.
        direction: ``"student_teacher"``: KL(student || teacher), which seeks modes; ``"teacher_student"``: Hinton's.
    """
    if isinstance(teacher, TopLogits):
        ours, theirs = top_distributions(student, teacher, temperature, mode)
    else:
        ours, theirs = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    return kl(ours, theirs) if direction == "student_teacher" else kl(theirs, ours)
