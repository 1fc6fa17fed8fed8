"""Draw the paper's Figures 3 to 7 for some pictures and write them as PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from effkit.arguments import check_arguments
from effkit.cli import run_dir
from effkit.data import BUNDLED, Preprocessing, Unreadable, find_pictures
from effkit.errors import UserError, choose
from effkit.plots import save_png
from effkit.report import Report, Table
from tnt_vit.checkpoints.origin import RANDOM
from tnt_vit.commands.build import set_up
from tnt_vit.commands.opened import open_network
from tnt_vit.commands.options import options
from tnt_vit.commands.subject import Subject
from tnt_vit.layers.checks import check_architecture
from tnt_vit.model import TNT
from tnt_vit.plots.attention import check_cell, class_attention, inner_attention, sentence_attention
from tnt_vit.plots.drawing import check_blocks
from tnt_vit.plots.features import channel_tsne, feature_maps, word_maps

__all__ = ["FIGURES", "run", "visualize_report"]

# Name on the command line -> figure of the paper, function.
FIGURES: dict[str, tuple[str, Callable[..., Figure]]] = {
    "feature_maps": ("3a", feature_maps),
    "channel_tsne": ("3b", channel_tsne),
    "word_maps": ("4", word_maps),
    "inner_attention": ("5", inner_attention),
    "sentence_attention": ("6", sentence_attention),
    "class_attention": ("7", class_attention),
}


def _file_names(pictures: Sequence[str]) -> list[str]:
    """A distinct, harmless file name stem for every picture."""
    stems: list[str] = []
    for picture in pictures:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(picture).stem).strip(".") or "picture"
        number, name = 2, stem
        while name in stems:
            name, number = f"{stem}-{number}", number + 1
        stems.append(name)
    return stems


def visualize_report(
    model: TNT,
    pictures: Sequence[str | os.PathLike[str]] | None,
    out_dir: str | os.PathLike[str],
    figures: Sequence[str] | str = "all",
    *,
    pretrained: bool | str | os.PathLike[str] | None = None,
    seed: int = 0,
    img_size: int | tuple[int, int] | None = None,
    feature_size: int | tuple[int, int] | None = None,
    blocks: Sequence[int] | None = None,
    sentence: Sequence[int] | None = None,
    word: Sequence[int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Report:
    """Draw figures for pictures.

    Args:
        model: A TNT with or without trained weights; random ones are said so on every figure.
        pictures: Files, folders or names of bundled photographs; all bundled ones if not given.
        out_dir: Folder for ``PICTURE_FIGURE.png``, made if it is missing.
        figures: Keys of :data:`FIGURES`, or ``"all"``.
        pretrained: What the weights are, as given to ``create_model``; ``None`` finds out whether they are trained.
        seed: Of the choice of channels and of t-SNE.
        img_size: Picture size of all figures; the model's own if not given.
        feature_size: Picture size of the feature maps (1024 in the paper); ``img_size`` if not given.
        blocks: Block numbers from 1; each figure's own choice if not given.
        sentence: Row and column of the query sentence.
        word: Row and column of the query word.
        preprocessing: What the model expects of pictures; by default what ``pretrained`` tells, else the variant's.

    Returns:
        The files, and a table of them. Pictures that cannot be read are left out and named, see
        :class:`effkit.data.Unreadable`; the exit code is 1 then.

    Raises:
        FileNotFoundError: If a picture is missing; nothing has been drawn then.
        ValueError: If an argument is out of range.
    """
    given = {"figures": figures, "seed": seed, "img_size": img_size, "feature_size": feature_size}
    check_arguments(visualize_report, {**given, "blocks": blocks})  # the other two say more of themselves
    names = list(FIGURES) if figures in ("all", ["all"]) else [figures] if isinstance(figures, str) else list(figures)
    for name in names:
        choose("figures", name, list(FIGURES))
    if not names or len(set(names)) != len(names):
        raise UserError(f"figures={names} must name each figure once; choose from {', '.join(FIGURES)}")
    _check_sizes(model, img_size, feature_size)
    _check_places(model, names, img_size, blocks, sentence, word)
    asked: dict[str, dict[str, Any]] = {
        "feature_maps": {"blocks": blocks, "seed": seed},
        "channel_tsne": {"seed": seed},
        "word_maps": {"blocks": blocks},
        "inner_attention": {"blocks": blocks, "sentence": sentence, "word": word},
        "sentence_attention": {"blocks": blocks, "sentence": sentence},
        "class_attention": {},
    }
    sources = find_pictures(list(BUNDLED) if pictures is None else pictures)
    rows: list[list[Any]] = []
    files: list[Path] = []
    weights, unreadable = "", Unreadable()
    known: dict[str, Any] = {"pretrained": pretrained, "preprocessing": preprocessing}
    for source, stem in zip(sources, _file_names(sources), strict=True):
        read = unreadable.read([source], lambda one: Subject.of(model, one, img_size=img_size, **known))
        if not read:
            continue
        subject = read[0][1]
        weights = subject.weights
        for name in names:
            number, function = FIGURES[name]
            seen = subject
            if name == "feature_maps" and feature_size is not None:
                seen = Subject.of(model, source, img_size=feature_size, **known)
            file = save_png(function(seen, **asked[name]), Path(out_dir) / f"{stem}_{name}.png", photos=True)
            files.append(file)
            rows.append([Path(source).name, f"Fig. {number}", name, "x".join(map(str, seen.x.shape[2:])), file.name])
    unreadable.check()
    lines = [f"{RANDOM}: give model.pretrained=PATH to see what a trained network does"] if weights == RANDOM else []
    lines += unreadable.lines()
    table = Table(f"Figures of the paper ({weights})", ["picture", "paper", "figure", "pixels", "file"], rows)
    data = {"weights": weights, "random_weights": weights == RANDOM, "folder": str(out_dir)}
    data["unreadable"] = unreadable.reasons
    return Report("tnt-vit visualize", [table], data=data, files=files, lines=lines, exit_code=unreadable.exit_code)


def _check_sizes(model: TNT, img_size: Any, feature_size: Any) -> None:
    """Refuse sizes that are no multiple of the patch, by the name they were given under."""
    if not isinstance(model, TNT):
        return  # Subject says so
    for field, size in (("img_size", img_size), ("feature_size", feature_size)):
        if size is None:
            continue
        pair = (size, size) if isinstance(size, int) else tuple(size)
        try:
            check_architecture(img_size=pair, patch_size=model.patch_size)
        except UserError as error:
            line = str(error).replace("img_size", field, 1).replace("patch_size=", "model.patch_size=")
            raise UserError(line) from None


def _check_places(
    model: TNT,
    figures: Sequence[str],
    img_size: int | Sequence[int] | None,
    blocks: Sequence[int] | None,
    sentence: Sequence[int] | None,
    word: Sequence[int] | None,
) -> None:
    """Refuse blocks, sentences and words that the figures to be drawn do not have, before the first is drawn."""
    if not isinstance(model, TNT):
        return
    if blocks is not None:
        check_blocks(blocks, range(1, model.depth + 1))
    if blocks is not None and "inner_attention" in figures and model.tnt_blocks:
        check_blocks(blocks, model.tnt_blocks, " (blocks that have an inner part)")
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size or model.img_size
    grid = (height // model.patch_size[0], width // model.patch_size[1])
    for field, value, cells in (("sentence", sentence, grid), ("word", word, model.pixel_embed.word_grid)):
        if value is not None:
            check_cell(field, value, cells)


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit visualize`` does.

    Args:
        cfg: The composed config.

    Raises:
        FileNotFoundError: If a picture is missing.
        ValueError: If an argument is out of range.
    """
    device = set_up(cfg)
    found = open_network(cfg)
    model: Any = found.model.to(device).eval()
    asked = options(cfg, "images", "figures", "img_size", "feature_size", "blocks", "sentence", "word", "seed")
    asked |= {"pretrained": found.weights, "preprocessing": found.preprocessing}
    return visualize_report(model, asked.pop("images") or None, run_dir(), **asked)
