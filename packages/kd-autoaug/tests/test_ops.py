"""The operators against Pillow and against their naive twin, and what they refuse."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_autoaug import ops
from kd_autoaug.ops import INTERPOLATIONS, Layer, Op, schedule
from kd_autoaug.ops.parity import SIZES, random_layer, sample_pictures, sweep
from kd_autoaug.reference import reference

SMALL = [size for size in SIZES if size[0] * size[1] < 4096]
LARGE = [size for size in SIZES if size[0] * size[1] >= 4096]


@pytest.mark.parametrize("backend", ["torch", "pil", "auto"])
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_no_byte_differs_from_pillow(op, backend):
    found = sweep(operators=[op], sizes=SMALL, backend=backend, rounds=4)
    assert found.cases == len(SMALL) * 2 * 6 * 4
    assert found.differing == 0, found.first


@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_no_byte_differs_from_pillow_on_large_pictures(op):
    found = sweep(operators=[op], sizes=LARGE, rounds=2)
    assert found.differing == 0, found.first


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_no_byte_differs_in_a_long_sweep(backend):
    found = sweep(backend=backend, rounds=12, seed=100)
    assert found.cases > 20_000
    assert found.differing == 0, found.first


def test_a_sweep_notices_a_wrong_byte(monkeypatch):
    """The comparison itself can fail."""
    monkeypatch.setattr("kd_autoaug.ops.parity.apply", lambda images, layers, **_: images)
    found = sweep(operators=[Op.INVERT], sizes=[(5, 5)])
    assert found.differing > 0
    assert "invert" in found.first


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_equal_to_the_naive_twin(op, channels):
    rng = np.random.default_rng(int(op))
    for height, width in ((1, 1), (2, 7), (9, 12)):
        images = torch.stack(list(sample_pictures(height, width, 3, channels).values()))
        layer = random_layer(op, len(images), height, width, rng)
        ours = ops.apply(images, [layer], fill=(9, 100, 200)[:channels], backend="torch")
        for n, picture in enumerate(images):
            options = {"interpolation": int(layer.interpolation[n]), "box": layer.box[n].tolist()}
            expected = reference(picture, op, float(layer.arg[n]), fill=(9, 100, 200)[:channels], **options)
            assert ours[n].tolist() == expected, (height, width, n, layer.arg[n], options)


@pytest.mark.parametrize("size", [(7, 5), (33, 20), (70, 64), (150, 140)])
def test_a_mixed_batch_is_its_pictures_one_by_one(size):
    """Sorting by operator, chunks and large pictures change nothing; neither does the backend."""
    rng = np.random.default_rng(0)
    images = torch.stack([p for seed in range(6) for p in sample_pictures(*size, seed).values()])
    layers = []
    for _ in range(3):
        chosen = [random_layer(Op(int(o)), 1, *size, rng) for o in rng.integers(0, len(Op), len(images))]
        layers.append(
            Layer(*(torch.cat([getattr(c, f) for c in chosen]) for f in ("op", "arg", "interpolation", "box")))
        )
    whole = {b: ops.apply(images, layers, fill=7, cutout_fill=99, backend=b) for b in ("auto", "torch", "pil")}
    alone = [
        ops.apply(images[n : n + 1], [layer[n : n + 1] for layer in layers], fill=7, cutout_fill=99)
        for n in range(len(images))
    ]
    for result in whole.values():
        assert torch.equal(result, torch.cat(alone))


def test_chunks_change_nothing(monkeypatch):
    images = torch.stack([p for seed in range(3) for p in sample_pictures(12, 9, seed).values()])
    rng = np.random.default_rng(5)
    layers = [random_layer(op, len(images), 12, 9, rng) for op in Op]
    whole = ops.apply(images, layers, fill=3)
    monkeypatch.setattr(schedule, "CHUNK", 700)
    assert torch.equal(ops.apply(images, layers, fill=3), whole)


def test_the_input_is_left_alone():
    images = torch.stack(list(sample_pictures(150, 140, 1).values()))
    kept = images.clone()
    for op in Op:
        ops.apply(images, [random_layer(op, len(images), 150, 140, np.random.default_rng(1))], fill=1)
        small = images[:, :, :10, :10]  # not contiguous
        ops.apply(small, [random_layer(op, len(images), 10, 10, np.random.default_rng(1))], fill=1)
    assert torch.equal(images, kept)


def test_a_view_with_strides_gives_the_same_bits():
    images = torch.stack(list(sample_pictures(146, 150, 1).values()))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    for op in Op:
        layer = random_layer(op, len(images), 146, 150, np.random.default_rng(int(op)))
        for backend in ("auto", "torch", "pil"):
            expected = ops.apply(images, [layer], fill=1, backend=backend)
            assert torch.equal(ops.apply(channels_last, [layer], fill=1, backend=backend), expected), op


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_result(dtype):
    images = torch.stack(list(sample_pictures(9, 7, 1).values()))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    layer = Layer.uniform(Op.EQUALIZE, len(images))
    columns = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    expected = ops.apply(images, [layer]).float().div(255).sub(next(columns)).div(next(columns)).to(dtype)
    assert torch.equal(ops.apply(images, [layer], normalize=(mean, std, dtype)), expected)
    with pytest.raises(ValueError, match="std"):
        ops.apply(images, [layer], normalize=(mean, (0.2, 0.0, 0.3), dtype))


# --- properties ---------------------------------------------------------------------------------------------------

pictures = st.integers(0, 10_000).map(lambda s: torch.randint(0, 256, (2, 3, 11, 8), generator=_seeded(s)).byte())


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25, deadline=None)
@given(pictures, st.integers(0, 8))
def test_posterize_twice_is_once(images, bits):
    once = ops.posterize(images, bits)
    assert torch.equal(ops.posterize(once, bits), once)


@settings(max_examples=25, deadline=None)
@given(pictures)
def test_identities(images):
    assert torch.equal(ops.solarize(images, 256), images)
    assert torch.equal(ops.solarize(images, 0), ops.invert(images))
    assert torch.equal(ops.invert(ops.invert(images)), images)
    assert torch.equal(ops.posterize(images, 8), images)
    assert torch.equal(ops.posterize(images, 11), images)
    assert not ops.posterize(images, 0).any()
    assert torch.equal(ops.solarize_add(images, 0), images)
    for factor_op in (ops.brightness, ops.color, ops.contrast, ops.sharpness):
        assert torch.equal(factor_op(images, 1.0), images)
    for interpolation in INTERPOLATIONS:
        assert torch.equal(ops.rotate(images, 0.0, fill=9, interpolation=interpolation), images)
        assert torch.equal(ops.rotate(images, 360.0, fill=9, interpolation=interpolation), images)
        assert torch.equal(ops.rotate(images, 180.0, interpolation=interpolation), images.flip(-1, -2))
        assert torch.equal(ops.shear_x(images, 0.0, interpolation=interpolation), images)


@settings(max_examples=25, deadline=None)
@given(pictures, st.integers(-4, 4))
def test_there_and_back_leaves_the_interior(images, pixels):
    back = ops.translate_x(ops.translate_x(images, pixels), -pixels)
    inside = slice(abs(pixels), images.shape[-1] - abs(pixels))
    assert torch.equal(back[..., inside], images[..., inside])


@settings(max_examples=25, deadline=None)
@given(pictures)
def test_tables_are_monotone(images):
    """Equalising and stretching keep the order of values."""
    for op in (ops.equalize, ops.autocontrast):
        out = op(images).flatten(2).long()
        order = images.flatten(2).long().argsort(dim=-1, stable=True)
        assert bool((out.gather(-1, order).diff(dim=-1) >= 0).all())


def test_quarter_turns_are_transpositions():
    images = torch.stack(list(sample_pictures(31, 31, 2).values()))
    for interpolation in INTERPOLATIONS:
        assert torch.equal(ops.rotate(images, 90.0, interpolation=interpolation), images.rot90(1, (-2, -1)))
        assert torch.equal(ops.rotate(images, -90.0, interpolation=interpolation), images.rot90(-1, (-2, -1)))


def test_argument_per_picture():
    images = torch.stack(list(sample_pictures(20, 20, 2).values()))
    angles = torch.linspace(-60, 60, len(images))
    together = ops.rotate(images, angles, fill=(1, 2, 3), interpolation="bicubic")
    for n, angle in enumerate(angles):
        assert torch.equal(
            together[n : n + 1], ops.rotate(images[n : n + 1], angle, fill=(1, 2, 3), interpolation="bicubic")
        )


def test_cutout_fills_its_box():
    images = torch.full((2, 3, 10, 12), 50, dtype=torch.uint8)
    out = ops.cutout(images, torch.tensor([[2, 3, 5, 20], [-4, -4, 0, 5]]), fill=(1, 2, 3))
    assert out[0, :, 3:, 2:5].unique().tolist() == [1, 2, 3]
    assert int((out[0] != images[0]).sum()) == 3 * 7 * 3
    assert torch.equal(out[1], images[1])


# --- bad input ----------------------------------------------------------------------------------------------------

GOOD = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.invert(GOOD.float()), ["images", "uint8", "float32"]),
        (lambda: ops.invert(GOOD[0]), ["(B, C, H, W)", "(3, 8, 8)"]),
        (lambda: ops.invert(GOOD.permute(0, 2, 3, 1)), ["1 or 3 channels", "(B, H, W, C)"]),
        (lambda: ops.invert(torch.zeros(1, 4, 8, 8, dtype=torch.uint8)), ["channels", "4", "alpha"]),
        (lambda: ops.invert(np.zeros((1, 3, 8, 8), np.uint8)), ["torch tensor", "ndarray"]),
        (lambda: ops.invert(torch.zeros(1, 3, 0, 8, dtype=torch.uint8)), ["at least one pixel"]),
        (lambda: ops.rotate(GOOD, torch.zeros(3)), ["rotate", "(2)", "(3,)"]),
        (lambda: ops.rotate(GOOD, float("nan")), ["rotate", "finite", "nan"]),
        (lambda: ops.rotate(GOOD, 3, interpolation="lanczos"), ["interpolation", "lanczos", "bicubic"]),
        (lambda: ops.rotate(GOOD, 3, fill=256), ["fill", "256", "0..255"]),
        (lambda: ops.rotate(GOOD, 3, fill=(1, 2)), ["fill", "2 values", "3 channels"]),
        (lambda: ops.rotate(GOOD, 3, backend="cuda"), ["backend", "cuda", "triton"]),
        (lambda: ops.cutout(GOOD, torch.zeros(4)), ["box", "integers", "float32"]),
        (lambda: ops.apply(GOOD, [Layer.uniform(Op.INVERT, 3)]), ["layers[0]", "3 pictures", "2"]),
        (lambda: ops.operator("rotat"), ["operator", "rotat", "rotate"]),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError) as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_triton_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"triton"):
        ops.invert(GOOD, backend="triton")


def test_legal_oddities():
    empty = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert ops.rotate(empty, 10.0).shape == (0, 3, 8, 8)
    assert ops.equalize(torch.full((1, 1, 1, 1), 7, dtype=torch.uint8)).item() == 7
    assert ops.color(torch.full((1, 1, 2, 2), 7, dtype=torch.uint8), 0.0).unique().tolist() == [7]
    assert ops.rotate(torch.full((1, 1, 4, 4), 7, dtype=torch.uint8), 45.0, fill=(3, 4, 5)).unique().tolist() == [4, 7]


def test_memory_is_kept_unless_the_user_says_how():
    """Looked at in a process of its own: the setting cannot be taken back."""
    code = "from kd_autoaug.ops.allocator import keep_memory as k; print(k())"
    kept = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert kept.stdout.strip() == str(sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc")
    env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env).stdout.strip() == "False"
    )


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 2)])
def test_very_long_pictures(size):
    """Sides that 16.16 fixed point cannot hold."""
    operators = [Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.SHEAR_X, Op.SHEAR_Y, Op.ROTATE]
    for backend in ("torch", "auto"):
        found = sweep(operators=operators, sizes=[size], backend=backend, rounds=2)
        assert found.differing == 0, found.first
