"""The distillation loss as a torch operator, ``kd_autoaug::topk_loss``: two launches, and one to go back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from effkit.triton import kernels, launch, power_of_two, why_not, widened

__all__ = ["MODES", "WIDEST", "topk_loss", "why_not_fused"]

MODES = ("hard", "renorm", "partial", "bucket")
WIDEST = 1 << 15  # classes of a row that fit in registers
_LABELS = 1024  # read at once


def why_not_fused(student: Tensor, *, named: bool) -> str | None:
    """Why the kernels do not take these logits; ``None`` if they do.

    Args:
        student: Logits ``(B, C)``.
        named: Whether they are asked for by name.
    """
    if student.shape[1] > WIDEST:
        return f"takes at most {WIDEST} classes, got {student.shape[1]}"
    return why_not(student.device, {student.dtype}, got=f"logits on device '{student.device}'", auto=not named)


def _loss(
    student: Tensor,
    labels: Tensor,
    values: Tensor,
    classes: Tensor,
    total: Tensor,
    rest: Tensor | None,
    k: int,
    mode: str,
    student_teacher: bool,
    temperature: float,
    ce_temperature: float,
    ce_weight: float,
    weight: float,
    label_smoothing: float,
    ignore: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    import triton.language as tl

    batch, count = student.shape
    held = values.shape[1]
    double = student.dtype == torch.float64
    exact = torch.float64 if double else torch.float32
    loss, ce, kd, outside = (torch.empty((), dtype=exact, device=student.device) for _ in range(4))
    grad = torch.empty(batch, count, dtype=exact, device=student.device)
    terms = torch.empty(3, batch, dtype=exact, device=student.device)
    student, values, total = (widened(t.contiguous()) for t in (student, values, total))
    rest = None if rest is None else widened(rest.contiguous())
    labels = labels.contiguous()
    weights = {
        "CE_WEIGHT": ce_weight,
        "WEIGHT": weight,
        "IGNORE": ignore,
        "ACC": tl.float64 if double else tl.float32,
        "LABELS": _LABELS,
    }
    file = kernels(__package__, "loss_kernel")
    if batch:
        launch(
            file.loss_kernel,
            (batch,),
            terms,
            grad,
            student,
            labels,
            values,
            classes.contiguous(),
            total,
            rest,
            batch,
            C=count,
            HELD=held,
            K=k,
            MODE=MODES.index(mode),
            STUDENT_TEACHER=student_teacher,
            TEMPERATURE=temperature,
            CE_TEMPERATURE=ce_temperature,
            SMOOTHING=label_smoothing,
            BLOCK=power_of_two(count),
            SPARE=power_of_two(held),
            warps=8 if count > 2048 else 4,
            **weights,
        )
    launch(file.mean_kernel, (1,), loss, ce, kd, outside, terms, labels, batch, **weights)
    return loss, ce, kd, outside, grad


topk_loss = torch.library.custom_op(
    "kd_autoaug::topk_loss",
    _loss,
    mutates_args=(),
    schema=(
        "(Tensor student, Tensor labels, Tensor values, Tensor classes, Tensor total, Tensor? rest, int k, str mode, "
        "bool student_teacher, float temperature, float ce_temperature, float ce_weight, float weight, "
        "float label_smoothing, int ignore) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


@topk_loss.register_fake
def _(student: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    exact = torch.float64 if student.dtype == torch.float64 else torch.float32
    means = (student.new_empty((), dtype=exact) for _ in range(4))
    return *means, student.new_empty(student.shape, dtype=exact)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # only the loss is differentiated
    ctx.save_for_backward(output[4])
    ctx.dtype = inputs[0].dtype


def _back(ctx: Any, by_loss: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
    (grad,) = ctx.saved_tensors
    if by_loss is None:
        return (None,) * 15
    # Kept in float32 until here: a factor that scales the loss must reach what half precision would lose.
    out = torch.empty_like(grad, dtype=ctx.dtype)
    return torch.mul(grad, by_loss, out=out), *(None,) * 14


topk_loss.register_autograd(_back, setup_context=_save)
