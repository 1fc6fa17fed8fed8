"""The distillation loss of a batch and its gradient, from what a cache holds of the teacher.

One program a picture reads the student's logits once, finds all sums over them in registers, and writes the picture's
terms and its whole gradient, so that the backward pass is one product. A second kernel adds the terms up. The K
classes are laid over the row of C logits one by one; K is small.
"""

# No `from __future__ import annotations` here: triton reads the annotations of kernels.
import triton
import triton.language as tl

from effkit.triton import device_functions

_core = device_functions()
add, greater, loop_bound = _core.add, _core.greater, _core.loop_bound

HARD, RENORM, PARTIAL, BUCKET = (tl.constexpr(number) for number in range(4))


@triton.jit
def log_sum(x, which):
    """Log sum exp over the numbers of a row that count."""
    x = tl.where(which, x, -float("inf"))
    most = tl.reduce(x, 0, greater)
    return most + tl.log(tl.reduce(tl.exp(x - most), 0, add))


@triton.jit
def log_shares(x, which):
    """Log-softmax over the numbers that count, as torch rounds it; 0 elsewhere."""
    x = tl.where(which, x, -float("inf"))
    far = x - tl.reduce(x, 0, greater)
    return tl.where(which, far - tl.log(tl.reduce(tl.exp(far), 0, add)), 0.0)


@triton.jit
def log_shares_with(x, which, one):
    """The same over these numbers and one more; of them and of that one."""
    x = tl.where(which, x, -float("inf"))
    most = tl.maximum(tl.reduce(x, 0, greater), one)
    total = tl.log(tl.reduce(tl.exp(x - most), 0, add) + tl.exp(one - most))
    return tl.where(which, x - most - total, 0.0), one - most - total


@triton.jit
def log_add(x, y):
    """log(e^x + e^y)."""
    most = tl.maximum(x, y)
    return most + tl.log(tl.exp(x - most) + tl.exp(y - most))


@triton.jit
def number_counted(labels_ptr, batch, IGNORE: tl.constexpr, LABELS: tl.constexpr):
    """Pictures that count."""
    total = tl.full([LABELS], 0, tl.int32)
    for start in range(0, loop_bound(batch), LABELS):
        place = start + tl.arange(0, LABELS)
        label = tl.load(labels_ptr + place, mask=place < batch, other=IGNORE)
        total += (label != IGNORE).to(tl.int32)
    return tl.reduce(total, 0, add)


