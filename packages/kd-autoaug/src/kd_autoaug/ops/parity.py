"""Our bits against Pillow's: every operator through Pillow's public functions, on pictures of all kinds and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kd_autoaug.ops.dispatch import apply
from kd_autoaug.ops.layers import Layer
from kd_autoaug.ops.operators import INTERPOLATIONS, Op
from kd_autoaug.ops.pil_picture import pillow

__all__ = ["SIZES", "Sweep", "pillow", "random_layer", "sample_pictures", "sweep"]

SIZES = ((1, 1), (1, 5), (4, 1), (2, 2), (3, 3), (5, 17), (32, 32), (33, 20), (3, 511), (511, 3), (64, 96), (224, 224))


def _image(picture: Tensor) -> Image.Image:
    array = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _tensor(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def sample_pictures(height: int, width: int, seed: int, channels: int = 3) -> dict[str, Tensor]:
    """Pictures of many kinds, uint8 ``(C, H, W)`` by name: a photograph, noise, one colour, two values, a gradient."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng([seed, height, width])
    photographs = load_sample_images().images
    photograph = Image.fromarray(photographs[seed % len(photographs)])
    left, top = (int(rng.integers(0, max(1, full - 1))) for full in (photograph.width // 2, photograph.height // 2))
    crop = photograph.crop((left, top, left + photograph.width // 2, top + photograph.height // 2))
    found = {
        "photograph": np.asarray(crop.resize((width, height))),
        "noise": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "constant": np.broadcast_to(rng.integers(0, 256, 3, dtype=np.uint8), (height, width, 3)),
        "binary": rng.choice(np.array([0, 255], np.uint8), (height, width, 3)),
        "two values": rng.choice(rng.integers(0, 256, 2, dtype=np.uint8), (height, width, 3)),
        "gradient": np.linspace(40, 200, height * width * 3).reshape(height, width, 3).astype(np.uint8),
    }
    pictures = {name: torch.from_numpy(np.array(array)).permute(2, 0, 1).contiguous() for name, array in found.items()}
    return {name: picture[:channels].contiguous() for name, picture in pictures.items()}


_RANGES: dict[Op, tuple[float, float]] = {
    Op.SHEAR_X: (-2.0, 2.0),
    Op.SHEAR_Y: (-2.0, 2.0),
    Op.ROTATE: (-400.0, 400.0),
    Op.BRIGHTNESS: (-0.5, 6.0),
    Op.COLOR: (-0.5, 6.0),
    Op.CONTRAST: (-0.5, 6.0),
    Op.SHARPNESS: (-0.5, 6.0),
    Op.POSTERIZE: (0.0, 11.0),
    Op.SOLARIZE: (-10.0, 300.0),
    Op.SOLARIZE_ADD: (-130.0, 300.0),
    Op.GAUSSIAN_BLUR: (-0.5, 6.0),
}
# Arguments at which something changes its nature: always among those that are tried.
_SPECIAL: dict[Op, tuple[float, ...]] = {
    Op.SHEAR_X: (0.0, 0.3, -0.3, 1.0, 100.0, -7000.0),
    Op.SHEAR_Y: (0.0, 0.3, -0.3, 1.0, 100.0, 7000.0),
    Op.TRANSLATE_X: (0.0, 0.5, -0.5, 1.0, 3.49999999, 1e-9, 1e6, -4e9),
    Op.TRANSLATE_Y: (0.0, 0.5, -0.5, -2.0, 3.50000001, -1e-9, -1e6, 4e9),
    Op.ROTATE: (0.0, 30.0, 45.0, 90.0, 180.0, 270.0, 360.0, -90.0, 135.0, 1e-7),
    Op.BRIGHTNESS: (0.0, 1.0, 0.1, 1.9),
    Op.COLOR: (0.0, 1.0, 0.1, 1.9),
    Op.CONTRAST: (0.0, 1.0, 0.1, 1.9),
    Op.SHARPNESS: (0.0, 1.0, 0.1, 1.9),
    Op.POSTERIZE: tuple(float(b) for b in range(9)),
    Op.SOLARIZE: (0.0, 1.0, 127.5, 255.0, 256.0),
    Op.SOLARIZE_ADD: (0.0, 110.0, 255.0),
    Op.GAUSSIAN_BLUR: (0.0, 0.1, 0.5, 1.0, 2.0, 1e-3, 2.0**0.5, 40.0),
}


def random_layer(op: Op, count: int, height: int, width: int, rng: np.random.Generator) -> Layer:
    """Arguments for ``count`` pictures: random ones and special ones, all three interpolations, boxes over the edge."""
    low, high = _RANGES.get(op, (-1.5 * max(height, width), 1.5 * max(height, width)))
    args = rng.uniform(low, high, count)
    special = _SPECIAL.get(op, ())
    for place in range(0, count, 2):
        if special:
            args[place] = special[int(rng.integers(len(special)))]
    corners = rng.integers(-3, [width + 3, height + 3, width + 6, height + 6], (count, 4))
    return Layer.of(
        torch.full((count,), int(op)),
        torch.from_numpy(args),
        torch.from_numpy(rng.choice(np.array(list(INTERPOLATIONS.values())), count)),
        torch.from_numpy(corners),
    )


@dataclass
class Sweep:
    """What a comparison found.

    Attributes:
        cases: Pictures compared.
        bytes: Bytes compared.
        differing: Bytes that differ.
        first: The first case that differs, in words; empty if none.
    """

    cases: int = 0
    bytes: int = 0
    differing: int = 0
    first: str = ""


def _cases(sizes: Iterable[tuple[int, int]], seed: int) -> Iterator[tuple[dict[str, Tensor], int, int, int]]:
    for number, (height, width) in enumerate(sizes):
        for channels in (3, 1):
            yield sample_pictures(height, width, seed + number, channels), height, width, channels


def sweep(
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    operators: Sequence[Op] = tuple(Op),
    backend: str = "auto",
    rounds: int = 1,
    seed: int = 0,
) -> Sweep:
    """Compare with Pillow: every size, operator and kind of picture, RGB and grey.

    Args:
        sizes: Heights and widths.
        operators: Which.
        backend: Of :func:`kd_autoaug.ops.apply`.
        rounds: Draws of arguments per case.
        seed: Of pictures and arguments.

    Returns:
        How many bytes differ, and where the first one is.
    """
    found = Sweep()
    for pictures, height, width, channels in _cases(sizes, seed):
        images = torch.stack(list(pictures.values()))
        for op in operators:
            for turn in range(rounds):
                rng = np.random.default_rng([seed, height, width, channels, int(op), turn])
                layer = random_layer(op, len(images), height, width, rng)
                fill = tuple(int(v) for v in rng.integers(0, 256, channels))
                ours = apply(images, [layer], fill=fill, backend=backend)
                for n, (name, picture) in enumerate(pictures.items()):
                    arg, how = float(layer.arg[n]), int(layer.interpolation[n])
                    theirs = _tensor(pillow(_image(picture), op, arg, how, fill, layer.box[n].tolist()))
                    differing = int((ours[n] != theirs).sum())
                    found.cases += 1
                    found.bytes += picture.numel()
                    found.differing += differing
                    if differing and not found.first:
                        where = f"{name}, {height}x{width}, {channels} channels, interpolation {how}"
                        found.first = f"{op.name.lower()}({arg!r}) on {where}: {differing} bytes"
    return found
