"""Pictures as bytes with sample and view numbers: exact grey levels, order, views, crops, files and memory."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from effkit.data import Normalize, Preprocessing
from effkit.data.sampling import IGNORE
from effkit.errors import UserError
from effkit.lightning import Classifier
from effkit.testing import write_image_folder
from kd_autoaug.training.crops import KeyedCrop
from kd_autoaug.training.data import ViewData, create_core_data
from kd_autoaug.training.loaders import ViewSampler

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def digits(**options) -> ViewData:
    views = {k: options.pop(k) for k in ("num_views", "crop", "in_memory") if k in options}
    return ViewData(create_core_data("digits_small", **options), **views)


@pytest.fixture
def folder(tmp_path):
    return write_image_folder(tmp_path, count=5, size=(40, 52))


def pictures(folder, **options) -> ViewData:
    views = {k: options.pop(k) for k in ("num_views", "crop", "in_memory", "interpolation") if k in options}
    base = {"root": str(folder), "image_size": 16, "batch_size": 3, "num_workers": 0}
    return ViewData(create_core_data("imagefolder", **(base | options)), **views)


# --- grey levels ------------------------------------------------------------------------------------------------------


def test_bytes_survive_a_normalisation():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    normalised = Normalize(**IMAGENET)(every)
    back = Preprocessing((16, 16), **IMAGENET).denormalize(normalised)
    assert np.array_equal(np.round(255 * back.transpose(0, 3, 1, 2)), every.numpy())


def test_normalisation_is_that_of_torchvision_and_not_saved():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    layer = Normalize(**IMAGENET)
    expected = TF.normalize(images.float() / 255, **IMAGENET)
    torch.testing.assert_close(layer(images), expected, rtol=0, atol=1e-6)
    assert not layer.state_dict()
    evaluated = Classifier(torch.nn.Identity(), 3, preprocessing=Preprocessing((5, 4), **IMAGENET))
    assert torch.equal(evaluated(images), layer(images))
    with pytest.raises(UserError, match=r"images\.dtype=torch\.float32"):
        layer(images.float())
    with pytest.raises(UserError, match="1 channels"):
        layer(images[:, :1])


def test_digits_become_their_sixteenths():
    from sklearn.datasets import load_digits

    data = ViewData(create_core_data("digits", image_size=8, in_chans=1))
    images, labels = data.pictures("train"), data.labels("train")
    assert images.shape == (1437, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert sorted(set(images.flatten().tolist())) == [round(level * 255 / 16) for level in range(17)]
    raw = {(image.round().astype(int).tobytes(), int(label)) for image, label in zip(*load_digits(return_X_y=True))}  # noqa: B905
    sixteenths = (images.double() * 16 / 255).round().numpy().astype(int).reshape(len(images), -1)
    assert all((image.tobytes(), label) in raw for image, label in zip(sixteenths, labels.tolist(), strict=True))


def test_digits_small_is_stratified_disjoint_and_split_by_seed():
    data, same, other = digits(seed=3), digits(seed=3), digits(seed=4)
    assert (data.num_train, len(data.split("test")), data.in_chans, data.image_size) == (400, 1397, 1, 8)
    assert torch.bincount(data.labels("train")).min() >= 38
    both = torch.cat([data.pictures("train"), data.pictures("test")]).flatten(1)
    assert len(np.unique(both.numpy(), axis=0)) == 1797  # no digit is in the set twice, so the parts share none
    assert torch.equal(data.pictures("train"), same.pictures("train"))
    assert not torch.equal(data.pictures("train"), other.pictures("train"))
    with pytest.raises(UserError, match=r"data\.train_size=3 must be in 10\.\.1787"):
        digits(train_size=3).pictures("train")


# --- order and views --------------------------------------------------------------------------------------------------


def test_training_batches_carry_index_and_view():
    data = digits(num_views=3, batch_size=64)
    loader = data.train_dataloader()
    assert len(loader) == 7
    for epoch in (0, 2, 4):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        index = torch.cat([b[2] for b in batches])
        assert sorted(index.tolist()) == list(range(400))
        assert index.tolist() != sorted(index.tolist())
        assert {int(v) for b in batches for v in b[3]} == {epoch % 3}
        for images, labels, where, _ in batches:
            assert torch.equal(images, data.pictures("train", where))
            assert torch.equal(labels, data.labels("train")[where])
    assert len(digits(batch_size=64, drop_last=True).train_dataloader()) == 6
    images, labels = next(iter(data.val_dataloader()))
    assert torch.equal(images, data.pictures("val", range(len(labels))))


def test_repeated_augmentation_gives_every_copy_a_view_of_its_own():
    sampler = ViewSampler(300, seed=0, train=True, repeats=3)
    sampler.set_epoch(2)
    keys = list(sampler)
    assert len(set(keys)) == len(keys)
    assert {view for _, view in keys} == {6, 7, 8}
    assert len({index for index, _ in keys}) < 120  # a third of the pictures, each thrice


def test_processes_share_an_epoch_and_fill_evaluation_with_ignored_pictures(monkeypatch):
    import torch.distributed as dist

    seen, kept = [], []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    data = digits(batch_size=50, limit=100)
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        seen += [int(i) for b in data.train_dataloader() for i in b[2]]
        kept += [int(y) for _, labels in data.test_dataloader() for y in labels]
    assert set(seen) == set(range(100))
    assert len(seen) == len(kept) == 102
    assert kept.count(IGNORE) == 2


def test_bad_values_are_named():
    with pytest.raises(UserError, match=r"view\.num_views=0 must be a whole number"):
        digits(num_views=0)
    with pytest.raises(UserError, match=r"view\.crop='rcc' is not known.*did you mean 'rrc'"):
        digits(crop="rcc")
    with pytest.raises(UserError, match=r"view\.in_memory='yes' is not known"):
        digits(in_memory="yes")
    with pytest.raises(UserError, match=r"data\.name='digit' is not known.*digits_small"):
        create_core_data("digit")
    with pytest.raises(UserError, match="data argument='augment' is not known"):
        create_core_data("digits_small", augment="shift")


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_what_evaluation_shows_in_memory_or_not(folder):
    kept, read = pictures(folder), pictures(folder, in_memory=False)
    core = create_core_data("imagefolder", root=str(folder), image_size=16, augment="none", num_workers=0)
    assert torch.equal(kept.pictures("train"), read.pictures("train"))
    for split in ("train", "val"):
        shown = torch.stack([image for image, _ in core.split(split)])
        assert torch.equal(kept.pictures(split), shown)
    assert kept.labels("train").tolist() == [0] * 5 + [1] * 5
    for a, b in zip(kept.train_dataloader(), read.train_dataloader(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert kept.sample_ids_fingerprint() == read.sample_ids_fingerprint()
    assert read.pictures("train", []).shape == (0, 3, 16, 16)


def test_the_fingerprint_sees_order_names_size_and_crops(folder):
    prints = {pictures(folder, **o).sample_ids_fingerprint() for o in ({}, {"image_size": 20}, {"crop": "rrc"},
              {"crop": "rrc", "seed": 1}, {"limit": 8}, {"crop_pct": 1.0})}  # fmt: skip
    assert len(prints) == 6
    before = pictures(folder).sample_ids_fingerprint()
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "9.png")
    assert pictures(folder).sample_ids_fingerprint() != before
    assert digits().sample_ids_fingerprint() != digits(seed=1).sample_ids_fingerprint()


@pytest.mark.parametrize("workers", [0, 2])
def test_keyed_crops_do_not_depend_on_order_batches_or_workers(folder, workers):
    data = pictures(folder, crop="rrc", num_views=4, num_workers=workers, batch_size=4, drop_last=False)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(5)
    state = torch.get_rng_state()
    batches = [tuple(t.clone() for t in batch) for batch in loader]
    assert torch.equal(state, torch.get_rng_state())
    for images, _, index, view in batches:
        assert set(view.tolist()) == {1}
        assert torch.equal(images, data.pictures("train", index, view=1))
        assert torch.equal(images, data.pictures("train", index, view=5))  # views wrap
        assert not torch.equal(images, data.pictures("train", index, view=2))
        assert not torch.equal(images, data.pictures("train", index))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_keyed_crop_is_torchvisions_resized_crop(interpolation):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (31, 45, 3), dtype=np.uint8))
    crop = KeyedCrop(12, seed=7, interpolation=interpolation)
    left, top, right, bottom = crop.box(45, 31, 3, 9)
    mode = TF.InterpolationMode(interpolation)
    expected = TF.resized_crop(image, top, left, bottom - top, right - left, [12, 12], mode)
    assert torch.equal(crop(image, 3, 9), TF.pil_to_tensor(expected))


def test_boxes_follow_torchvisions_law():
    from torchvision.transforms import RandomResizedCrop

    crop = KeyedCrop(8, seed=1)
    boxes = np.array([crop.box(50, 40, i, v) for i in range(100) for v in range(3)])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 50).all()
    assert (boxes[:, 3] <= 40).all()
    ours = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 2000
    torch.manual_seed(0)
    blank = torch.empty(1, 40, 50)
    theirs = np.array([RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)])
    area = theirs[:, 2] * theirs[:, 3] / 2000
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert abs(np.quantile(ours, q) - np.quantile(area, q)) < 0.08
    assert KeyedCrop(8, scale=(1, 1), ratio=(1, 1)).box(50, 40, 0, 0) == (5, 0, 45, 40)  # nothing fits: the centre
    with pytest.raises(UserError, match=r"view\.scale=\[0\.5, 2\.0\]"):
        KeyedCrop(8, scale=(0.5, 2.0))
    with pytest.raises(UserError, match=r"view\.interpolation='nearest' is not known"):
        KeyedCrop(8, interpolation="nearest")


def test_cut_pictures_cannot_be_kept(folder):
    with pytest.raises(UserError, match=r"view\.in_memory=true keeps cut pictures"):
        pictures(folder, crop="rrc", in_memory=True).train_dataloader()


def test_cifar_files_come_out_byte_by_byte(tmp_path, monkeypatch):
    from torchvision import datasets

    class Tiny:
        def __init__(self, root, train, transform=None, download=False):
            generator = np.random.default_rng(int(train))
            self.data = generator.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 10 for i in range(20)]
            self.classes, self.transform = [str(i) for i in range(10)], transform

        def __len__(self):
            return len(self.targets)

    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr(datasets, "CIFAR10", Tiny)
    data = ViewData(create_core_data("cifar10", root=str(tmp_path), num_workers=0, limit=10, batch_size=5))
    expected = Tiny("", True).data[::2].transpose(0, 3, 1, 2)
    assert np.array_equal(data.pictures("train").numpy(), expected)
    assert data.labels("train").tolist() == [i % 10 for i in range(0, 20, 2)]
    assert len(data.sample_ids_fingerprint()) == 64
