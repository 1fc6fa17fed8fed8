"""A data set of the core as pictures in bytes, with sample numbers and view numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from effkit.data import (
    DATASETS,
    DataModule,
    MemoryDataModule,
    PictureDataModule,
    Preprocessing,
    create_data,
    data_arguments,
)
from effkit.data.base import PreparedData
from effkit.data.sampling import leave_signals
from effkit.errors import UserError, choose
from kd_autoaug.training.crops import KeyedCrop
from kd_autoaug.training.digits import DigitsSmall
from kd_autoaug.training.loaders import MemoryLoader, ViewPictures, ViewSampler
from kd_autoaug.training.pictures import SplitPictures

__all__ = ["CROPS", "OWN_DATASETS", "ViewData", "create_core_data"]

CROPS = ("none", "pad", "rrc")
OWN_DATASETS: dict[str, type[DataModule]] = {"digits_small": DigitsSmall}
SMALL_SIDE = 64  # pixels: up to here pictures are decoded once and kept
MEMORY_LIMIT = 2 << 30  # bytes of pictures that `in_memory=auto` keeps per split


def create_core_data(name: str, **options: Any) -> DataModule:
    """Build a data module of the core, or one of this package's own, by name.

    Raises:
        UserError: If the name or an option is not known, or files are missing.
    """
    choose("data.name", name, [*DATASETS, *OWN_DATASETS])
    if name not in OWN_DATASETS:
        return create_data(name, **options)
    cls = OWN_DATASETS[name]
    for key in options:
        choose("data argument", key, sorted(set(data_arguments(cls)) - {"augment"}))
    return cls(**options)


class ViewData(PreparedData):
    """Pictures as uint8. Training batches are ``(images, labels, index, view)``, others ``(images, labels)``.

    Pictures are resized and cut as for evaluation, without randomness; with ``crop="rrc"`` training shows a random
    resized crop that is a function of (seed, index, view). All other augmentation happens on the batch, see
    ``BatchAugment`` (which does the padded crop of ``crop="pad"`` too). The core module's own ``augment`` is not used.
    Filler pictures of distributed evaluation carry the label ``effkit.data.sampling.IGNORE``.

    Args:
        core: The data set, from :func:`create_core_data`.
        num_views: Views after which they start again; ``None``: every epoch is new.
        crop: ``"none"``, ``"pad"`` or ``"rrc"``.
        scale: Of ``rrc``: area of the part, (smallest, largest).
        ratio: Of ``rrc``: width by height, (smallest, largest).
        interpolation: Of ``rrc``: ``"bilinear"`` or ``"bicubic"``.
        in_memory: Decode files once and keep them: ``"auto"`` (pictures up to 64 pixels, 2 GiB per split), true or
            false. Data sets that are tensors are in memory always.

    Raises:
        UserError: If a value is not allowed.
    """

    def __init__(
        self,
        core: DataModule,
        *,
        num_views: int | None = None,
        crop: str = "none",
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bicubic",
        in_memory: bool | str = "auto",
    ) -> None:
        super().__init__()
        if num_views is not None and (isinstance(num_views, bool) or not isinstance(num_views, int) or num_views < 1):
            raise UserError(f"view.num_views={num_views!r} must be a whole number of at least 1, or null for no limit")
        self.core, self.num_views, self.name = core, num_views, core.name
        self.crop = choose("view.crop", crop, CROPS)
        self._crop = partial(KeyedCrop, seed=core.seed, scale=scale, ratio=ratio, interpolation=interpolation)
        _ = self.keyed_crop  # a mistake in it is told now
        self.in_memory = choose("view.in_memory", in_memory, ["auto", True, False])
        self._sources: dict[str, SplitPictures] = {}

    # --- facts ----------------------------------------------------------------------------------------------------

    @property
    def preprocessing(self) -> Preprocessing:  # type: ignore[override]  # the data set's, which may change
        """How pictures get their size and bytes become numbers, with the names of the classes."""
        return self.core.preprocessing

    def use(self, preprocessing: Preprocessing) -> None:
        """Show the pictures as a trained network expects them, instead of as the data set was told.

        Raises:
            UserError: If it is about other classes, or another number of channels than this data set can give.
        """
        self.core.use(preprocessing)
        self._sources = {}

    @property
    def batch_size(self) -> int:
        """Pictures per batch and process."""
        return self.core.batch_size

    @property
    def unreadable(self) -> dict[str, str]:
        """Why a picture was left out, by path; see ``data.skip_unreadable``."""
        return getattr(self.core, "unreadable", {})

    @property
    def keyed_crop(self) -> KeyedCrop | None:
        """What cuts the training pictures of ``crop="rrc"``."""
        return self._crop(self.image_size) if self.crop == "rrc" else None

    # --- pictures -------------------------------------------------------------------------------------------------

    def split(self, name: str) -> SplitPictures:
        """The pictures of ``train``, ``val`` or ``test``, decoded on first use where they are kept in memory."""
        if name not in self._sources:
            self._sources[name] = SplitPictures(self.core, name, keep=self._keeps(name))
        return self._sources[name]

    def _keeps(self, split: str) -> bool:
        if isinstance(self.core, MemoryDataModule):
            return True
        cuts = split == "train" and self.crop == "rrc"
        if self.in_memory != "auto":
            if self.in_memory and cuts:
                raise UserError(
                    "view.in_memory=true keeps cut pictures, and view.crop=rrc cuts anew; use auto or false"
                )
            return bool(self.in_memory)
        size = len(self.core.split(split)) * self.in_chans * self.image_size**2
        return self.image_size <= SMALL_SIDE and size <= MEMORY_LIMIT and not cuts

    @property
    def num_train(self) -> int:
        """Pictures of the training split."""
        return len(self.split("train"))

    def labels(self, split: str) -> Tensor:
        """Class indices of a split, int64 ``(N,)``."""
        return self.split(split).labels

    def pictures(self, split: str, indices: Iterable[int] | Tensor | None = None, view: int | None = None) -> Tensor:
        """Some pictures of a split as bytes.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            indices: Which ones; all if ``None``.
            view: With ``crop="rrc"`` and the training split: the view whose crop to show. ``None`` shows the picture
                as in evaluation.

        Returns:
            uint8 ``(n, C, H, W)``.
        """
        source = self.split(split)
        chosen = range(len(source)) if indices is None else [int(i) for i in indices]
        crop = self.keyed_crop if split == "train" else None
        if crop is not None and view is not None:
            cut = [crop(source.opened(i), i, self._wrapped(view)) for i in chosen]
            return torch.stack(cut) if cut else self._none()
        if source.images is not None:
            return source.images if indices is None else source.images[torch.tensor(chosen, dtype=torch.int64)]
        return torch.stack([source.picture(i) for i in chosen]) if chosen else self._none()

    def _wrapped(self, view: int) -> int:
        return view if self.num_views is None else view % self.num_views

    def _none(self) -> Tensor:
        return torch.empty(0, self.in_chans, self.image_size, self.image_size, dtype=torch.uint8)

    def sample_ids_fingerprint(self) -> str:
        """SHA-256 over the training samples in their order and how they are cut; a cache is valid for one value."""
        keyed = self.keyed_crop
        crop = "whole" if keyed is None else keyed.describe()
        digest = hashlib.sha256(f"{self.name} {self.in_chans}x{self.image_size} {crop}\n".encode())
        if isinstance(self.core, PictureDataModule):
            digest.update(repr([str(step) for step in self.preprocessing.geometry()]).encode())
        for identity in self.split("train").identities():
            digest.update(hashlib.sha256(identity).digest())
        return digest.hexdigest()

    # --- loaders --------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download where that was asked for (one process per machine does it)."""
        self.core.prepare_data()

    def _loader(self, split: str) -> Any:
        train = split == "train"
        source = self.split(split)
        core = self.core
        sampler = ViewSampler(len(source), seed=core.seed, train=train, repeats=core.repeats, num_views=self.num_views)
        if train:
            self._set_begin(sampler, core.batch_size)
        drop_last = train and core.drop_last and len(sampler) >= core.batch_size  # never an epoch without a batch
        crop = self.keyed_crop if train else None
        if source.images is not None and crop is None:
            return MemoryLoader(source.images, source.labels, core.batch_size, sampler, drop_last=drop_last)
        return DataLoader(
            ViewPictures(source, train=train, crop=crop),
            batch_size=core.batch_size,
            sampler=sampler,
            num_workers=core.num_workers,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=core.num_workers > 0,
            worker_init_fn=leave_signals,
            generator=torch.Generator().manual_seed(core.seed),  # or it draws a seed from the global generator
        )

    @classmethod
    def from_config(cls, data: Mapping[str, Any], view: Mapping[str, Any] | None = None) -> ViewData:
        """Build from the groups ``data`` and ``view`` of a config; the keys of ``view`` that augment are left out.

        Raises:
            UserError: If a key is not known or a value not allowed.
        """
        options = dict(data)
        own = {"num_views", "crop", "scale", "ratio", "interpolation", "in_memory"}
        chosen = {k: v for k, v in dict(view or {}).items() if k in own}
        return cls(create_core_data(options.pop("name"), **options), **chosen)
