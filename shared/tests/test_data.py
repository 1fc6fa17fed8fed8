"""Data sets: sizes, splits, order, augmentation seeds, and one clear line for everything a user can get wrong."""

from __future__ import annotations

import hashlib
import inspect
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import effkit.configs
from effkit.data import DATASETS, Preprocessing, create_data, data_arguments
from effkit.data import sampling as sampling_module
from effkit.data.digits import load_digits
from effkit.data.folders import ImageFolder
from effkit.data.photos import COLUMNS, crop_boxes
from effkit.data.pictures import load_picture
from effkit.data.sampling import IGNORE, EpochSampler, SeededDataset, TensorLoader, mix_seed, seeded, spread
from effkit.data.transforms import AUGMENTS, resolve_augment, shift, train_transform
from effkit.errors import UserError
from effkit.testing import write_image_folder

CONFIGS = Path(effkit.configs.__file__).parent / "data"


@pytest.fixture
def folder(tmp_path):
    return write_image_folder(tmp_path / "pictures", splits=("train", "val"), count=5)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_split_is_fixed_stratified_and_complete():
    splits = load_digits(image_size=8, in_chans=1)
    assert [len(splits[s][1]) for s in ("train", "test")] == [1437, 360]
    train, test = (splits[s][1].bincount(minlength=10) for s in ("train", "test"))
    assert ((train + test) * 0.2 - test).abs().max() < 1
    assert {images.shape[1:] for images, _ in splits.values()} == {(1, 8, 8)}
    from sklearn.datasets import load_digits as original

    both = torch.cat([splits["train"][0], splits["test"][0]]).flatten(1)
    every = (torch.from_numpy(original().images).flatten(1) * 255 / 16).round().to(torch.uint8)
    assert torch.equal(both.sort(dim=0).values, every.sort(dim=0).values)
    # The very pictures: a new version of scikit-learn must not move the split under published figures.
    digest = hashlib.sha256((splits["test"][0] * (16 / 255)).round().to(torch.uint8).numpy().tobytes()).hexdigest()
    assert digest[:16] == "3cc232bd25364446"


def test_digits_are_scaled_and_enlarged_as_documented():
    data = create_data("digits", image_size=32, in_chans=3, batch_size=8)
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (8, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    seen = data.preprocessing.normalize(images)
    assert seen.dtype == torch.float32
    assert seen.min() == -1
    assert seen.max() <= 1
    assert torch.equal(images[:, 0], images[:, 2])
    small = load_digits(8, 1)["test"][0][:8].double()
    assert torch.allclose(images[:, :1].double().mean((2, 3)), small.mean((2, 3)), atol=0.2)
    assert (data.num_classes, data.image_size, data.in_chans, data.mean, data.std) == (
        10,
        32,
        3,
        (0.5,) * 3,
        (0.5,) * 3,
    )
    assert data.class_names == list("0123456789")


def test_validation_and_test_are_the_same_pictures_in_order():
    data = create_data("digits", image_size=8)
    first, second = (torch.cat([y for _, y in loader]) for loader in (data.val_dataloader(), data.test_dataloader()))
    assert torch.equal(first, second)
    assert torch.equal(first, load_digits(8)["test"][1])


def test_limit_spreads_over_the_whole_split():
    data = create_data("digits", image_size=8, limit=100)
    assert len(data.split("train")) == len(data.split("test")) == 100
    assert set(data.split("test").tensors[1].tolist()) == set(range(10))
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 10) == spread(3, None) == [0, 1, 2]


# --- order and seeds --------------------------------------------------------------------------------------------------


