"""What is easily given wrong: it works as it was meant, or is refused or said, never passed over in silence."""

import logging
import os
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.transforms import v2

import effkit.notes
from effkit.data import Preprocessing
from effkit.errors import UserError
from effkit.testing import in_process, write_image_folder
from kd_autoaug.augmentation.adapters import AugmentTransform, IndexedDataset, sample_key
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies import frame
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.cli import main
from kd_autoaug.distillation.chance import CleanAccuracy, clean_accuracy
from kd_autoaug.distillation.loss import TopKDistillationLoss
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.weights import save_weights
from kd_autoaug.networks import build_network
from kd_autoaug.training.data import ViewData, create_core_data
from kd_autoaug.training.follow import FollowEpoch
from kd_autoaug.training.module import check_combination

PIXELS = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def unsaid(monkeypatch):
    """Nothing has been said in this process yet."""
    monkeypatch.setattr(effkit.notes, "_said", set())


# --- soft targets, strings, magnitudes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "what"),
    [
        ([[0.5, 0.5, 0.0], [0.5, 0.4, 0.0]], "of picture 1 of the batch sum to 0.9"),
        ([[9.0, 1.0, 3.0], [1.0, 0.0, 0.0]], "of picture 0 of the batch sum to 13"),
        ([[1.0, 0.0, 0.0], [1.2, -0.2, 0.0]], "of picture 1 of the batch hold a negative number"),
        ([[1.0, 0.0, 0.0], [float("nan"), 0.0, 1.0]], "of picture 1 of the batch sum to nan"),
    ],
)
def test_soft_targets_are_distributions(targets, what):
    loss = TopKDistillationLoss(weight=0.0)
    with pytest.raises(UserError, match=what):
        loss(torch.zeros(2, 3), None, torch.tensor(targets))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_targets_mixed_in_any_precision_are_taken(dtype):
    shares = torch.softmax(torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)), 1).to(dtype)
    assert torch.isfinite(TopKDistillationLoss(weight=0.0)(torch.zeros(64, 1000), None, shares)["ce"])


@pytest.mark.parametrize("text", ["rand-m9-m5", "rand-m9-mstd0.5-mstd1", "rand-m9-n2-n2", "rand-tweights-tweights"])
def test_a_key_given_twice_is_refused(text):
    with pytest.raises(UserError, match="is given twice"):
        Policy.from_name(text)


def test_translations_beyond_the_frame_are_said_once_with_what_fits(unsaid, caplog):
    policy = Policy.from_name("randaugment(n=2,m=9,space=tf_tpu)")
    small, index = PIXELS[:, :, :32, :32], torch.arange(6)
    gone = frame.share_emptied(policy, (32, 32))
    shown = BatchAugment(policy)(PIXELS[:1, :, :32, :32].expand(3000, -1, -1, -1), torch.arange(3000))
    flat = (shown == 128).flatten(1).all(1).double().mean()
    assert 0.25 < gone == pytest.approx(float(flat), abs=0.05)  # other operators may change the colour after it
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            BatchAugment(policy)(small, index)
        BatchAugment(policy)(torch.zeros(2, 3, 224, 224, dtype=torch.uint8), index[:2])
    (said,) = [r.message for r in caplog.records]
    assert "of the views of 32x32 pictures: its translations" in said
    assert said.endswith("m=1 leaves half of a picture at least")
    assert policy.space.argument(3, 1, (32, 32)) <= 16 < policy.space.argument(3, 2, (32, 32))
    assert frame.advice(Policy.from_name("rand-m9-mstd0.5-inc1"), (32, 32)) == ""  # relative to the side
    assert frame.advice(Policy.from_name("autoaugment-cifar10"), (32, 32)) == ""


# --- ranges of pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda x: x * 255, "images are 0 to 255"),
        (lambda x: (x - 0.45) / 0.22, "images are -2.0"),
        (lambda x: torch.where(x > 0.9, torch.nan, x), "hold NaN"),
        (lambda x: torch.where(x > 0.9, torch.inf, x), "hold NaN or infinite"),
    ],
)
def test_floats_of_another_range_are_refused(change, what):
    augment = BatchAugment("trivialaugment-wide", value_range=(0, 1))
    right = PIXELS.float() / 255
    for _ in range(3):
        augment(right * 1.2 - 0.1, torch.arange(6))  # what a bicubic resize overshoots
        with pytest.raises(UserError, match=what):
            augment(change(right), torch.arange(6))
    with pytest.raises(UserError, match="all of them almost black"):
        BatchAugment("trivialaugment-wide", value_range=(0, 255))(right, torch.arange(6))


