"""Pictures that come alone: the same numbers and bits as in a batch, without a tensor on the way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as VF

from effkit.testing import count_launches
from kd_autoaug import BatchAugment, Policy
from kd_autoaug.augmentation import adapters, rng
from kd_autoaug.augmentation.adapters import AugmentTransform, sample_key
from kd_autoaug.augmentation.policies.boxes import STYLES, box_of, boxes
from kd_autoaug.augmentation.policies.names import NAMES
from kd_autoaug.augmentation.policies.space import LawSpace
from kd_autoaug.augmentation.policies.spaces import SPACES, space
from kd_autoaug.augmentation.rng_single import picture_words
from kd_autoaug.ops import Layer, Op, apply
from kd_autoaug.ops.matrix import affine_coefficients
from kd_autoaug.ops.parity import random_layer, sample_pictures
from kd_autoaug.ops.single import apply_to_picture, from_picture, to_picture
from kd_autoaug.ops.single.rotation import rotation

SIZE = (31, 40)
INDEX = [0, 1, 5, 2**31, 2**33 + 5, 2**62, 2**63 - 1, *range(100, 193)]
VIEWS = [(n * 77777) % 2**32 for n in INDEX]
TIMM = [
    "rand-m9-mstd0.5-inc1",  # normal noise, several interpolations
    "rand-m7-mstd101-p1-n3",  # uniform noise
    "rand-m9-n4-mstd1-mmax8-inc1-tweights",  # without replacement
    "original-mstd0.5",
    "3a",
    "3a-mstd0.5",
]
MIXTURES = ["augmix", "augmix-m9-w4-d2", "augmix-w1-d1"]
RANDOM = [f"randaugment(n=3,m={space(name).maximum:g},space={name})" for name in SPACES]
POLICIES = [*(name for name in NAMES if name != "randaugment"), *RANDOM, *TIMM]


def test_words_have_the_bits_of_the_tensor_operations() -> None:
    for seed in (0, 7, 2**63 + 2**31 + 7, 2**64 - 1):
        for streams, blocks in (((0,), 1), ((0, 16, 17), 2), ((1, 16, 2**24 - 1), 3)):
            plain = rng.words_of(
                seed, torch.tensor(INDEX), torch.tensor(VIEWS), streams, 4 * blocks
            )  # (S, 4 x blocks, B)
            for n, (index, view) in enumerate(zip(INDEX, VIEWS, strict=True)):
                evens, odds = picture_words(seed, index, view, streams, blocks)
                words = torch.tensor([evens, odds]).view(2, len(streams), blocks, 2).permute(1, 2, 0, 3)
                assert torch.equal(words.flatten(1), plain[:, :, n])


@pytest.mark.parametrize("name", POLICIES)
def test_draws_are_those_of_a_batch(name: str) -> None:
    policy = Policy.from_name(name)
    single, seed = policy.single, 2**63 + 5
    layers = policy.sample(seed, torch.tensor(INDEX), torch.tensor(VIEWS), SIZE)
    for n, (index, view) in enumerate(zip(INDEX, VIEWS, strict=True)):
        wanted = [
            (int(one.op[n]), float(one.arg[n]), int(one.interpolation[n]), tuple(one.box[n].tolist()))
            for one in layers
            if one.op[n]
        ]
        steps = (
            single.steps(picture_words(seed, index, view, single.streams, single.blocks), SIZE, single.blocks)
            if layers
            else []
        )
        assert [tuple(step) for step in steps] == wanted, n


def test_a_space_of_another_class_is_asked_for_its_tensors() -> None:
    class Halved(LawSpace):
        def at_size(self, ops, base, size):
            return super().at_size(ops, base, size) / 2

        def sides(self, ops, size):
            return super().sides(ops, size) / 2

    values = {f.name: getattr(space("timm"), f.name) for f in dataclasses.fields(LawSpace)}
    picture = torch.stack([photograph(*SIZE)])
    for noise in ({}, {"mstd": 0.5}):
        policy = Policy.random(m=9, space=Halved(**{**values, "name": "halved"}), prob=1.0, **noise)
        transform, augment = AugmentTransform(policy), BatchAugment(policy)
        for n in range(20):
            assert torch.equal(transform(picture[0]), augment(picture, torch.tensor([n]))[0])


def test_boxes_are_those_of_a_batch() -> None:
    words = torch.tensor([[0, 2**31, 2**32 - 1, 123456789], [2**32 - 1, 5, 2**30, 0]])
    for style in STYLES:
        for extent in (0.0, 0.4, 3.0, 7.5, 40.0):
            drawn = boxes(style, torch.full((4,), extent, dtype=torch.float64), *words, SIZE)
            alone = [box_of(style, extent, a, d, SIZE) for a, d in words.t().tolist()]
            assert alone == [tuple(box) for box in drawn.tolist()], (style, extent)


def test_rotations_have_the_same_six_numbers() -> None:
    degrees = torch.cat([torch.linspace(-400, 400, 3001, dtype=torch.float64), torch.arange(-360, 361).double()])
    wanted = affine_coefficients(Layer.of(torch.full((len(degrees),), int(Op.ROTATE)), degrees), *SIZE)
    assert [rotation.__wrapped__(d, *SIZE) for d in degrees.tolist()] == [tuple(row) for row in wanted.tolist()]


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_each_operator_has_the_bits_of_a_batch(op: Op) -> None:
    for height, width in ((1, 1), (2, 5), (3, 3), (5, 17), (33, 20)):
        for channels in (1, 3):
            pictures = list(sample_pictures(height, width, 1, channels).values())
            numbers = np.random.default_rng([int(op), height, channels])
            fill = tuple(int(v) for v in numbers.integers(0, 256, channels))
            for _ in range(4):
                layer = random_layer(op, len(pictures), height, width, numbers)
                wanted = apply(torch.stack(pictures), [layer], fill=fill)
                for n, picture in enumerate(pictures):
                    image = VF.to_pil_image(picture)
                    done = apply_to_picture(image, [layer[n : n + 1]], fill=fill, cutout_fill=None)
                    assert torch.equal(VF.pil_to_tensor(done), wanted[n]), (
                        height,
                        width,
                        channels,
                        n,
                        layer[n : n + 1],
                    )
                    assert torch.equal(VF.pil_to_tensor(image), picture)  # what was given stays


@pytest.mark.parametrize("size", [(64, 65), (3, 1501), (1501, 3), (67, 83)])
def test_large_pictures_have_the_bits_of_a_batch(size: tuple[int, int]) -> None:
    """Where whole arrays are worked on: sharpness, and translations by parts of a pixel, above all by simple ones."""
    picture = {c: sample_pictures(*size, 1, c) for c in (1, 3)}
    moves = [0.5, 0.25, -0.72, 2.4, 12.72, -37.125, 1e-9, -1e-9, 61.9999, 3000.0, -3000.0, 5.0]
    for channels, kind in ((1, "noise"), (3, "noise"), (3, "photograph")):
        image, planes = VF.to_pil_image(picture[channels][kind]), picture[channels][kind]
        todo = [(Op.SHARPNESS, 0.1, 0), (Op.SHARPNESS, 1.9, 0), (Op.AUTOCONTRAST, 0.0, 0)]
        todo += [(op, arg, how) for op in (Op.TRANSLATE_X, Op.TRANSLATE_Y) for arg in moves for how in (0, 2, 3)]
        for op, arg, how in todo:
            layer = Layer.uniform(op, 1, arg, how)
            wanted = apply(planes[None], [layer], fill=77, backend="pil")[0]
            done = apply_to_picture(image, [layer], fill=77, cutout_fill=None)
            assert torch.equal(VF.pil_to_tensor(done), wanted), (size, channels, kind, op, arg, how)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_pictures_of_a_batch_have_the_bits_of_all_backends(threads: int) -> None:
    """On one thread they go through Pillow, whole; also those that nothing happens to, and strange memory layouts."""
    images = torch.stack([sample_pictures(144, 150, n)["photograph"] for n in range(2)]).repeat(9, 1, 1, 1)
    strange = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        policy = Policy.random(n=2, m=9, space="tf_tpu", interpolation=["nearest", "bilinear", "bicubic"], prob=0.8)
        wanted = BatchAugment(policy, 3, backend="torch")(images, torch.arange(18))
        for given in (images, strange):
            assert torch.equal(BatchAugment(policy, 3)(given, torch.arange(18)), wanted)
            assert torch.equal(given, strange)
    finally:
        torch.set_num_threads(before)


def photograph(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return sample_pictures(height, width, 0, channels)["photograph"]


OPTIONS = [{}, {"padding": 4, "hflip": 0.5, "cutout": 9, "cutout_fill": 7, "padding_fill": (9, 8, 7)}]


@pytest.mark.parametrize("name", [*POLICIES, *MIXTURES])
def test_a_picture_alone_has_the_bits_of_the_batch(name: str) -> None:
    """As a Pillow picture, planes and an array; grey and in colour; on the quick way and on the batch's."""
    for options in OPTIONS:
        augment = BatchAugment(name, 5, **options)
        for height, width, channels in ((7, 12, 3), (33, 20, 1), (33, 20, 3)):
            planes = photograph(height, width, channels)
            views = augment(planes.expand(6, -1, -1, -1), torch.arange(6), 3)
            for n in range(6):
                transform = AugmentTransform(augment)
                transform.key = (n, 3)
                image = VF.to_pil_image(planes)
                array = np.asarray(image)
                assert torch.equal(VF.pil_to_tensor(transform(image)), views[n])
                assert torch.equal(transform(planes), views[n])
                assert np.array_equal(transform(array), np.asarray(VF.to_pil_image(views[n])))