def test_order_of_an_epoch_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed=seed, train=True)
        sampler.set_epoch(epoch)
        torch.rand(3)  # whatever happened to the global generator does not matter
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(i for i, _ in order(0, 3)) == list(range(50))
    seeds = [s for epoch in range(4) for _, s in order(0, epoch)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("size", [8, 9, 10])
def test_processes_share_an_epoch_without_counting_twice(monkeypatch, size):
    def keys(rank, train):
        monkeypatch.setattr(sampling_module, "_rank_and_world", lambda: (rank, 4))
        sampler = EpochSampler(size, seed=0, train=train)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    evaluated = [keys(rank, False) for rank in range(4)]
    assert len({len(k) for k in evaluated}) == 1  # a process with a batch less would leave the others waiting
    assert sorted(i for k in evaluated for i, _ in k if i != IGNORE) == list(range(size))
    trained = [keys(rank, True) for rank in range(4)]
    assert {i for k in trained for i, _ in k} == set(range(size))
    assert len({len(k) for k in trained}) == 1


def test_repeated_augmentation_works_in_a_single_process():
    sampler = EpochSampler(300, seed=0, train=True, repeats=3)
    keys = list(sampler)
    assert len(keys) == len(sampler) == 256  # timm rounds the epoch down to a multiple of 256
    indices = [i for i, _ in keys]
    counts = np.bincount(indices)
    assert set(counts[counts > 0][:-1]) <= {1, 3}
    assert (counts == 3).sum() == 85
    assert len({s for _, s in keys}) == 256  # each copy has augmentations of its own
    sampler.set_epoch(1)
    assert [i for i, _ in sampler] != indices


def test_repeated_augmentation_gives_the_copies_to_different_processes(monkeypatch):
    seen = []
    for rank in range(3):
        monkeypatch.setattr(sampling_module, "_rank_and_world", lambda r=rank: (r, 3))
        seen.append([i for i, _ in EpochSampler(300, seed=0, train=True, repeats=3)])
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0])) == len(seen[0])


def test_seeded_leaves_the_global_generators_alone():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    with seeded(7):
        inside = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected  # noqa: NPY002
    with seeded(7):
        assert (random.random(), np.random.rand(), torch.rand(()).item()) == inside  # noqa: NPY002


def test_mixed_seeds_are_the_same_everywhere():
    assert mix_seed(0, 1) == 4001049575
    assert mix_seed(0, 1) != mix_seed(1, 0)
    assert mix_seed(1, 11) != mix_seed(11, 1)
    assert all(0 <= mix_seed(0, i) < 2**32 for i in range(100))


def test_augmentation_does_not_depend_on_the_number_of_workers(folder):
    def epoch(num_workers):
        data = create_data(
            "imagefolder", root=str(folder), image_size=24, batch_size=4, num_workers=num_workers, augment="deit"
        )
        loader = data.train_dataloader()
        loader.sampler.set_epoch(2)
        return torch.cat([images for images, *_ in loader])

    alone = epoch(0)
    assert alone.shape == (8, 3, 24, 24)
    assert torch.equal(alone, epoch(0))
    if sys.version_info < (3, 12):  # later Pythons warn about forking once torch has started threads
        assert torch.equal(alone, epoch(2))


def test_filler_pictures_are_labelled_as_such(folder, monkeypatch):
    data = create_data("imagefolder", root=str(folder), image_size=16, num_workers=0)
    image, label = SeededDataset(data.split("val"), train=False)[(IGNORE, 0)]
    assert label == IGNORE
    assert image.shape == (3, 16, 16)
    monkeypatch.setattr(sampling_module, "_rank_and_world", lambda: (1, 2))
    sampler = EpochSampler(3, seed=0, train=False)
    loader = TensorLoader(torch.arange(3.0)[:, None, None, None], torch.arange(3), 2, sampler)
    assert [labels.tolist() for _, labels in loader] == [[1, IGNORE]]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_tensor_loader_batches(drop_last, sizes):
    images, labels = torch.arange(10.0)[:, None, None, None], torch.arange(10)
    sampler = EpochSampler(10, seed=0, train=True)
    loader = TensorLoader(images, labels, 4, sampler, drop_last=drop_last)
    batches = list(loader)
    assert [len(y) for _, y in batches] == sizes
    assert len(loader) == len(sizes)
    assert all(torch.equal(x.flatten().long(), y) for x, y in batches)


