"""CIFAR-10, CIFAR-100 and ImageNet through torchvision; nothing is downloaded without ``data.download=true``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effkit.data.base import need_folder
from effkit.data.facts import FACTS, known_class_names
from effkit.data.files import PictureDataModule
from effkit.data.finding import class_folders
from effkit.data.folders import ImageFolder
from effkit.errors import UserError

__all__ = ["CIFAR", "CIFAR10", "CIFAR100", "ImageNet"]


class CIFAR(PictureDataModule):
    """What CIFAR-10 and CIFAR-100 share: 32 x 32 pixels, and one test split that is the validation split too.

    Args:
        root: Folder that holds (or receives) torchvision's CIFAR files.
        download: Fetch missing files into ``root``.
        batch_size: Images per batch and process.
        num_workers: Loader processes.
        image_size: Side in pixels; other sizes than 32 are interpolated.
        augment: Preset (``none``, ``light``, ``pad``, ``deit``) or arguments of ``train_transform``.
        interpolation: Of the resize.
        crop_pct: Evaluation crop as a fraction of the resized side; 1 keeps the whole picture.
        drop_last: Leave an incomplete last training batch out.
        **options: Those of every data set, see ``effkit.data.base.OPTIONS``.

    Raises:
        UserError: If the files are absent and ``download`` is false.
    """

    dataset: str
    files: str  # the folder torchvision unpacks into

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        batch_size: int = 128,
        num_workers: int = 4,
        image_size: int = 32,
        augment: str | Mapping[str, Any] | None = "pad",
        interpolation: str = "bicubic",
        crop_pct: float = 1.0,
        drop_last: bool = True,
        **options: Any,
    ) -> None:
        if root is None:
            raise UserError(f"data.root is not set: give the folder that holds {self.files}, e.g. data.root=PATH")
        self.root, self.download = Path(root).expanduser(), download
        if not download and not (self.root / self.files).is_dir():
            raise UserError(
                f"data.root={str(root)!r} has no folder {self.files}: put {self.dataset} there "
                "or add data.download=true"
            )
        super().__init__(
            augment=augment,
            interpolation=interpolation,
            crop_pct=crop_pct,
            class_names=FACTS[self.kind].class_names,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=drop_last,
            **options,
        )

    def _open(self, train: bool, transform: Any, download: bool) -> Any:
        from torchvision import datasets

        try:
            return getattr(datasets, self.dataset)(str(self.root), train=train, transform=transform, download=download)
        except RuntimeError as error:
            raise UserError(
                f"data.root={str(self.root)!r}: {self.dataset} is incomplete or damaged ({error})"
            ) from error

    def prepare_data(self) -> None:
        """Download where that was asked for (one process per machine does it)."""
        if self.download:
            self._open(train=True, transform=None, download=True)

    def setup(self, stage: str | None = None) -> None:
        """Load both splits into memory, as torchvision does."""
        if self.splits:
            return
        train = self._open(train=True, transform=self.train_transform, download=False)
        test = self._open(train=False, transform=self.eval_transform, download=False)
        self.name_classes(train.classes)  # the files have the last word
        self.splits = {"train": self._limited(train), "test": self._limited(test), "val": self._limited(test)}


class CIFAR10(CIFAR):
    """CIFAR-10: 10 classes, 50,000 training and 10,000 test pictures of 32 x 32. Arguments of :class:`CIFAR`."""

    kind, dataset, files = "cifar10", "CIFAR10", "cifar-10-batches-py"


class CIFAR100(CIFAR):
    """CIFAR-100: 100 classes, 50,000 training and 10,000 test pictures of 32 x 32. Arguments of :class:`CIFAR`."""

    kind, dataset, files = "cifar100", "CIFAR100", "cifar-100-python"


class ImageNet(ImageFolder):
    """ILSVRC 2012: ``root/train`` and ``root/val``, each with the 1,000 WordNet folders (n01440764, ...).

    Args:
        root: Folder with ``train`` and ``val``.
        download: Must stay false: ImageNet's terms do not allow a program to fetch it.
        **kwargs: As for :class:`ImageFolder`.

    Raises:
        UserError: If a folder is missing, the classes are not 1,000, or a download is asked for.
    """

    kind = "imagenet"

    def __init__(self, root: str | None = None, download: bool = False, **kwargs: Any) -> None:
        if download:
            raise UserError(
                "data.download=true: ImageNet cannot be downloaded by a program; get ILSVRC2012 from image-net.org, "
                "unpack it into train/ and val/ class folders and give data.root=PATH"
            )
        where = "ImageNet's folder with train/ and val/ (it cannot be downloaded by a program: see image-net.org)"
        folder = need_folder("data.root", root, where)
        found = len(class_folders(folder / "train"))
        if found != 1000:
            raise UserError(
                f"{folder / 'train'} has {found} class folders, ImageNet has 1000; use data=imagefolder for a part"
            )
        super().__init__(str(folder), **kwargs)
        self.name_classes(_described(self.class_names))


def _described(folders: list[str]) -> list[str]:
    """Return timm's short descriptions for the WordNet folders, or the folders' names if they are others."""
    from timm.data import ImageNetInfo

    return list(known_class_names({"name": "imagenet"})) if folders == list(ImageNetInfo().label_names()) else folders