def test_only_a_policy_or_only_a_crop() -> None:
    planes = photograph(24, 17)
    for name in (None, "none", "trivialaugment-wide"):
        for options in ({}, {"padding": 30}, {"hflip": 1.0}, {"cutout": 5}, {"cutout": 100}):
            augment = BatchAugment(name, 1, **options)
            views = augment(planes.expand(8, -1, -1, -1), torch.arange(8))
            transform = AugmentTransform(augment)
            alone = [transform(planes) for _ in range(8)]
            assert torch.equal(torch.stack(alone), views)
            assert all(view.data_ptr() != planes.data_ptr() for view in alone)  # the data set's own picture stays


@pytest.mark.parametrize("name", ["rand-m9-mstd0.5-inc1", "autoaugment-imagenet", "trivialaugment-wide"])
def test_no_tensor_is_touched(name: str) -> None:
    image, transform = VF.to_pil_image(photograph(24, 17)), AugmentTransform(name)
    for _ in range(60):
        transform(image)  # what is made once for a size
    counted = count_launches(lambda: [transform(image) for _ in range(40)])
    assert (counted.launches, counted.copies, counted.reads) == (0, 0, 0), counted


def test_what_is_not_known_goes_the_batch_s_way(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = photograph(24, 17)
    image = VF.to_pil_image(planes)

    class Own(BatchAugment):
        pass

    class Drawn(Policy):
        def sample(self, *args, **options):
            return super().sample(*args, **options)[:1]

    policy = Policy.from_name("randaugment(n=2,m=9)")
    wanted = BatchAugment(policy)(planes[None], torch.tensor([3]), 1)[0]
    monkeypatch.setattr(adapters, "augment_alone", lambda *_: pytest.fail("taken alone"))
    for augment in (Own(policy), BatchAugment(policy, backend="torch")):
        transform = AugmentTransform(augment)
        transform.key = (3, 1)
        assert torch.equal(transform(planes), wanted)
        assert torch.equal(VF.pil_to_tensor(transform(image)), wanted)
    first = AugmentTransform(Drawn.of(policy))
    first.key = (3, 1)
    assert torch.equal(first(planes), BatchAugment(Drawn.of(policy))(planes[None], torch.tensor([3]), 1)[0])
    with sample_key(torch.tensor(3), torch.tensor(1)):
        assert torch.equal(AugmentTransform(policy)(planes), wanted)
    floats = AugmentTransform(policy, value_range=(0, 1))
    floats.key = (3, 1)
    assert torch.equal((floats(planes / 255) * 255).round().to(torch.uint8), wanted)


def test_keys_count_as_they_do_for_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = photograph(24, 17)

    def several(index: object, draws: str) -> torch.Tensor:
        transform = AugmentTransform("randaugment(n=2,m=9)", 3)
        with sample_key(index, 2, draws):
            return torch.stack([transform(planes) for _ in range(5)])

    quick = [several(i, draws) for i in (5, np.int64(5), 2**48 - 1) for draws in ("each", "same")]
    assert len(quick[0].unique(dim=0)) > 2
    assert len(quick[1].unique(dim=0)) == 1
    monkeypatch.setattr(adapters, "takes", lambda *_: False)
    slow = [several(i, draws) for i in (5, np.int64(5), 2**48 - 1) for draws in ("each", "same")]
    assert all(map(torch.equal, quick, slow))


def test_a_small_picture_alone_says_what_a_batch_says(caplog: pytest.LogCaptureFixture) -> None:
    image = Image.new("RGB", (17, 13))
    AugmentTransform("randaugment(n=2,m=10,space=tf_tpu)")(image)
    assert "leaves nothing of" in caplog.text


def test_sizes_are_looked_at_until_one_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of a data set come in many sizes, and looking at one takes longer than augmenting a picture."""
    asked = []
    monkeypatch.setattr("kd_autoaug.augmentation.policies.frame.advice", lambda policy, size: asked.append(size) or "")
    transform = AugmentTransform("randaugment(n=2,m=9)")
    for size in ((300, 200), (301, 200), (300, 199), (900, 900), (300, 200)):
        transform(Image.new("L", size))
    assert asked == [(200, 300), (199, 300)]


@pytest.mark.parametrize("channels", [1, 3])
def test_planes_go_to_pillow_and_back(channels: int) -> None:
    for height, width in ((1, 1), (5, 17), (33, 20)):
        planes = sample_pictures(height, width, 2, channels)["noise"]
        for given in (planes, planes.flip(-1), planes.transpose(1, 2), planes[:, ::2]):
            image = to_picture(given)
            assert torch.equal(VF.pil_to_tensor(image), given)
            assert torch.equal(from_picture(image), given)