def test_a_teacher_refuses_pictures_that_are_normalised_already():
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(4800, 10)), 0.5, 0.25)
    right = PIXELS.float() + 0.25  # mixed views have fractions
    teacher(right.clamp(max=255))
    for wrong in (right / 255, right / 255 - 0.5, right * 2, right * torch.nan):
        with pytest.raises(UserError, match=r"expected 0\.\.255 before normalisation"):
            teacher(wrong)
    teacher((PIXELS.float() / 255).round())  # black and white in bytes 0 and 1: odd, but bytes


@pytest.mark.parametrize(
    "build", [lambda m, s: Teacher(nn.Linear(1, 1), m, s), lambda m, s: Preprocessing((8, 8), mean=m, std=s)]
)
def test_statistics_in_bytes_are_refused_with_those_that_were_meant(build):
    with pytest.raises(
        UserError, match=r"mean=.* is of pixels 0\.\.255, but pixels are 0\.\.1: give \[0\.485, 0\.456, 0\.4059\]"
    ):
        build((123.675, 116.28, 103.5), (0.2, 0.2, 0.2))
    with pytest.raises(UserError, match=r"std=.* is of pixels 0\.\.255"):
        build((0.5, 0.5, 0.5), (58.4, 57.1, 57.4))


# --- arrays, and whose draws -----------------------------------------------------------------------------------------


def test_an_array_is_augmented_as_its_tensor_is():
    transform = AugmentTransform("trivialaugment-wide", seed=3)
    transform.key = (5, 1)
    array = PIXELS[0].permute(1, 2, 0).numpy()
    done = transform(array)
    assert isinstance(done, np.ndarray)
    assert (done.dtype, done.shape) == (np.uint8, (40, 40, 3))
    assert np.array_equal(done, transform(PIXELS[0]).permute(1, 2, 0).numpy())
    grey = transform(array[..., 0])
    assert np.array_equal(grey, transform(PIXELS[0, :1])[0].numpy())
    assert np.array_equal(v2.Compose([transform])(array), done)
    for wrong in (array.astype(np.float32), PIXELS[0].numpy(), array[0, 0]):
        with pytest.raises(UserError, match="picture is an array of"):
            transform(wrong)
    with pytest.raises(UserError, match="sample holds an array of shape"):
        transform((array, 3))


def both(transform, index=4, **options):
    with sample_key(index, 0, **options):
        return transform(PIXELS[0]), transform(PIXELS[0])


def test_each_call_under_a_key_has_draws_of_its_own():
    transform = AugmentTransform("trivialaugment-wide", seed=3)
    augment = transform.augment
    pairs = [both(transform, index) for index in range(12)]
    assert sum(torch.equal(a, b) for a, b in pairs) <= 3
    for index, (first, _) in enumerate(pairs):
        assert torch.equal(first, augment(PIXELS[:1], torch.tensor([index]))[0])
    assert all(torch.equal(*both(transform, index, draws="same")) for index in range(4))
    with pytest.raises(UserError, match="draws='all' is not known"):
        both(transform, draws="all")


def test_pictures_of_a_call_and_of_a_batch_under_one_number_differ():
    transform = AugmentTransform("trivialaugment-wide", seed=3)
    batch = PIXELS[:1].expand(16, -1, -1, -1)
    with sample_key(7, 2):
        done = transform(batch)
    assert torch.equal(done[0], transform.augment(PIXELS[:1], torch.tensor([7]), 2)[0])
    assert len({picture.numpy().tobytes() for picture in done}) > 10
    with sample_key(7, 2, draws="same"):
        assert len({picture.numpy().tobytes() for picture in transform(batch)}) == 1
    one = Image.fromarray(PIXELS[0].permute(1, 2, 0).numpy())
    pairs = []
    for index in range(12):
        with sample_key(index):
            pairs.append(transform((one, one)))
    assert sum(a.tobytes() == b.tobytes() for a, b in pairs) <= 3


def test_two_transforms_of_a_compose_draw_apart():
    twice = v2.Compose([AugmentTransform("trivialaugment-wide"), AugmentTransform("trivialaugment-wide")])
    augment = BatchAugment("trivialaugment-wide")
    with sample_key(3):
        done = twice(PIXELS[0])
    first = augment(PIXELS[:1], torch.tensor([3]))
    assert torch.equal(done, augment(first, torch.tensor([3 + (1 << 48)]))[0])


