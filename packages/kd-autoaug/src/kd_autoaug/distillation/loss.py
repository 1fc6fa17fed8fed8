"""Cross-entropy plus distillation over the teacher's K best classes: the loss of the paper and its readings."""

from __future__ import annotations

import math
import warnings
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effkit.errors import UserError, choose
from kd_autoaug.distillation.terms import TopLogits, dense_logits, divergence, top_logits
from kd_autoaug.ops.loss_triton import topk_loss, why_not_fused

__all__ = ["BACKENDS", "DIRECTIONS", "IGNORE", "MODES", "LossTerms", "TopKDistillationLoss", "TopLogits", "top_logits"]

BACKENDS = ("auto", "torch", "triton")

MODES = ("renorm", "partial", "bucket", "hard")
DIRECTIONS = ("student_teacher", "teacher_student")
IGNORE = -100
"""Label of a picture that counts in no term."""


class LossTerms(TypedDict):
    """What the loss returns.

    Attributes:
        loss: ``ce_weight * ce + weight * kd``, with gradient.
        ce: Cross-entropy, detached.
        kd: Temperature squared times the mean divergence, detached; 0 if ``weight`` is 0.
        label_outside_topk: Share of pictures whose label is not among the teacher's K best classes, the outlier rate;
            NaN if ``weight`` is 0, for the teacher was not asked.
    """

    loss: Tensor
    ce: Tensor
    kd: Tensor
    label_outside_topk: Tensor


