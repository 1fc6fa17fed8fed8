"""Pairs of low and high resolution: disjoint splits, exact crops, the folders that people have."""

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.errors import UserError
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.images.sets import BUNDLED_SPLITS, find_pairs
from shiftghost_sr.training.crops import low_crop
from shiftghost_sr.training.data import SRData


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_no_photograph_is_in_two_splits():
    names = [name for split in BUNDLED_SPLITS.values() for name in split]
    assert len(names) == len(set(names)) == 10
    pictures = {split: [p.both(4) for p in find_pairs("bundled", split, 4)] for split in BUNDLED_SPLITS}
    for pairs in pictures.values():
        for high, low in pairs:
            assert high.shape == (low.shape[0] * 4, low.shape[1] * 4, 3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_are_those_of_the_whole_picture(scale):
    high = noise(40 * scale, 30 * scale, 3)
    whole = imresize(high, 1 / scale)
    for top, left, side in [(0, 0, 8), (32, 22, 8), (5, 11, 16), (0, 0, 30), (1, 1, 1), (3, 0, 20)]:
        part = low_crop(high, scale, top, left, side)
        assert (part == whole[top : top + side, left : left + side]).all(), (top, left, side)


def test_training_batches_repeat_and_fit_together():
    data = [SRData(scale=2, patch=24, crops=12, batch_size=4, seed=7) for _ in range(2)]
    first, second = (list(d.train_dataloader()) for d in data)
    assert len(first) == 3
    for (low, (high, number)), (low2, (high2, number2)) in zip(first, second, strict=True):
        assert low.shape == (4, 3, 12, 12)
        assert high.shape == (4, 3, 24, 24)
        assert low.dtype == high.dtype == torch.uint8
        assert torch.equal(low, low2)
        assert torch.equal(high, high2)
        assert torch.equal(number, number2)
        means = low.double().mean((2, 3)) - high.double().mean((2, 3))
        assert means.abs().max() < 6  # the same place, flipped alike
    assert sorted(int(n) for _, (_, number) in first for n in number) == list(range(12))


def test_all_eight_forms_appear_and_can_be_switched_off():
    def forms(augment):
        data = SRData(scale=2, patch=12, crops=64, batch_size=64, augment=augment, limit=1)
        data._splits["train"] = split = data.split("train")
        marked = np.zeros((12, 12, 3), np.uint8)
        marked[0, 2] = 255
        split._kept[0] = (marked, None)
        (_, (high, _)), *_ = data.train_dataloader()
        return {tuple(map(tuple, picture[0].nonzero().tolist())) for picture in high}

    assert forms(True) == {((a, b),) for a, b in [(0, 2), (2, 0), (0, 9), (9, 0), (11, 2), (2, 11), (11, 9), (9, 11)]}
    assert forms(False) == {((0, 2),)}


def test_evaluation_shows_whole_pictures():
    data = SRData(scale=3, limit=1)
    ((low, (high, number)),) = data.test_dataloader()
    assert low.shape == (1, 3, 170, 170)
    assert high.shape == (1, 3, 510, 510)
    assert number.tolist() == [0]
    assert int(low.sum()) == 9_968_556  # the golden of the astronaut


def test_a_folder_with_and_without_low_resolution(tmp_path):
    high = noise(17, 12, 3)
    save(tmp_path / "hr" / "a.b.png", high)
    save(tmp_path / "lr" / "a.bx2.png", imresize(high[:16], 0.5))
    made = find_pairs("folder", "train", 2, root=tmp_path / "hr")[0].both(2)
    read = find_pairs("folder", "train", 2, root=tmp_path / "hr", lr_root=tmp_path / "lr")[0].both(2)
    for a, b in zip(made, read, strict=True):
        assert (a == b).all()
    assert [p.name for p in find_pairs("folder", "val", 2, root=tmp_path / "hr")] == list(BUNDLED_SPLITS["val"])
    data = SRData("folder", scale=2, root=str(tmp_path / "hr"), lr_root=str(tmp_path / "lr"), patch=8, crops=4)
    (low, _), *_ = data.train_dataloader()
    assert low.shape == (4, 3, 4, 4)


def test_div2k_and_benchmarks_as_they_are_distributed(tmp_path):
    high = noise(16, 12, 3)
    for part, number in (("train", "0001"), ("valid", "0801")):
        save(tmp_path / f"DIV2K_{part}_HR" / f"{number}.png", high)
        save(tmp_path / f"DIV2K_{part}_LR_bicubic" / "X4" / f"{number}x4.png", noise(4, 3, 3))
    for split in ("train", "val", "test"):
        (pair,) = find_pairs("div2k", split, 4, root=tmp_path)
        assert pair.low.endswith("x4.png")
    (pair,) = find_pairs("div2k", "train", 2, root=tmp_path)
    assert pair.low is None
    save(tmp_path / "Set5" / "HR" / "baby.png", high)
    save(tmp_path / "Set5" / "LR_bicubic" / "X2" / "babyx2.png", noise(8, 6, 3))
    assert find_pairs("benchmark", "test", 2, root=tmp_path / "Set5")[0].low.endswith("babyx2.png")
    save(tmp_path / "flat" / "img_001.png", high)
    assert find_pairs("benchmark", "test", 2, root=tmp_path / "flat")[0].name == "img_001"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "set5"}, "data.name='set5'"),
        ({"patch": 25}, "patch=25"),
        ({"crops": 0}, "crops=0"),
        ({"root": "x"}, "data.root needs"),
        ({"memory_mb": -1}, "memory_mb=-1"),
    ],
)
def test_mistakes_of_values(options, words):
    with pytest.raises(UserError, match=words):
        SRData(**{"scale": 2, **options})


def test_mistakes_of_folders(tmp_path):
    save(tmp_path / "hr" / "a.png", noise(16, 12, 3))
    save(tmp_path / "small" / "a.png", noise(4, 4, 3))
    save(tmp_path / "other" / "b.png", noise(4, 4, 3))
    with pytest.raises(UserError, match=r"data\.root is not set"):
        find_pairs("div2k", "train", 2)
    with pytest.raises(UserError, match="DIV2K_train_HR"):
        find_pairs("div2k", "train", 2, root=tmp_path)
    with pytest.raises(UserError, match=r"no low-resolution picture of 'a\.png'"):
        find_pairs("folder", "train", 2, root=tmp_path / "hr", lr_root=tmp_path / "other")
    with pytest.raises(UserError, match="4x4 pixels"):
        find_pairs("folder", "train", 2, root=tmp_path / "hr", lr_root=tmp_path / "small")[0].both(2)
    with pytest.raises(UserError, match="holds no pictures"):
        find_pairs("folder", "train", 2, root=tmp_path)
    with pytest.raises(UserError, match="for evaluation"):
        SRData("benchmark", scale=2, root=str(tmp_path / "hr")).train_dataloader()
    with pytest.raises(UserError, match=r"data\.patch=64 is larger"):
        list(SRData("folder", scale=2, root=str(tmp_path / "hr"), patch=64, crops=1).train_dataloader())
