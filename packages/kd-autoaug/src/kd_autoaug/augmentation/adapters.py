"""The policies where other libraries expect a transform: torchvision's ``Compose``, timm's lists, any data set.

Exactness comes from a key, the sample's number and its view. :class:`IndexedDataset` sets it around each item, or
:func:`sample_key` by hand. Where no key is known a transform counts its calls: still without the global generators, but
what a picture gets then depends on the order of loading, and teacher answers cannot be kept.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from effkit.errors import UserError, choose
from effkit.notes import say_once
from effkit.ranks import process_number
from kd_autoaug.augmentation.augment import BatchAugment
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.augmentation.single import augment_alone, takes
from kd_autoaug.ops.single import apply_to_picture

__all__ = ["AugmentTransform", "IndexedDataset", "from_timm_string", "sample_key"]

_STREAM = 48  # bits of a sample's number; above them the count of pictures that its key was used for before
_DRAWS = ("each", "same")


@dataclass
class _Key:
    """A sample and a view, and for how many pictures they were used."""

    index: Any
    view: Any
    draws: str = "each"
    used: int = 0

    def numbers(self, batch: int) -> tuple[Tensor, Any]:
        """Numbers and views of the next pictures: the key itself for the first, a stream of its own for each other."""
        index = torch.as_tensor(self.index)
        if self.draws == "same":
            return (index if index.ndim else index.expand(batch)), self.view
        # A number a picture tells the pictures of a call apart already; one for all does not.
        each = torch.tensor(self.used) if index.ndim else torch.arange(self.used, self.used + batch)
        self.used += 1 if index.ndim else batch
        return index + (each << _STREAM), self.view

    def number(self) -> tuple[int, int] | None:
        """Number and view of the next picture as plain integers; ``None`` if only tensors say it, or refuse it."""
        index, view = self.index, self.view
        if type(view) is not int or not isinstance(index, int | np.integer) or isinstance(index, bool):
            return None
        found = int(index) + (0 if self.draws == "same" else self.used << _STREAM)
        if not (0 <= found < 1 << 63 and 0 <= view < 1 << 32):
            return None
        self.used += self.draws != "same"
        return found, view


_KEY: ContextVar[_Key | None] = ContextVar("kd_autoaug_key", default=None)


@contextmanager
def sample_key(index: int | Tensor, view: int | Tensor = 0, draws: str = "each") -> Iterator[None]:
    """Say which sample and view the transforms inside the block work on.

    Args:
        index: The sample's number, below 2^48; for a batch one per picture, int64 ``(B,)``.
        view: Its view; one, or one per picture.
        draws: ``"each"``: a second picture, a second transform or a second call inside the block has draws of its own
            (two views of contrastive learning, two policies of one ``Compose``, a batch under one number). ``"same"``:
            all get the draws of the first.

    Raises:
        UserError: If ``draws`` is neither.
    """
    token = _KEY.set(_Key(index, view, choose("draws", draws, _DRAWS)))
    try:
        yield
    finally:
        _KEY.reset(token)


class AugmentTransform(v2.Transform):
    """A :class:`BatchAugment` as a torchvision transform and as a plain callable.

    Takes a PIL picture (grey or RGB), a uint8 tensor ``(C, H, W)`` or a batch ``(B, C, H, W)``, alone or inside a
    sample such as ``(picture, label)``, and returns the same kind; or a uint8 array ``(H, W)`` or ``(H, W, C)`` alone.
    Every picture has draws of its own, the pictures of one call too, where torchvision draws once a call. Without a
    key (see :func:`sample_key`) call number c of this process is keyed by c, the seed that torch gave the data-
    loading worker (another one each epoch, decided by ``torch.manual_seed`` in the main process) and the rank;
    pictures of a batch are numbered one after the other.

    Attributes:
        augment: What is applied.
        key: ``(index, view)`` of every following call, or ``None``; :func:`sample_key` goes before it.
    """

    def __init__(self, policy: Policy | str | BatchAugment, seed: int = 0, **options: Any) -> None:
        """Wrap a policy.

        Args:
            policy: A policy, its name, or a whole :class:`BatchAugment`.
            seed: Of the augmentation, if a policy is given.
            **options: Of :class:`BatchAugment`, if a policy is given.

        Raises:
            UserError: As :class:`BatchAugment`; if options are given beside a ready one.
        """
        super().__init__()
        if isinstance(policy, BatchAugment):
            if seed or options:
                raise UserError(f"seed={seed!r}, options {sorted(options)} belong to the BatchAugment that was given")
            self.augment = policy
        else:
            self.augment = BatchAugment(policy, seed, **options)
        self.key: tuple[int | Tensor, int | Tensor] | None = None
        self._calls = 0

    def forward(self, *inputs: Any) -> Any:
        """Augment a picture, or the pictures of a sample.

        Raises:
            UserError: If a picture is of a kind that is not known; an array inside a sample is none that torchvision's
                transforms would see.
        """
        if len(inputs) == 1:
            given = inputs[0]
            if isinstance(given, np.ndarray):
                return self._of_array(given)
            if isinstance(given, Image.Image | Tensor) and self._transformed_types is v2.Transform._transformed_types:
                # What torchvision would do, without taking a sample apart that is none.
                self.check_inputs([given])
                return self.transform(given, self.make_params([given]))
        return super().forward(*inputs)

    def _of_array(self, picture: np.ndarray) -> np.ndarray:
        shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (1, 3))
        if picture.dtype != np.uint8 or not shaped or picture.size == 0:
            raise UserError(
                f"picture is an array of {picture.dtype} and shape {picture.shape}, must be uint8 (H, W) or (H, W, C) "
                "with 1 or 3 channels and at least one pixel"
            )
        image = Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
        return np.array(self.transform(image, self.make_params([image]))).reshape(picture.shape)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what would have to move with the picture, film, and pictures that would be passed over.

        Raises:
            UserError: If the sample holds boxes, masks, key points or video, or arrays of bytes that may be a picture.
        """
        for given in flat_inputs:
            if isinstance(given, np.ndarray) and given.ndim >= 2 and given.dtype == np.uint8:
                raise UserError(
                    f"sample holds an array of shape {given.shape}, which transforms of torchvision pass over: give a "
                    "picture's array alone, or torchvision's tv_tensors.Image"
                )
            if isinstance(given, tv_tensors.TVTensor) and not isinstance(given, tv_tensors.Image):
                raise UserError(f"sample holds {type(given).__name__}: only pictures and values that stay as they are")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The key of this call."""
        found = _KEY.get()
        return {"key": found if found is not None or self.key is None else _Key(*self.key)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Augment one picture, or one batch."""
        picture = isinstance(inpt, Tensor)
        if not picture and inpt.mode not in ("L", "RGB"):
            raise UserError(f"picture has mode {inpt.mode!r}, must be 'L' or 'RGB': convert('RGB') first")
        if takes(self.augment, inpt) and (number := self._number(params["key"])) is not None:
            done = augment_alone(self.augment, inpt.as_subclass(Tensor) if picture else inpt, *number)
            return _like(done, inpt) if picture else done
        policy = self.augment.policy
        if not picture and self.augment.only_policy and policy is not None and policy.mixture is None:
            index, view = self._numbers(1, params["key"])
            layers = self.augment.layers(index, view, (inpt.height, inpt.width))
            return apply_to_picture(inpt, layers, fill=policy.fill, cutout_fill=policy.cutout_fill)
        images = inpt.as_subclass(torch.Tensor) if picture else VF.pil_to_tensor(inpt)
        single = images.ndim == 3
        batch = images.unsqueeze(0) if single else images
        if batch.ndim != 4:
            raise UserError(f"picture has shape {tuple(images.shape)}, must be (C, H, W) or a batch (B, C, H, W)")
        index, view = self._numbers(len(batch), params["key"])
        done = self.augment(batch, index, view)
        done = done[0] if single else done
        return _like(done, inpt) if picture else VF.to_pil_image(done)

    def extra_repr(self) -> str:
        """The augmentation."""
        return repr(self.augment)

    def _numbers(self, batch: int, key: _Key | None) -> tuple[Tensor, Tensor | int]:
        if key is not None:
            return key.numbers(batch)
        first = self._calls
        self._calls += batch
        return torch.arange(first, first + batch) + (_worker() << 32), process_number()

    def _number(self, key: _Key | None) -> tuple[int, int] | None:
        """The same for one picture, as plain integers; ``None`` if tensors are needed."""
        if key is not None:
            return key.number()
        self._calls += 1
        return self._calls - 1 + (_worker() << 32), process_number()


