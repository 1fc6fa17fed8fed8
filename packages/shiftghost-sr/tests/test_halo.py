"""The halo is what a pixel depends on, neither more nor less."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effkit.errors import UserError
from shiftghost_sr import GhostConv2d, create_model, deploy, halo

SIZES = {
    "edsr": {"blocks": 2, "features": 8},
    "rdn": {"blocks": 1, "layers": 2, "features": 8, "growth": 8},
    "imdn_ntire": {"features": 16, "blocks": 1},
    "vdsr": {"layers": 5, "features": 8},
}


def seen(model: nn.Module, reach: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Rows and columns around a pixel that its gradient reaches, with room to go two farther."""
    top, bottom, left, right = (n + 2 for n in reach)
    x = torch.rand(1, model.channels, top + bottom + 1, left + right + 1, dtype=torch.float64, requires_grad=True)
    scale = 1 if model.grid == "hr" else model.scale
    y = model(x)[..., top * scale : (top + 1) * scale, left * scale : (left + 1) * scale]
    (grad,) = torch.autograd.grad(y.sum(), x)
    hit = grad.abs().sum((0, 1)) > 0
    rows, columns = hit.any(1).nonzero().flatten().tolist(), hit.any(0).nonzero().flatten().tolist()
    return top - rows[0], rows[-1] - top, left - columns[0], columns[-1] - left


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", SIZES)
def test_halo_is_what_a_pixel_sees(name, scale):
    torch.manual_seed(scale)
    model = create_model(name, scale, "default", **SIZES[name]).double().eval()
    reach = halo(model)
    assert seen(model, reach) == reach
    assert halo(deploy(model)) == reach


def test_shifts_make_it_lopsided():
    model = create_model("vdsr", 2, {"shift": "fixed", "direction": (-1, 1)}, layers=6, features=8).eval()
    assert halo(model) == (6 + 4, 6, 6, 6 + 4)
    assert halo(create_model("edsr", 2, features=4).eval()) == (68, 68, 68, 68)


def test_what_looks_everywhere_is_refused():
    model = create_model("imdn", 2, "copy", features=16, blocks=1).eval()
    for network in (model, deploy(model)):
        with pytest.raises(UserError, match="mean"):
            halo(network)
    with pytest.raises(UserError, match="training mode"):
        halo(create_model("edsr", 2, "copy", blocks=1, features=4))


def test_strides_and_valid_padding_are_refused():
    for conv, word in ((nn.Conv2d(3, 3, 3, stride=2, padding=1), "grid"), (nn.Conv2d(3, 3, 3), "frame")):
        model = nn.Sequential(GhostConv2d(3, 3), conv).eval()
        model.channels = 3
        with pytest.raises(UserError, match=word):
            halo(model)
