"""Folders of pictures: ``root/train/CLASS/*.jpg`` and ``root/val`` or ``root/test`` with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from effkit.data.base import DataModule, need_folder
from effkit.data.transforms import eval_transform, resolve_augment, train_transform
from effkit.errors import UserError

__all__ = ["ImageFolder", "PictureDataModule", "class_folders", "read_rgb"]


def read_rgb(path: str) -> Any:
    """Open a picture as RGB; an unreadable file is named in the error."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise UserError(f"cannot read the picture {path}: {error}; remove or replace the file") from error


def class_folders(split: Path) -> list[str]:
    """Return the class folders' names in the order of their labels.

    Raises:
        UserError: If the folder is missing or holds no folder.
    """
    if not split.is_dir():
        raise UserError(f"the folder {split} is missing: pictures are expected as {split / 'CLASS' / 'NAME.jpg'}")
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(
            f"the folder {split} has no class folders: pictures are expected as {split / 'CLASS' / 'NAME.jpg'}"
        )
    return names


class PictureDataModule(DataModule):
    """A data module of picture files with timm's transforms.

    Args:
        name: The name in ``effkit.data.DATASETS``.
        augment: A preset of ``effkit.data.transforms.AUGMENTS``, or a mapping of ``train_transform``'s arguments (with
            ``preset`` to start from one).
        interpolation: Of the evaluation resize.
        crop_pct: Evaluation crop as a fraction of the resized shorter side.
        **kwargs: As for :class:`DataModule`.
    """

    def __init__(
        self,
        name: str,
        *,
        augment: str | Mapping[str, Any] | None,
        interpolation: str,
        crop_pct: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, in_chans=3, **kwargs)
        size: dict[str, Any] = {"mean": self.mean, "std": self.std}
        self.eval_transform = eval_transform(self.image_size, crop_pct=crop_pct, interpolation=interpolation, **size)
        options = {"crop_pct": crop_pct, "interpolation": interpolation, **resolve_augment(augment)}
        self.train_transform = train_transform(self.image_size, **size, **options)


class ImageFolder(PictureDataModule):
    """Pictures in class folders. ``val`` and ``test`` stand in for each other where only one of them exists.

    Args:
        root: Folder with ``train`` and ``val`` or ``test``.
        batch_size: Images per batch and process.
        num_workers: Loader processes.
        image_size: Side of the square images in pixels.
        augment: Preset (``none``, ``light``, ``pad``, ``deit``) or arguments of ``train_transform``.
        mean: Mean that normalisation subtracts, one per channel or one for all; default ImageNet's.
        std: Standard deviation that it divides by, likewise.
        interpolation: Of the evaluation resize.
        crop_pct: Evaluation crop as a fraction of the resized shorter side.
        seed: Seed of the training order and augmentation.
        limit: At most this many pictures of each split, evenly spread over the classes.
        drop_last: Leave an incomplete last training batch out.
        repeats: Augmented copies of a picture per epoch.
        name: The data set's name in reports.

    Raises:
        UserError: If a folder is missing or empty, or the splits' classes differ.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        num_workers: int = 4,
        image_size: int = 224,
        augment: str | Mapping[str, Any] | None = "light",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: str = "bicubic",
        crop_pct: float = 0.875,
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = True,
        repeats: int = 1,
        name: str = "imagefolder",
    ) -> None:
        self.root = need_folder("data.root", root, "the folder that holds train/ and val/ (or test/)")
        self.folders = self._find_splits(self.root)
        super().__init__(
            name,
            augment=augment,
            interpolation=interpolation,
            crop_pct=crop_pct,
            class_names=class_folders(self.folders["train"]),
            image_size=image_size,
            mean=IMAGENET_DEFAULT_MEAN if mean is None else mean,
            std=IMAGENET_DEFAULT_STD if std is None else std,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            limit=limit,
            drop_last=drop_last,
            repeats=repeats,
        )

    @staticmethod
    def _find_splits(root: Path) -> dict[str, Path]:
        train, val, test = root / "train", root / "val", root / "test"
        classes = class_folders(train)
        if not val.is_dir() and not test.is_dir():
            raise UserError(f"neither {val} nor {test} exists: one of them is needed to measure the accuracy")
        folders = {"train": train, "val": val if val.is_dir() else test, "test": test if test.is_dir() else val}
        for split in (folders["val"], folders["test"]):
            differing = sorted(set(class_folders(split)) ^ set(classes))
            if differing:
                shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
                raise UserError(f"{split} and {train} do not have the same class folders: {shown} in only one of them")
        return folders

    def setup(self, stage: str | None = None) -> None:
        """List the pictures of the splits that ``stage`` needs.

        Raises:
            UserError: If a class folder holds no picture.
        """
        from torchvision.datasets import ImageFolder as Folder

        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(
            stage or "", ("train", "val", "test")
        )
        for name in wanted:
            if name in self.splits:
                continue
            transform = self.train_transform if name == "train" else self.eval_transform
            try:
                dataset = Folder(str(self.folders[name]), transform=transform, loader=read_rgb)
            except FileNotFoundError as error:
                raise UserError(str(error).splitlines()[0]) from error
            self.splits[name] = self._limited(dataset)
