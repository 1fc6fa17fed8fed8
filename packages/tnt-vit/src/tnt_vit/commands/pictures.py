"""Photographs in, tensors out: the bundled pictures, the user's own files, and the evaluation preprocessing of a model.

The bundled photographs are files of scikit-learn and scikit-image (in their wheels, nothing is downloaded). The
preprocessing is timm's for evaluation: bicubic resize, centre crop, and the model's own normalisation, which for TNT is
mean = std = 0.5.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from effkit.errors import UserError
from tnt_vit.checkpoints.zoo import default_cfgs, registered_name
from tnt_vit.commands.classes import normalization

__all__ = ["BUNDLED", "Preprocessing", "find_pictures", "load_picture", "preprocessing"]

# Photograph -> the library whose wheel holds it. scikit-image's other pictures need a download and are left out.
BUNDLED = {
    "astronaut": "skimage",
    "chelsea": "skimage",
    "coffee": "skimage",
    "china": "sklearn",
    "flower": "sklearn",
}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"}


def _bundled(name: str) -> Image.Image:
    if BUNDLED[name] == "sklearn":
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)())


def find_pictures(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Check that pictures exist, and list those of folders.

    Args:
        sources: Names in :data:`BUNDLED` (``./china`` is a file of that name), files, and folders, whose picture files
            are taken in the order of their names.

    Returns:
        Sources for :func:`load_picture`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there are no sources, or no pictures in a folder.
    """
    found: list[str] = []
    for source in sources:
        name = os.fspath(source)
        path = Path(name).expanduser()
        if name in BUNDLED or path.is_file():
            found.append(name if name in BUNDLED else str(path))
        elif path.is_dir():
            inside = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
            if not inside:
                raise UserError(f"the folder {name!r} holds no pictures ({', '.join(sorted(_SUFFIXES))})")
            found += inside
        else:
            raise FileNotFoundError(
                f"the picture {name!r} does not exist; give a file, a folder, or one of {', '.join(BUNDLED)}"
            )
    if not found:
        raise UserError(f"images is empty: give files, folders, or names of bundled photographs ({', '.join(BUNDLED)})")
    return found


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring a picture to 8 bits a channel, without transparency."""
    if image.mode.startswith("I"):  # 16-bit grey; PIL would clip it at 255
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise UserError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


def load_picture(source: str | os.PathLike[str] | Image.Image, in_chans: int = 3) -> Image.Image:
    """Load a picture, upright (EXIF), on white where it is transparent; of an animation the first frame.

    Args:
        source: A name in :data:`BUNDLED`, a file, or a picture that is loaded already.
        in_chans: 3 for RGB, 1 for grey.

    Returns:
        A PIL picture of mode ``RGB`` or ``L``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no picture, is damaged or too large, or ``in_chans`` is another number.
    """
    if in_chans not in (1, 3):
        raise UserError(f"pictures have 3 channels (or 1 when grey), the model has in_chans={in_chans}")
    mode = "RGB" if in_chans == 3 else "L"
    if isinstance(source, Image.Image):
        return _eight_bit(source).convert(mode)
    name = os.fspath(source)
    if name in BUNDLED:
        return _bundled(name).convert(mode)
    if Path(name).is_dir():
        raise UserError(f"{name!r} is a folder, not a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as image:
                return _eight_bit(ImageOps.exif_transpose(image)).convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"the picture {name!r} does not exist") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"the picture {name!r} is too large: {error}; make it smaller first") from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"the file {name!r} is not a picture that PIL can read") from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # PIL raises all three for damaged files
        raise UserError(f"cannot read the picture {name!r}: {error}") from error


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing: resize the shorter side, centre crop, normalise.

    Attributes:
        size: Height and width of the result in pixels.
        crop_pct: Kept part of the resized picture; 0.9 resizes to 248 for a crop of 224.
        interpolation: Of the resize, e.g. ``bicubic``.
        mean: Per channel, pixels being 0..1.
        std: Per channel, likewise.
    """

    size: tuple[int, int]
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn a picture into the model's input ``(C, H, W)``."""
        transform: Any = create_transform(
            (len(self.mean), *self.size),
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
        )
        return transform(image)

    def batch(self, sources: Sequence[str | os.PathLike[str] | Image.Image]) -> Tensor:
        """Load pictures and stack them to ``(B, C, H, W)``."""
        return torch.stack([self(load_picture(source, len(self.mean))) for source in sources])

    def denormalize(self, x: Tensor) -> np.ndarray:
        """Turn inputs ``(..., C, H, W)`` back into pixels ``(..., H, W, C)`` in 0..1."""
        mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        return (x.detach().cpu().float() * std + mean).clamp(0, 1).movedim(-3, -1).numpy()


def preprocessing(
    model: nn.Module,
    *,
    img_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    data: Mapping[str, Any] | None = None,
) -> Preprocessing:
    """Preprocessing that a model was made for.

    Args:
        model: A TNT; one that was not built by name is taken to be normalised as the published ones.
        img_size: Another picture size than the model's own.
        crop_pct: Another crop; 1.0 keeps all of a square picture.
        data: The ``data`` config of the run that trained the model: its normalisation and crop win over the variant's.

    Raises:
        ValueError: If ``crop_pct`` is out of range or the model reads no photographs.
    """
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise UserError(f"crop_pct must be in (0, 1], got {crop_pct!r}")
    size: Any = img_size if img_size is not None else model.img_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    chans = int(model.in_chans)  # type: ignore[arg-type]
    if chans not in (1, 3):
        raise UserError(f"pictures have 3 channels (or 1 when grey), the model has in_chans={chans}")
    cfg: Any = (
        getattr(model, "pretrained_cfg", None) or default_cfgs[registered_name("tnt_s_patch16_224")].default.to_dict()
    )
    found = resolve_data_config({"input_size": (len(cfg["mean"]), *size)}, pretrained_cfg=cfg)
    if data:
        found.update(normalization(data))
    return Preprocessing(
        size=size,
        crop_pct=found["crop_pct"] if crop_pct is None else crop_pct,
        interpolation=found["interpolation"],
        mean=tuple(found["mean"][:chans]),
        std=tuple(found["std"][:chans]),
    )
