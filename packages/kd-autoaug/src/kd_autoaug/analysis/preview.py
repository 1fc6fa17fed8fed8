"""Look before you train: every operator at every magnitude on one picture, and what a policy makes of several."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.report import Report, Table, figure
from kd_autoaug.analysis.gallery import show
from kd_autoaug.analysis.photos import load_photos, save_photo_png
from kd_autoaug.analysis.result import magnitude_name
from kd_autoaug.ops.operators import ARGUMENTS, Op, operator

if TYPE_CHECKING:
    from kd_autoaug.policies.policy import Policy

__all__ = ["operator_views", "plot_operators", "plot_policy", "preview_report"]

_MOST_ROWS, _MOST_COLUMNS = 20, 10


def operator_views(
    picture: Tensor,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    space: str,
    *,
    seed: int = 0,
    extrapolate: bool = False,
) -> Tensor:
    """One picture under every operator at every magnitude, with the same random numbers at each magnitude.

    Args:
        picture: uint8 ``(C, H, W)``.
        operators: Names such as ``"shear_x"``.
        magnitudes: In the units of the space.
        space: What a magnitude means.
        seed: Of the signs, places and interpolations drawn.
        extrapolate: Allow magnitudes outside the space.

    Returns:
        uint8 ``(operators, magnitudes, C, H, W)``.

    Raises:
        UserError: If an operator or magnitude is not in the space.
    """
    from kd_autoaug.augment import BatchAugment
    from kd_autoaug.policies.policy import Policy

    rows = []
    for row, name in enumerate(operators):
        views = []
        for m in magnitudes:
            policy = Policy.random(ops=[name], n=1, m=m, space=space, prob=1.0, extrapolate=extrapolate)
            # The row's number is the key: operators differ in what they draw, magnitudes do not.
            views.append(BatchAugment(policy, seed)(picture[None], torch.tensor([row]), 0)[0])
        rows.append(torch.stack(views))
    return torch.stack(rows)


def plot_operators(
    views: Tensor,
    operators: Sequence[str],
    magnitudes: Sequence[float],
    path: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Draw the grid, operators down, magnitudes across.

    Args:
        views: Of :func:`operator_views`.
        operators: Their names.
        magnitudes: Their magnitudes.
        path: The PNG.
        title: Above the grid.
    """
    rows, columns = len(operators), len(magnitudes)
    with figure(1.15 + 0.95 * columns, 0.55 + 0.95 * rows) as fig:
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = fig.subplots(rows, columns, squeeze=False)
        for i, name in enumerate(operators):
            for j, m in enumerate(magnitudes):
                show(axes[i, j], views[i, j])
                if i == 0:
                    axes[i, j].set_title(f"M={magnitude_name(m)}", fontsize=9)
            axes[i, 0].set_ylabel(name.replace("_", " "), fontsize=9, rotation=0, ha="right", va="center")
        return save_photo_png(fig, path)


def plot_policy(
    pictures: Mapping[str, Tensor],
    policy: Policy,
    path: str | os.PathLike[str],
    *,
    views: int = 8,
    seed: int = 0,
    title: str = "",
) -> tuple[Path, list[list[Any]]]:
    """Draw random views of pictures under a policy, one row per picture, the picture itself first.

    Args:
        pictures: uint8 ``(C, H, W)`` by name, all of one size.
        policy: The policy.
        path: The PNG.
        views: Views of each picture.
        seed: Of the draws.
        title: Above the grid; the policy's name if not given.

    Returns:
        The path, and one row ``[picture, view, operators]`` per view.
    """
    from kd_autoaug.augment import BatchAugment

    batch, names = torch.stack(list(pictures.values())), list(pictures)
    index = torch.arange(len(batch))
    augment = BatchAugment(policy, seed)
    drawn: list[Tensor] = []
    said: list[list[Any]] = []
    for view in range(views):
        seen, layers = augment(batch, index, view, return_layers=True)
        drawn.append(seen)
        for i, name in enumerate(names):
            ops = [Op(int(layer.op[i])).name.lower() for layer in layers]
            said.append([name, view, ", ".join(o for o in ops if o != "identity") or "identity"])
    with figure(0.3 + 0.98 * (views + 1), 0.5 + 1.12 * len(batch)) as fig:
        fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)  # type: ignore[union-attr, call-arg]
        fig.suptitle(title or policy.name, x=0.01, ha="left", fontsize=11)
        axes = fig.subplots(len(batch), views + 1, squeeze=False)
        for i in range(len(batch)):
            show(axes[i, 0], batch[i])
            axes[i, 0].set_xlabel("picture", fontsize=7, labelpad=1)
            for view in range(views):
                show(axes[i, view + 1], drawn[view][i])
                ops = said[view * len(batch) + i][2].replace("_", " ").replace(", ", "\n")
                axes[i, view + 1].set_xlabel(ops, fontsize=6.5, labelpad=1, linespacing=0.95)
        return save_photo_png(fig, path), sorted(said, key=lambda row: names.index(row[0]))


