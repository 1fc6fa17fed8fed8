"""Names of classes, and how a data set's pictures were normalised; needs the data set itself only where it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effkit.errors import UserError, choose

__all__ = ["class_names", "normalization"]


def _imagenet() -> list[str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(i) for i in range(info.num_classes())]


def _of_data(data: Mapping[str, Any]) -> list[str] | None:
    """Class names of a ``data`` config; ``None`` if they are stored with pictures that are not here."""
    from effkit.data import CIFAR10, create_data
    from effkit.data.folders import class_folders

    name, root = str(data.get("name")), data.get("root")
    if name in ("digits", "photos"):
        return create_data(name).class_names
    if name == "imagenet":
        return _imagenet()
    if name == "cifar10":
        return list(CIFAR10.classes)
    if name == "imagefolder" and root and (Path(root).expanduser() / "train").is_dir():
        return class_folders(Path(root).expanduser() / "train")
    return None


def _asked_for(names: Sequence[str] | str) -> list[str]:
    if not isinstance(names, str):
        return [str(name) for name in names]
    path = Path(names).expanduser()
    if path.is_file():
        try:
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"class_names={names!r} is no text file: {error}") from error
    known = ["imagenet", "digits", "photos", "cifar10"]
    if "/" in names or "." in names:
        raise UserError(
            f"class_names={names!r} does not exist; give a text file with one name a line, or one of {', '.join(known)}"
        )
    return _of_data({"name": choose("class_names", names, known)}) or []


def class_names(
    num_classes: int, names: Sequence[str] | str | None = None, data: Mapping[str, Any] | None = None
) -> list[str]:
    """Names of a model's classes.

    Args:
        num_classes: Classes of the model.
        names: A list, a text file with one name a line, or a data set (``imagenet``, ``digits``, ``photos``,
            ``cifar10``). If not given, those of ``data``; else ImageNet's for 1000 classes; else
            ``class 0``, ``class 1``...
        data: The ``data`` config of the run that trained the model.

    Returns:
        ``num_classes`` names.

    Raises:
        ValueError: If there is another number of names than classes.
    """
    if names is not None:
        found = _asked_for(names)
        if len(found) != num_classes:
            raise UserError(f"class_names has {len(found)} names, the model has {num_classes} classes")
        return found
    known = _of_data(data) if data else (_imagenet() if num_classes == 1000 else None)
    if known is None or len(known) != num_classes:
        return [f"class {i}" for i in range(num_classes)]
    return known


def normalization(data: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing of the pictures a run was trained on.

    Args:
        data: The run's ``data`` config.

    Returns:
        ``mean``, ``std`` (one per channel) and ``crop_pct``.
    """
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    from effkit.data import CIFAR10, CIFAR100

    name = data.get("name")
    half = (0.5, 0.5, 0.5)
    usual = {"digits": (half, half), "photos": (half, half), "cifar10": CIFAR10.defaults, "cifar100": CIFAR100.defaults}
    found: dict[str, Any] = {"crop_pct": float(data.get("crop_pct") or 1.0)}
    for key, default in zip(
        ("mean", "std"), usual.get(str(name), (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)), strict=True
    ):
        value = data.get(key)
        if value is None:
            value = default
        found[key] = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
    return found