class TopKDistillationLoss(nn.Module):
    """Cross-entropy with the label, plus a KL divergence to the teacher restricted to its K best classes.

    ``loss = ce_weight * CE(y, softmax(zS / ce_temperature)) + weight * temperature^2 * D_K(zS, zT)``, averaged over the
    batch, in float32 (float64 if the student's logits are float64) whatever autocast says. No hyper-parameter here is
    verified against the paper's text; ``presets.EVIDENCE`` says where each comes from.

    Args:
        k: Classes of the teacher that count; -1 takes all of them. Not read by mode ``hard``.
        temperature: Of both softmaxes in D_K. Not read by mode ``hard``.
        weight: Of the distillation term; at 0 the loss is bit for bit cross-entropy and the teacher is not looked at.
        mode: What D_K compares. ``renorm``: softmax over the K classes alone. ``partial``: full softmax, summed over
            the K classes only; may be negative. ``bucket``: K classes and one for the rest; between 0 and the full KL,
            growing with K. ``hard``: no divergence, but cross-entropy with the teacher's best class.
        direction: ``student_teacher`` is KL(student || teacher), ``teacher_student`` Hinton's.
        ce_temperature: Divides the student's logits in the cross-entropy.
        ce_weight: Of the cross-entropy.
        label_smoothing: Weight of the uniform distribution in its target.
        check_on_gpu: Look for logits that are not finite and labels out of range on a GPU too, where each check waits
            for the device. On a CPU it always happens.
        backend: ``"triton"``: with hard labels and a teacher from a cache, two kernels, and one to go back.
            ``"torch"``: torch's operators. ``"auto"``: the kernels on a GPU, where they take what is given.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        k: int = -1,
        temperature: float = 5.0,
        weight: float = 0.5,
        mode: str = "renorm",
        direction: str = "student_teacher",
        ce_temperature: float = 1.0,
        ce_weight: float = 1.0,
        label_smoothing: float = 0.0,
        *,
        check_on_gpu: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if isinstance(k, bool) or not isinstance(k, int) or not (k == -1 or k >= 1):
            raise UserError(f"loss.k={k!r} must be -1 (all classes) or a whole number of at least 1")
        self.k = k
        self.temperature = _number("temperature", temperature, above=0)
        self.weight = _number("weight", weight, least=0)
        self.mode = choose("loss.mode", mode, MODES)
        self.direction = choose("loss.direction", direction, DIRECTIONS)
        self.ce_temperature = _number("ce_temperature", ce_temperature, above=0)
        self.ce_weight = _number("ce_weight", ce_weight, least=0)
        self.label_smoothing = _number("label_smoothing", label_smoothing, least=0)
        self.check_on_gpu = check_on_gpu
        self.backend = choose("loss.backend", backend, BACKENDS)
        if self.label_smoothing >= 1:
            raise UserError(f"loss.label_smoothing={label_smoothing!r} must be in [0, 1)")
        if self.weight == 0 and self.ce_weight == 0:
            raise UserError("loss.weight=0 and loss.ce_weight=0 leave no loss: give one of them a positive value")
        if k == 1 and self.mode == "renorm" and self.weight > 0:
            warnings.warn(
                "loss.k=1 with loss.mode=renorm compares distributions over one class: the distillation term is "
                "always 0; give loss.k of at least 2, or loss.mode=bucket",
                UserWarning,
                stacklevel=2,
            )

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        names = ("k", "temperature", "weight", "mode", "direction", "ce_temperature", "ce_weight", "label_smoothing")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def forward(self, student_logits: Tensor, teacher: Tensor | TopLogits | None, labels: Tensor) -> LossTerms:
        """Return the loss and its parts.

        Args:
            student_logits: ``(B, C)``.
            teacher: Its logits ``(B, C)`` for the same views, or what a cache holds of them; ``None`` only with
                ``weight=0``. No gradient goes through it.
            labels: Classes, int64 ``(B,)``, :data:`IGNORE` for pictures that do not count; or soft targets ``(B, C)``.

        Raises:
            UserError: If shapes or class counts do not fit, ``k`` is larger than C, or (on a CPU, or with
                ``check_on_gpu``) logits are not finite, labels out of range or soft targets no distribution.
        """
        with torch.autocast(student_logits.device.type, enabled=False):
            return self._terms(student_logits, teacher, labels)

    def _terms(self, student_logits: Tensor, teacher: Tensor | TopLogits | None, labels: Tensor) -> LossTerms:
        dtype = torch.float64 if student_logits.dtype == torch.float64 else torch.float32
        self._check_student(student_logits, labels)
        if self._fuses(student_logits, teacher, labels):
            return self._fused(student_logits, teacher, labels)  # type: ignore[arg-type]
        student = student_logits.to(dtype)
        ce = self._cross_entropy(student, labels)
        if self.weight == 0:
            loss = ce if self.ce_weight == 1 else self.ce_weight * ce
            return LossTerms(
                loss=loss,
                ce=ce.detach(),
                kd=torch.zeros_like(ce.detach()),
                label_outside_topk=torch.full_like(ce.detach(), torch.nan),
            )
        target = self._target(student, teacher)
        hard = labels if labels.ndim == 1 else labels.argmax(1)
        counted = hard != IGNORE
        if self.mode == "hard":
            each = F.cross_entropy(student, target.classes[:, 0], reduction="none")  # type: ignore[union-attr]
            scale = 1.0
        else:
            each = divergence(student, target, self.temperature, self.mode, self.direction)
            scale = self.temperature**2
        number = counted.sum()
        kd = scale * (torch.where(counted, each, 0.0).sum() / number)
        loss = self.weight * kd if self.ce_weight == 0 else self.ce_weight * ce + self.weight * kd
        outside = (_outside(hard, target) & counted).sum().to(dtype) / number
        return LossTerms(loss=loss, ce=ce.detach(), kd=kd.detach(), label_outside_topk=outside)

    def _fuses(self, student: Tensor, teacher: Tensor | TopLogits | None, labels: Tensor) -> bool:
        """Whether the kernels compute this.

        Raises:
            UserError: If they are asked for by name and cannot.
        """
        if self.backend == "torch" or self.weight == 0:
            return False
        count, reason = student.shape[1], None
        if not isinstance(teacher, TopLogits) or labels.ndim != 1:
            reason = "takes hard labels and what a cache holds of a teacher"
        elif self.mode != "hard" and (self.k == -1 or self.k >= count):
            reason = f"takes loss.k below the number of classes, {count}, got {self.k}"
        elif self.mode == "bucket" and teacher.rest is None:
            reason = "needs the teacher's sum over its other classes, which its record has not"
        else:
            reason = why_not_fused(student, named=self.backend == "triton")
        if reason is not None and self.backend == "triton":
            raise UserError(f"loss.backend='triton' {reason}; use loss.backend='auto'")
        return reason is None

    def _fused(self, student: Tensor, teacher: TopLogits, labels: Tensor) -> LossTerms:
        k = self._check_teacher(student, teacher)
        loss, ce, kd, outside, _ = topk_loss(
            student,
            labels,
            teacher.values.detach(),
            teacher.classes,
            teacher.logsumexp.detach(),
            None if teacher.rest is None else teacher.rest.detach(),
            k,
            self.mode,
            self.direction == "student_teacher",
            self.temperature,
            self.ce_temperature,
            self.ce_weight,
            self.weight,
            self.label_smoothing,
            IGNORE,
        )
        return LossTerms(loss=loss, ce=ce.detach(), kd=kd.detach(), label_outside_topk=outside.detach())

    def _cross_entropy(self, student: Tensor, labels: Tensor) -> Tensor:
        scaled = student if self.ce_temperature == 1 else student / self.ce_temperature
        targets = labels if labels.ndim == 1 else labels.to(student.dtype)
        return F.cross_entropy(scaled, targets, ignore_index=IGNORE, label_smoothing=self.label_smoothing)

    def _target(self, student: Tensor, teacher: Tensor | TopLogits | None) -> Tensor | TopLogits:
        """The teacher's answer as the divergence wants it: dense where all classes count, else the K best."""
        k, count = self._check_teacher(student, teacher), student.shape[1]
        if not isinstance(teacher, TopLogits):
            values = teacher.detach().to(student.dtype)  # type: ignore[union-attr]
            return values if k == count and self.mode != "hard" else top_logits(values, k, self.temperature)
        values, *sums = (
            t if t is None else t.detach().to(student.dtype) for t in (teacher.values, teacher.logsumexp, teacher.rest)
        )
        top = TopLogits(values, teacher.classes, sums[0], teacher.temperature, sums[1])  # type: ignore[arg-type]
        return dense_logits(top) if k == count and self.mode != "hard" else top.head(k)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_teacher(self, student: Tensor, teacher: Tensor | TopLogits | None) -> int:
        """Refuse a teacher that does not fit the student, and return how many of its classes count."""
        batch, count = student.shape
        if teacher is None:
            raise UserError(
                f"teacher=None, but loss.weight={self.weight} needs its logits: give them, or loss.weight=0"
            )
        if self.k > count:
            raise UserError(f"loss.k={self.k} must be -1 or in 1..{count}, the number of classes")
        k = 1 if self.mode == "hard" else count if self.k == -1 else self.k
        values = teacher.values if isinstance(teacher, TopLogits) else teacher
        if values.ndim != 2 or len(values) != batch:
            raise UserError(f"teacher logits have shape {tuple(values.shape)}, expected one row for each of {batch}")
        self._check_finite("teacher logits", values)
        if not isinstance(teacher, TopLogits):
            if values.shape[1] != count:
                raise UserError(f"the teacher has {values.shape[1]} classes and the student {count}: they must agree")
            return k
        held = values.shape[1]
        if held > count:
            raise UserError(f"the teacher's record holds {held} classes and the student has {count}: they must agree")
        if held < k:
            wanted = f"loss.k={self.k}" + (f" (all {count})" if self.k == -1 else "")
            raise UserError(
                f"{wanted} needs {k} classes of the teacher, but its record holds {held}: give "
                f"loss.k in 1..{held}, or build the cache with more"
            )
        if batch and self._checks(values) and int(teacher.classes.max()) >= count:
            raise UserError(f"the teacher's record names class {int(teacher.classes.max())}, the student has {count}")
        sums = self.mode in ("partial", "bucket") and k < count
        if sums and teacher.temperature != self.temperature:
            raise UserError(
                f"loss.temperature={self.temperature} with loss.mode={self.mode} needs the teacher's sum "
                f"over all classes at that temperature; its record has {teacher.temperature}"
            )
        return k

    def _checks(self, value: Tensor) -> bool:
        return (value.device.type == "cpu" or self.check_on_gpu) and not torch.compiler.is_compiling()

    def _check_finite(self, name: str, value: Tensor) -> None:
        if self._checks(value) and not bool(torch.isfinite(value).all()):
            row = int((~torch.isfinite(value)).any(1).nonzero()[0])
            raise UserError(f"{name} of picture {row} of the batch are not finite: NaN or infinite")

    def _check_student(self, student: Tensor, labels: Tensor) -> None:
        if student.ndim != 2 or student.shape[1] < 1:
            raise UserError(f"student logits have shape {tuple(student.shape)}, expected (B, C)")
        batch, count = student.shape
        hard = labels.ndim == 1 and labels.dtype == torch.int64
        if len(labels) != batch or not (hard or (labels.shape == student.shape and labels.is_floating_point())):
            raise UserError(
                f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected int64 ({batch},) or "
                f"float ({batch}, {count})"
            )
        self._check_finite("student logits", student)
        if not hard and batch and self._checks(student):
            _check_distributions(labels)
        if hard and batch and self._checks(student):
            wrong = labels[((labels < 0) | (labels >= count)) & (labels != IGNORE)]
            if len(wrong):
                raise UserError(f"labels hold {int(wrong[0])}, allowed are 0..{count - 1}, and {IGNORE} to ignore")


def _check_distributions(labels: Tensor) -> None:
    """Refuse soft targets that are no distributions: cross-entropy would take them without a word."""
    wide = labels.to(torch.float64)
    off = (wide.sum(1) - 1).abs()
    allowed = max(1e-3, 8 * torch.finfo(labels.dtype).eps)  # mixed in half precision
    wrong = (wide < 0).any(1) | ~(off <= allowed)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        what = f"sum to {float(wide[row].sum()):.4g}" if not bool((wide[row] < 0).any()) else "hold a negative number"
        raise UserError(f"the soft targets of picture {row} of the batch {what}, but must be shares that sum to 1")


def _outside(labels: Tensor, target: Tensor | TopLogits) -> Tensor:
    """Whether each label is outside the classes that count, bool ``(B,)``."""
    if isinstance(target, TopLogits):
        return (target.classes != labels[:, None]).all(1)
    return torch.zeros_like(labels, dtype=torch.bool)


def _number(name: str, value: float, *, above: float | None = None, least: float | None = None) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and (above is None or value > above) and (least is None or value >= least):
        return float(value)
    bound = f"above {above}" if above is not None else f"of at least {least}"
    raise UserError(f"loss.{name}={value!r} must be a number {bound}")