def test_a_small_set_still_gives_one_batch():
    data = create_data("digits", image_size=8, limit=10, batch_size=32, drop_last=True)
    assert [len(y) for _, y in data.train_dataloader()] == [10]


def test_shift_moves_each_picture_by_itself():
    images = torch.zeros(64, 1, 16, 16)
    images[:, :, 8, 8] = 1
    moved = shift(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    where = moved.flatten(1).argmax(1)
    rows, columns = where // 16 - 8, where % 16 - 8
    assert rows.abs().max() == columns.abs().max() == 2
    assert len(set(where.tolist())) > 10
    again = shift(images, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)


# --- photographs ------------------------------------------------------------------------------------------------------


def test_photo_crops_of_the_splits_share_no_pixel():
    covered = {}
    for split in COLUMNS:
        mask = np.zeros((427, 640), dtype=bool)
        for top, left, bottom, right in crop_boxes(split, 112):
            assert 0 <= top < bottom <= 427
            assert bottom - top == right - left == 112
            mask[top:bottom, left:right] = True
        covered[split] = mask
    assert not (covered["train"] & covered["test"]).any()
    assert covered["train"].sum() == 427 * 400
    assert covered["test"].sum() == 427 * 240


def test_photos_have_two_balanced_classes():
    data = create_data("photos", image_size=24)
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [128, 64, 64]
    images, labels = data.split("train").tensors
    assert images.shape == (128, 3, 24, 24)
    assert labels.bincount().tolist() == [64, 64]
    assert images.dtype == torch.uint8
    seen = data.preprocessing.normalize(images)
    assert -1 <= seen.min() < seen.max() <= 1
    assert seen[labels == 0].mean() - seen[labels == 1].mean() > 0.3  # the sky against the leaves
    with pytest.raises(UserError, match=r"data.crop=500 must be in 8..240"):
        create_data("photos", crop=500)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_image_folder_loads_labels_and_sizes(folder):
    data = create_data("imagefolder", root=str(folder), image_size=20, batch_size=4, num_workers=0)
    assert data.class_names == ["cat", "dog"]
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (4, 3, 20, 20)
    assert labels.tolist() == [0, 0, 0, 0]
    assert images.dtype == torch.uint8
    assert (images[:, 0] > images[:, 1]).float().mean() > 0.9  # cats are red
    train = [y for _, y in data.train_dataloader()]
    assert [len(y) for y in train] == [4, 4]
    assert len(data.split("train")) == 10


def test_image_folder_limit_keeps_all_classes(folder):
    data = create_data("imagefolder", root=str(folder), image_size=16, num_workers=0, limit=4)
    assert [y for _, y in data.split("val")] == [0, 0, 1, 1]


def test_test_folder_stands_in_for_val(tmp_path):
    root = write_image_folder(tmp_path, splits=("train", "test"), count=2)
    data = create_data("imagefolder", root=str(root), image_size=16, num_workers=0)
    assert len(data.split("val")) == len(data.split("test")) == 4


def break_train(root):
    for file in (root / "train").rglob("*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize(
    ("splits", "change", "message"),
    [
        (("val",), None, r"the folder .*train is missing: pictures are expected as .*CLASS"),
        (("train",), None, r"neither .*val nor .*test exists"),
        (("train", "val"), lambda root: (root / "val" / "horse").mkdir(), r"same class folders: horse in only one"),
        (("train", "val"), break_train, r"Found no valid file for the classes cat"),
    ],
)
def test_image_folder_says_what_is_missing(tmp_path, splits, change, message):
    write_image_folder(tmp_path, splits=splits, count=1)
    if change:
        change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        create_data("imagefolder", root=str(tmp_path)).split("train")
    assert "\n" not in str(caught.value)


def test_root_must_be_given_and_exist(tmp_path):
    with pytest.raises(UserError, match=r"data.root is not set: give the folder that holds train/"):
        create_data("imagefolder")
    with pytest.raises(UserError, match=r"data.root='.*nowhere' is not a folder"):
        create_data("imagefolder", root=str(tmp_path / "nowhere"))
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train has no class folders"):
        create_data("imagefolder", root=str(tmp_path))


def test_unreadable_picture_is_named(tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"broken.jpg' is not a picture that PIL can read"):
        load_picture(str(file))


# --- torchvision's sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "files"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_absent_cifar_asks_for_download(tmp_path, name, files):
    with pytest.raises(UserError, match=rf"has no folder {files}: .* or add data.download=true"):
        create_data(name, root=str(tmp_path))
    with pytest.raises(UserError, match=r"data.root is not set"):
        create_data(name)
    (tmp_path / files).mkdir()
    with pytest.raises(UserError, match=r"is incomplete or damaged"):
        create_data(name, root=str(tmp_path)).split("train")
    assert not list((tmp_path / files).iterdir())


def test_cifar_splits_and_transforms(tmp_path, monkeypatch):
    from PIL import Image

    class Fake(torch.utils.data.Dataset):
        classes = tuple("abcdefghij")

        def __init__(self, root, train, transform, download):
            assert not download
            self.size, self.transform = (20, 12)[not train], transform

        def __len__(self):
            return self.size

        def __getitem__(self, index):
            return self.transform(Image.new("RGB", (32, 32), (125, 123, 114))), index % 10

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    (tmp_path / "cifar-10-batches-py").mkdir()
    data = create_data("cifar10", root=str(tmp_path), batch_size=4, num_workers=0)
    assert len(data.split("train")) == 20
    assert len(data.split("val")) == len(data.split("test")) == 12
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert data.preprocessing.normalize(images).abs().max() < 0.02  # the mean colour
    assert labels.tolist() == [0, 1, 2, 3]
    train, _ = next(iter(data.train_dataloader()))
    assert train.min() == 0  # the padding of the random crop
    assert data.class_names == list("abcdefghij")


def test_imagenet_cannot_be_downloaded_and_needs_1000_classes(tmp_path):
    with pytest.raises(UserError, match=r"data.download=true: ImageNet cannot be downloaded"):
        create_data("imagenet", root=str(tmp_path), download=True)
    with pytest.raises(UserError, match=r"data.root is not set: give ImageNet's folder"):
        create_data("imagenet")
    write_image_folder(tmp_path, count=1)
    with pytest.raises(UserError, match=r"train has 2 class folders, ImageNet has 1000; use data=imagefolder"):
        create_data("imagenet", root=str(tmp_path))


def test_imagenet_classes_have_names(tmp_path):
    from timm.data import ImageNetInfo

    for wordnet in ImageNetInfo().label_names():
        for split in ("train", "val"):
            (tmp_path / split / wordnet).mkdir(parents=True)
    data = create_data("imagenet", root=str(tmp_path))
    assert data.num_classes == 1000
    assert data.class_names[0].startswith("tench")
    assert data.mean == (0.485, 0.456, 0.406)


# --- transforms -------------------------------------------------------------------------------------------------------


def test_evaluation_resizes_then_crops():
    steps = Preprocessing(size=224, crop_pct=0.9).geometry()
    assert steps[0].size == 248
    assert tuple(steps[1].size) == (224, 224)


@pytest.mark.parametrize("preset", sorted(AUGMENTS))
def test_presets_build_and_run(preset):
    from PIL import Image

    transform = train_transform(Preprocessing(16), **resolve_augment(preset))
    picture = Image.fromarray(np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3))

    def drawn(seed):
        with seeded(seed):
            made = transform(picture)
        return getattr(made, "image", made)

    first = drawn(3)
    assert torch.equal(first, drawn(3))
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8
    same = torch.equal(first, drawn(4))
    assert same == (preset == "none")


