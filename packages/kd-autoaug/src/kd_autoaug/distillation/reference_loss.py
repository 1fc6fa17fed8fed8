"""The loss again, as loops over float64 numbers: the specification of ``loss.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["reference_divergence", "reference_loss", "reference_top_classes"]

Numbers = Sequence[float]


def reference_top_classes(logits: Numbers, k: int) -> list[int]:
    """The k classes with the largest logits; among equal ones the smaller class comes first."""
    return sorted(range(len(logits)), key=lambda c: (-logits[c], c))[:k]


def _softmax(logits: Numbers, temperature: float) -> list[float]:
    largest = max(logits)
    powers = [math.exp((z - largest) / temperature) for z in logits]
    return [p / sum(powers) for p in powers]


def _sum_of_terms(p: Numbers, q: Numbers) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def reference_divergence(
    student: Numbers, teacher: Numbers, k: int, temperature: float, mode: str, direction: str
) -> float:
    """D_K of one picture, without the factor temperature squared.

    Args:
        student: C logits.
        teacher: C logits.
        k: ``1..C``.
        temperature: Of both softmaxes.
        mode: ``renorm``, ``partial`` or ``bucket``.
        direction: ``student_teacher`` or ``teacher_student``.
    """
    top = reference_top_classes(teacher, k)
    if mode == "renorm":
        p = _softmax([student[c] for c in top], temperature)
        q = _softmax([teacher[c] for c in top], temperature)
    else:
        full_p, full_q = _softmax(student, temperature), _softmax(teacher, temperature)
        p, q = [full_p[c] for c in top], [full_q[c] for c in top]
        others = [c for c in range(len(teacher)) if c not in top]
        if mode == "bucket" and others:
            p.append(sum(full_p[c] for c in others))
            q.append(sum(full_q[c] for c in others))
    return _sum_of_terms(p, q) if direction == "student_teacher" else _sum_of_terms(q, p)


def reference_loss(
    student: Sequence[Numbers],
    teacher: Sequence[Numbers],
    labels: Sequence[int],
    *,
    k: int,
    temperature: float,
    weight: float,
    mode: str,
    direction: str,
    ce_temperature: float = 1.0,
    ce_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> dict[str, float]:
    """What ``TopKDistillationLoss`` returns, for hard labels; arguments as there, ``k`` in ``1..C``."""
    ce = kd = outside = 0.0
    for z_student, z_teacher, label in zip(student, teacher, labels, strict=True):
        count = len(z_student)
        log_p = [math.log(p) for p in _softmax(z_student, ce_temperature)]
        target = [label_smoothing / count + (1 - label_smoothing) * (c == label) for c in range(count)]
        ce -= sum(t * l for t, l in zip(target, log_p, strict=True))
        if mode == "hard":
            best = reference_top_classes(z_teacher, 1)
            kd -= math.log(_softmax(z_student, 1.0)[best[0]])
            outside += label not in best
        else:
            kd += temperature**2 * reference_divergence(z_student, z_teacher, k, temperature, mode, direction)
            outside += label not in reference_top_classes(z_teacher, k)
    batch = len(student)
    ce, kd = ce / batch, kd / batch
    return {"loss": ce_weight * ce + weight * kd, "ce": ce, "kd": kd, "label_outside_topk": outside / batch}
