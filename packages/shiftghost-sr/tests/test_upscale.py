"""Whole pictures through networks: tiles without seams, transparency, grey, 16 bits, overflow, memory."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from effkit.errors import UserError
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.images.enlarging import enlarge
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.inference.ensemble import self_ensemble
from shiftghost_sr.inference.memory import smaller
from shiftghost_sr.inference.tiles import tiles
from shiftghost_sr.inference.upscale import Upscaler, upscale
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.zoo import create_model

SIZES = {
    "edsr": {"blocks": 2, "features": 8, "res_scale": 0.5},
    "rdn": {"blocks": 2, "layers": 2, "growth": 4, "features": 8},
    "carn": {"features": 8},
    "vdsr": {"layers": 4, "features": 8},
}


def noise(*shape, peak=255):
    return np.random.default_rng(0).integers(0, peak + 1, shape).astype(np.uint16 if peak > 255 else np.uint8)


def network(name="edsr", scale=2, ghost="default", seed=0, **size):
    torch.manual_seed(seed)
    model = create_model(name, scale, ghost=ghost, **{**SIZES.get(name, {}), **size}).eval()
    directions = [(0, 1), (-1, 0), (1, 1), (0, -1), (-1, 1)]
    for number, (_, shift) in enumerate(shifts(model)):
        shift.set_directions([directions[number % 5]] * len(shift.logits))
    return model


class Double(nn.Module):
    """Pixels twice, by what a test wants."""

    scale, channels = 2, 3

    def __init__(self, hook=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.hook = hook or (lambda x: None)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        self.hook(x)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) * self.weight.to(x)


# --- tiles ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def in_whole_numbers(model):
    """Few weights of -1 and 1: no sum in double precision is rounded then, whatever the order of its terms."""
    draw = torch.Generator().manual_seed(2)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point() and value.shape[-1:] != (9,):  # directions stay
            drawn = torch.randint(-8, 9, value.shape, generator=draw)
            value.copy_(torch.where(drawn.abs() == 1, drawn, 0))
    return model


def pictured(model, size):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, model.channels, *size), generator=draw).double() / 256


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("form", ["dense", "ghost", "deployed"])
@pytest.mark.parametrize("tile", [1, 7, 16])
def test_tiles_equal_the_whole_to_the_last_bit(name, form, tile):
    """In double precision; with ghosts that look further to some sides than to others.

    Where sums are rounded, a library of matrix products rounds those of another frame in another way; that is the
    second half of the test.
    """
    scale = 3 if name == "carn" else 2
    size = (5, 6) if tile == 1 else (29, 37)
    for exact in (True, False):
        model = network(name, scale, None if form == "dense" else "default").double()
        model = in_whole_numbers(model) if exact else model
        model = deploy(model) if form == "deployed" else model
        picture = pictured(model, size)
        whole = upscale(model, picture)
        given = enlarge(picture, scale) if getattr(model, "grid", "lr") == "hr" else picture
        with torch.inference_mode():
            assert torch.equal(whole, model(given))
        tiled = upscale(model, picture, tile=tile)
        if exact:
            assert 1 < whole.abs().max() < 2**44  # with the 8 bits of a picture, and some for halves
            assert torch.equal(tiled, whole)
        else:
            assert (tiled - whole).abs().max() <= 16 * torch.finfo(torch.float64).eps * whole.abs().max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ensemble", [False, True])
def test_files_in_tiles_are_those_in_one_piece(channels, ensemble):
    model = network("vdsr" if channels == 1 else "edsr")
    for shape in [(23, 31, 3), (23, 31), (23, 31, 4), (1, 1, 3), (1, 40), (40, 1, 2)]:
        for peak in (255, 65535):
            picture = noise(*shape, peak=peak)
            whole = upscale(model.double(), picture, ensemble=ensemble)
            assert (upscale(model, picture, tile=9, ensemble=ensemble) == whole).all()
            assert whole.dtype == picture.dtype
            assert whole.shape == (shape[0] * 2, shape[1] * 2, *shape[2:])


def test_too_little_around_a_tile_shows_seams():
    """What the exact halo is for; and that an overlap given is the one used."""
    model = in_whole_numbers(network().double())
    picture = pictured(model, (24, 24))
    whole = upscale(model, picture)
    assert not torch.equal(upscale(model, picture, tile=8, overlap=1), whole)
    assert torch.equal(upscale(model, picture, tile=8, overlap=24), whole)


def test_a_network_that_sees_everything_has_no_tiles_without_seams():
    model = network("imdn", ghost=None, blocks=1, features=16)
    picture = noise(20, 20, 3)
    assert upscale(model, picture).shape == (40, 40, 3)
    with pytest.raises(UserError, match="overlap=32 allows seams"):
        upscale(model, picture, tile=8)
    assert upscale(model, picture, tile=8, overlap=4).shape == (40, 40, 3)


def test_a_huge_picture_in_small_tiles():
    """Nothing but the tile goes through the network, and the picture is never held in floating point."""
    model = Double()
    picture = np.zeros((2000, 3000, 3), np.uint8)
    picture[::7] = 9
    enlarged = Upscaler(model, tile=500, overlap=2)(Picture(picture)).picture.colour
    assert max(max(size) for size in model.seen) == 504
    assert (enlarged == picture.repeat(2, 0).repeat(2, 1)).all()


def test_tiles_cover_every_pixel_once():
    for size in [(1, 1), (5, 7), (64, 33)]:
        for tile in (1, 2, 5, 64, None):
            seen = np.zeros(size, int)
            for part in tiles(size, tile, (1, 2, 3, 4)):
                seen[slice(*part.rows), slice(*part.columns)] += 1
                assert tile is None or max(part.rows[1] - part.rows[0], part.columns[1] - part.columns[0]) <= tile
            assert (seen == 1).all()


# --- what a picture is made of --------------------------------------------------------------------------------------


def test_transparent_pictures_have_no_fringes():
    """A red disc whose hidden surroundings are black: over red, its edge must stay red."""
    y, x = np.mgrid[:32, :32]
    inside = (y - 16) ** 2 + (x - 16) ** 2 < 100
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[inside] = (255, 0, 0, 255)
    cubic = np.dstack([imresize(np.ascontiguousarray(picture[..., k]), 2) for k in range(4)])
    model = network("vdsr", layers=3, features=4, channels=3)
    nn.init.zeros_(model.output.weight)  # cubic interpolation alone: what is left is the treatment of alpha
    ours = upscale(model, picture)

    def darkest(pixels):  # over a red ground, weighted as alpha does
        alpha = pixels[..., 3:] / 255
        return (pixels[..., :1] * alpha + 255 * (1 - alpha)).min()

    assert darkest(ours) > 250
    assert darkest(cubic) < 230
    alpha = imresize(picture[..., 3].astype(float), 2)
    assert (ours[..., 3] == np.clip(np.floor(alpha + 0.5), 0, 255)).all()


def test_opaque_alpha_stays_opaque():
    picture = noise(12, 9, 4)
    picture[..., 3] = 255
    assert (upscale(network(), picture)[..., 3] == 255).all()


def test_grey_is_what_three_equal_channels_give():
    for model in (network("vdsr"), network()):
        grey = noise(12, 9)
        three = upscale(model.double(), np.dstack([grey] * 3)).astype(int)
        assert np.abs(upscale(model, grey).astype(int) - np.round(three.mean(2))).max() <= 1


def test_sixteen_bits_are_not_eight_bits_stretched():
    deep = (np.add.outer(np.arange(20), np.arange(30))[..., None].repeat(3, 2) * 37 + 20000).astype(np.uint16)
    model = network("vdsr", layers=3, features=4)
    nn.init.zeros_(model.output.weight)
    enlarged = upscale(model.double(), deep)
    assert len(np.unique(enlarged)) > 60
    assert np.abs(enlarged.astype(int) - imresize(deep, 2).astype(int)).max() <= 2


def test_luma_networks_keep_colours():
    """With no correction by the network the result is MATLAB's enlargement in floating point."""
    model = network("vdsr", layers=3, features=4, scale=3)
    nn.init.zeros_(model.output.weight)
    picture = noise(9, 14, 3)
    expected = np.clip(np.floor(imresize(picture.astype(float), 3) + 0.5), 0, 255)
    assert np.abs(upscale(model.double(), picture) - expected).max() <= 1


