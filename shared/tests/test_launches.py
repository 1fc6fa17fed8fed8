"""The counter of launches, on calls whose launches, copies and reads are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from effkit.testing import count_launches
from effkit.testing import kernels as testing_kernels
from effkit.triton import count_launches as count_ours
from effkit.triton import kernels, launch

interpreter = testing_kernels.interpreter

X = torch.linspace(-1, 1, 16).reshape(4, 4)
MASK = X > 0
HOST = torch.device("cpu")
HERE = Path(__file__).with_name("kernels")


def scaled(x: Tensor) -> Tensor:
    toy = kernels(HERE, "toy_kernel")
    out = torch.empty_like(x)
    launch(toy.scale_kernel, (2, 2), x, out, x.numel(), 3.0, BLOCK=16)
    return out


@torch.library.custom_op("effkit_test::mean_of_squares", mutates_args=())
def mean_of_squares(x: Tensor) -> Tensor:
    return (x * x).mean()


@mean_of_squares.register_fake
def _(x):
    return x.new_empty(())


mean_of_squares.register_autograd(
    lambda ctx, grad: grad * ctx.saved_tensors[0] * (2 / ctx.saved_tensors[0].numel()),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@torch.library.custom_op("effkit_test::scaled", mutates_args=())
def scaled_operator(x: Tensor) -> Tensor:
    return scaled(x)


@torch.library.custom_op("effkit_test::hidden", mutates_args=())
def hidden(x: Tensor) -> Tensor:
    with torch.utils._python_dispatch._disable_current_modes():
        return x + 1


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: (X * 2 + 1).sum(), {"mul": 1, "add": 1, "sum": 1}),
        (lambda: X.t()[1:].unsqueeze(0).expand(2, 3, 4).detach(), {}),
        (lambda: X.t().reshape(-1), {"clone": 1}),
        (lambda: [*X.unbind(), *X.split(2), *X.chunk(2)], {}),
        (lambda: (torch.empty(3), torch.empty_like(X), X.new_empty(2)), {}),
        (lambda: (torch.zeros(3), torch.ones(2), torch.arange(3)), {"zeros": 1, "ones": 1, "arange": 1}),
        (lambda: X.half(), {"_to_copy": 1}),
        (lambda: X.float(), {}),
        (lambda: torch.nn.functional.linear(X, X, X[0]), {"addmm": 1}),
        (lambda: X.clone().t_().add_(1), {"clone": 1, "add_": 1}),
        (lambda: torch.where(MASK, X, 0.0), {"where": 1}),
        (lambda: torch.ops.aten.unsafe_split(X, 2), {}),
        (lambda: X[1:, 2].shape, {}),
    ],
)
def test_operators_that_launch(call: Callable[[], object], names: dict[str, int]):
    counted = count_launches(call)
    assert counted.by_name == {"launches": names, "copies": {}, "reads": {}}
    assert (counted.launches, counted.copies, counted.reads) == (sum(names.values()), 0, 0)


@pytest.mark.parametrize(
    ("call", "copies"),
    [
        (lambda: torch.tensor([1, 2], device=X.device), 1),
        (lambda: torch.as_tensor([1.0]), 1),
        (lambda: torch.from_numpy(np.ones(3)), 1),
        (lambda: X.new_tensor([1.0]), 1),
        (lambda: X[[0, 1]], 1),
        (lambda: torch.arange(4).to(HOST), 1),
        (lambda: (torch.arange(4) + 1).float().to(X), 1),
        (lambda: torch.arange(4, device=HOST).to(HOST), 0),
        (lambda: torch.arange(4).to(torch.float32), 0),
        (lambda: X.to(HOST), 0),
    ],
)
def test_copies_from_the_host(call: Callable[[], object], copies: int):
    assert (count_launches(call).copies, count_launches(call).reads) == (copies, 0)


@pytest.mark.parametrize(
    ("call", "reads"),
    [
        (lambda: X[0, 0].item(), {"item": 1}),
        (lambda: (bool(MASK[0, 0]), int(X[0, 0]), float(X[0, 0])), {"item": 3}),
        (lambda: f"{X[0, 0]:.2f}", {"item": 1}),
        (lambda: X.tolist(), {"tolist": 1}),
        (lambda: X.numpy(), {"numpy": 1}),
        (lambda: np.asarray(X), {"array": 1}),
        (lambda: X.cpu(), {"cpu": 1}),
        (lambda: X.to("cpu"), {"cpu": 1}),
        (lambda: MASK.nonzero(), {"nonzero": 1}),
        (lambda: X[MASK], {"index": 1}),
        (lambda: X.masked_select(MASK), {"masked_select": 1}),
        (lambda: X.clone().index_put_((MASK,), X[0, 0]), {"index_put_": 1}),
        (lambda: X.unique(), {"_unique2": 1}),
        (lambda: torch.equal(X, X), {"equal": 1}),
        (lambda: X[torch.arange(2, device=HOST)], {}),
        (lambda: X[0].repeat_interleave(torch.arange(4, device=HOST)), {"repeat_interleave": 1}),
        (lambda: X[0].repeat_interleave(torch.arange(4, device=HOST), output_size=6), {}),
        (lambda: X.masked_fill(MASK, 0.0), {}),
    ],
)
def test_reads(call: Callable[[], object], reads: dict[str, int]):
    counted = count_launches(call)
    assert counted.by_name["reads"] == reads
    assert counted.copies == 0
    launched = {name: n for name, n in reads.items() if name not in ("item", "tolist", "numpy", "array", "cpu")}
    assert counted.by_name["launches"].items() >= launched.items()  # an operator that waits was launched too


def test_a_backward_pass_counts():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            grad.tolist()
            return grad * 2

    x = X.clone().requires_grad_()
    forward = count_launches(lambda: Doubled.apply(x).sum())
    both = count_launches(lambda: Doubled.apply(x).sum().backward())
    assert forward.by_name["launches"] == {"mul": 1, "sum": 1}
    assert both.by_name["launches"] == {"mul": 2, "sum": 1, "ones_like": 1}
    assert both.reads == 1
    torch.testing.assert_close(x.grad, torch.full_like(X, 2.0))


def test_operators_of_libraries_count_as_what_they_do():
    x = X.clone().requires_grad_()
    counted = count_launches(lambda: mean_of_squares(x).backward())
    assert counted.by_name["launches"] == {"mul": 3, "mean": 1, "ones_like": 1}
    torch.testing.assert_close(x.grad, X / 8)
    assert count_launches(lambda: hidden(X)).by_name["launches"] == {"effkit_test.hidden": 1}
    compiled = torch.compile(lambda x: mean_of_squares(x) + 1, backend="eager", fullgraph=True)
    assert count_launches(lambda: compiled(X)).by_name["launches"] == {"mul": 1, "mean": 1, "add": 1}


def test_a_kernel_counts_once_a_grid(interpreter):
    with count_ours() as ours:
        plain = count_launches(lambda: scaled(X) + 1)
    opaque = count_launches(lambda: scaled_operator(X))
    assert plain.by_name == {"launches": {"scale_kernel": 1, "add": 1}, "copies": {}, "reads": {}}
    assert opaque.by_name == {"launches": {"scale_kernel": 1}, "copies": {}, "reads": {}}
    assert ours == {"scale_kernel": 1}
    torch.testing.assert_close(plain.result, X * 3 + 2)


def test_it_says_what_it_counted_and_leaves_nothing_behind():
    before = torch.zeros, Tensor.to, Tensor.tolist
    counted = count_launches(lambda: (X.exp().exp(), X.tolist(), torch.tensor(1)))
    assert repr(counted) == "2 launches (2 exp); 1 copies (tensor); 1 reads (tolist)"
    assert repr(count_launches(lambda: None)) == "0 launches; 0 copies; 0 reads"
    with pytest.raises(ZeroDivisionError):
        count_launches(lambda: 1 / 0)
    assert (torch.zeros, Tensor.to, Tensor.tolist) == before
    assert "tolist" not in Tensor.__dict__  # still torch's own


def test_what_hides_its_operators_is_refused():
    with pytest.raises(NotImplementedError, match="cond"):
        count_launches(lambda: torch.ops.higher_order.cond(MASK[0, 0], torch.sin, torch.cos, (X,)))
