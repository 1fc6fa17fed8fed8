"""Transforms for torchvision and timm: the same pictures as theirs, keyed by sample and view in any loader."""

import pickle
import random

import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_aa
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from effkit.errors import UserError
from kd_autoaug.augmentation.adapters import AugmentTransform, IndexedDataset, from_timm_string, sample_key
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.augmentation.policies.spaces import space
from kd_autoaug.ops import Layer, apply
from kd_autoaug.ops.operators import INTERPOLATIONS, Op
from kd_autoaug.ops.parity import sample_pictures

SIZE = (24, 40)
NAME = "randaugment(n=2,m=9,space=tf_tpu)"


def photograph(channels=3, number=0):
    generator = torch.Generator().manual_seed(number)
    low = torch.rand(1, channels, 6, 10, generator=generator)
    image = torch.nn.functional.interpolate(low, size=SIZE, mode="bicubic").clamp(0, 1)
    return (image[0] * 255).to(torch.uint8)


def ours(image, op, argument, interpolation, fill):
    layer = Layer.of(
        torch.tensor([int(op)]), torch.tensor([argument], dtype=torch.float64), INTERPOLATIONS[interpolation]
    )
    return apply(VF.pil_to_tensor(image)[None], [layer], fill=fill)[0]


TIMM = {
    "AutoContrast": Op.AUTOCONTRAST,
    "Equalize": Op.EQUALIZE,
    "Invert": Op.INVERT,
    "Rotate": Op.ROTATE,
    "PosterizeIncreasing": Op.POSTERIZE,
    "SolarizeIncreasing": Op.SOLARIZE,
    "SolarizeAdd": Op.SOLARIZE_ADD,
    "ColorIncreasing": Op.COLOR,
    "ContrastIncreasing": Op.CONTRAST,
    "BrightnessIncreasing": Op.BRIGHTNESS,
    "SharpnessIncreasing": Op.SHARPNESS,
    "ShearX": Op.SHEAR_X,
    "ShearY": Op.SHEAR_Y,
    "TranslateXRel": Op.TRANSLATE_X,
    "TranslateYRel": Op.TRANSLATE_Y,
}


@pytest.mark.parametrize(("name", "op"), TIMM.items())
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pictures_equal_timm_s(name, op, interpolation, monkeypatch):
    image = VF.to_pil_image(photograph())
    for negative in (False, True):
        monkeypatch.setattr(timm_aa, "_randomly_negate", lambda v, negative=negative: -v if negative else v)
        for level in (1, 4.3, 7, 9):
            hparams = {"img_mean": (124, 116, 104), "interpolation": Image.Resampling[interpolation.upper()]}
            theirs = timm_aa.AugmentOp(name, prob=1.0, magnitude=level, hparams=hparams)(image)
            argument = space("timm_increasing").argument(op, level, SIZE, negative=negative)
            mine = ours(image, op, argument, interpolation, (124, 116, 104))
            assert torch.equal(mine, VF.pil_to_tensor(theirs)), (level, negative)


@pytest.mark.parametrize("op", space("torchvision").operators, ids=lambda op: op.name)
@pytest.mark.parametrize(("name", "transform"), [("torchvision", v2.RandAugment), ("ta_wide", v2.TrivialAugmentWide)])
def test_pictures_equal_torchvision_s(op, name, transform):
    image = VF.to_pil_image(photograph())
    their_name = {"Autocontrast": "AutoContrast"}.get(n := op.name.title().replace("_", ""), n)
    table, signed = transform._AUGMENTATION_SPACE[their_name]
    for interpolation in ("nearest", "bilinear"):
        augment = transform(interpolation=v2.InterpolationMode(interpolation), fill=10)
        for b in (0, 4, 17, 30):
            for negative in (False, True):
                magnitudes = table(31, *SIZE)
                magnitude = 0.0 if magnitudes is None else float(magnitudes[b]) * (-1 if negative and signed else 1)
                theirs = augment._apply_image_or_video_transform(
                    image, their_name, magnitude, augment.interpolation, augment._fill
                )
                argument = space(name).argument(op, b, SIZE, negative=negative)
                assert torch.equal(ours(image, op, argument, interpolation, 10), VF.pil_to_tensor(theirs)), b