def _like(images: Tensor, given: Tensor) -> Tensor:
    return tv_tensors.wrap(images, like=given) if isinstance(given, tv_tensors.TVTensor) else images


def _worker() -> int:
    """31 bits that differ between workers and between epochs; 0 in the main process."""
    info = get_worker_info()
    return 0 if info is None else _hashed(info.seed)


@lru_cache(maxsize=16)
def _hashed(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little") >> 1 or 1


def from_timm_string(text: str, hparams: Mapping[str, Any] | None = None, seed: int = 0, **options: Any) -> Any:
    """A transform that replaces timm's ``auto_augment`` transform of the same string.

    Args:
        text: Such as ``"rand-m9-mstd0.5-inc1"``.
        hparams: timm's; see :func:`~kd_autoaug.augmentation.policies.timm_strings.timm_table`.
        seed: Of the augmentation.
        **options: Of :class:`BatchAugment`.

    Returns:
        An :class:`AugmentTransform`.

    Raises:
        UserError: If the string or an option is wrong.
    """
    return AugmentTransform(Policy.from_timm(text, hparams), seed, **options)


_UNTOLD = -1
_COUNTS = (
    "IndexedDataset is not told the epoch and counts how often each sample is loaded: call set_epoch(epoch) before "
    "each epoch, or give a Lightning trainer callbacks=[FollowEpoch()]; a resumed run then shows the views that it "
    "would have shown"
)


def _place_outside(i: int, caller: FrameType | None) -> int:
    """A sample's number in the data sets concatenated around it: torch tells it to nobody but its own frame."""
    while caller is not None and caller.f_code is ConcatDataset.__getitem__.__code__:
        i, caller = int(caller.f_locals["idx"]), caller.f_back
    return i


class IndexedDataset(Dataset[Any]):
    """A map-style data set whose transforms know which sample and view they work on.

    The key is set while item ``i`` is loaded, so it reaches every :class:`AugmentTransform` inside the data set's own
    transforms as well as ``transform``. Inside a ``torch.utils.data.ConcatDataset`` a sample's number is its place
    there, so that samples of two parts draw differently.

    The view is that of the epoch once somebody tells it: :meth:`set_epoch`, or
    :class:`~kd_autoaug.training.follow.FollowEpoch` among the callbacks of a Lightning trainer. Until then each sample
    counts how often it was loaded, which is said once: views are new in every pass, but a process that starts again
    starts from view 0, and processes of a distributed run count apart. Both live in shared memory and reach persistent
    workers.
    """

    def __init__(self, data: Any, transform: Any = None, num_views: int | None = None, draws: str = "each") -> None:
        """Wrap a data set.

        Args:
            data: Map-style; an item is a picture or a tuple that begins with one.
            transform: Applied to the picture; ``None``: nothing.
            num_views: Views come round after this many epochs; ``None``: never.
            draws: Of :func:`sample_key`.

        Raises:
            UserError: If ``num_views`` is below 1, or ``draws`` not known.
        """
        if num_views is not None and (isinstance(num_views, bool) or not isinstance(num_views, int) or num_views < 1):
            raise UserError(f"num_views={num_views!r} must be an integer of 1 or more, or None")
        self.data, self.transform, self.num_views = data, transform, num_views
        self.draws = choose("draws", draws, _DRAWS)
        self._view = torch.full((1,), _UNTOLD, dtype=torch.int64).share_memory_()
        self._loaded: Tensor | None = None  # how often, by sample
        if isinstance(data, Sized):
            self._loaded = torch.zeros(len(data), dtype=torch.int32).share_memory_()
        self._look()

    def _look(self) -> None:
        """The same memory as arrays, since it is read for each picture: a number of a tensor is a call of torch."""
        self._told = self._view.numpy()
        self._counts = None if self._loaded is None else self._loaded.numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_told", "_counts")}  # arrays would be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._look()

    @property
    def view(self) -> int:
        """The view of the epoch that was told; 0 if none was."""
        return max(0, int(self._told[0]))

    def set_epoch(self, epoch: int) -> None:
        """Go to the view of an epoch, 0, 1, ...: the epoch itself, modulo ``num_views``.

        Raises:
            UserError: If the epoch is negative.
        """
        if epoch < 0:
            raise UserError(f"epoch={epoch!r} must be 0 or more")
        self._told[0] = self._wrapped(epoch)

    def _wrapped(self, view: int) -> int:
        return view if self.num_views is None else view % self.num_views

    def _view_of(self, i: int) -> int:
        """The view of sample i; where no epoch was told, how often it has been loaded before."""
        if self._told[0] != _UNTOLD or self._counts is None:
            return self.view
        before = int(self._counts[i])
        self._counts[i] += 1
        if before == 1 and get_worker_info() is None:
            say_once(_COUNTS, __name__)
        return self._wrapped(before)

    def __len__(self) -> int:
        assert isinstance(self.data, Sized)
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        """Item i with its picture transformed."""
        i = i + len(self) if i < 0 else i  # the same sample has one number
        with sample_key(_place_outside(i, sys._getframe(1)), self._view_of(i), self.draws):
            item = self.data[i]
            if self.transform is None:
                return item
            if isinstance(item, tuple):
                return (self.transform(item[0]), *item[1:])
            return self.transform(item)
