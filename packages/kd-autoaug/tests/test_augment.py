"""BatchAugment: the same picture whatever the batch, and each of its four steps against a naive loop."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import kd_autoaug
from effkit.errors import UserError
from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops import apply
from kd_autoaug.ops.operators import Op

B, SIZE = 48, (20, 28)


def pictures(batch=B, channels=3, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, channels, *size), dtype=torch.uint8, generator=generator)


IMAGES, INDEX = pictures(), torch.arange(B) * 7 + 3
VIEWS = torch.arange(B) % 5
FULL = {"seed": 5, "padding": 4, "hflip": 0.5, "cutout": 6}


def make(name="randaugment(n=2,m=9,space=tf_tpu)", **options):
    return BatchAugment(name, **{**FULL, **options})


@pytest.mark.parametrize("name", ["randaugment(n=2,m=9)", "fast-aa-cifar10", "rand-m9-mstd0.5-inc1", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_order_chunk_and_view_vector_gives_the_same_pictures(name, channels):
    images = pictures(channels=channels)
    whole = make(name)(images, INDEX, VIEWS)
    assert whole.shape == images.shape
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, images)
    fresh = make(name)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(2))
    assert torch.equal(fresh(images[order], INDEX[order], VIEWS[order]), whole[order])
    for chunk in (1, 7, 32):
        parts = [fresh(images[k : k + chunk], INDEX[k : k + chunk], VIEWS[k : k + chunk]) for k in range(0, B, chunk)]
        assert torch.equal(torch.cat(parts), whole)
    for v in range(5):
        pick = v == VIEWS
        assert torch.equal(fresh(images[pick], INDEX[pick], v), whole[pick])
        assert torch.equal(fresh(images[pick], INDEX[pick].int(), torch.tensor(v)), whole[pick])


def test_backends_give_the_same_bits_and_the_fingerprint_ignores_them():
    a, b = make(backend="torch"), make(backend="pil")
    assert torch.equal(a(IMAGES, INDEX, VIEWS), b(IMAGES, INDEX, VIEWS))
    assert a.fingerprint() == b.fingerprint()


def naive(images, index, view, padding, hflip, cutout, seed=5, fill=0):
    """Padded crop and flip before the policy, cutout after it, picture by picture."""
    out, boxes = [], []
    height, width = images.shape[2:]
    for image, i in zip(images, index.tolist(), strict=True):
        words = rng.random_words(seed, torch.tensor([i]), view, rng.PLACEMENT, 8)[0].tolist()
        padded = torch.nn.functional.pad(image, [padding] * 4, value=fill)
        top, left = (words[k] * (2 * padding + 1) >> 32 for k in (0, 1))
        image = padded[:, top : top + height, left : left + width]
        if words[2] / 2**32 < hflip:
            image = image.flip(-1)
        out.append(image)
        x, y = words[4] * width >> 32, words[5] * height >> 32
        half = cutout // 2
        boxes.append((max(0, x - half), max(0, y - half), x - half + cutout, y - half + cutout))
    return torch.stack(out), boxes


def test_the_steps_against_a_naive_loop():
    policy = Policy.from_name("randaugment(n=2,m=9)")
    augment = BatchAugment(policy, **FULL, padding_fill=9)
    ours, layers = augment(IMAGES, INDEX, 3, return_layers=True)
    before, boxes = naive(IMAGES, INDEX, 3, 4, 0.5, 6, fill=9)
    assert len(layers) == 2
    expected = apply(before, layers, fill=policy.fill, cutout_fill=policy.cutout_fill)
    for image, (left, top, right, bottom) in zip(expected, boxes, strict=True):
        image[:, top:bottom, left:right] = 128  # the policy's fill
    assert torch.equal(ours, expected)
    for a, b in zip(layers, policy.sample(5, INDEX, 3, SIZE), strict=True):
        assert torch.equal(a.op, b.op)
        assert torch.equal(a.arg, b.arg)


def test_without_a_policy():
    ours = BatchAugment(None, **FULL)(IMAGES, INDEX, 0)
    expected, boxes = naive(IMAGES, INDEX, 0, 4, 0.5, 6)
    for image, (left, top, right, bottom) in zip(expected, boxes, strict=True):
        image[:, top:bottom, left:right] = 0
    assert torch.equal(ours, expected)
    assert BatchAugment(None)(IMAGES, INDEX, 0) is IMAGES
    coloured = BatchAugment(None, cutout=3, cutout_fill=(1, 2, 3))(torch.full_like(IMAGES, 77), INDEX, 0)
    changed = coloured.permute(1, 0, 2, 3)[:, (coloured != 77).any(1)]  # (3, pixels)
    assert torch.equal(changed.unique(dim=1).flatten(), torch.tensor([1, 2, 3], dtype=torch.uint8))


def test_crops_and_flips_are_uniform():
    n = 9 * 9 * 40
    images = torch.zeros(n, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 3] = 255  # off the middle, so that a flip shows
    out = BatchAugment(None, padding=4, hflip=0.25)(images, torch.arange(n), 0).flatten(1)
    place = torch.where((out > 0).any(1), out.argmax(1), 81)  # 81: cropped away
    expected = torch.zeros(82, dtype=torch.float64)
    for top in range(9):
        for left in range(9):
            row, column = 8 - top, 7 - left
            for share, at in ((0.75, column), (0.25, 8 - column)):
                expected[81 if column < 0 else row * 9 + at] += share * n / 81
    observed = torch.bincount(place, minlength=82).double()
    used = expected > 0
    assert observed[~used].sum() == 0
    statistic, degrees = float(((observed - expected)[used] ** 2 / expected[used]).sum()), int(used.sum()) - 1
    assert abs(statistic - degrees) < 5 * (2 * degrees) ** 0.5


def test_no_value_is_read_back_by_the_host():
    """Tensors on the meta device have no values, so whatever would make the host wait for a GPU raises here."""
    images, index = IMAGES.to("meta"), INDEX.to("meta")
    for view in (0, VIEWS.to("meta")):
        assert BatchAugment(None, **FULL)(images, index, view).shape == images.shape
        for name in ("fast-aa-svhn", "rand-m9-mstd0.5-inc1", "rand-m9-tweights", "trivialaugment-wide"):
            policy = Policy.from_name(name)
            for layer in policy.sample(0, index, view, SIZE):
                assert layer.box.shape == (B, 4)
                assert layer.arg.dtype == torch.float64
                assert layer.op.device.type == layer.interpolation.device.type == "meta"


def test_seed_and_view_matter():
    base = make()(IMAGES, INDEX, 0)
    assert not torch.equal(base, make(seed=6)(IMAGES, INDEX, 0))
    assert not torch.equal(base, make()(IMAGES, INDEX, 1))
    assert not torch.equal(base, make()(IMAGES, INDEX + 1, 0))


def test_no_global_generator_is_touched():
    def states():
        return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    torch.manual_seed(0)
    before = states()
    first = make("rand-m9-mstd0.5-inc1")(IMAGES, INDEX, 0)
    assert states() == before
    torch.manual_seed(99)
    random.seed(99)
    assert torch.equal(make("rand-m9-mstd0.5-inc1")(IMAGES, INDEX, 0), first)


def test_fingerprints():
    variants = [
        {},
        {"seed": 6},
        {"padding": 3},
        {"hflip": 0.4},
        {"cutout": 8},
        {"cutout_fill": 3},
        {"padding_fill": 3},
        {"value_range": (0.0, 1.0)},
        {"name": "randaugment(n=2,m=8,space=tf_tpu)"},
        {"name": "none"},
    ]
    prints = [make(**v).fingerprint() for v in variants]
    assert len(set(prints)) == len(prints)
    assert make().fingerprint() == prints[0]
    assert BatchAugment(None).fingerprint() == BatchAugment("none").fingerprint()


def test_small_and_empty_pictures():
    empty = IMAGES[:0]
    augment = make()
    assert augment(empty, INDEX[:0], 0) is empty
    assert augment(empty, INDEX[:0], VIEWS[:0], return_layers=True) == (empty, [])
    for size in ((1, 1), (1, 7), (2, 1)):
        tiny = pictures(4, 3, size)
        assert make("fast-aa-svhn", padding=0)(tiny, INDEX[:4], 0).shape == tiny.shape
        assert make(padding=4)(tiny, INDEX[:4], 0).shape == tiny.shape


def test_float_pictures_only_with_a_range():
    floats = IMAGES.float() / 255
    with pytest.raises(UserError, match=r"float32.*value_range"):
        make()(floats, INDEX, 0)
    expected = make()(IMAGES, INDEX, 0).float() / 255
    ours = make(value_range=(0, 1))(floats, INDEX, 0)
    assert ours.dtype == torch.float32
    assert (ours - expected).abs().max() < 1e-6
    ours = make(value_range=(-1.0, 1.0))((floats * 2 - 1).double(), INDEX, 0)
    assert ours.dtype == torch.float64
    assert (ours - (expected * 2 - 1)).abs().max() < 1e-6
    assert torch.equal(make(value_range=(0, 1))(IMAGES, INDEX, 0), make()(IMAGES, INDEX, 0))


@pytest.mark.parametrize(
    ("images", "index", "view", "words"),
    [
        (pictures(4, 4), torch.arange(4), 0, ["channels", "alpha"]),
        (pictures(4).permute(0, 2, 3, 1), torch.arange(4), 0, ["(B, H, W, C)"]),
        (pictures(4)[0], torch.arange(3), 0, ["(B, C, H, W)"]),
        (pictures(4).int(), torch.arange(4), 0, ["uint8", "int32"]),
        (np.zeros((4, 3, 8, 8), np.uint8), torch.arange(4), 0, ["tensor", "ndarray"]),
        (pictures(4), torch.arange(3), 0, ["index", "(3,)", "4 pictures"]),
        (pictures(4), torch.arange(4.0), 0, ["index", "float32"]),
        (pictures(4), [0, 1, 2, 3], 0, ["index", "list"]),
        (pictures(4), torch.arange(4) - 1, 0, ["index", "-1"]),
        (pictures(4), torch.arange(4), torch.arange(5), ["view", "(5,)"]),
        (pictures(4), torch.arange(4), -1, ["view=-1"]),
        (pictures(4), torch.arange(4), torch.tensor([0, 1, 2, 1 << 32]), ["view", "4294967296"]),
        (pictures(4), torch.arange(4), "0", ["view='0'"]),
    ],
)
def test_wrong_inputs_are_named(images, index, view, words):
    with pytest.raises(UserError) as caught:
        make()(images, index, view)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": -1}, "padding=-1"),
        ({"cutout": 1.5}, "cutout=1.5"),
        ({"hflip": 2}, "hflip=2"),
        ({"backend": "gpu"}, "backend='gpu'"),
        ({"cutout_fill": 256}, "cutout_fill=256"),
        ({"padding_fill": (1, 2)}, "padding_fill"),
        ({"value_range": (1, 0)}, "value_range"),
        ({"seed": -3}, "seed=-3"),
        ({"policy": "autoaugment"}, "policy='autoaugment'"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError) as caught:
        BatchAugment(**{"policy": None, **options})
    assert words in str(caught.value)


CONFIGS = sorted((Path(kd_autoaug.__file__).parent / "configs" / "policy").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_policy_file_makes_a_policy(path):
    policy = Policy.from_config(yaml.safe_load(path.read_text()))
    assert len(policy.sample(0, INDEX, 0, SIZE)) == policy.num_layers
    assert BatchAugment(policy)(IMAGES[:4], INDEX[:4], 0).shape == IMAGES[:4].shape


def test_policy_files_cover_the_names():
    assert len(CONFIGS) >= 15
    timm = Policy.from_config(yaml.safe_load(next(p for p in CONFIGS if p.stem == "timm").read_text()))
    assert timm.space.name == "timm_increasing"
    strong = BatchAugment(Policy.from_name("randaugment(n=2,m=2,space=linear)"))
    assert Op.CUTOUT in {Op(int(o)) for layer in strong(IMAGES, INDEX, 0, return_layers=True)[1] for o in layer.op}