def test_deit_preset_contains_what_the_recipe_says():
    steps = train_transform(Preprocessing(32), **resolve_augment("deit")).transforms
    names = [type(s).__name__ for s in steps]
    assert names[:3] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"]
    assert names[-1] == "RandomErasing"
    assert steps[-1].probability == 0.25
    assert "ColorJitter" not in names  # timm drops it under RandAugment
    assert tuple(steps[0].scale) == (0.08, 1.0)


def test_a_mapping_may_change_parts_of_a_preset():
    assert resolve_augment({"preset": "deit", "re_prob": 0.0}) == {**AUGMENTS["deit"], "re_prob": 0.0}
    assert resolve_augment(None) == AUGMENTS["none"]


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("diet", r"data.augment='diet' is not known.*did you mean 'deit'"),
        ({"re_probe": 0.2}, r"data.augment key='re_probe' is not known.*'re_prob'"),
        ({"re_prob": 2}, r"data.augment.re_prob=2 must be in 0..1"),
        ({"re_prob": "often"}, r"data.augment.re_prob='often' must be in 0..1"),
        ({"scale": 0.5}, r"data.augment.scale=0.5 must be two rising"),
        ({"scale": [0.5, 0.1]}, r"data.augment.scale=\[0.5, 0.1\] must be two rising"),
        ({"auto_augment": "random"}, r"data.augment.auto_augment='random' is not known to timm"),
        ({"interpolation": "cubic"}, r"data.augment.interpolation='cubic' is not known"),
        ({"crop": "middle"}, r"data.augment.crop='middle' is not known"),
    ],
)
def test_bad_augmentation_is_explained(folder, augment, message):
    with pytest.raises(UserError, match=message):
        create_data("imagefolder", root=str(folder), augment=augment)


