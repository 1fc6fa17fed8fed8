"""Preprocessing: timm's evaluation to the bit, in two halves; what is kept in files comes back equal or is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from torchvision.transforms import functional as TF

from effkit.data import Normalize, Preprocessing, class_names, create_data, load_picture
from effkit.data.erasing import ErasedPicture, collate
from effkit.data.facts import FACTS, known_preprocessing
from effkit.data.preprocessing import METADATA_KEY
from effkit.data.sampling import seeded
from effkit.data.transforms import resolve_augment, train_transform
from effkit.errors import UserError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CASES = [
    {"size": 48, "crop_pct": 0.9, **IMAGENET},
    {"size": (32, 48), "crop_pct": 1.0, "interpolation": "bilinear", **IMAGENET},
    {"size": 40, "crop_mode": "squash", "interpolation": "lanczos"},
    {"size": 40, "crop_mode": "border", **IMAGENET},
    {"size": 24, "mean": (0.4,), "std": (0.3,)},
]


@pytest.mark.parametrize("options", CASES)
def test_both_halves_together_are_timms_evaluation(options):
    found = Preprocessing(**options)
    picture = load_picture("coffee", found.channels)
    given = {k: getattr(found, k) for k in ("crop_pct", "crop_mode", "interpolation", "mean", "std")}
    want = create_transform((found.channels, *found.size), is_training=False, **given)(picture)
    assert found.picture("coffee").dtype == torch.uint8
    assert torch.equal(found("coffee"), want)
    assert torch.equal(found.batch(["coffee", picture])[1], want)
    assert found.pictures([]).shape == (0, found.channels, *found.size)


@pytest.mark.parametrize("preset", ["none", "light", "deit"])  # timm has no transform like "pad"
def test_the_network_sees_what_timms_transform_gives(preset, monkeypatch):
    """Random erasing included: drawn in the worker from the same stream, written after normalisation."""
    monkeypatch.setattr("PIL.ImageOps.posterize", posterize_as_it_was(ImageOps.posterize))
    facts = Preprocessing(size=32, crop_pct=0.875, **IMAGENET)
    picture, options = load_picture("chelsea"), {"interpolation": "bicubic", **resolve_augment(preset)}
    given = {k: options[k] for k in ("auto_augment", "interpolation", "re_prob", "re_mode") if k in options}
    if preset != "none":
        given |= {"is_training": True, "color_jitter": 0.0, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    theirs, ours = create_transform(32, **given, **IMAGENET), train_transform(facts, **resolve_augment(preset))
    samples, want = [], []
    for seed in range(40):
        with seeded(seed):
            samples.append((ours(picture), seed))
        with seeded(seed):
            want.append(theirs(picture))
    images, labels, *erased = collate(samples)
    assert images.dtype == torch.uint8
    assert labels.tolist() == list(range(40))
    assert bool(erased) == (preset == "deit")
    seen = facts.normalize(images)
    for part in erased:
        seen = part.apply(seen)
    assert torch.equal(seen, torch.stack(want))


def posterize_as_it_was(posterize):
    return lambda image, bits: posterize(image, bits) if bits else image.point(lambda _: 0)


@pytest.mark.parametrize("policy", ["rand-m10-n8", "augmix-m10", "v0", "originalr"])
def test_full_strength_asks_pillow_for_nothing_it_refuses(policy):
    transform = train_transform(Preprocessing(16), auto_augment=policy)
    picture = load_picture("chelsea").resize((24, 24))
    for seed in range(30):
        with seeded(seed):
            assert transform(picture).shape == (3, 16, 16)


@pytest.mark.parametrize("mode", ["rand", "const"])
def test_one_colour_is_erased_too(mode):
    facts = Preprocessing(size=16)
    ours = train_transform(facts, re_prob=1.0, re_mode=mode)
    theirs = create_transform(16, is_training=True, color_jitter=0.0, interpolation="bicubic", re_prob=1.0,
                              re_mode=mode, mean=facts.mean, std=facts.std)  # fmt: skip
    picture = load_picture("flower")
    with seeded(5):
        made = ours(picture)
    assert isinstance(made, ErasedPicture)
    images, _, erased = collate([(made, 0)])
    with seeded(5):
        assert torch.equal(erased.apply(facts.normalize(images))[0], theirs(picture))


def test_digits_are_within_a_rounding_of_their_sixteenths():
    """The one change to what networks see: grey levels are rounded to bytes, once, after the interpolation."""
    import torch.nn.functional as F
    from sklearn.datasets import load_digits as sklearn_digits

    data = create_data("digits", image_size=32)
    grey = torch.from_numpy(sklearn_digits().images).float()[:, None] / 8 - 1
    former = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    seen = data.preprocessing.normalize(torch.cat([data.pictures("train"), data.pictures("test")]))[:, :1]
    order = [t.flatten(1).sum(1).argsort(stable=True) for t in (seen.double(), former.double())]
    assert (seen.flatten(1).mean(1)[order[0]] - former.flatten(1).mean(1)[order[1]]).abs().max() < 1 / 255
    exact = torch.cat([data.pictures("train"), data.pictures("test")])[:, 0]
    rounded = (255 * (former.double() * 0.5 + 0.5)).round().to(torch.uint8)[:, 0]
    assert {p.numpy().tobytes() for p in exact} == {p.numpy().tobytes() for p in rounded}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_normalisation_is_torchvisions_in_any_dtype(dtype):
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    facts = Preprocessing(size=(5, 4), **IMAGENET)
    found = facts.normalize(images, dtype)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype == dtype
    assert torch.equal(found, TF.normalize(images.to(work).div(255), **IMAGENET).to(dtype))
    layer = Normalize(**IMAGENET)
    assert torch.equal(layer(images), facts.normalize(images))
    assert not layer.state_dict()
    np.testing.assert_allclose(facts.denormalize(facts.normalize(images)) * 255, images.movedim(1, -1), atol=1e-4)
    for wrong, message in ((images.float(), r"images\.dtype=torch\.float32"), (images[:, :1], "1 channels")):
        with pytest.raises(UserError, match=message):
            facts.normalize(wrong)


# --- in files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CASES)
def test_it_survives_json_and_metadata(options):
    facts = Preprocessing(**options, class_names=("cat", "Große Katze", "7"))
    assert Preprocessing.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert Preprocessing.from_metadata(facts.to_metadata()) == facts
    assert Preprocessing.from_metadata({"format": "pt"}) is None
    assert Preprocessing.from_metadata(None) is None
    assert facts.to_dict()["channels"] == facts.channels


def test_it_travels_in_safetensors_and_exported_programs(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    facts = Preprocessing(size=8, class_names=("a", "b"))
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"format": "pt", **facts.to_metadata()})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert Preprocessing.from_metadata(file.metadata()) == facts
    program = torch.export.export(Normalize(facts.mean, facts.std), (torch.zeros(1, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(program, tmp_path / "n.pt2", extra_files=facts.to_metadata())
    extra = {METADATA_KEY: ""}
    torch.export.load(tmp_path / "n.pt2", extra_files=extra)
    assert Preprocessing.from_metadata(extra) == facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"x\.json has version 2, this effkit reads up to 1: update effkit"),
        ({"version": "1"}, r"x\.json is damaged: version='1' must be"),
        ({"size": [8]}, r"x\.json is damaged: size=\[8\] must be height and width"),
        ({"size": [8, 0]}, r"damaged: size=\[8, 0\]"),
        ({"mean": 0.5}, r"damaged: mean=0.5 must be a list of numbers"),
        ({"mean": [0.5, float("nan"), 1]}, r"damaged: mean=.*nan.* must be a list"),
        ({"std": [0.5, 0.0, 0.5]}, r"damaged: std=.* must be above 0"),
        ({"std": [0.5]}, r"damaged: mean has 3 channels, std has 1"),
        ({"channels": 1}, r"damaged: channels=1, but mean has 3"),
        ({"crop_pct": 2}, r"damaged: crop_pct=2 must be in \(0, 1\]"),
        ({"crop_mode": "middle"}, r"damaged: crop_mode='middle' is not known"),
        ({"interpolation": "cubic"}, r"damaged: interpolation='cubic' is not known"),
        ({"class_names": "cats"}, r"damaged: class_names='cats' must be a list"),
        ({"colour": 1}, r"damaged: colour is unknown"),
        ({"std": ...}, r"damaged: std is missing"),
    ],
)
def test_broken_and_later_ones_are_refused_in_one_line(change, message):
    value = {**Preprocessing(8).to_dict(), **change}
    value = {k: v for k, v in value.items() if v is not ...}
    with pytest.raises(UserError, match=message) as caught:
        Preprocessing.from_dict(value, "x.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"x\.json is damaged: expected the fields"):
        Preprocessing.from_dict([1], "x.json")
    with pytest.raises(UserError, match=r"effkit\.preprocessing of w\.onnx is damaged"):
        Preprocessing.from_metadata({METADATA_KEY: "{"}, "w.onnx")


# --- defaults and names -----------------------------------------------------------------------------------------------


def test_one_place_decides_what_null_means(tmp_path):
    for name, facts in FACTS.items():
        known = known_preprocessing({"name": name, "mean": None})
        assert set(known.mean) == set(facts.mean)
    for name in ("digits", "photos"):
        assert create_data(name).preprocessing == known_preprocessing({"name": name})
        assert create_data(name, mean=0.1, std=[0.2] * 3).mean == (0.1,) * 3
    assert create_data("digits", in_chans=1).preprocessing == known_preprocessing({"name": "digits", "in_chans": 1})
    assert len(known_preprocessing({"name": "cifar100"}).class_names) == 100
    assert known_preprocessing({"name": "cifar10", "crop_pct": 0.9}).crop_pct == 0.9


def test_a_module_shows_pictures_as_a_run_says():
    data = create_data("digits", image_size=16)
    data.split("test")
    data.use(Preprocessing(size=24, mean=(0.3,), std=(0.2,), class_names=tuple("0123456789")))
    assert data.pictures("test").shape == (360, 1, 24, 24)
    assert (data.image_size, data.in_chans, data.mean, data.num_classes) == (24, 1, (0.3,), 10)
    with pytest.raises(UserError, match=r"other classes than those of data=digits: class 0 is 'zero' there"):
        data.use(Preprocessing(size=24, class_names=("zero", *"123456789")))
    with pytest.raises(UserError, match=r"2 and 10 of them"):
        data.use(Preprocessing(size=24, class_names=("0", "1")))


def test_the_embedded_digits_can_be_split_by_seed():
    small, same, other = (
        create_data("digits", image_size=8, in_chans=1, train_size=400, split_seed=s) for s in (3, 3, 4)
    )
    assert [len(small.labels(s)) for s in ("train", "val", "test")] == [400, 1397, 1397]
    assert small.labels("train").bincount().min() >= 38
    both = torch.cat([small.pictures("train"), small.pictures("test")]).flatten(1)
    assert len(np.unique(both.numpy(), axis=0)) == 1797  # no digit is in the set twice, so the parts share none
    assert torch.equal(small.pictures("train"), same.pictures("train"))
    assert not torch.equal(small.pictures("train"), other.pictures("train"))
    assert create_data("digits", seed=5, train_size=20).split_seed == 5
    with pytest.raises(UserError, match=r"data\.train_size=3 must be in 10\.\.1787"):
        create_data("digits", train_size=3)


def test_class_names_from_everywhere(tmp_path):
    assert class_names(10, "digits") == [str(i) for i in range(10)]
    assert class_names(2, known=("cat", "dog")) == ["cat", "dog"]
    assert class_names(3, known=("cat", "dog")) == ["class 0", "class 1", "class 2"]
    assert class_names(1000)[281] == "tabby, tabby cat"
    (tmp_path / "names.txt").write_text("one\ntwo\n\n")
    assert class_names(2, str(tmp_path / "names.txt")) == ["one", "two"]
    for names, message in ((["a"], "1 names.*10 classes"), ("digit", "digits"), ("no/file.txt", "does not exist")):
        with pytest.raises(UserError, match=message):
            class_names(10, names)


def test_pictures_are_made_of_greys_and_colours_alike():
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    colour = Preprocessing(8).picture(grey)
    assert torch.equal(colour[0], colour[2])
    assert torch.equal(colour[:1], Preprocessing(8, mean=(0.5,), std=(0.5,)).picture(grey))
