"""The loss: the naive loops, closed-form gradients, timm's value, the order of ties, and what is refused."""

import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference, count_launches, kernels
from effkit.testing.kernels import needs_triton, waiting_is_an_error
from kd_autoaug.distillation.loss import IGNORE, TopKDistillationLoss, top_logits
from kd_autoaug.distillation.reference_loss import reference_loss, reference_top_classes
from kd_autoaug.distillation.terms import dense_logits, divergence
from kd_autoaug.ops.loss_triton import topk_loss

interpreter = kernels.interpreter

KL_MODES = ("renorm", "partial", "bucket")
DIRECTIONS = ("student_teacher", "teacher_student")
SETTINGS = [(m, d, k) for m in KL_MODES for d in DIRECTIONS for k in (2, 5, 10)]


def batch(size: int = 12, classes: int = 10, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(size, classes, generator=generator, dtype=torch.float64)
    return student.to(dtype), teacher.to(dtype), torch.randint(classes, (size,), generator=generator)


def unit_loss(**options) -> TopKDistillationLoss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of k=1 with renorm
        return TopKDistillationLoss(**options)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "direction", "k"), [*SETTINGS, ("hard", "student_teacher", 3)])
def test_equals_the_naive_loops(mode: str, direction: str, k: int) -> None:
    student, teacher, labels = batch()
    teacher[0] = 1.0  # all equal: the order of ties decides
    teacher[1, 3:7] = teacher[1].max()
    options = {"k": k, "temperature": 3.0, "weight": 0.7, "mode": mode, "direction": direction}
    options |= {"ce_temperature": 2.0, "ce_weight": 0.4, "label_smoothing": 0.1}
    expected = reference_loss(student.tolist(), teacher.tolist(), labels.tolist(), **options)
    for given_teacher in (teacher, top_logits(teacher, 10, 3.0), top_logits(teacher, k, 3.0)):
        found = TopKDistillationLoss(**options)(student, given_teacher, labels)
        assert {n: float(v) for n, v in found.items()} == pytest.approx(expected, rel=1e-11, abs=1e-12)
        assert found["loss"].dtype == torch.float64


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_timm_at_all_classes(temperature: float) -> None:
    task = pytest.importorskip("timm.task", reason="timm has it since 1.0.23")

    student, teacher, labels = batch(dtype=torch.float32)

    class Fixed(torch.nn.Module):
        """Answers with logits given beforehand; only its value matters here."""

        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(logits)
            self.num_classes, self.in_chans = 10, 3
            self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.logits

    task = task.LogitDistillationTask(
        Fixed(student), Fixed(teacher), criterion=torch.nn.CrossEntropyLoss(), distill_loss_weight=0.5,
        task_loss_weight=1.0, temperature=temperature, device=torch.device("cpu"), verbose=False,
    )  # fmt: skip
    theirs = task(torch.zeros(12, 3, 2, 2), labels)["loss"]
    for mode in KL_MODES:
        ours = TopKDistillationLoss(temperature=temperature, mode=mode, direction="teacher_student")
        torch.testing.assert_close(ours(student, teacher, labels)["loss"], theirs.detach(), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30), direction=st.sampled_from(DIRECTIONS))
def test_bucket_grows_with_k_up_to_the_full_divergence(seed: int, scale: float, direction: str) -> None:
    student, teacher, _ = batch(4, 8, seed=seed, scale=scale)
    full = divergence(student, teacher, 2.0, "bucket", direction)
    values = [divergence(student, top_logits(teacher, k, 2.0), 2.0, "bucket", direction) for k in range(1, 8)]
    values.append(full)
    rounding = 1e-12 * (1 + full)
    assert (values[0] >= -rounding).all()
    for fewer, more in itertools.pairwise(values):
        assert (fewer <= more + rounding).all()


def test_bucket_keeps_its_digits_where_the_top_classes_hold_all_the_mass() -> None:
    # The others' mass is 1e-17 of the whole: one minus the rest of the mass would be 0, and the divergence infinite.
    teacher = torch.tensor([[40.0, 0.0, -1.0, -2.0]])
    student = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    found = divergence(student, top_logits(teacher, 1, 1.0), 1.0, "bucket", "student_teacher")
    rest = 1 + math.exp(-1) + math.exp(-2)
    log_rest, log_top = math.log(rest) - math.log(rest + math.exp(40)), -math.log1p(rest * math.exp(-40))
    assert float(found) == pytest.approx(0.25 * (math.log(0.25) - log_top) + 0.75 * (math.log(0.75) - log_rest))


