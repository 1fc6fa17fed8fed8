"""Pictures of a data set as bytes: where they come from, and how bytes become what a network sees.

Operators are defined on uint8, so this is what loaders hand out; normalisation happens on the device, once for the
student and once for the teacher, whose mean and deviation may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from effkit.errors import UserError

__all__ = ["FilePictures", "MemoryPictures", "Normalise", "NormalisedNetwork", "geometry", "pil_to_uint8", "to_uint8"]


def to_uint8(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo a normalisation and round to grey levels.

    Args:
        images: Normalised pictures ``(N, C, H, W)``.
        mean: Per channel, pixels being 0..1.
        std: Per channel.

    Returns:
        uint8 ``(N, C, H, W)``: ``round(255 (x std + mean))``. Pictures made from bytes come back as they were.
    """
    shape = (1, -1, 1, 1)
    pixels = images.double() * torch.tensor(std).double().view(shape) + torch.tensor(mean).double().view(shape)
    return (255 * pixels).round().clamp(0, 255).to(torch.uint8)


class Normalise(nn.Module):
    """uint8 ``(B, C, H, W)`` to ``(x / 255 - mean) / std`` in float32.

    Its buffers are not saved: they belong to the data, not to the network.

    Args:
        mean: Per channel, pixels being 0..1.
        std: Per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise.

        Raises:
            UserError: If the pictures are not bytes, or have another number of channels.
        """
        if images.dtype != torch.uint8:
            raise UserError(f"images.dtype={images.dtype} must be torch.uint8: normalisation starts from bytes")
        if images.shape[1] != self.mean.shape[1]:
            raise UserError(f"images have {images.shape[1]} channels, but data.mean has {self.mean.shape[1]}")
        return (images.float() / 255 - self.mean) / self.std


class NormalisedNetwork(nn.Module):
    """A network that takes bytes: what the core's evaluation is given.

    Args:
        model: Network from normalised pictures to logits.
        mean: Per channel, pixels being 0..1.
        std: Per channel.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.normalise = model, Normalise(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of uint8 pictures."""
        return self.model(self.normalise(images))


class MemoryPictures:
    """Pictures that are tensors already.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: ``(N,)`` class indices.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int) -> Tensor:
        """One picture, uint8 ``(C, H, W)``."""
        return self.images[index]

    def opened(self, index: int) -> Any:
        """One picture as PIL has it."""
        from PIL import Image

        pixels = self.images[index]
        return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())

    def identities(self) -> Iterator[bytes]:
        """What tells one sample from another: its pixels and its label."""
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            yield image.contiguous().numpy().tobytes() + b"%d" % label


class FilePictures:
    """Pictures of torchvision's folders and CIFAR files, each resized and cut like for evaluation.

    Args:
        dataset: ``torchvision.datasets.ImageFolder`` or ``CIFAR10``/``CIFAR100``, or a ``Subset`` of one.
        transform: From PIL to what the network sees, ending in a tensor and its normalisation; these two are left out.
    """

    def __init__(self, dataset: Any, transform: Any) -> None:
        positions: list[int] | None = None
        while isinstance(dataset, Subset):
            inner = list(dataset.indices)
            positions = inner if positions is None else [inner[i] for i in positions]
            dataset = dataset.dataset
        self.base = dataset
        self.positions = list(range(len(dataset))) if positions is None else positions
        targets = dataset.targets
        self.labels = torch.tensor([targets[i] for i in self.positions], dtype=torch.int64)
        self.steps = geometry(transform)

    def __len__(self) -> int:
        return len(self.positions)

    def opened(self, index: int) -> Any:
        """One picture as PIL has it, RGB, in its own size."""
        position = self.positions[index]
        if hasattr(self.base, "samples"):
            return self.base.loader(self.base.samples[position][0])
        from PIL import Image

        return Image.fromarray(self.base.data[position])

    def picture(self, index: int) -> Tensor:
        """One picture, resized and cut, uint8 ``(C, H, W)``."""
        image = self.opened(index)
        for step in self.steps:
            image = step(image)
        return pil_to_uint8(image)

    def identities(self) -> Iterator[bytes]:
        """What tells one sample from another: a file's path below the data set's folder, or its pixels; its label."""
        for position, label in zip(self.positions, self.labels.tolist(), strict=True):
            if hasattr(self.base, "samples"):
                yield (
                    Path(self.base.samples[position][0]).relative_to(self.base.root).as_posix().encode()
                    + b"=%d" % label
                )
            else:
                yield self.base.data[position].tobytes() + b"%d" % label


def geometry(transform: Any) -> list[Callable[[Any], Any]]:
    """The steps of an evaluation transform that take a PIL picture and give one."""
    from timm.data.transforms import MaybeToTensor
    from torchvision.transforms import Normalize, ToTensor

    return [step for step in transform.transforms if not isinstance(step, MaybeToTensor | ToTensor | Normalize)]


def pil_to_uint8(image: Any) -> Tensor:
    """A PIL picture as uint8 ``(C, H, W)``."""
    pixels = np.array(image, dtype=np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))