def test_posterize_to_no_bits_is_black_where_timm_fails():
    """Timm's own table asks Pillow for 0 bits, which Pillow 13 refuses."""
    image = VF.to_pil_image(photograph())
    argument = space("timm_increasing").argument(Op.POSTERIZE, 10, SIZE)
    assert argument == 0
    assert ours(image, Op.POSTERIZE, argument, "nearest", 0).sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_comes_back_as_it_came(channels):
    pixels = photograph(channels)
    augment = BatchAugment(NAME, seed=3)
    expected = augment(pixels[None], torch.tensor([11]), 2)[0]
    transform = AugmentTransform(augment)
    with sample_key(11, 2, draws="same"):
        pil = transform(VF.to_pil_image(pixels))
        tensor = transform(pixels)
        image = transform(tv_tensors.Image(pixels))
        batch = transform(pixels[None])
        sample = v2.Compose([transform])((VF.to_pil_image(pixels), 7))
        mapping = transform({"image": tv_tensors.Image(pixels), "label": torch.tensor(3)})
    assert isinstance(pil, Image.Image)
    assert pil.mode == ("L" if channels == 1 else "RGB")
    assert torch.equal(VF.pil_to_tensor(pil), expected)
    assert type(tensor) is torch.Tensor
    assert torch.equal(tensor, expected)
    assert type(image) is tv_tensors.Image
    assert torch.equal(image, expected)
    assert torch.equal(batch[0], expected)
    assert sample[1] == 7
    assert torch.equal(VF.pil_to_tensor(sample[0]), expected)
    assert mapping["label"] == 3
    assert torch.equal(mapping["image"], expected)
    transform.key = (11, 2)
    assert torch.equal(transform(pixels), expected)
    with sample_key(12, 2):  # the block goes before the attribute
        assert not torch.equal(transform(pixels), expected)


def test_a_batch_is_keyed_picture_by_picture():
    batch = torch.stack([photograph(number=k) for k in range(6)])
    index, view = torch.tensor([4, 9, 2, 0, 7, 1]), torch.tensor([0, 1, 0, 1, 0, 1])
    transform = AugmentTransform(NAME, seed=1)
    with sample_key(index, view):
        assert torch.equal(transform(batch), BatchAugment(NAME, seed=1)(batch, index, view))


def test_what_cannot_be_augmented_is_refused():
    transform = AugmentTransform(NAME)
    pixels = photograph()
    for given, words in (
        (Image.new("RGBA", (4, 4)), "RGBA"),
        (pixels.float(), "float32"),
        (pixels[0], "(24, 40)"),
        ((tv_tensors.Image(pixels), tv_tensors.Mask(pixels[0])), "Mask"),
    ):
        with pytest.raises(UserError) as caught:
            transform(given)
        assert words in str(caught.value)
    with pytest.raises(UserError, match="seed=4"):
        AugmentTransform(BatchAugment(NAME), seed=4)


def test_a_timm_string_replaces_timm_s_transform():
    hparams = {"translate_const": 100, "img_mean": (124, 116, 104)}
    transform = from_timm_string("rand-m9-mstd0.5-inc1", hparams, seed=2)
    assert transform.augment.policy.fill == (124, 116, 104)
    theirs = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")
    names = [type(t).__name__ for t in theirs.transforms]
    assert "RandAugment" in names
    theirs.transforms[names.index("RandAugment")] = transform
    image = VF.to_pil_image(photograph())
    random.seed(0)
    torch.manual_seed(0)
    assert theirs(image).shape == (3, 32, 32)


def test_without_a_key_calls_are_counted_and_no_generator_is_read():
    pixels = photograph()
    state = torch.random.get_rng_state(), random.getstate()
    first, second = AugmentTransform(NAME), AugmentTransform(NAME)
    a = [first(pixels) for _ in range(20)]
    assert torch.equal(torch.stack(a), torch.stack([second(pixels) for _ in range(20)]))
    assert len({t.numpy().tobytes() for t in a}) > 10
    assert torch.equal(state[0], torch.random.get_rng_state())
    assert state[1] == random.getstate()
    expected = BatchAugment(NAME)(pixels.expand(20, -1, -1, -1), torch.arange(20), 0)
    assert torch.equal(torch.stack(a), expected)
    third = AugmentTransform(NAME)
    assert torch.equal(third(pixels.expand(20, -1, -1, -1)), expected)  # a batch counts its pictures


class Pictures(Dataset):
    """Twelve pictures and their numbers, the transform inside, as torchvision's data sets have it."""

    def __init__(self, transform=None):
        self.transform = transform

    def __len__(self):
        return 12

    def __getitem__(self, i):
        image = VF.to_pil_image(photograph(number=i))
        return (self.transform(image) if self.transform else image), i