def test_partial_may_be_negative_and_is_not_clamped() -> None:
    student = torch.tensor([[0.0, 4.0, 0.0]])
    teacher = torch.tensor([[2.0, 0.0, 0.0]])
    terms = TopKDistillationLoss(1, 1.0, 1.0, "partial")(student, teacher, torch.tensor([0]))
    assert float(terms["kd"]) < 0
    assert float(terms["loss"]) == pytest.approx(float(terms["ce"] + terms["kd"]))


def test_renorm_can_exceed_the_full_divergence_and_ignores_a_shift_of_the_top_classes() -> None:
    student, teacher, labels = batch()
    shifted = student.clone()
    order = top_logits(teacher, 3, 1.0).classes
    shifted.scatter_(1, order, teacher.gather(1, order) + 1.5)
    loss = TopKDistillationLoss(3, 2.0, 1.0, "renorm", ce_weight=0.0)
    assert float(loss(shifted, teacher, labels)["kd"]) == pytest.approx(0, abs=1e-14)
    student, teacher = torch.tensor([[0.0, 3.0, 20.0]]), torch.tensor([[3.0, 0.0, -3.0]])
    top = divergence(student, top_logits(teacher, 2, 1.0), 1.0, "renorm", "student_teacher")
    assert float(top) > 2.5
    student = torch.tensor([[-20.0, -17.0, 5.0]])
    teacher = torch.tensor([[5.0, 2.0, 1.9]])
    most = divergence(student, top_logits(teacher, 2, 1.0), 1.0, "renorm", "teacher_student")
    assert 0 < float(most) < float(divergence(student, teacher, 1.0, "renorm", "teacher_student"))


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradient_in_closed_form(direction: str, k: int) -> None:
    student, teacher, labels = batch()
    student.requires_grad_()
    weight, tau = 0.8, 3.0
    TopKDistillationLoss(k, tau, weight, direction=direction, ce_weight=0.0)(student, teacher, labels)[
        "loss"
    ].backward()
    classes = torch.tensor([reference_top_classes(row, k) for row in teacher.tolist()])
    log_s = (student.detach().gather(1, classes) / tau).log_softmax(1)
    log_t = (teacher.gather(1, classes) / tau).log_softmax(1)
    if direction == "teacher_student":
        inside = weight * tau * (log_s.exp() - log_t.exp())
    else:
        gap = log_s - log_t
        inside = weight * tau * log_s.exp() * (gap - (log_s.exp() * gap).sum(1, keepdim=True))
    expected = torch.zeros_like(teacher).scatter_(1, classes, inside) / len(student)
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("mode", "direction", "k"), [*SETTINGS, ("hard", "student_teacher", -1)])
def test_gradcheck(mode: str, direction: str, k: int) -> None:
    student, teacher, labels = batch(3)
    loss = TopKDistillationLoss(k, 2.0, 0.7, mode, direction, ce_temperature=1.5, label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher, labels)["loss"], student.requires_grad_())


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, labels = batch()
    teacher.requires_grad_()
    for k in (-1, 3):
        loss = TopKDistillationLoss(k)(student.requires_grad_(), teacher, labels)["loss"]
        loss.backward()
    assert teacher.grad is None


# --- precision, order, labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher, labels = batch(dtype=dtype)
    for mode, direction, k in SETTINGS:
        loss = TopKDistillationLoss(k, 2.0, 0.5, mode, direction)
        expected = loss(student.float(), teacher.float(), labels)["loss"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(student, teacher, labels)["loss"]
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_ties_go_by_class() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (200, 50), generator=generator).float()
    for k in (1, 5, 49, 50):
        found = top_logits(logits, k, 1.0).classes.tolist()
        assert found == [reference_top_classes(row, k) for row in logits.tolist()]
    assert top_logits(torch.zeros(1, 1000), 5, 1.0).classes.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("k", [1, 4, 10])
def test_sums_over_all_and_over_the_other_classes(k: int) -> None:
    _, teacher, _ = batch()
    top = top_logits(teacher, k, 3.0)
    torch.testing.assert_close(top.logsumexp, (teacher / 3).logsumexp(1))
    others = teacher.clone().scatter_(1, top.classes, -torch.inf)
    torch.testing.assert_close(top.rest, (others / 3).logsumexp(1))
    longer = top_logits(teacher, 10, 3.0).head(k)
    assert torch.equal(longer.classes, top.classes)
    torch.testing.assert_close(longer.rest, top.rest)
    if k < 10:
        torch.testing.assert_close(top._replace(rest=None).outside(), top.rest)


