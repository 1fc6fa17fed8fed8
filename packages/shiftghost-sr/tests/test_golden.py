"""Parameters and MACs of the table, exactly, by the counter of the core."""

from __future__ import annotations

import pytest
import torch

from effkit.errors import UserError
from shiftghost_sr import create_model
from shiftghost_sr.compression.count import count_module, frame_of
from shiftghost_sr.compression.forms import build_form
from shiftghost_sr.models.zoo import MODELS
from shiftghost_sr.paper.figures import DEPLOYED, RATIOS
from shiftghost_sr.paper.figures import MODELS as TABLE


@pytest.mark.parametrize(("name", "scale"), TABLE)
def test_dense_and_ghost(name, scale):
    dense_params, dense_macs, ghost_params, logits, ghost_macs = TABLE[name, scale]
    dense = count_module(build_form(name, scale, None, "dense"), challenge=False)
    assert dense.params == dense_params
    assert round(dense.macs / 1e9, 1) == dense_macs
    ghost = count_module(build_form(name, scale, "official", "ghost", "stay"), challenge=False)
    assert (ghost.params, ghost.logits) == (ghost_params, logits)
    assert round(ghost.macs / 1e9, 1) == ghost_macs


@pytest.mark.parametrize("intrinsic", RATIOS)
def test_ratios(intrinsic):
    params, macs = RATIOS[intrinsic]
    found = count_module(build_form("edsr", 2, {"ghost_ratio": 1 - intrinsic}, "ghost", "stay"), challenge=False)
    assert found.params == params
    assert round(found.macs / 1e9, 1) == macs


@pytest.mark.parametrize("direction", ["stay", "axis", "diagonal"])
@pytest.mark.parametrize("name", DEPLOYED)
def test_deployed(name, direction):
    """Measured on the deployed graph, of which the counter sees every convolution; border lines apart."""
    figure = DEPLOYED[name][["stay", "axis", "diagonal"].index(direction)]
    found = count_module(build_form(name, 2, "official", "deployed", direction, diagonal="taps"), challenge=False)
    if name == "vdsr":
        assert found.macs == figure * 720 * 1280
    else:
        assert round(found.macs / 1e9, 1) == figure
    assert found.border_macs < 0.002 * found.macs
    assert (found.border_macs == 0) == (direction == "stay")


def test_memory_of_the_body():
    """At most three quarters of the dense network's; and of the whole, whose tail is streamed, less than a third."""
    for name, whole in (("edsr", 0.33), ("vdsr", 0.75), ("edsr_baseline", 0.33)):
        peaks = {}
        for form in ("dense", "deployed"):
            direction = None if form == "dense" else "axis"
            model = build_form(
                name, 2, "official", form, direction, size={"layers": 6} if name == "vdsr" else {"blocks": 3}
            )
            peaks[form] = count_module(model).challenge
        assert peaks["deployed"].body_peak <= 0.75 * peaks["dense"].body_peak, (name, peaks)
        assert peaks["deployed"].peak <= whole * peaks["dense"].peak, (name, peaks)
        assert peaks["deployed"].convolutions <= peaks["dense"].convolutions + 8, (name, peaks)


def test_memory_of_vdsr_is_that_of_the_readme():
    forms = {"dense": None, "deployed": "axis"}
    found = [count_module(build_form("vdsr", 2, "official", form, way)).challenge.peak for form, way in forms.items()]
    assert [round(peak / 2**20, 1) for peak in found] == [257.0, 129.4]


def test_names_and_their_scales():
    for name in MODELS:
        with torch.device("meta"):
            model = create_model(name, 2)
        assert (model.scale, model.channels, model.grid) in ((2, 3, "lr"), (2, 1, "hr"))
    shapes = {2: (1, 3, 10, 8), 3: (1, 3, 15, 12), 4: (1, 3, 20, 16), 8: (1, 3, 40, 32)}
    for scale, shape in shapes.items():
        model = create_model("edsr", scale, blocks=1, features=4)
        assert model(torch.rand(1, 3, 5, 4)).shape == shape


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create_model("edsr", 5), ["scale=5", "2, 3, 4, 8"]),
        (lambda: create_model("imdn", 8), ["scale=8", "2, 3, 4"]),
        (lambda: create_model("edrs", 2), ["edrs", "edsr"]),
        (lambda: create_model("edsr", 2, width=3), ["width", "features"]),
        (lambda: create_model("edsr", 2, blocks=0), ["blocks=0"]),
        (lambda: create_model("edsr", 2, blocks="many"), ["blocks='many'"]),
        (lambda: frame_of([720]), ["hr=[720]", "height"]),
    ],
)
def test_mistakes(call, words):
    with pytest.raises(UserError) as error:
        call()
    assert all(word in str(error.value) for word in words), str(error.value)