@triton.jit(do_not_specialize=["batch"])
def loss_kernel(
    terms_ptr,  # (3, B): cross-entropy, divergence, whether the label is outside; 0 of pictures that do not count
    grad_ptr,  # (B, C)
    student_ptr,  # (B, C)
    labels_ptr,  # (B,) int64
    values_ptr,  # (B, HELD), largest first
    classes_ptr,  # (B, HELD) int64
    total_ptr,  # (B,) log sum exp of all of the teacher's logits
    rest_ptr,  # (B,) of those that are not held
    batch,
    C: tl.constexpr,
    HELD: tl.constexpr,
    K: tl.constexpr,
    MODE: tl.constexpr,
    STUDENT_TEACHER: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    CE_TEMPERATURE: tl.constexpr,
    CE_WEIGHT: tl.constexpr,
    WEIGHT: tl.constexpr,
    SMOOTHING: tl.constexpr,
    IGNORE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    SPARE: tl.constexpr,  # HELD padded
    LABELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    col = tl.arange(0, BLOCK)
    inside = col < C
    z = tl.load(student_ptr + row * C + col, mask=inside, other=0.0).to(ACC)
    label = tl.load(labels_ptr + row)
    right = col == label

    # Cross-entropy.
    scaled = z / CE_TEMPERATURE
    log_p = log_shares(scaled, inside)
    ce = -(1.0 - SMOOTHING) * tl.reduce(tl.where(right, log_p, 0.0), 0, add)
    ce = ce - (SMOOTHING / C) * tl.reduce(log_p, 0, add)
    target = tl.where(right, z * 0.0 + (1.0 - SMOOTHING), 0.0)  # in ACC: two bare numbers would be float32
    by_ce = (tl.exp(log_p) - target - SMOOTHING / C) / CE_TEMPERATURE

    # The teacher's classes, over the row.
    member = col < 0
    theirs = z * 0.0
    for j in range(K):
        here = col == tl.load(classes_ptr + row * HELD + j)
        member = member | here
        theirs = tl.where(here, tl.load(values_ptr + row * HELD + j).to(ACC), theirs)
    outside = 1.0 - tl.reduce(tl.where(member & right, 1.0, 0.0), 0, add)

    if MODE == HARD:
        log_p = log_shares(z, inside)
        kd = -tl.reduce(tl.where(member, log_p, 0.0), 0, add)
        by_kd = tl.exp(log_p) - tl.where(member, 1.0, 0.0)
    else:
        a = z / TEMPERATURE
        t = theirs / TEMPERATURE
        if MODE == RENORM:
            log_p = log_shares(a, member)
            log_q = log_shares(t, member)
        elif MODE == PARTIAL:
            shares = log_shares(a, inside)
            log_p = tl.where(member, shares, 0.0)
            log_q = tl.where(member, t - tl.load(total_ptr + row).to(ACC), 0.0)
        else:
            others = log_sum(a, inside & (member == 0))
            rest = tl.load(rest_ptr + row).to(ACC)
            if HELD > K:  # what the cache holds beyond K joins the rest
                place = tl.arange(0, SPARE)
                dropped = (place >= K) & (place < HELD)
                spare = tl.load(values_ptr + row * HELD + place, mask=dropped, other=0.0).to(ACC) / TEMPERATURE
                rest = log_add(rest, log_sum(spare, dropped))
            log_p, log_p_rest = log_shares_with(a, member, others)
            log_q, log_q_rest = log_shares_with(t, member, rest)
        p = tl.where(member, tl.exp(log_p), 0.0)
        q = tl.where(member, tl.exp(log_q), 0.0)
        by_logit = p * (log_p - log_q) if STUDENT_TEACHER else q * (log_q - log_p)
        kd = tl.reduce(by_logit, 0, add)
        if MODE == BUCKET:
            if STUDENT_TEACHER:
                of_rest = tl.exp(log_p_rest) * (log_p_rest - log_q_rest)
            else:
                of_rest = tl.exp(log_q_rest) * (log_q_rest - log_p_rest)
            kd += of_rest
        if MODE == PARTIAL:  # the softmax is over all classes, the sum is not
            every = tl.where(inside, tl.exp(shares), 0.0)
            if STUDENT_TEACHER:
                by_kd = by_logit + p - every * (kd + tl.reduce(p, 0, add))
            else:
                by_kd = every * tl.reduce(q, 0, add) - q
        elif STUDENT_TEACHER:
            by_kd = by_logit - p * kd
        else:
            by_kd = p - q
        if MODE == BUCKET:  # the others share the gradient of their sum
            p_rest = tl.exp(log_p_rest)
            by_rest = of_rest - p_rest * kd if STUDENT_TEACHER else p_rest - tl.exp(log_q_rest)
            by_kd += tl.where(inside & (member == 0), tl.exp(a - others) * by_rest, 0.0)
        kd = kd * (TEMPERATURE * TEMPERATURE)
        by_kd = by_kd * TEMPERATURE

    number = number_counted(labels_ptr, batch, IGNORE, LABELS).to(ACC)
    counted = label != IGNORE
    grad = tl.where(counted, (CE_WEIGHT * by_ce + WEIGHT * by_kd) / tl.maximum(number, 1.0), 0.0)
    tl.store(grad_ptr + row * C + col, grad, mask=inside)
    tl.store(terms_ptr + row, tl.where(counted, ce, 0.0))
    tl.store(terms_ptr + batch + row, tl.where(counted, kd, 0.0))
    tl.store(terms_ptr + 2 * batch + row, tl.where(counted, outside, 0.0))


@triton.jit(do_not_specialize=["batch"])
def mean_kernel(
    loss_ptr,
    ce_ptr,
    kd_ptr,
    outside_ptr,
    terms_ptr,  # (3, B)
    labels_ptr,  # (B,)
    batch,
    CE_WEIGHT: tl.constexpr,
    WEIGHT: tl.constexpr,
    IGNORE: tl.constexpr,
    ACC: tl.constexpr,
    LABELS: tl.constexpr,
):
    """Means over the pictures that count; NaN where there is none."""
    ces = tl.full([LABELS], 0.0, ACC)
    kds = tl.full([LABELS], 0.0, ACC)
    outsides = tl.full([LABELS], 0.0, ACC)
    for start in range(0, loop_bound(batch), LABELS):
        place = start + tl.arange(0, LABELS)
        mask = place < batch
        ces += tl.load(terms_ptr + place, mask=mask, other=0.0)
        kds += tl.load(terms_ptr + batch + place, mask=mask, other=0.0)
        outsides += tl.load(terms_ptr + 2 * batch + place, mask=mask, other=0.0)
    number = number_counted(labels_ptr, batch, IGNORE, LABELS).to(ACC)
    some = tl.maximum(number, 1.0)
    nothing = tl.where(number > 0.0, 0.0, float("nan"))
    ce = tl.reduce(ces, 0, add) / some + nothing
    kd = tl.reduce(kds, 0, add) / some + nothing
    tl.store(ce_ptr, ce)
    tl.store(kd_ptr, kd)
    tl.store(outside_ptr, tl.reduce(outsides, 0, add) / some + nothing)
    tl.store(loss_ptr, CE_WEIGHT * ce + WEIGHT * kd)
