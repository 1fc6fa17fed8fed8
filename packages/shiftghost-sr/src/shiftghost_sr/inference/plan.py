"""Which file goes where: every collision and every picture that would be overwritten is told before any work."""

from __future__ import annotations

import os
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from effkit.data.finding import find_pictures
from effkit.data.pictures import BUNDLED
from effkit.errors import UserError, choose
from effkit.outputs import check_output_file, check_output_folder
from shiftghost_sr.images.writing import WRITABLE, suffix_for

__all__ = ["FIELDS", "Errand", "plan_errands"]

FIELDS = ("stem", "ext", "scale")
"""What a ``name`` may hold in braces: the file's name without its ending, the ending without its dot, the factor."""


@dataclass(frozen=True)
class Errand:
    """One picture and where its enlarged form goes.

    Attributes:
        source: A file, or the name of a bundled photograph.
        target: The file to write.
    """

    source: str
    target: Path


def plan_errands(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    scale: int,
    name: str = "{stem}",
    suffix: str | None = None,
) -> tuple[list[Errand], Path]:
    """Say for every picture where it goes.

    Args:
        sources: Files, folders, patterns and names of bundled photographs. Folders are not searched deeper, so an
            output folder may lie inside an input folder.
        out: A folder; or a file, where there is one picture and this ends as a picture does.
        scale: For ``name``.
        name: Of the files in the folder, without ending, see :data:`FIELDS`.
        suffix: Their ending; ``None``: as each picture's, or ``.png`` where that cannot be written.

    Returns:
        The errands in the order of the pictures, and the folder they go to.

    Raises:
        FileNotFoundError: If there is no such picture.
        UserError: If two pictures would go to one file, a picture would be overwritten, or ``out`` cannot be written.
    """
    sources = list(sources)
    pictures = find_pictures(sources)
    if suffix is not None:
        choose("suffix", suffix, WRITABLE)
    _check_name(name)
    target = Path(out).expanduser()
    alone = len(pictures) == 1 and len(sources) == 1 and not Path(os.fspath(sources[0])).expanduser().is_dir()
    if alone and target.suffix.lower() in WRITABLE and not target.is_dir():
        if suffix is not None and target.suffix != suffix:
            raise UserError(f"suffix={suffix!r} contradicts the output {os.fspath(out)!r}: leave suffix= out")
        errands, folder = [Errand(pictures[0], check_output_file("out", out))], target.parent
    else:
        folder = check_output_folder("out", out)
        errands = [Errand(source, folder / _named(source, name, suffix, scale)) for source in pictures]
    _check_collisions(errands)
    return errands, folder


def _check_name(name: str) -> None:
    try:
        used = [field for _, field, _, _ in string.Formatter().parse(name) if field is not None]
    except ValueError as error:
        raise UserError(f"name={name!r} cannot be used: {error}") from error
    for field in used:
        choose("name, in braces", field, FIELDS)
    if "/" in name or os.sep in name or not name.strip("."):
        raise UserError(f"name={name!r} must be the name of a file, e.g. '{{stem}}_x{{scale}}'")
    if "stem" not in used:
        raise UserError(f"name={name!r} would be the same for every picture: it needs {{stem}}")


def _named(source: str, name: str, suffix: str | None, scale: int) -> str:
    path = Path(f"{source}.png" if source in BUNDLED else source)
    ending = suffix_for(path) if suffix is None else suffix
    return name.format(stem=path.stem, ext=path.suffix.removeprefix("."), scale=scale) + ending


def _check_collisions(errands: list[Errand]) -> None:
    taken: dict[str, str] = {}
    inputs = {os.path.realpath(e.source): e.source for e in errands if e.source not in BUNDLED}
    for errand in errands:
        place = os.path.realpath(errand.target)
        if place in inputs:
            raise UserError(
                f"out: {str(errand.target)!r} is one of the pictures to be enlarged, and would be overwritten: give "
                "another folder, or name='{stem}_x{scale}'"
            )
        if place in taken:
            raise UserError(
                f"out: {taken[place]!r} and {errand.source!r} would both be written to {str(errand.target)!r}: "
                "use name='{stem}_{ext}', or another folder for one of them"
            )
        taken[place] = errand.source
