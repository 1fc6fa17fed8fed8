"""The paths of a sub-layer: every projection is its formula, works per token, and says how much it stretches."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from augshortcut import reference
from augshortcut.config import ACTS, PROJECTIONS, AugmentConfig, preset, resolve_config
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.ops.activations import ACTIVATIONS, LIPSCHITZ
from effkit.errors import UserError
from effkit.testing import assert_close_to_reference

DIM = 24


def _shortcut(**fields) -> AugmentedShortcut:
    torch.manual_seed(0)
    return AugmentedShortcut(DIM, AugmentConfig(**{"reduction": 6, **fields}), dtype=torch.float64)


def _y(*shape):
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("backend", ["auto", "fft", "dense", "crt"])
def test_circulant_paths_are_the_equation(backend):
    shortcut = _shortcut(num_paths=3, backend=backend, crt_level=1)
    y, paths = _y(2, 5), shortcut.paths
    expected = reference.paths(y, paths.weight.detach(), paths.bias.detach())
    torch.testing.assert_close(shortcut(y), expected, rtol=0, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(shortcut(y), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("act", ACTS)
def test_full_width_paths_with_gates(act):
    f = ACTIVATIONS[act]
    for projection in ("circulant", "dense"):
        for gate in ("scalar", "channel"):
            shortcut = _shortcut(projection=projection, act=act, gate=gate)
            with torch.no_grad():
                shortcut.gate.copy_(torch.randn(shortcut.gate.shape))
            y, paths = _y(7), shortcut.paths
            expected = sum(
                g * f(y @ m.T + b) for g, m, b in zip(shortcut.gate, paths.matrices(), paths.bias, strict=True)
            )
            torch.testing.assert_close(shortcut(y), expected, rtol=0, atol=1e-13)


def test_bottleneck_and_kronecker_are_their_formulas():
    y = _y(3, 5)
    shortcut = _shortcut(projection="bottleneck")
    p = shortcut.paths
    assert p.down.shape == (2, 4, DIM)
    gelu = reference.gelu
    expected = sum(gelu(y @ p.down[t].T + p.down_bias[t]) @ p.up[t].T + p.up_bias[t] for t in range(2))
    torch.testing.assert_close(shortcut(y), expected, rtol=0, atol=1e-13)
    shortcut = _shortcut(projection="kronecker")
    p = shortcut.paths
    assert (p.p, p.k) == (4, 6)  # 16 <= 24 < 32: e = 4, p = 2 ** 2
    grid = y.unflatten(-1, (6, 4))
    expected = sum(
        p.left[t] @ gelu(grid @ p.right[t].T + p.right_bias[t]) + p.left_bias[t][:, None] for t in range(2)
    ).flatten(-2)
    torch.testing.assert_close(shortcut(y), expected, rtol=0, atol=1e-13)
    large = AugmentedShortcut(384, AugmentConfig(projection="kronecker")).paths
    assert (large.p, large.k) == (16, 24)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_paths_work_token_by_token(projection):
    shortcut, y = _shortcut(projection=projection), _y(1, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(shortcut(y[:, order]), shortcut(y)[:, order], rtol=0, atol=1e-14)
    torch.testing.assert_close(shortcut(y[:, :2]), shortcut(y)[:, :2], rtol=0, atol=1e-14)
    assert shortcut(y[:, :0]).shape == (1, 0, DIM)
    assert shortcut(y[:0]).shape == (0, 6, DIM)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradients_and_lipschitz_constant(projection):
    shortcut, y = _shortcut(projection=projection, gate="scalar", gate_init=0.7), _y(2)
    names = dict(shortcut.named_parameters())
    call = lambda y, *values: torch.func.functional_call(shortcut, dict(zip(names, values, strict=True)), (y,))
    assert gradcheck(call, (y.requires_grad_(), *names.values()))
    bound = float(shortcut.lipschitz().detach())
    for seed in range(20):
        other = torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (shortcut(y) - shortcut(other)).norm() <= bound * (y - other).norm()
    if projection in ("circulant", "dense"):
        matrices = shortcut.paths.matrices()
        exact = LIPSCHITZ["gelu"] * 0.7 * sum(torch.linalg.matrix_norm(m, 2) for m in matrices)
        torch.testing.assert_close(shortcut.lipschitz(), exact, rtol=1e-10, atol=0)
    else:
        with pytest.raises(UserError, match="no single matrix"):
            shortcut.paths.matrices()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tolerance_rule(dtype):
    torch.manual_seed(0)
    shortcut = AugmentedShortcut(192, "paper").to(dtype)
    y = torch.randn(9, 192).to(dtype)
    w, b = shortcut.paths.weight.detach(), shortcut.paths.bias.detach()
    plain = reference.paths(y, w, b)
    assert_close_to_reference(shortcut(y), plain, reference.paths(y.double(), w.double(), b.double()))


def test_state_holds_parameters_only():
    shortcut = _shortcut(gate="channel")
    with torch.no_grad():
        shortcut(_y(3))
    assert (
        set(shortcut.state_dict())
        == {"gate", "paths.weight", "paths.bias"}
        == {n for n, _ in shortcut.named_parameters()}
    )
    assert shortcut.undecayed() == ["gate", "paths.weight", "paths.bias"]
    assert _shortcut(weight_decay=True).undecayed() == ["paths.bias"]


def test_presets():
    assert preset("official").residual_scale == 0.75
    assert preset("official", num_paths=1).act == "identity"
    assert preset("official", projection="dense").init == "trunc_normal"
    assert (preset("retrofit").gate, preset("retrofit").gate_init) == ("scalar", 0.0)
    assert preset("pangu").location == ("attn",)
    for name in ("paper", "official", "retrofit", "mindspore", "pangu"):
        config = preset(name)
        assert AugmentConfig.from_json(config.to_json()) == config
        assert resolve_config(name) == resolve_config(config) == resolve_config({"preset": name}) == config


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_paths": -1}, ["num_paths", "-1"]),
        ({"num_paths": 1.5}, ["num_paths", "1.5"]),
        ({"num_blocks": 0}, ["num_blocks", "0"]),
        ({"act": "tanh"}, ["act", "tanh", "gelu"]),
        ({"projection": "butterfly"}, ["projection", "butterfly", "circulant"]),
        ({"location": "ffn"}, ["location", "ffn", "mlp"]),
        ({"location": []}, ["location", "[]"]),
        ({"residual_scale": float("nan")}, ["residual_scale", "nan"]),
        ({"residual_scale": 0}, ["residual_scale", "0"]),
        ({"num_paths": 0, "residual_scale": 0.75}, ["0.75", "num_paths=0"]),
        ({"gate_init": 0.0}, ["gate_init", "gate=scalar"]),
        ({"bias": "yes"}, ["bias", "yes"]),
    ],
)
def test_config_refuses(fields, said):
    with pytest.raises(UserError) as caught:
        AugmentConfig(**fields)
    assert all(word in str(caught.value) for word in said), str(caught.value)


def test_widths_that_do_not_fit():
    for fields, said in [
        ({"num_blocks": 5}, "block=5.*24"),
        ({"projection": "bottleneck", "reduction": 5}, "reduction=5.*24"),
        ({"backend": "crt", "crt_level": 2}, "crt_level=2.*got 6"),
        ({"num_paths": 0}, "num_paths=0"),
    ]:
        with pytest.raises(UserError, match=said):
            _shortcut(**fields)
    with pytest.raises(UserError, match="multiple of 8, got 34"):
        AugmentedShortcut(34, AugmentConfig(projection="kronecker"))
    assert _shortcut(crt_level=2)(_y(1)).shape == (1, DIM)  # auto lowers the level
    with pytest.raises(UserError, match="24 channels"):
        _shortcut()(torch.zeros(2, 23, dtype=torch.float64))
    with pytest.raises(UserError, match="not known"):
        AugmentConfig.from_dict({"paths": 2})
