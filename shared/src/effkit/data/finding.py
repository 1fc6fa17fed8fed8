"""Which files are pictures, and which folders are classes: one answer for training, evaluation and prediction.

Names that begin with a dot are never looked at: ``.ipynb_checkpoints`` is no class, ``._cat.jpg`` no picture.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from effkit.data.pictures import BUNDLED
from effkit.errors import UserError

__all__ = ["SUFFIXES", "class_folders", "class_pictures", "find_pictures", "is_picture"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"})


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture: a known suffix, and no dot in front."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def class_folders(split: Path) -> list[str]:
    """Return the class folders' names in the order of their labels; hidden folders are none.

    Raises:
        UserError: If the folder is missing or holds no folder.
    """
    if not split.is_dir():
        raise UserError(f"the folder {split} is missing: pictures are expected as {split / 'CLASS' / 'NAME.jpg'}")
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(
            f"the folder {split} has no class folders: pictures are expected as {split / 'CLASS' / 'NAME.jpg'}"
        )
    return names


def class_pictures(split: Path, names: Sequence[str]) -> list[tuple[str, int]]:
    """List the picture files of class folders, in torchvision's order: by class, folder and name.

    Args:
        split: The folder that holds the class folders.
        names: Class folders, in the order of their labels.

    Returns:
        Path and label of each picture.

    Raises:
        UserError: If a class folder holds no picture.
    """
    found: list[tuple[str, int]] = []
    empty = []
    for label, name in enumerate(names):
        before = len(found)
        for folder, files in sorted(_walk(os.path.join(split, name))):
            found += [(os.path.join(folder, file), label) for file in sorted(files) if is_picture(file)]
        if len(found) == before:
            empty.append(name)
    if empty:
        raise UserError(
            f"Found no valid file for the classes {', '.join(empty)} in {split}. "
            f"Supported extensions are: {', '.join(sorted(SUFFIXES))}"
        )
    return found


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    for folder, inside, files in os.walk(top, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]  # os.walk goes on into what is left here
        yield folder, files


def find_pictures(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Check that pictures exist, and list those of folders and patterns.

    Args:
        sources: Names in :data:`effkit.data.pictures.BUNDLED` (``./china`` is a file of that name), files, folders,
            whose picture files are taken in the order of their names, and patterns such as ``'photos/*.jpg'``.

    Returns:
        Sources for :func:`effkit.data.pictures.load_picture`.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If there are no sources, no pictures in a folder or of a pattern, or a source is a web address.
    """
    found: list[str] = []
    for source in sources:
        name = os.fspath(source)
        path = Path(name).expanduser()
        if name in BUNDLED or path.is_file():
            found.append(name if name in BUNDLED else str(path))
        elif path.is_dir():
            inside = sorted(str(p) for p in path.iterdir() if is_picture(p.name) and p.is_file())
            if not inside:
                raise UserError(f"the folder {name!r} holds no pictures ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
            raise UserError(f"the picture {name!r} is a web address: download it and give the file")
        elif glob.has_magic(name):
            inside = sorted(p for p in glob.glob(str(path), recursive=True) if is_picture(Path(p).name))
            if not inside:
                raise UserError(f"no picture fits {name!r} ({', '.join(sorted(SUFFIXES))})")
            found += inside
        else:
            raise FileNotFoundError(
                f"the picture {name!r} does not exist; give a file, a folder, or one of {', '.join(BUNDLED)}"
            )
    if not found:
        raise UserError(f"images is empty: give files, folders, or names of bundled photographs ({', '.join(BUNDLED)})")
    return found
