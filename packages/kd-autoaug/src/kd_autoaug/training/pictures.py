"""The pictures of one split as bytes: decoded once and kept, or read one by one.

Operators are defined on uint8, so this is what loaders hand out; normalisation happens on the device, once for the
student and once for the teacher, whose mean and deviation may differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image
from torch import Tensor

from effkit.data import DataModule, MemoryDataModule, PictureDataModule

__all__ = ["SplitPictures"]


class SplitPictures:
    """Pictures of a split by number, as evaluation shows them.

    Args:
        core: The data set.
        split: ``"train"``, ``"val"`` or ``"test"``.
        keep: Decode files once and keep the bytes.

    Attributes:
        images: uint8 ``(N, C, H, W)``; ``None`` if they are read one by one.
        labels: Class indices, int64 ``(N,)``.
    """

    def __init__(self, core: DataModule, split: str, *, keep: bool = False) -> None:
        self.core, self.split = core, split
        self.labels = core.labels(split)
        self.images = core.pictures(split) if keep else None

    def __len__(self) -> int:
        return len(self.labels)

    def _files(self) -> PictureDataModule:
        assert isinstance(self.core, PictureDataModule), type(self.core)
        return self.core

    def picture(self, index: int) -> Tensor:
        """One picture, resized and cut, uint8 ``(C, H, W)``."""
        return self._files().picture(self.split, index) if self.images is None else self.images[index]

    def opened(self, index: int) -> Image.Image:
        """One picture as PIL has it, in its own size."""
        if not isinstance(self.core, MemoryDataModule):
            return self._files().opened(self.split, index)
        pixels = self.picture(index)
        return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())

    def identities(self) -> Iterator[bytes]:
        """What tells one sample from another: a file's path below the split's folder, or its pixels; its label."""
        for index, label in enumerate(self.labels.tolist()):
            if isinstance(self.core, MemoryDataModule):
                yield self.picture(index).contiguous().numpy().tobytes() + b"%d" % label
            else:
                yield self._files().identity(self.split, index)
