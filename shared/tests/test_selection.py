"""Data to select by: held-out pictures are none of training's, plain, and the test split is out of reach."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Subset

from effkit.data import create_data
from effkit.data.selection import SelectionData, parts_to_select_by, plain_pictures
from effkit.errors import UserError
from effkit.testing import write_image_folder


def test_halves_are_disjoint_and_whole():
    data = create_data("digits", image_size=8, in_chans=1, limit=50)
    view = SelectionData(data, 2)
    assert (len(view.train), len(view.val)) == (25, 25)
    everything = torch.cat([view.train.tensors[0], view.val.tensors[0]])
    assert sorted(everything.flatten(1).tolist()) == sorted(data.pictures("train").flatten(1).tolist())
    with pytest.raises(AssertionError, match="must not read the test split"):
        len(view.data.split("test"))
    assert (view.name, view.num_classes, view.batch_size) == ("digits", 10, 32)
    assert plain_pictures(view.train, data) is view.train


def test_it_goes_on_where_a_run_stopped():
    def batches(epoch, done):
        view = SelectionData(create_data("digits", image_size=8, in_chans=1, limit=50, batch_size=8))
        view.begin_at(epoch, done)
        return [labels.tolist() for _, labels in view.train_dataloader()]

    assert batches(1, 2) == batches(1, 0)[2:]
    assert batches(1, 0) != batches(0, 0)


def test_own_validation_pictures_are_taken_unless_training_ones_are_asked_for(tmp_path):
    root = write_image_folder(tmp_path, splits=("train", "val", "test"), count=4)
    data = create_data("imagefolder", root=str(root), image_size=16, batch_size=4, num_workers=0, augment="light")
    train, val = parts_to_select_by(data, 2)
    assert val is data.split("val")
    assert train is data.split("train")
    kept, held = parts_to_select_by(data, 2, always=True)
    assert isinstance(held, Subset)
    assert len(kept) == len(held) == len(train) // 2
    assert torch.equal(held[0][0], held[0][0])  # shown as in evaluation
    assert torch.equal(plain_pictures(kept, data)[0][0], plain_pictures(kept, data)[0][0])


@pytest.mark.parametrize(
    ("every", "message"), [(1, "every=1 leaves no picture to train on"), (9, "at least 9 are needed")]
)
def test_too_few_pictures(every, message):
    data = create_data("digits", image_size=8, in_chans=1, limit=5)
    with pytest.raises(UserError, match=message):
        SelectionData(data, every)