def preview_report(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    operators: Sequence[str] | None = None,
    magnitudes: Sequence[float] = (2, 4, 6, 8, 10),
    space: str = "tf_tpu",
    extrapolate: bool = False,
    size: int = 96,
    views: int = 8,
    seed: int = 0,
) -> Report:
    """What ``kd-autoaug preview`` does: PNG grids of operators and of a policy's views.

    Args:
        images: Files, folders, or names of bundled photographs.
        folder: Where the pictures go.
        policy: Also draw random views under it.
        operators: Names; ``None`` takes those of the space.
        magnitudes: In the units of the space.
        space: What a magnitude means.
        extrapolate: Allow magnitudes outside the space.
        size: Side in pixels to which pictures are resized and cropped: what translations in pixels are seen against.
        views: Views of each picture under the policy.
        seed: Of the draws.

    Returns:
        The files, and what was drawn for each view.

    Raises:
        UserError: If a picture cannot be read, an operator or magnitude is not in the space, or a number is too large.
    """
    from kd_autoaug.policies.policy import Policy

    if not magnitudes or len(magnitudes) > _MOST_COLUMNS:
        raise UserError(f"magnitudes={list(magnitudes)} must hold 1 to {_MOST_COLUMNS} numbers: one column each")
    if not 1 <= views <= _MOST_COLUMNS:
        raise UserError(f"views={views!r} must be in 1..{_MOST_COLUMNS}: one column each")
    if operators is None:
        every = Policy.random(n=1, m=float(magnitudes[0]), space=space, extrapolate=extrapolate)
        operators = every.operators()
    names = [operator(o).name.lower() for o in operators]
    if not names or len(names) > _MOST_ROWS:
        raise UserError(f"operators={names} must name 1 to {_MOST_ROWS} operators: one row each")
    pictures = load_photos(images, size)
    shown = dict(list(pictures.items())[:_MOST_ROWS])
    folder, files, lines = Path(folder), [], []
    for stem, picture in shown.items():
        grid = operator_views(picture, names, magnitudes, space, seed=seed, extrapolate=extrapolate)
        title = f"{stem}, {size} pixels, space {space}"
        files.append(plot_operators(grid, names, magnitudes, folder / f"operators_{_file(stem)}.png", title))
    meanings = Table(
        f"Operators of space {space}",
        ["operator", "argument"],
        [[n, ARGUMENTS[operator(n)]] for n in names],
    )
    tables = [meanings]
    if policy is not None:
        path, said = plot_policy(shown, policy, folder / "policy.png", views=views, seed=seed)
        files.append(path)
        tables.append(Table(f"Views under {policy.name}", ["picture", "view", "operators"], said))
    if len(shown) < len(pictures):
        lines.append(f"Only the first {len(shown)} of {len(pictures)} pictures were drawn.")
    data = {"space": space, "operators": names, "magnitudes": list(magnitudes), "size": size, "seed": seed}
    data["policy"] = None if policy is None else policy.name
    return Report("kd-autoaug preview", tables, data=data, files=files, lines=lines)


def _file(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip(".") or "picture"