# --- epochs ----------------------------------------------------------------------------------------------------------


def dataset(count=6, **options):
    pixels = PIXELS[:1].expand(count, -1, -1, -1)
    return IndexedDataset([(p, i) for i, p in enumerate(pixels)], AugmentTransform("trivialaugment-wide", 1), **options)


def expected(index, view):
    return BatchAugment("trivialaugment-wide", 1)(PIXELS[:1], torch.tensor([index]), view)[0]


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}])
def test_views_are_new_in_every_pass_though_nobody_tells_the_epoch(options):
    loader = DataLoader(dataset(), batch_size=2, shuffle=True, **options)
    for view in range(3):
        for images, labels in loader:
            for image, label in zip(images, labels.tolist(), strict=True):
                assert torch.equal(image, expected(label, view))


def test_it_is_said_once_and_an_epoch_told_is_an_epoch(unsaid, caplog):
    data = dataset(num_views=3)
    seen = [[data[i][0] for i in range(6)] for _ in range(4)]
    assert [r.message for r in caplog.records] == [m for m in (r.message for r in caplog.records) if "set_epoch" in m]
    assert len(caplog.records) == 1
    for view, pictures in enumerate(seen):
        assert all(torch.equal(p, expected(i, view % 3)) for i, p in enumerate(pictures))
    data.set_epoch(1)
    assert data.view == 1
    for _ in range(2):
        assert torch.equal(data[2][0], expected(2, 1))


def test_parts_of_a_concatenation_have_numbers_of_their_own():
    one, two = dataset(4), dataset(6)
    whole = ConcatDataset([ConcatDataset([one, two]), dataset(2)])
    assert len(whole) == 12
    for place in (0, 3, 4, 9, 10, -1):
        assert torch.equal(whole[place][0], expected(place % 12, 0))
    assert torch.equal(Subset(dataset(6), [5, 1])[0][0], expected(5, 0))


