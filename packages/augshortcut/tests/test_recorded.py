"""The backward pass of our own: gradients of plain autograd, in every case that it takes, and it takes no others."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from augshortcut.config import ACTS, AugmentConfig
from augshortcut.layers.circulant import BlockCirculantLinear
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.ops import recorded
from augshortcut.ops.paths import paths_torch
from augshortcut.ops.recorded import can_record, recorded_paths
from effkit.testing import assert_close_to_reference


def _inputs(n: int = 8, paths: int = 2, gate: int | None = None, dtype=torch.float64) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    gates = None if gate is None else draw(paths, gate)
    return [draw(2, 3, 2 * n), draw(paths, 3, 2, n), draw(paths, 3 * n), gates]


def _gradients(function, inputs, act: str, level: int) -> list[torch.Tensor]:
    out = function(*inputs, act, inputs[0].dtype, level)
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, wanted, noise)]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gate", [None, 1, 24])
def test_gradients_are_those_of_plain_autograd(act, gate):
    for paths, level in itertools.product((1, 2, 3), (0, 1, 2)):
        inputs = _inputs(paths=paths, gate=gate)
        fast, plain = (_gradients(f, inputs, act, level) for f in (recorded_paths, paths_torch))
        for ours, theirs in zip(fast, plain, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frozen", range(4))
def test_only_what_is_asked_for(frozen):
    inputs = _inputs(gate=1)
    inputs[frozen] = inputs[frozen].detach()
    fast, plain = (_gradients(f, inputs, "gelu", 1) for f in (recorded_paths, paths_torch))
    assert len(fast) == 4
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    without = [inputs[0], inputs[1], None, None]
    torch.testing.assert_close(
        _gradients(recorded_paths, without, "silu", 2), _gradients(paths_torch, without, "silu", 2), rtol=0, atol=1e-12
    )


def test_gradcheck_once_and_twice():
    inputs = _inputs(paths=2, gate=1)
    call = lambda *tensors: recorded_paths(*tensors, "gelu", torch.float64, 2)
    assert gradcheck(call, inputs)
    small = [t[:1, :1] if i == 0 else t for i, t in enumerate(inputs)]
    assert gradgradcheck(call, [t.detach().requires_grad_() for t in small])


def test_backward_repeats_bitwise():
    found = [_gradients(recorded_paths, _inputs(dtype=torch.float32), "gelu", 2) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_tolerance_of_gradients(dtype, level):
    """Twice the error of plain torch with the dense matrix in the same type."""
    y, weight, bias, _ = (t if t is None else t.detach() for t in _inputs(n=48, paths=2))
    stored = [y.to(dtype), (weight / 96**0.5).to(dtype), bias.to(dtype)]
    low = [t.clone().requires_grad_() for t in stored]
    exact = [t.double().requires_grad_() for t in stored]
    fast = _gradients(recorded_paths, [*low, None], "gelu", level)
    plain = _gradients(paths_torch, [*low, None], "gelu", 0)
    reference = _gradients(paths_torch, [*exact, None], "gelu", 0)
    for ours, theirs, true in zip(fast, plain, reference, strict=True):
        assert_close_to_reference(ours, theirs, true)


def test_layers_take_it_and_only_when_gradients_alone_are_asked_for(monkeypatch):
    calls = []
    original = recorded._Recorded.apply
    monkeypatch.setattr(recorded._Recorded, "apply", lambda *a: calls.append(len(a)) or original(*a))
    layer, paths = BlockCirculantLinear(16, 16, 2), AugmentedShortcut(16, AugmentConfig(num_blocks=2))
    x = torch.randn(3, 16)
    for module in (layer, paths):
        calls.clear()
        module(x).sum().backward()
        assert len(calls) == 1
        with torch.no_grad():
            module(x)
        torch.func.functional_call(module, dict(module.named_parameters()), (x,))
        assert len(calls) == 2  # plain tensors under other names are plain tensors
        weights = dict(module.named_parameters())
        torch.func.grad(lambda w, m=module: torch.func.functional_call(m, w, (x,)).sum())(weights)
        torch.compile(module, backend="eager", fullgraph=True)(x)
        with warnings.catch_warnings(), forward_ad.dual_level():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own forward mode calls what it deprecates
            out = module(forward_ad.make_dual(x, torch.ones_like(x)))
            assert forward_ad.unpack_dual(out).tangent is not None
        assert len(calls) == 2
    frozen = layer.requires_grad_(False)
    assert not can_record(x, frozen.weight, frozen.bias)


def test_recomputation_and_autocast():
    module, x = AugmentedShortcut(16, AugmentConfig(num_blocks=2)), torch.randn(3, 16, requires_grad=True)
    found = []
    for call in (module, lambda y: torch.utils.checkpoint.checkpoint(module, y, use_reentrant=False)):
        module.zero_grad()
        x.grad = None
        call(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    module.zero_grad()
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in module.parameters())
    for low, exact in zip((p.grad for p in module.parameters()), found[0][1:], strict=True):
        torch.testing.assert_close(low, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))
