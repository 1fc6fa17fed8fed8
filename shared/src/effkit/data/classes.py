"""Names of a network's classes, from whoever knows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effkit.data.facts import FACTS, known_class_names
from effkit.errors import UserError, choose

__all__ = ["class_names"]

NAMED = tuple(name for name in FACTS if name == "imagenet" or FACTS[name].class_names)


def _asked_for(names: Sequence[str] | str) -> list[str]:
    if not isinstance(names, str):
        return [str(name) for name in names]
    path = Path(names).expanduser()
    if path.is_file():
        try:
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"class_names={names!r} is no text file: {error}") from error
    if "/" in names or "." in names:
        raise UserError(
            f"class_names={names!r} does not exist; give a text file with one name a line, or one of {', '.join(NAMED)}"
        )
    return list(known_class_names({"name": choose("class_names", names, NAMED)}))


def class_names(num_classes: int, names: Sequence[str] | str | None = None, known: Sequence[str] = ()) -> list[str]:
    """Names of a model's classes.

    Args:
        num_classes: Classes of the model.
        names: A list, a text file with one name a line, or a data set (``imagenet``, ``digits``, ``photos``,
            ``cifar10``, ``cifar100``). If not given, those of ``known``; else ImageNet's for 1000 classes; else
            ``class 0``, ``class 1``...
        known: What the model was trained on: ``Preprocessing.class_names``, or ``known_class_names`` of a config.

    Returns:
        ``num_classes`` names.

    Raises:
        UserError: If there is another number of names than classes.
    """
    if names is not None:
        found = _asked_for(names)
        if len(found) != num_classes:
            raise UserError(f"class_names has {len(found)} names, the model has {num_classes} classes")
        return found
    if not known and num_classes == 1000:
        known = known_class_names({"name": "imagenet"})
    return list(known) if len(known) == num_classes else [f"class {i}" for i in range(num_classes)]
