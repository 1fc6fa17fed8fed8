"""Named settings of the loss, and for each value how well it is known.

The text of the paper was not reachable, so nothing here is asserted as the paper's: every value is a default that can
be changed, and ``EVIDENCE`` says where it comes from.
"""

from __future__ import annotations

from typing import Any

from effkit.errors import choose
from kd_autoaug.distillation.loss import TopKDistillationLoss

__all__ = ["EVIDENCE", "MARKS", "PRESETS", "preset"]

MARKS = {
    "A": "abstract of the paper",
    "S": "secondary summary of the paper",
    "R": "code of a re-implementation (Chenyang4/ReSmooth)",
    "C": "official code or a citing paper",
    "ours": "definition of the preset",
    "?": "not verified",
}
"""What the marks in :data:`EVIDENCE` stand for."""

PRESETS: dict[str, dict[str, Any]] = {
    "ce": {"weight": 0.0, "label_smoothing": 0.0},
    "label_smoothing": {"weight": 0.0, "label_smoothing": 0.1},
    "paper": {
        "k": 5,
        "temperature": 5.0,
        "weight": 0.5,
        "mode": "renorm",
        "direction": "student_teacher",
        "ce_temperature": 1.0,
        "label_smoothing": 0.0,
    },
    "resmooth": {
        "k": -1,
        "temperature": 5.0,
        "weight": 0.5,
        "mode": "renorm",
        "direction": "student_teacher",
        "ce_temperature": 5.0,
    },
    "hinton": {
        "k": -1,
        "temperature": 4.0,
        "weight": 0.9,
        "ce_weight": 0.1,
        "mode": "renorm",
        "direction": "teacher_student",
    },
    "deit_hard": {"mode": "hard", "weight": 0.5, "ce_weight": 0.5},
    "funmatch": {
        "k": -1,
        "temperature": 1.0,
        "weight": 1.0,
        "ce_weight": 0.0,
        "mode": "renorm",
        "direction": "teacher_student",
    },
}
"""Arguments of :class:`~kd_autoaug.distillation.loss.TopKDistillationLoss`; what is not named keeps its default."""

EVIDENCE: dict[str, dict[str, str]] = {
    "ce": {"weight": "[ours] no teacher", "label_smoothing": "[ours] none"},
    "label_smoothing": {
        "weight": "[ours] no teacher",
        "label_smoothing": "[C] 0.1 in the EfficientNet recipe; the control that must not restore what KD does",
    },
    "paper": {
        "k": "[S] 5 on ImageNet, to grow with the magnitude; [R] all classes (-1) on CIFAR",
        "temperature": "[R] 5 on CIFAR; [?] on ImageNet",
        "weight": "[S][R] 0.5; 0.1 is too weak, 2.0 hurts",
        "mode": "[R] softmax over the K classes alone; [?] in the paper",
        "direction": "[R] KL(student || teacher); [?] in the paper",
        "ce_temperature": "[?] 1 recommended; [R] divides by the temperature here too",
        "label_smoothing": "[?] 0: the teacher takes its place",
    },
    "resmooth": {
        "k": "[R] -1 on CIFAR",
        "temperature": "[R] 5",
        "weight": "[R] 0.5",
        "mode": "[R] softmax over the K classes alone",
        "direction": "[R] KL(student || teacher)",
        "ce_temperature": "[R] the temperature divides the logits of the cross-entropy as well",
    },
    "hinton": {
        "k": "[C] all classes",
        "temperature": "[?] 4 is usual on CIFAR; values differ between works",
        "weight": "[?] 0.9 is usual with temperature 4",
        "ce_weight": "[?] 1 - weight",
        "mode": "[C] all modes are the same with all classes",
        "direction": "[C] KL(teacher || student)",
    },
    "deit_hard": {
        "mode": "[C] cross-entropy with the teacher's best class",
        "weight": "[C] 0.5",
        "ce_weight": "[C] 0.5",
    },
    "funmatch": {
        "k": "[C] all classes",
        "temperature": "[C] 1",
        "weight": "[C] distillation alone",
        "ce_weight": "[C] 0: the labels are not used",
        "mode": "[C] all modes are the same with all classes",
        "direction": "[C] KL(teacher || student)",
    },
}
"""How well each value of :data:`PRESETS` is known, same keys."""


def preset(name: str, **overrides: Any) -> TopKDistillationLoss:
    """Build the loss of a preset.

    Args:
        name: One of :data:`PRESETS`.
        **overrides: Arguments of ``TopKDistillationLoss`` that take the place of the preset's.

    Raises:
        UserError: If the name or a value is not allowed.
    """
    return TopKDistillationLoss(**{**PRESETS[choose("loss.name", name, PRESETS)], **overrides})
