"""The kernel of folded convolutions against the specification: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from effkit.testing import assert_close_to_reference, kernels
from effkit.triton import compile_kernel, count_launches
from shiftghost_sr import GhostConv2d, create_model, deploy, reference
from shiftghost_sr.compression.deployment.steps import FoldedStep
from shiftghost_sr.ops import dispatch

device, interpreter, no_triton, compiler = kernels.device, kernels.interpreter, kernels.no_triton, kernels.compiler


class Block(nn.Module):
    """Two ghost convolutions, an activation between, beside an identity."""

    def __init__(self, channels: int, act: nn.Module | None = None, k: int = 3, **ghost) -> None:
        super().__init__()
        self.channels = channels
        self.a, self.b = (GhostConv2d(channels, channels, k, **ghost) for _ in range(2))
        self.act = nn.ReLU() if act is None else act

    def forward(self, x):
        return x + self.b(self.act(self.a(x)))


def made(channels=6, act=None, **more):
    torch.manual_seed(0)
    block = Block(channels, act, **more).double().eval()
    for conv in (block.a, block.b):
        conv.shift.logits.data.normal_()
    return block


def specified(block, x):
    """By the specification, in the type of ``x``."""

    def maps(conv, given):
        source, moves = conv.channel_map()
        kept, ghosts = conv.intrinsic.tolist(), conv.ghosts.tolist()
        shifts = [reference.one_hot(moves[c], conv.shift.max_shift) for c in ghosts]
        weight, bias = conv.weight.to(given), conv.bias.to(given)
        return reference.ghost_conv(given, weight, bias, shifts, [source[c] for c in ghosts], kept, ghosts)

    with torch.no_grad():
        return x + maps(block.b, block.act(maps(block.a, x)))


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def run(fast, x):
    with torch.inference_mode():
        return fast(x)


@pytest.mark.parametrize(
    ("k", "moves"),
    [
        (1, [(1, -2)]),
        (3, [(1, -1), (-1, 0), (0, 2), (-2, -2)]),
        (5, [(-1, 2)]),
    ],
)
def test_directions(interpreter, k, moves):
    """Pairs of directions up to two pixels, on a frame that is smaller than kernels and on one of two tiles."""
    block = made(4, k=k, max_shift=2)
    for number, v in enumerate(moves):
        block.a.shift.set_directions([v])
        block.b.shift.set_directions([moves[number - 1]])
        fast = deploy(block, backend="triton")
        for frame in ((2, 3), (9, 5)):
            x = drawn(1, 4, *frame)
            torch.testing.assert_close(run(fast, x), specified(block, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "more"),
    [
        (10, {"order": "index"}),
        (9, {"ghost_ratio": 0.45}),
        (9, {"ghost_ratio": 0.75}),
        (12, {"granularity": "group", "shift_groups": 2}),
        (6, {"act": nn.LeakyReLU(0.2)}),
        (6, {"act": nn.Identity()}),
    ],
)
def test_kinds_of_ghosts(interpreter, channels, more):
    block = made(channels, **more)
    if "shift_groups" in more:
        for conv in (block.a, block.b):
            conv.shift.set_directions([(0, 1), (0, -1)])
    fast = deploy(block, backend="triton")
    for frame in ((1, 1), (7, 11)):
        x = drawn(1, channels, *frame)
        with count_launches() as launches:
            found = run(fast, x)
        assert launches.total() == 1
        torch.testing.assert_close(found, specified(block, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        (torch.float32, "contiguous"), (torch.float32, "cut"), (torch.bfloat16, "channels_last"),
        (torch.bfloat16, "cut"), (torch.float16, "channels_last"),
    ],
)  # fmt: skip
def test_tolerance_rule(device, dtype, layout):
    block = made(24)
    exact_block = copy.deepcopy(block).to(dtype).double()  # of the rounded weights
    x = drawn(2, 24, 7, 19, dtype=dtype)
    exact, plain = specified(exact_block, x.double()), specified(copy.deepcopy(block).to(dtype), x)
    fast = deploy(block.to(dtype), backend="triton").to(device)
    given = x.to(device)
    if layout == "channels_last":
        fast, given = fast.to(memory_format=torch.channels_last), given.to(memory_format=torch.channels_last)
    if layout == "cut":
        wide = torch.full((2, 30, 9, 40), float("nan"), dtype=dtype, device=device)
        wide[:, 3:27, 1:8, 1:39:2] = given
        given = wide[:, 3:27, 1:8, 1:39:2]
    before = given.clone()
    assert_close_to_reference(run(fast, given).cpu(), plain, exact)
    assert torch.equal(given, before)


def test_what_is_no_number_stays_visible(interpreter):
    """Where the network gives NaN the kernel does, also through the activation."""
    block = made(6)
    x = drawn(1, 6, 7, 9)
    x[0, 2, 3, 5] = float("nan")
    found, expected = run(deploy(block, backend="triton"), x), run(block, x)
    assert bool(expected.isnan().any())
    assert bool((found.isnan() | ~expected.isnan()).all())
    clean = ~found.isnan()
    torch.testing.assert_close(found[clean], expected[clean], rtol=0, atol=1e-12)


def test_networks(interpreter):
    """Whole networks: a chain, residual blocks; nothing given is written to, no batch is one."""
    for name, size in (("vdsr", {"layers": 4, "features": 4}), ("edsr", {"blocks": 2, "features": 4})):
        torch.manual_seed(0)
        model = create_model(name, 2, {"shift": "random"}, **size).double().eval()
        fast = deploy(model, backend="triton")
        steps = [m for m in fast.modules() if isinstance(m, FoldedStep)]
        x = drawn(2, model.channels, 3, 5)
        before = x.clone()
        with count_launches() as launches:
            found = run(fast, x)
        assert launches.total() == len(steps) > 1
        assert torch.equal(x, before)
        torch.testing.assert_close(found, run(model, x), rtol=1e-12, atol=1e-12)
        assert run(fast, x[:0]).shape == (0, *found.shape[1:])


def test_weights_changed_later_are_seen(interpreter):
    block = made(6)
    fast = deploy(block, backend="triton")
    x = drawn(1, 6, 4, 5)
    run(fast, x)
    (step,) = (m for m in fast.modules() if isinstance(m, FoldedStep))
    with torch.no_grad():
        step.part.bias.add_(1.0)
        for kernel in step.part.kernels:
            kernel.mul_(0.0)
        for parameter in (step.part.border or nn.Module()).parameters():
            parameter.mul_(0.0)
    found = run(fast, x)
    source, moves = block.b.channel_map()
    shift = {c: reference.one_hot(moves[c], 1) for c in range(6)}
    bias = (block.b.bias + 1.0).detach()
    ones = torch.ones(1, 1, 4, 5, dtype=torch.float64)
    expected = torch.cat([reference.shift(ones * bias[source[c]], shift[c]) for c in range(6)], dim=1)
    torch.testing.assert_close(found - x, expected, rtol=0, atol=1e-12)


def test_refusals(monkeypatch, no_triton):
    block = made(6)
    with pytest.raises(UserError, match="not installed"):
        run(deploy(block, backend="triton"), drawn(1, 6, 4, 5))
    with pytest.raises(UserError, match=r"triton.*GELU"):
        deploy(made(6, act=nn.GELU()), backend="triton")
    rdn = create_model("rdn", 2, {"shift": "random"}, blocks=1, layers=2, features=8, growth=8).eval()
    with pytest.raises(UserError, match="joins"):
        deploy(rdn, backend="triton")
    with pytest.raises(UserError, match=r"cuda.*auto, torch, triton"):
        deploy(block, backend="cuda")
    with pytest.raises(UserError, match="portable"):
        deploy(block, backend="triton", portable=True)


def test_by_name_on_a_cpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match=r"CUDA|not installed"):
        run(deploy(made(6), backend="triton"), drawn(1, 6, 4, 5))


def test_auto_says_once_why_torch_runs(caplog, monkeypatch):
    """On a GPU, for what the kernel does not compute; asked of a tensor that only says that it is there."""

    class OnGpu:
        device, dtype, shape, stride = torch.device("cuda"), torch.float64, (1, 2, 3, 4), lambda: (24, 12, 4, 1)

    dispatch._say.cache_clear()
    monkeypatch.setattr(dispatch, "why_not", lambda *args, **more: "no kernels in float64")
    with caplog.at_level(logging.WARNING):
        assert not any(dispatch.kernel_runs("auto", [OnGpu], [nn.ReLU()]) for _ in range(3))
        assert not any(dispatch.kernel_runs("auto", [OnGpu], [nn.GELU()]) for _ in range(3))
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 2
    assert "float64" in said[0]
    assert "GELU" in said[1]
    monkeypatch.setattr(dispatch, "why_not", lambda *args, **more: None)
    assert dispatch.kernel_runs("auto", [OnGpu], [nn.LeakyReLU()])
    OnGpu.stride = lambda: (1 << 33, 1 << 32, 4, 1)
    assert not dispatch.kernel_runs("auto", [OnGpu], [nn.LeakyReLU()])
    assert not dispatch.kernel_runs("torch", [OnGpu], [nn.LeakyReLU()])


@pytest.mark.parametrize(("dot", "outputs", "maps"), [("bf16", 128, 64), ("fp32", 64, 32)])
def test_compiles_for_hopper_without_spilling(compiler, dot, outputs, maps):
    from effkit.triton import kernels as load

    kernel = load("shiftghost_sr.ops", "folded_conv_kernel").folded_conv_kernel
    constants = {"MAPS": 128, "OUTPUTS": 128, "TARGETS": 2, "ACT": 1, "ADD": True, "DOT": dot, "ACC": "fp32"}
    constants |= {"PRECISION": "ieee", "EMULATE_BF16": False, "BH": 8, "BW": 16, "BN": outputs, "BK": maps}
    constants |= {"x_map": 1, "out_map": 1}  # channels last
    types = {"offsets_ptr": "*i32", "sides_ptr": "*i32", "targets_ptr": "*i32", "*_ptr": f"*{dot}", "slope": "fp32"}
    aligned = ["*_ptr", "x_row", "x_column", "x_image", "out_row", "out_column", "out_image"]
    compiled = compile_kernel(kernel, types, constants, aligned=aligned, warps=8, stages=3, capability=90)
    assert dot != "bf16" or "wgmma" in compiled.assembly
    assert compiled.stack <= kernels.SPILLED
    assert compiled.shared <= 227 * 1024
