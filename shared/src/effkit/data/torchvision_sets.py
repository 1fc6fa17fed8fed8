"""CIFAR-10, CIFAR-100 and ImageNet through torchvision; nothing is downloaded without ``data.download=true``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.data.base import need_folder
from effkit.data.folders import ImageFolder, PictureDataModule, class_folders
from effkit.errors import UserError

__all__ = ["CIFAR", "CIFAR10", "CIFAR100", "ImageNet"]

# Mean and standard deviation of the 50,000 training pictures, pixels being 0..1.
_CIFAR10_MEAN, _CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_CIFAR100_MEAN, _CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR(PictureDataModule):
    """What CIFAR-10 and CIFAR-100 share: 32 x 32 pixels, and one test split that is the validation split too.

    Args:
        root: Folder that holds (or receives) torchvision's CIFAR files.
        download: Fetch missing files into ``root``.
        batch_size: Images per batch and process.
        num_workers: Loader processes.
        image_size: Side in pixels; other sizes than 32 are interpolated.
        augment: Preset (``none``, ``light``, ``pad``, ``deit``) or arguments of ``train_transform``.
        mean: Mean that normalisation subtracts; default the data set's own.
        std: Standard deviation that it divides by; default the data set's own.
        interpolation: Of the resize.
        crop_pct: Evaluation crop as a fraction of the resized side; 1 keeps the whole picture.
        seed: Seed of the training order and augmentation.
        limit: At most this many pictures of each split.
        drop_last: Leave an incomplete last training batch out.
        repeats: Augmented copies of a picture per epoch.

    Raises:
        UserError: If the files are absent and ``download`` is false.
    """

    dataset: str
    files: str  # the folder torchvision unpacks into
    defaults: tuple[tuple[float, ...], tuple[float, ...]]
    classes: Sequence[str]

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        batch_size: int = 128,
        num_workers: int = 4,
        image_size: int = 32,
        augment: str | Mapping[str, Any] | None = "pad",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: str = "bicubic",
        crop_pct: float = 1.0,
        seed: int = 0,
        limit: int | None = None,
        drop_last: bool = True,
        repeats: int = 1,
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
            self.dataset.lower(),
            augment=augment,
            interpolation=interpolation,
            crop_pct=crop_pct,
            class_names=self.classes,
            image_size=image_size,
            mean=self.defaults[0] if mean is None else mean,
            std=self.defaults[1] if std is None else std,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            limit=limit,
            drop_last=drop_last,
            repeats=repeats,
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
        self.class_names = list(train.classes)
        self.splits = {"train": self._limited(train), "test": self._limited(test), "val": self._limited(test)}


class CIFAR10(CIFAR):
    """CIFAR-10: 10 classes, 50,000 training and 10,000 test pictures of 32 x 32. Arguments of :class:`CIFAR`."""

    dataset, files, classes = "CIFAR10", "cifar-10-batches-py", _CIFAR10_CLASSES
    defaults = (_CIFAR10_MEAN, _CIFAR10_STD)


class CIFAR100(CIFAR):
    """CIFAR-100: 100 classes, 50,000 training and 10,000 test pictures of 32 x 32. Arguments of :class:`CIFAR`."""

    dataset, files, classes = "CIFAR100", "cifar-100-python", [str(i) for i in range(100)]
    defaults = (_CIFAR100_MEAN, _CIFAR100_STD)


class ImageNet(ImageFolder):
    """ILSVRC 2012: ``root/train`` and ``root/val``, each with the 1,000 WordNet folders (n01440764, ...).

    Args:
        root: Folder with ``train`` and ``val``.
        download: Must stay false: ImageNet's terms do not allow a program to fetch it.
        **kwargs: As for :class:`ImageFolder`.

    Raises:
        UserError: If a folder is missing, the classes are not 1,000, or a download is asked for.
    """

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
        super().__init__(str(folder), name="imagenet", **kwargs)
        self.class_names = _wordnet_names(self.class_names)


def _wordnet_names(folders: list[str]) -> list[str]:
    """Return timm's short descriptions for the WordNet folders, or the folders' names if they are others."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    if folders != list(info.label_names()):
        return folders
    return [info.index_to_description(i) for i in range(len(folders))]