def test_every_kind_comes_back_as_it_came(tmp_path):
    model = network()
    Image.fromarray(noise(6, 5)).save(tmp_path / "x.png")
    assert upscale(model, Image.fromarray(noise(6, 5))).mode == "L"
    assert upscale(model, Image.fromarray(noise(6, 5, 4))).size == (10, 12)
    assert upscale(model, tmp_path / "x.png").size == (12, 10)
    assert isinstance(upscale(model, Picture(noise(6, 5, 1))), Picture)
    assert upscale(model, noise(6, 5, 1)).shape == (12, 10, 1)
    assert upscale(model, torch.rand(2, 3, 6, 5)).shape == (2, 3, 12, 10)


def test_self_ensemble_is_the_mean_of_eight():
    picture = torch.rand(1, 3, 6, 9, dtype=torch.float64)
    assert torch.allclose(self_ensemble(Double())(picture), Double()(picture))
    ramp = torch.arange(54.0, dtype=torch.float64).reshape(1, 1, 6, 9)
    seen = []
    self_ensemble(lambda x: seen.append(x.clone()) or x)(ramp)
    assert len({(tuple(x.shape), tuple(x.flatten().tolist())) for x in seen}) == 8
    model = network().double()
    flipped = upscale(model, picture.flip(-1), ensemble=True).flip(-1)
    assert torch.allclose(flipped, upscale(model, picture, ensemble=True), atol=1e-12)