def test_a_record_of_all_classes_is_bit_equal_to_the_logits() -> None:
    student, teacher, labels = batch(64, 100, torch.float32)
    record = top_logits(teacher, 100, 1.0)
    assert torch.equal(dense_logits(record), teacher)
    for mode in KL_MODES:
        for direction in DIRECTIONS:
            loss = TopKDistillationLoss(-1, 4.0, 0.5, mode, direction)
            online, cached = (loss(student, t, labels) for t in (teacher, record))
            assert all(torch.equal(online[n], cached[n]) for n in online)


def test_weight_zero_is_cross_entropy_bit_for_bit_and_asks_no_teacher() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        student, _, labels = batch(dtype=dtype)
        ours = student.clone().requires_grad_()
        plain = student.clone().requires_grad_()
        terms = TopKDistillationLoss(weight=0.0)(ours, None, labels)
        expected = F.cross_entropy(plain if dtype == torch.float64 else plain.float(), labels)
        assert torch.equal(terms["loss"], expected)
        terms["loss"].backward()
        expected.backward()
        assert torch.equal(ours.grad, plain.grad)
        assert float(terms["kd"]) == 0
        assert math.isnan(float(terms["label_outside_topk"]))


def test_soft_labels_are_those_of_cross_entropy() -> None:
    student, teacher, labels = batch()
    mixed = 0.7 * F.one_hot(labels, 10) + 0.3 * F.one_hot((labels + 1) % 10, 10)
    terms = TopKDistillationLoss(2, 1.0)(student, teacher, mixed.float())
    torch.testing.assert_close(terms["ce"], F.cross_entropy(student, mixed.float().double()))
    hard = TopKDistillationLoss(2, 1.0)(student, teacher, labels)
    assert torch.equal(terms["label_outside_topk"], hard["label_outside_topk"])
    assert torch.equal(terms["kd"], hard["kd"])


def test_the_share_of_labels_outside_the_top_classes() -> None:
    teacher = torch.tensor([[5.0, 4.0, 3.0, 2.0]] * 4)
    labels = torch.tensor([0, 1, 2, 3])
    share = lambda **o: float(unit_loss(**o)(torch.zeros(4, 4), teacher, labels)["label_outside_topk"])
    assert [share(k=k) for k in (1, 2, 3, 4, -1)] == [0.75, 0.5, 0.25, 0, 0]
    assert share(mode="hard") == 0.75


