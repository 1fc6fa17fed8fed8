"""``kd-autoaug preview``: look before you train, at every operator and magnitude and at views of a policy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from effkit.arguments import check_arguments, renamed
from effkit.cli import run_dir
from effkit.data import Unreadable
from effkit.device import set_threads
from effkit.errors import UserError
from effkit.lightning.optim import plain_options
from effkit.report import Report, Table
from kd_autoaug.analysis.photos import BUNDLED, load_photos
from kd_autoaug.analysis.views import operator_views, policy_views
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.commands.build import chosen_policy
from kd_autoaug.ops.operators import ARGUMENTS, operator
from kd_autoaug.plots.preview import plot_operators, plot_policy_views

__all__ = ["plot_policy", "preview_report", "run"]

_MOST_ROWS, _MOST_COLUMNS = 20, 10


def run(cfg: Any) -> Report:
    """``kd-autoaug preview``.

    Args:
        cfg: Composed from ``preview.yaml``.

    Raises:
        UserError: If a value does not fit.
    """
    options = plain_options(cfg)
    set_threads(options["threads"])
    keys = ("operators", "magnitudes", "space", "extrapolate", "size", "views", "seed")
    check_arguments(preview_report, {k: options[k] for k in keys})
    images = options["images"] or [name for name in BUNDLED if name in ("chelsea", "china")]
    return preview_report(images, run_dir(), policy=chosen_policy(cfg), **{k: options[k] for k in keys})


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
    drawn = policy_views(pictures, policy, views=views, seed=seed)
    said = [[v.picture, v.view, v.operators] for row in drawn for v in row]
    return plot_policy_views(pictures, drawn, path, title or policy.name), said


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
        The files, and what was drawn for each view. Pictures that cannot be read are left out and named, see
        :class:`effkit.data.Unreadable`; the exit code is 1 then.

    Raises:
        UserError: If no picture can be read, an operator or magnitude is not in the space, or a number is too large.
    """
    if not magnitudes or len(magnitudes) > _MOST_COLUMNS:
        raise UserError(f"magnitudes={list(magnitudes)} must hold 1 to {_MOST_COLUMNS} numbers: one column each")
    if not 1 <= views <= _MOST_COLUMNS:
        raise UserError(f"views={views!r} must be in 1..{_MOST_COLUMNS}: one column each")
    if operators is None:
        with renamed({"m": "magnitudes"}):
            every = Policy.random(n=1, m=float(magnitudes[0]), space=space, extrapolate=extrapolate)
        operators = every.operators()
    with renamed({"operator": "operators"}):
        names = [operator(o).name.lower() for o in operators]
    if not names or len(names) > _MOST_ROWS:
        raise UserError(f"operators={names} must name 1 to {_MOST_ROWS} operators: one row each")
    unreadable = Unreadable()
    pictures = load_photos(images, size, unreadable)
    unreadable.check()
    shown = dict(list(pictures.items())[:_MOST_ROWS])
    folder, files, lines = Path(folder), [], []
    for stem, picture in shown.items():
        with renamed({"m": "magnitudes", "operator": "operators"}):
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
    data: dict[str, Any] = {
        "space": space,
        "operators": names,
        "magnitudes": list(magnitudes),
        "size": size,
        "seed": seed,
    }
    data["policy"] = None if policy is None else policy.name
    data["unreadable"], lines = unreadable.reasons, [*lines, *unreadable.lines()]
    return Report("kd-autoaug preview", tables, data=data, files=files, lines=lines, exit_code=unreadable.exit_code)


def _file(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip(".") or "picture"