# --- precision and memory -------------------------------------------------------------------------------------------


def test_half_precision_that_overflows_is_done_again(caplog):
    model = network("vdsr", ghost=None, layers=3, features=4)
    with torch.no_grad():
        model.input.weight.mul_(1e5)
        model.output.weight.mul_(1e-5)
    picture = noise(9, 8, 3)
    with caplog.at_level(logging.WARNING):
        found = Upscaler(model, precision="fp16")(Picture(picture))
    assert (found.picture.colour == upscale(model, picture)).all()
    assert found.precision == "float32"
    assert found.notes == ("fp16 overflowed: computed again in float32",)
    assert "fp16 overflowed" in caplog.text


@pytest.mark.parametrize(("precision", "allowed"), [("fp16", 2), ("bf16", 12)])
def test_lower_precision_is_near(precision, allowed):
    picture = noise(9, 8, 3)
    model = network(blocks=1)
    found = Upscaler(model, precision=precision)(Picture(picture))
    assert found.notes == ()
    assert np.abs(found.picture.colour.astype(int) - upscale(model, picture).astype(int)).max() <= allowed
    assert next(model.parameters()).dtype == torch.float32  # the model given is left as it is


def test_a_broken_model_is_told():
    model = Double()
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(UserError, match="not finite in float32"):
        upscale(model, noise(4, 4, 3))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_out_of_memory_means_smaller_tiles(error, caplog):
    def hook(x):
        if max(x.shape[2:]) > 200:
            raise error

    picture = noise(300, 700, 3)
    with caplog.at_level(logging.WARNING):
        found = Upscaler(Double(hook), overlap=1)(Picture(picture))
    assert found.tile == 128
    assert (found.picture.colour == picture.repeat(2, 0).repeat(2, 1)).all()
    assert [n.split("=")[1] for n in found.notes] == ["512", "256", "128"]
    assert "out of memory: computed again with tile=128" in caplog.text


def test_a_tile_that_was_chosen_is_never_changed():
    def hook(x):
        if max(x.shape[2:]) > 50:
            raise MemoryError

    with pytest.raises(UserError, match=r"tile=100 does not fit into memory: give a smaller one, e\.g\. tile=64"):
        Upscaler(Double(hook), tile=100, overlap=0)(Picture(noise(300, 300, 3)))

    def never(x):
        raise MemoryError

    with pytest.raises(UserError, match="smaller tiles would not help"):
        Upscaler(Double(never), overlap=0)(Picture(noise(300, 300, 3)))


def test_other_errors_are_no_matter_of_memory():
    def hook(x):
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        upscale(Double(hook), noise(4, 4, 3))


def test_the_next_smaller_tile():
    assert [smaller(t, (700, 300)) for t in (None, 512, 100, 32)] == [512, 256, 64, None]
    assert smaller(None, (20, 30)) is None


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": 0}, "tile=0"),
        ({"tile": True}, "tile=True"),
        ({"tile": 3.5}, "tile=3.5"),
        ({"overlap": -1}, "overlap=-1"),
        ({"precision": "fp8"}, "precision='fp8'"),
    ],
)
def test_mistakes_of_options(options, words):
    with pytest.raises(UserError, match=words):
        upscale(Double(), noise(4, 4, 3), **options)


def test_mistakes_of_models_and_pictures():
    with pytest.raises(UserError, match="does not say its scale"):
        upscale(nn.Conv2d(3, 3, 3), noise(4, 4, 3))
    with pytest.raises(UserError, match=r"takes \(N, 3, h, w\)"):
        upscale(Double(), torch.rand(1, 1, 4, 4))
    with pytest.raises(UserError, match="float64"):
        upscale(Double(), np.zeros((4, 4, 3)))
    wrong = Double()
    wrong.scale = 3
    with pytest.raises(UserError, match="scale=3 means"):
        upscale(wrong, noise(4, 4, 3))
