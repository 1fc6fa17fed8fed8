"""Folders of pictures: ``root/train/CLASS/*.jpg`` and ``root/val`` or ``root/test`` with the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets import DatasetFolder

from effkit.data.base import need_folder
from effkit.data.files import PictureDataModule
from effkit.data.finding import SUFFIXES, class_folders, class_pictures
from effkit.data.readable import leave_out
from effkit.errors import UserError

__all__ = ["FolderPictures", "ImageFolder"]


class FolderPictures(DatasetFolder):
    """torchvision's folder of class folders, with our rule for which of them are classes and which files pictures.

    Args:
        root: The folder that holds the class folders.
        loader: Opens a file.
        transform: What is made of it.
    """

    def __init__(self, root: Path, loader: Any, transform: Any) -> None:
        super().__init__(str(root), loader, tuple(SUFFIXES), transform=transform)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Class folders and their labels."""
        names = class_folders(Path(directory))
        return names, {name: label for label, name in enumerate(names)}

    @staticmethod
    def make_dataset(directory: Any, class_to_idx: dict[str, int], *args: Any, **kwargs: Any) -> list[tuple[str, int]]:
        """Paths and labels of all pictures."""
        return class_pictures(Path(directory), list(class_to_idx))

    def keep(self, samples: Sequence[tuple[str, int]]) -> None:
        """Have only these of the pictures."""
        self.samples, self.targets = list(samples), [label for _, label in samples]


class ImageFolder(PictureDataModule):
    """Pictures in class folders. ``val`` and ``test`` stand in for each other where only one of them exists.

    Args:
        root: Folder with ``train`` and ``val`` or ``test``.
        batch_size: Images per batch and process.
        num_workers: Loader processes.
        image_size: Side of the square images in pixels.
        augment: Preset (``none``, ``light``, ``pad``, ``deit``) or arguments of ``train_transform``.
        interpolation: Of the evaluation resize.
        crop_pct: Evaluation crop as a fraction of the resized shorter side.
        drop_last: Leave an incomplete last training batch out.
        skip_unreadable: Read every picture before the first epoch and go on without those that cannot be read, which
            are counted and listed (``unreadable``, and in ``metrics.json``), instead of stopping at the first.
        name: The data set's name in reports.
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If a folder is missing or empty, or the splits' classes differ.
    """

    kind = "imagefolder"

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        num_workers: int = 4,
        image_size: int = 224,
        augment: str | Mapping[str, Any] | None = "light",
        interpolation: str = "bicubic",
        crop_pct: float = 0.875,
        drop_last: bool = True,
        skip_unreadable: bool = False,
        name: str | None = None,
        **options: Any,
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
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=drop_last,
            **options,
        )
        self.skip_unreadable = skip_unreadable

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
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(
            stage or "", ("train", "val", "test")
        )
        for name in wanted:
            if name in self.splits:
                continue
            transform = self.train_transform if name == "train" else self.eval_transform
            dataset = FolderPictures(self.folders[name], self.read, transform)
            if self.skip_unreadable:
                dataset.keep(leave_out(dataset.samples, self.read, self.unreadable, self.num_workers, dataset.classes))
            self.splits[name] = self._limited(dataset)