@pytest.mark.parametrize("mode", [*KL_MODES, "hard"])
def test_pictures_without_label_count_in_no_term(mode: str) -> None:
    student, teacher, labels = batch()
    padded = torch.cat([labels, torch.full((3,), IGNORE)])
    loss = TopKDistillationLoss(3, mode=mode)
    more = [torch.cat([z, 9 * torch.randn(3, 10, dtype=z.dtype, generator=torch.Generator().manual_seed(1))])
            for z in (student, teacher)]  # fmt: skip
    for name, value in loss(student, teacher, labels).items():
        torch.testing.assert_close(loss(*more, padded)[name], value)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"loss\.k=0 must be -1"),
        ({"k": -2}, r"loss\.k=-2"),
        ({"k": 2.5}, r"loss\.k=2\.5"),
        ({"temperature": 0.0}, r"loss\.temperature=0\.0 must be a number above 0"),
        ({"temperature": math.nan}, r"loss\.temperature=nan"),
        ({"weight": -0.1}, r"loss\.weight=-0\.1 must be a number of at least 0"),
        ({"ce_weight": -1}, r"loss\.ce_weight=-1"),
        ({"ce_temperature": -1}, r"loss\.ce_temperature=-1"),
        ({"label_smoothing": 1.0}, r"loss\.label_smoothing=1\.0"),
        ({"weight": 0, "ce_weight": 0}, r"leave no loss"),
        ({"mode": "bukcet"}, r"loss\.mode='bukcet'.*did you mean 'bucket'"),
        ({"direction": "teacher"}, r"loss\.direction='teacher' is not known"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TopKDistillationLoss(**options)


def test_bad_inputs_are_refused() -> None:
    student, teacher, labels = batch(dtype=torch.float32)
    loss = TopKDistillationLoss(3, 2.0, mode="bucket")

    def refused(message: str, *inputs, loss: TopKDistillationLoss = loss) -> None:
        with pytest.raises(UserError, match=message):
            loss(*inputs)

    refused(r"loss\.k=11 must be -1 or in 1\.\.10", student, teacher, labels, loss=TopKDistillationLoss(11))
    refused(r"teacher=None, but loss\.weight=0\.5", student, None, labels)
    refused(r"teacher has 9 classes and the student 10", student, teacher[:, :9], labels)
    refused(r"one row for each of 12", student, teacher[:5], labels)
    refused(r"labels are torch\.int64 of shape \(5,\)", student, teacher, labels[:5])
    refused(r"labels are torch\.float32 of shape \(12, 9\)", student, teacher, torch.rand(12, 9))
    refused(r"labels hold 10, allowed are 0\.\.9", student, teacher, torch.full((12,), 10))
    refused(r"labels hold -1", student, teacher, torch.full((12,), -1))
    broken = student.clone()
    broken[4, 2] = math.nan
    refused(r"student logits of picture 4", broken, teacher, labels)
    refused(r"teacher logits of picture 4", student, broken, labels)
    refused(r"student logits of picture 4", broken, None, labels, loss=TopKDistillationLoss(weight=0))
    refused(r"loss\.k=3 needs 3 classes.*holds 2", student, top_logits(teacher, 2, 2.0), labels)
    refused(
        r"loss\.k=-1 \(all 10\) needs 10.*holds 5", student, top_logits(teacher, 5, 2.0), labels,
        loss=TopKDistillationLoss(),
    )  # fmt: skip
    refused(r"loss\.temperature=2\.0 with loss\.mode=bucket.*has 4\.0", student, top_logits(teacher, 5, 4.0), labels)
    wide = top_logits(torch.randn(12, 30, generator=torch.Generator().manual_seed(0)), 5, 2.0)
    refused(r"record names class \d+, the student has 10", student, wide, labels)
    refused(r"k=0 must be in 1\.\.10", *[], loss=lambda: top_logits(teacher, 0, 1.0))


def test_renorm_over_one_class_warns() -> None:
    with pytest.warns(UserWarning, match=r"loss\.k=1 with loss\.mode=renorm.*always 0"):
        loss = TopKDistillationLoss(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student, teacher, labels = batch()
        assert float(loss(student, teacher, labels)["kd"]) == 0  # once: not at every step
        TopKDistillationLoss(1, mode="bucket")
        TopKDistillationLoss(1, weight=0)


def test_renorm_needs_no_sum_at_its_temperature() -> None:
    student, teacher, labels = batch()
    loss = TopKDistillationLoss(3, 2.0)
    found, expected = loss(student, top_logits(teacher, 5, 4.0), labels), loss(student, teacher, labels)
    torch.testing.assert_close(found["loss"], expected["loss"])


# --- the kernels ------------------------------------------------------------------------------------------------------

KERNEL_SETTINGS = [(m, d, k) for m, d, k in [*SETTINGS, ("hard", "student_teacher", 3)] if k < 10]


def outcome(student: torch.Tensor, teacher, labels: torch.Tensor, **options) -> list[torch.Tensor]:
    """The terms, and the gradient of twice the loss."""
    leaf = student.clone().requires_grad_()
    terms = TopKDistillationLoss(**options)(leaf, teacher, labels)
    (2 * terms["loss"]).backward()
    return [*(value.detach() for value in terms.values()), leaf.grad]


@needs_triton
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(("mode", "direction", "k"), KERNEL_SETTINGS)
def test_the_kernels_are_the_loss(mode: str, direction: str, k: int) -> None:
    student, teacher, labels = batch()
    labels[3] = IGNORE
    options = {"k": k, "temperature": 3.0, "weight": 0.7, "mode": mode, "direction": direction}
    options |= {"ce_temperature": 2.0, "ce_weight": 0.4, "label_smoothing": 0.1}
    for held in (k, 6):  # what the record holds beyond k joins the rest
        given = (student, top_logits(teacher, max(held, k), 3.0), labels)
        expected, found = (outcome(*given, **options, backend=b) for b in ("torch", "triton"))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@needs_triton
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("mode", [*KL_MODES, "hard"])
def test_the_kernels_round_no_more_than_torch(mode: str) -> None:
    """Of several batches together: a single number may be hit by chance."""
    results: dict[str, list[list[torch.Tensor]]] = {"reference": [], "torch": [], "triton": []}
    for seed in range(8):
        student, teacher, labels = batch(4, seed=seed)
        for name, kind in (("reference", torch.float64), ("torch", torch.float32), ("triton", torch.float32)):
            given = (student.to(kind), top_logits(teacher.to(kind), 6, 3.0), labels)
            options = {"k": 5, "temperature": 3.0, "mode": mode, "backend": name.replace("reference", "torch")}
            results[name].append(outcome(*given, **options))
    stacked = {name: [torch.stack(parts) for parts in zip(*rows, strict=True)] for name, rows in results.items()}
    assert_close_to_reference(stacked["triton"], stacked["torch"], stacked["reference"])


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_a_cached_loss_keeps_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, and back from the scalar that backward() starts with; counted as on a GPU, where nobody looks."""
    student, teacher, labels = batch(dtype=torch.float32)
    top, loss = top_logits(teacher, 5, 5.0), TopKDistillationLoss(5, mode="bucket", backend="triton")
    monkeypatch.setattr(TopKDistillationLoss, "_checks", lambda self, value: False)
    for kind in (torch.float32, torch.float16):
        leaf = student.detach().clone().to(kind).requires_grad_()
        counted = count_launches(lambda leaf=leaf: loss(leaf, top, labels)["loss"].backward())
        assert counted.by_name == {
            "launches": {"loss_kernel": 1, "mean_kernel": 1, "ones_like": 1, "mul": 1}, "copies": {}, "reads": {},
        }  # fmt: skip
        assert leaf.grad.dtype == kind


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_half_precision_keeps_what_only_the_scale_of_the_loss_makes_large() -> None:
    """A gradient of 1e-9 is 0 in float16; a gradient scaler multiplies the loss so that it is not."""
    student = torch.tensor([[12.0, -8.0, 0.0]], dtype=torch.float16).requires_grad_()
    top = top_logits(torch.tensor([[12.0, -8.0, 0.0]]), 2, 1.0)
    loss = TopKDistillationLoss(2, 1.0, 1.0, "bucket", ce_weight=1.0, backend="triton")
    (loss(student, top, torch.tensor([0]))["loss"] * 2.0**20).backward()
    expected = 2.0**20 * math.exp(-20)
    assert float(student.grad[0, 1]) == pytest.approx(expected, rel=1e-2)


@needs_triton
@pytest.mark.usefixtures("interpreter")
def test_no_picture_counts() -> None:
    student, teacher, labels = batch(4)
    given = (student, top_logits(teacher, 5, 5.0), labels.fill_(IGNORE))
    plain, fused = (outcome(*given, k=5, backend=b) for b in ("torch", "triton"))
    assert all(bool(value.isnan()) for value in (*plain[:4], *fused[:4]))
    assert torch.equal(fused[4], torch.zeros_like(student))


def test_what_the_kernels_do_not_take_is_refused_by_name_and_computed_by_auto(interpreter) -> None:
    student, teacher, labels = batch()
    top = top_logits(teacher, 5, 5.0)
    cases = [
        ({}, teacher, labels, "cache"),
        ({"k": 5}, top, torch.eye(10, dtype=torch.float64)[labels], "hard labels"),
        ({"k": 10}, top_logits(teacher, 10, 5.0), labels, "below the number of classes"),
        ({"k": 5, "mode": "bucket"}, top._replace(rest=None), labels, "other classes"),
    ]
    for options, given_teacher, given_labels, message in cases:
        with pytest.raises(UserError, match=message):
            TopKDistillationLoss(**options, backend="triton")(student, given_teacher, given_labels)
        assert TopKDistillationLoss(**options)(student, given_teacher, given_labels)["loss"].isfinite()
    with pytest.raises(UserError, match=r"loss\.backend"):
        TopKDistillationLoss(backend="cuda")


@needs_triton
def test_the_operator_is_registered_correctly(interpreter) -> None:
    student, teacher, labels = batch(3, dtype=torch.float32)
    top = top_logits(teacher, 4, 5.0)
    given = (student.requires_grad_(), labels, top.values, top.classes, top.logsumexp, top.rest, 2, "bucket", True)
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    torch.library.opcheck(topk_loss, (*given, 5.0, 1.0, 1.0, 0.5, 0.0, IGNORE), test_utils=checks)


@pytest.mark.gpu
@pytest.mark.parametrize(("mode", "direction", "k"), SETTINGS)
def test_gpu_agrees_and_does_not_wait(mode: str, direction: str, k: int) -> None:
    student, teacher, labels = batch(dtype=torch.float32)
    loss = TopKDistillationLoss(k, 2.0, 0.5, mode, direction)
    expected = loss(student, teacher, labels)
    moved = [t.cuda() for t in (student, teacher, labels)]
    loss(*moved)
    with waiting_is_an_error():
        found = loss(*moved)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value)
    if k < 10:
        top = top_logits(teacher, k, 2.0)
        top = top.to("cuda")
        loss(moved[0], top, moved[2])  # compiles
        with waiting_is_an_error():
            found = loss(moved[0], top, moved[2])
        for name, value in expected.items():
            torch.testing.assert_close(found[name].cpu(), value)
    moved[0][0, 0] = math.nan
    with pytest.raises(UserError, match="student logits of picture 0"):
        TopKDistillationLoss(k, check_on_gpu=True)(*moved)
