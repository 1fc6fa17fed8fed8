"""Files of ours and of others."""

from __future__ import annotations

import json
import re

import pytest
import torch

from effkit.checkpoints import read_metadata
from effkit.errors import UserError
from effkit.testing import shared_data
from shiftghost_sr import create_model, ghostify, load_model, save_model, set_epoch
from shiftghost_sr.models.files import MARK
from shiftghost_sr.models.parts import MEAN
from shiftghost_sr.models.zoo import identity_of

SMALL = {
    "edsr": {"blocks": 1, "features": 8},
    "rdn": {"blocks": 1, "layers": 2, "features": 8, "growth": 8},
    "carn_m": {"features": 16},
    "imdn": {"features": 16, "blocks": 1},
    "vdsr": {"layers": 4, "features": 8},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", SMALL)
def test_ours_come_back_as_they_were(name, suffix, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 2, {"granularity": "group", "shift_groups": 2}, **SMALL[name]).eval()
    set_epoch(model, 7.5)
    file = save_model(model, tmp_path / f"net{suffix}", {"note": "kept"})
    again = load_model(file)
    assert identity_of(again) == identity_of(model)
    assert not again.training
    states = model.state_dict(), again.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    if suffix == ".safetensors":
        assert read_metadata(file)["note"] == "kept"
        assert json.loads(read_metadata(file)[MARK])["name"] == name


def test_index_sets_are_in_the_file(tmp_path):
    torch.manual_seed(0)
    made, _ = ghostify(create_model("vdsr", 2, **SMALL["vdsr"]))
    again = load_model(save_model(made, tmp_path / "a.safetensors"))
    x = torch.rand(1, 1, 6, 7)
    with torch.no_grad():
        assert torch.equal(again(x), made.eval()(x))


def edsr_of_others(scale: int, mean: float = 1.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = create_model("edsr_baseline", scale)
    state = dict(model.state_dict())
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"{name}.bias"] = sign * 255 * mean * torch.tensor(MEAN)
    return state


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_of_others(scale, tmp_path):
    torch.save(edsr_of_others(scale), tmp_path / "edsr.pt")
    model = load_model(tmp_path / "edsr.pt")
    assert (identity_of(model).name, model.scale) == ("edsr_baseline", scale)
    with pytest.raises(UserError, match=f"scale=8.*scale {scale}"):
        load_model(tmp_path / "edsr.pt", scale=8)


def test_another_mean_is_refused(tmp_path):
    torch.save(edsr_of_others(2, mean=0.9), tmp_path / "edsr.pt")
    with pytest.raises(UserError, match="sub_mean"):
        load_model(tmp_path / "edsr.pt")


def test_rdn_of_the_range_to_255(tmp_path):
    """Names and biases of EDSR-PyTorch's RDN: its network takes pictures in 0..255."""
    torch.manual_seed(0)
    model = create_model("rdn", 2, **SMALL["rdn"]).double().eval()
    renamed = {}
    for name, value in model.state_dict().items():
        new = re.sub(r"^sfe(\d)", r"SFENet\1", name)
        new = re.sub(r"^rdbs\.(\d+)\.layers\.(\d+)\.conv\.", r"RDBs.\1.convs.\2.conv.0.", new)
        new = new.replace("rdbs.", "RDBs.").replace(".lff.", ".LFF.").replace("gff.", "GFF.")
        new = re.sub(r"^upscale\.0", "UPNet.0", re.sub(r"^output", "UPNet.2", new))
        renamed[new] = value
    torch.save(renamed, tmp_path / "rdn.pt")
    found = load_model(tmp_path / "rdn.pt").double()
    x = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        # The same numbers, read as a network of the larger range.
        assert torch.allclose(found(x), model(x * 255) / 255, rtol=1e-4, atol=1e-6)


def test_what_others_have_and_scales_that_must_be_said(tmp_path):
    torch.manual_seed(0)
    torch.save(create_model("carn", 3).state_dict(), tmp_path / "carn.pth")
    with pytest.raises(UserError, match="several scales"):
        load_model(tmp_path / "carn.pth")
    assert load_model(tmp_path / "carn.pth", scale=4).scale == 4
    torch.save(create_model("imdn", 3).state_dict(), tmp_path / "imdn.pth")
    assert load_model(tmp_path / "imdn.pth").scale == 3
    vdsr = save_model(create_model("vdsr", 2, **SMALL["vdsr"]), tmp_path / "vdsr.safetensors")
    assert (load_model(vdsr).scale, load_model(vdsr, scale=4).scale) == (2, 4)
    edsr = save_model(create_model("edsr", 2, **SMALL["edsr"]), tmp_path / "edsr.safetensors")
    with pytest.raises(UserError, match=r"scale=4.*of scale 2"):
        load_model(edsr, scale=4)


def test_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="no network that is known"):
        load_model(tmp_path / "a.pth")
    with pytest.raises(UserError, match="state_dict"):
        save_model(torch.nn.Conv2d(1, 1, 1), tmp_path / "b.pth")
    model = create_model("vdsr", 2, **SMALL["vdsr"])
    state = {**model.state_dict(), MARK: torch.tensor([1, 2, 3], dtype=torch.uint8)}
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(UserError, match="not readable"):
        load_model(tmp_path / "c.pth")


def test_spandrel_takes_ours_for_ours(tmp_path):
    spandrel = pytest.importorskip("spandrel")
    from shiftghost_sr.models.spandrel_arch import register_with_spandrel

    registry = spandrel.ArchRegistry()
    for support in spandrel.MAIN_REGISTRY.architectures():
        registry.add(support)
    register_with_spandrel(registry)
    register_with_spandrel(registry)
    torch.manual_seed(0)
    model = create_model("edsr", 2, "default", **SMALL["edsr"]).eval()
    file = save_model(model, tmp_path / "net.safetensors")
    found = spandrel.ModelLoader(device="cpu", registry=registry).load_from_file(file)
    assert found.architecture.id == "ShiftGhostSR"
    x = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        assert torch.equal(found.model(x), model(x))
    with pytest.raises(spandrel.UnsupportedModelError):  # nobody guesses it as another
        spandrel.ModelLoader(device="cpu", registry=spandrel.MAIN_REGISTRY).load_from_file(file)


@pytest.mark.parametrize(
    ("file", "scale", "layers"),
    [("carn_m.pth", 2, 6), ("imdn_ntire2022_x4.pth", None, 24), ("vdsr.safetensors", 2, 18)],
)
def test_trained_networks_gain_over_cubic_interpolation(file, scale, layers):
    from skimage.data import astronaut

    from shiftghost_sr import imresize, psnr_y

    model = load_model(shared_data("sr", file), scale=scale)
    high = astronaut()[96:288, 144:336]
    low = imresize(high, 1 / model.scale)
    cubic = imresize(low, model.scale)
    assert len(ghostify(model)[1].layers) == layers
    if model.grid == "hr":
        return  # luminance alone, tested where pictures are upscaled
    x = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        y = (model(x).clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
    assert psnr_y(y, high, shave=model.scale) > psnr_y(cubic, high, shave=model.scale) + 1.5