# --- names and arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("digit", {}, r"data.name='digit' is not known.*did you mean 'digits'"),
        ("digits", {"batchsize": 3}, r"data argument='batchsize' is not known.*'batch_size'"),
        ("digits", {"batch_size": 0}, r"data.batch_size=0 must be a whole number of at least 1"),
        ("digits", {"image_size": 8.5}, r"data.image_size=8.5 must be a whole number"),
        ("digits", {"in_chans": "three"}, r"data.in_chans='three' must be a whole number"),
        ("digits", {"augment": "deit"}, r"data.augment='deit' is not known, choose one of none, shift"),
        ("digits", {"limit": -1}, r"data.limit=-1 must be a whole number"),
        ("digits", {"num_workers": -1}, r"data.num_workers=-1 must be a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_explained(name, arguments, message):
    with pytest.raises(UserError, match=message):
        create_data(name, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"data.mean=\[0.5, 0.5\] has 2 values, but the images have 3 channels"),
        ({"std": 0}, r"data.std=.* must be above 0"),
        ({"mean": "imagenet"}, r"data.mean='imagenet' must be a number, a list of numbers or null"),
        ({"crop_pct": 0}, r"data.crop_pct=0 must be in \(0, 1\]"),
    ],
)
def test_bad_normalisation_is_explained(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        create_data("imagefolder", root=str(folder), **arguments)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_config_says_what_the_python_arguments_default_to(name):
    config = OmegaConf.to_container(OmegaConf.create({"data": OmegaConf.load(CONFIGS / f"{name}.yaml")}), resolve=True)
    config = config["data"]
    assert config.pop("name") == name
    defaults = data_arguments(ImageFolder if name == "imagenet" else DATASETS[name])
    if name == "imagenet":  # the one set whose config is a recipe: DeiT's
        defaults |= {"download": False, "augment": config["augment"], "batch_size": 128, "num_workers": 8}
    assert config == defaults


def test_imagenet_config_is_deits_augmentation():
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / "imagenet.yaml"))
    full = dict(config["augment"])
    full["ratio"] = tuple(full["ratio"])
    defaults = {k: p.default for k, p in inspect.signature(train_transform).parameters.items()}
    expected = {**defaults, **AUGMENTS["deit"]}
    assert {k: expected[k] for k in full} == {**full, "scale": (0.08, 1.0)}