def expected_view(view):
    batch = torch.stack([photograph(number=i) for i in range(12)])
    return BatchAugment(NAME, seed=4)(batch, torch.arange(12), view)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_same_pictures(workers, inside):
    chain = v2.Compose([AugmentTransform(NAME, seed=4), v2.PILToTensor()])
    data = IndexedDataset(Pictures(chain)) if inside else IndexedDataset(Pictures(), chain)
    loader = DataLoader(
        data,
        batch_size=5,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(workers),
    )
    for epoch in (0, 1):
        data.set_epoch(epoch)  # reaches workers that live on
        expected = expected_view(epoch)
        seen = []
        for images, numbers in loader:
            assert torch.equal(images, expected[numbers])
            seen += numbers.tolist()
        assert sorted(seen) == list(range(12))


def test_workers_without_a_key_do_not_repeat_each_other_or_the_last_epoch():
    class Same(Dataset):
        def __init__(self):
            self.transform = AugmentTransform("randaugment(n=3,m=9)", seed=4)

        def __len__(self):
            return 8

        def __getitem__(self, i):
            return self.transform(photograph())

    def epochs(seed):
        torch.manual_seed(seed)
        loader = DataLoader(Same(), batch_size=4, num_workers=2)
        return [torch.cat(list(loader)) for _ in range(2)]

    first, second = epochs(0)
    assert not torch.equal(first[:4], first[4:])  # two workers
    assert not torch.equal(first, second)  # two epochs
    assert torch.equal(epochs(0)[1], second)  # and yet a function of the seed


def test_views_come_round():
    data = IndexedDataset(Pictures(v2.Compose([AugmentTransform(NAME, seed=4), v2.PILToTensor()])), num_views=3)
    data.set_epoch(7)
    assert data.view == 1
    assert torch.equal(data[5][0], expected_view(1)[5])
    assert torch.equal(data[-7][0], expected_view(1)[5])
    assert torch.equal(pickle.loads(pickle.dumps(data.data))[5][0], data.data[5][0])
    assert len(data) == 12
    copy = pickle.loads(pickle.dumps(data))
    copy.set_epoch(4)
    assert (copy.view, int(copy._view), data.view) == (1, 1, 1)
    copy.set_epoch(5)
    assert (copy.view, int(copy._view), data.view) == (2, 2, 1)  # what workers share is what is read
    with pytest.raises(UserError, match="num_views=0"):
        IndexedDataset(Pictures(), num_views=0)
    with pytest.raises(UserError, match="epoch=-1"):
        data.set_epoch(-1)


def test_policies_survive_a_worker_that_is_spawned():
    transform = pickle.loads(pickle.dumps(AugmentTransform(Policy.from_name("rand-m9-mstd0.5-inc1"), seed=2)))
    pixels = photograph()
    assert torch.equal(transform(pixels), AugmentTransform("rand-m9-mstd0.5-inc1", seed=2)(pixels))


def every_operator():
    """A policy of all operators that its space has a magnitude for: all but a blur, which ``3a`` has."""
    others = (Op.IDENTITY, Op.GAUSSIAN_BLUR)
    return Policy.random(n=3, m=9, space="tf_tpu", ops=[op.name.lower() for op in Op if op not in others])


@pytest.mark.parametrize("policy", [every_operator(), Policy.from_name("3a")], ids=["all", "3a"])
@pytest.mark.parametrize("size", [(1, 1), (7, 12), (33, 20)])
def test_a_pillow_picture_gets_the_bits_of_a_batch(size, policy):
    """Pictures take another way than tensors: Pillow's own functions, driven by the same parameters."""
    augment = BatchAugment(policy, 5)
    transform = AugmentTransform(augment)
    for channels in (1, 3):
        pictures = list(sample_pictures(*size, 3, channels).values())
        for view in range(6):
            batch = augment(torch.stack(pictures), torch.arange(len(pictures)), view)
            for n, picture in enumerate(pictures):
                with sample_key(n, view):
                    out = transform(VF.to_pil_image(picture))
                assert torch.equal(VF.pil_to_tensor(out), batch[n]), (channels, view, n)


def test_a_stale_rank_in_the_shell_draws_nothing_else(monkeypatch):
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def drawn():
        return AugmentTransform(NAME)(images)

    alone = drawn()
    monkeypatch.setenv("RANK", "3")
    assert torch.equal(drawn(), alone)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert not torch.equal(drawn(), alone)