class Watching(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen += [(self.current_epoch, int(label), image) for image, label in zip(images, labels, strict=True)]
        return self.layer(torch.zeros(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


# Of torch's tree utilities about how Lightning's combined loader asks them.
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
# Where SLURM is installed; effkit's own trainers are told their environment, this one is plain Lightning's.
@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_a_lightning_training_tells_the_epoch(tmp_path):
    data = dataset(4)
    module = Watching()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[FollowEpoch()], default_root_dir=tmp_path, **quiet)
    trainer.fit(module, DataLoader(ConcatDataset([data, dataset(2)]), batch_size=2))
    assert len(module.seen) == 18
    for place, (epoch, _, image) in enumerate(module.seen):
        assert torch.equal(image, expected(place % 6, epoch))
    assert data.view == 2


# --- teachers that guess, and what excludes each other ----------------------------------------------------------------


def test_a_teacher_that_guesses_is_known_by_its_interval():
    found = CleanAccuracy(20, 200, 0.1)
    assert found.interval == pytest.approx((0.0657, 0.1494), abs=1e-4)  # Wilson's, by hand
    assert (found.at_chance, CleanAccuracy(40, 200, 0.1).at_chance) == (True, False)
    assert CleanAccuracy(90, 100, 0.9).at_chance  # one answer, and nine pictures of ten are of that class
    labels = torch.tensor([0, 1, 2, 0] * 25)

    def knows(images):
        return torch.eye(3)[images[:, 0, 0, 0].long()]

    def pictures(index):
        return labels[index].to(torch.uint8).view(-1, 1, 1, 1)

    found = clean_accuracy(knows, pictures, labels, most=40)
    assert (found.right, found.total, found.chance) == (40, 40, 0.5)
    assert "100.0% of 40 clean pictures" in str(found)
    found = clean_accuracy(lambda images: torch.eye(3)[torch.zeros(len(images), dtype=torch.long)], pictures, labels)
    assert (found.right, found.total, found.at_chance) == (50, 100, True)


@pytest.fixture
def guessing(tmp_path):
    torch.manual_seed(0)
    network = build_network({"name": "digits_cnn"}, num_classes=10, in_chans=1, image_size=8)
    return f"teacher.weights={save_weights(network, tmp_path / 'teacher.safetensors')}"


@pytest.mark.parametrize("command", [["distill", "trainer.max_epochs=1"], ["cache", "build"]])
def test_distilling_from_a_teacher_that_guesses_asks_for_a_yes(command, guessing, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = [*command, "experiment=digits_kd", guessing, "data.limit=64", "view.num_views=1", "cache.path=cache"]
    words += ["threads=1", *(["cache.mode=readwrite", "data.drop_last=false"] if command[0] == "distill" else [])]
    code, _, err = run(*words)
    assert code == 2
    assert "clean pictures (" in err
    assert "guessing_teacher=true asks it all the same" in err
    assert not (tmp_path / "cache").exists()
    code, _, err = run(*words, "guessing_teacher=true")
    assert code == 0, err
    assert (tmp_path / "cache").is_dir()


def test_nothing_is_recommended_by_a_teacher_that_guesses(guessing, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = ["operators=[rotate]", "magnitudes=[1,4]", "limit=100", "draws=1", "policy_layers=0", "resamples=50"]
    code, out, err = run("suggest", *words, guessing, "threads=1")
    assert code == 0, err
    assert "Nothing is recommended: the teacher names the class of" in out
    assert "Suggested magnitude" not in out
    assert "Consider dropping" not in out
    code, out, err = run("analyze", *words, guessing, "threads=1")
    assert code == 0, err
    assert "Nothing is recommended" in out


@pytest.mark.parametrize("view", ["clean", "independent"])
def test_mixed_pictures_need_the_teacher_to_see_them(view):
    parts = {"teacher": True, "cache": False, "mixed": True}
    with pytest.raises(UserError, match=f"mixup and teacher_view={view} exclude each other"):
        check_combination(0.5, **parts, teacher_view=view)
    check_combination(0.5, **parts)
    check_combination(0.0, **parts, teacher_view=view)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["mixup.mixup_alpha=0.8", "teacher_view=clean"], "mixup and teacher_view=clean exclude"),
        (["mixup.cutmix_alpha=1.0"], "mixup and a cache exclude"),
        (["policy_until=0.5"], "policy_until=0.5 and a cache exclude"),
        (["optimizer.lr=-1"], "lr"),
    ],
)
def test_a_refusal_leaves_no_empty_cache(words, what, guessing, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    common = ["experiment=digits_kd", guessing, "data.limit=64", "view.num_views=1", "threads=1"]
    common += ["guessing_teacher=true", "cache.path=cache", "cache.mode=readwrite", "data.drop_last=false"]
    code, _, err = run("distill", *common, *words)
    assert code == 2
    assert what in err
    assert not (tmp_path / "cache").exists()


def test_an_empty_cache_of_a_refused_build_goes_too(guessing, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = ["experiment=digits_kd", guessing, "data.limit=64", "view.num_views=1", "guessing_teacher=true"]
    code, _, err = run("cache", "build", *words, "cache.path=cache", "shard=9/8", "threads=1")
    assert (code, "shard='9/8'" in err) == (2, True)
    assert not (tmp_path / "cache").exists()


def test_a_cache_of_a_folder_knows_its_pictures_and_not_only_their_names(tmp_path):
    root = write_image_folder(tmp_path / "pictures", count=3)

    def identity(folder):
        data = ViewData(create_core_data("imagefolder", root=str(folder), image_size=16, batch_size=2))
        return data.sample_ids_fingerprint()

    before = identity(root)
    shutil.copytree(root, tmp_path / "copy")  # keeps the times, as copying does that means to keep anything
    assert identity(tmp_path / "copy") == before
    (file, *_) = sorted(path for path in (tmp_path / "copy").rglob("*") if path.is_file() and "train" in str(path))
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content + b"\0")
    os.utime(file, (times.st_atime, times.st_mtime))
    assert identity(tmp_path / "copy") != before
    file.write_bytes(content)
    os.utime(file, (times.st_atime, times.st_mtime + 5))
    assert identity(tmp_path / "copy") != before
    os.utime(file, (times.st_atime, times.st_mtime))
    assert identity(tmp_path / "copy") == before


def test_the_hint_counts_epochs_with_repeats(guessing, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = [
        "experiment=digits_kd",
        guessing,
        "guessing_teacher=true",
        "data.limit=64",
        "view.num_views=7",
        "threads=1",
    ]
    code, _, err = run("cache", "build", *words, "cache.path=cache", "shard=1/2")
    assert code == 0, err
    code, _, err = run("distill", *words, "cache.path=cache", "data.repeats=3")
    assert (code, "a run that fills it needs 3 epochs" in err) == (2, True)
