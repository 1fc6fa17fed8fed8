"""The Triton kernels, interpreted on the CPU, against Pillow itself: every operator, byte by byte."""

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.errors import UserError
from effkit.testing import kernels
from effkit.testing.kernels import needs_triton
from kd_autoaug.ops import INTERPOLATIONS, Layer, Op, apply, triton_backend
from kd_autoaug.ops.matrix import affine_coefficients
from kd_autoaug.ops.operators import Kind, kind_of
from kd_autoaug.ops.parity import pillow, random_layer
from kd_autoaug.ops.triton_backend import apply_layers

FILL, PATCH = (17, 128, 251), (3, 200, 99)

pytestmark = needs_triton
interpreter = kernels.interpreter


@pytest.fixture
def small_tiles(monkeypatch):
    """Let small pictures span several tiles, and tiles several parts."""
    monkeypatch.setattr(triton_backend, "_READ", 64)
    monkeypatch.setattr(triton_backend, "_WRITE", 64)
    monkeypatch.setattr(triton_backend, "_PART", 32)


def _pictures(count, channels, height, width, seed):
    """Noise of different ranges, one of one colour, one of two values."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 120, (count, channels, 1, 1))
    images = low + rng.integers(0, 136, (count, channels, height, width)) * (1 - low % 4 * 0.25)
    images[0] = low[0]
    images[1 % count] = np.where(images[1 % count] > 100, 255, 0)
    return torch.from_numpy(images.astype(np.uint8))


def _every_operator(height, width, seed):
    """A picture for every operator and interpolation, with a random or a special argument."""
    rng = np.random.default_rng(seed)
    rows = []
    for op in Op:
        for how in INTERPOLATIONS.values() if kind_of(op) == Kind.AFFINE else (0,):
            layer = random_layer(op, 2, height, width, rng)[rng.integers(2) :][:1]  # special ones come first
            layer.interpolation[:] = how
            rows.append(layer)
    fields = ("op", "arg", "interpolation", "box")
    layer = Layer(*(torch.cat([getattr(row, field) for row in rows]) for field in fields))
    return layer[torch.from_numpy(rng.permutation(len(layer)))]


def _by_pillow(images, layers, fill, patch):
    out = []
    for n, picture in enumerate(images):
        array = picture.permute(1, 2, 0).numpy()
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))
        for layer in layers:
            colour = patch if layer.op[n] == Op.CUTOUT else fill
            how, box = int(layer.interpolation[n]), layer.box[n].tolist()
            image = pillow(image, Op(int(layer.op[n])), float(layer.arg[n]), how, colour, box)
        array = np.array(image)
        out.append(torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy()))
    return torch.stack(out)


def _check(images, layers):
    channels = images.shape[1]
    fill, patch = FILL[:channels], PATCH[:channels]
    before = images.clone()
    ours = apply_layers(images, layers, fill=fill, cutout_fill=patch)
    theirs = _by_pillow(images, layers, fill, patch)
    for n in range(len(images)):
        if not torch.equal(ours[n], theirs[n]):
            steps = [(Op(int(row.op[n])).name, float(row.arg[n]), int(row.interpolation[n])) for row in layers]
            pytest.fail(f"picture {n}: {int((ours[n] != theirs[n]).sum())} bytes differ after {steps}")
    assert ours.dtype == torch.uint8
    assert torch.equal(images, before)


@pytest.mark.usefixtures("interpreter", "small_tiles")
@pytest.mark.parametrize("channels", [3, 1])
def test_every_operator_in_one_batch(channels):
    layer = _every_operator(12, 9, seed=channels)
    _check(_pictures(len(layer), channels, 12, 9, seed=5), [layer])


SPECIAL = [  # maps at which Pillow's arithmetic takes another way, or rounds the other way
    *((Op.TRANSLATE_X, arg) for arg in (0.0, 0.5, -0.5, 1.0, 3.49999999, -2.500000001, 1e-9, 1e6, -4e9)),
    *((Op.TRANSLATE_Y, arg) for arg in (-2.0, 3.49999999, 4e9)),
    *((Op.SHEAR_X, arg) for arg in (0.0, 0.3, 1.0, 6241.6, -7000.0)),  # 6241.6 * 10.5 rows: 2^16
    *((Op.SHEAR_Y, arg) for arg in (-0.3, 2731.6, 7000.0)),
    *((Op.ROTATE, arg) for arg in (0.0, 30.0, 45.0, 90.0, 180.0, 270.0, 360.0, -90.0, 1e-7)),
]


@pytest.mark.usefixtures("interpreter")
def test_special_maps():
    ops, args = zip(*SPECIAL, strict=True)
    layer = Layer.of(torch.tensor(ops), torch.tensor(args, dtype=torch.float64))
    _check(_pictures(len(SPECIAL), 3, 12, 9, seed=14), [layer])


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("channels", [3, 1])
def test_statistics_of_some_thousand_pixels(channels):
    """Below 256 pixels equalize has nothing to spread."""
    ops = torch.tensor([Op.EQUALIZE] * 4 + [Op.AUTOCONTRAST] * 4 + [Op.CONTRAST] * 4)
    layer = Layer.of(ops, torch.linspace(0.1, 1.9, len(ops), dtype=torch.float64))
    images = _pictures(len(ops), channels, 71, 83, seed=15)
    images[2] //= 3
    images[5] = 100 + images[5] % 2
    _check(images, [layer])


@pytest.mark.slow
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 2), (2, 3), (7, 5), (17, 31), (33, 20)])
def test_every_operator_by_size(size, channels):
    layer = _every_operator(*size, seed=channels)
    _check(_pictures(len(layer), channels, *size, seed=10), [layer])


@pytest.mark.usefixtures("interpreter")
def test_two_layers():
    """The second layer reads what the first one wrote; tiles as large as on a GPU."""
    first = _every_operator(9, 14, seed=3)
    second = _every_operator(9, 14, seed=4)
    _check(_pictures(len(first), 3, 9, 14, seed=6), [first, second])


@pytest.mark.slow
@pytest.mark.usefixtures("interpreter")
def test_many_tiles_as_large_as_on_a_gpu():
    layer = _every_operator(33, 65, seed=8)
    _check(_pictures(len(layer), 3, 33, 65, seed=9), [layer])


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("size", [(32, 32), pytest.param((7, 224), marks=pytest.mark.slow)])
def test_maps_have_the_bits_of_torch(size):
    angles = torch.cat([torch.arange(-720.0, 721.0, 45.0), torch.linspace(-400.0, 400.0, 90)]).double()
    angles = torch.cat([angles, torch.tensor([1e-7, -1e-20, 29.999999999999996, 1e4 / 3], dtype=torch.float64)])
    ops = torch.full((len(angles),), int(Op.ROTATE))
    ops[::7] = torch.arange(len(ops[::7])) % 4 + int(Op.SHEAR_X)
    layer = Layer.of(ops, angles)
    scratch = triton_backend._Scratch(len(layer), 1, torch.device("cpu"))
    triton_backend._prepare(torch.zeros(len(layer), 1, *size, dtype=torch.uint8), layer, scratch)
    assert torch.equal(scratch.numbers[:, :6], affine_coefficients(layer, *size))


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [3, 1])
def test_last_layer_normalises(dtype, channels):
    layers = [_every_operator(6, 5, seed=seed)[::3] for seed in (1, 2)]
    images = _pictures(len(layers[0]), channels, 6, 5, seed=7)
    fill, patch = FILL[:channels], PATCH[:channels]
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    ours = apply_layers(images, layers, fill=fill, cutout_fill=patch, normalize=(mean, std, dtype))
    plain = apply_layers(images, layers, fill=fill, cutout_fill=patch).float()
    m, s = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
    assert ours.dtype == dtype
    assert torch.equal(ours, ((plain / 255 - m) / s).to(dtype))


@pytest.mark.usefixtures("interpreter")
def test_normalises_without_layers():
    images = _pictures(3, 3, 4, 4, seed=1)
    ours = apply_layers(images, [], fill=FILL, cutout_fill=PATCH, normalize=((0.5,), (0.25,), torch.float32))
    assert torch.equal(ours, (images.float() / 255 - 0.5) / 0.25)
    assert apply_layers(images, [], fill=FILL, cutout_fill=PATCH) is images
    assert apply_layers(images[:0], [], fill=FILL, cutout_fill=PATCH).shape == (0, 3, 4, 4)


@pytest.mark.usefixtures("interpreter")
def test_strides_do_not_matter():
    """Channels last, every second picture, arguments side by side in one tensor, one box for all."""
    layer = _every_operator(7, 6, seed=11)[::2]
    images = _pictures(2 * len(layer), 3, 7, 6, seed=12).contiguous(memory_format=torch.channels_last)[::2]
    layer.box = torch.tensor([1, 2, 4, 9]).expand(len(layer), 4)
    loose = Layer(
        torch.stack([layer.op, layer.op * 0], 1)[:, 0],
        torch.stack([layer.arg * 0, layer.arg], 1)[:, 1],
        torch.stack([layer.interpolation, layer.op * 0], 1)[:, 0],
        layer.box.contiguous().t().contiguous().t(),
    )
    assert not loose.op.is_contiguous()
    assert not loose.box.is_contiguous()
    tight = Layer(layer.op, layer.arg, layer.interpolation, layer.box.contiguous())
    wanted = apply_layers(images.contiguous(), [tight], fill=FILL, cutout_fill=PATCH)
    for other in (layer, loose):
        assert torch.equal(apply_layers(images, [other], fill=FILL, cutout_fill=PATCH), wanted)


@pytest.mark.usefixtures("interpreter")
def test_dispatcher_gives_the_bits_of_torch():
    layers = [_every_operator(8, 8, seed=seed)[::2] for seed in (21, 22)]
    images = _pictures(len(layers[0]), 3, 8, 8, seed=23)
    ours = apply(images, layers, fill=FILL, cutout_fill=PATCH, backend="triton")
    assert torch.equal(ours, apply(images, layers, fill=FILL, cutout_fill=PATCH, backend="torch"))


def test_refuses_what_it_cannot_run(monkeypatch):
    layer = Layer.uniform(Op.INVERT, 1)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="needs a CUDA device, got pictures on cpu"):
        apply_layers(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [layer], fill=FILL, cutout_fill=PATCH)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pictures = torch.zeros(1, 3, 2, 2, dtype=torch.uint8, device="meta")
    with pytest.raises(UserError, match="on the CPU while TRITON_INTERPRET is set, got pictures on meta"):
        apply_layers(pictures, [layer], fill=FILL, cutout_fill=PATCH)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(
    ("normalize", "message"),
    [
        (((0.5, 0.5), (1.0,), torch.float32), r"mean=\(0.5, 0.5\) has 2 values, the pictures 3 channels"),
        (((0.5,), (0.2, 0.0, 0.2), torch.float32), r"std=\(0.2, 0.0, 0.2\) must be positive"),
        (((0.5,), (0.2,), torch.float64), "got torch.float64"),
        (((0.5,), (0.2,), torch.uint8), "got torch.uint8"),
    ],
)
def test_refuses_normalisation_that_does_not_fit(normalize, message):
    with pytest.raises(UserError, match=message):
        apply_layers(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [], fill=FILL, cutout_fill=FILL, normalize=normalize)
