"""Measure how different tokens are after each block of any timm model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.commands.build import open_network, plain, set_up
from augshortcut.layers.shortcut import AugmentedShortcut
from augshortcut.metrics.bound import collapse_bound
from augshortcut.metrics.capture import block_names
from augshortcut.metrics.diversity import diversity
from augshortcut.plots.layers import draw_bound, draw_layers, draw_norms, draw_similarity
from effkit.arguments import check_arguments
from effkit.cli import run_dir
from effkit.data import find_pictures
from effkit.data.from_timm import preprocessing_of_timm
from effkit.diversity import as_tokens
from effkit.report import Report, Table
from effkit.watching import evaluating, hooked

__all__ = ["last_similarity", "layer_table", "path_norms", "run"]

PICTURES = ["astronaut", "chelsea", "coffee", "china"]


def layer_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Rows of dictionaries with the same keys as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Table(title, columns, [[row.get(key) for key in columns] for row in rows])


@torch.no_grad()
def path_norms(model: nn.Module) -> list[tuple[str, float]]:
    """Lipschitz constant of the paths of each sub-layer, by name."""
    return [(n, float(m.lipschitz())) for n, m in model.named_modules() if isinstance(m, AugmentedShortcut)]


def last_similarity(model: nn.Module, images: Tensor) -> Tensor:
    """Cosines between the tokens that the last block puts out for the first picture, ``(N, N)``."""
    name = block_names(model)[-1]
    kept: list[Tensor] = []

    def hook(_name: str) -> Any:
        return lambda module, args, output: kept.append(as_tokens(module, output, name)[0].detach().float())

    with evaluating(model), hooked(model, [name], hook):
        model(images[:1])
    unit = nn.functional.normalize(kept[-1], dim=1)
    return unit @ unit.T


def run(cfg: Any) -> Report:
    """Do what ``augshortcut diversity`` does.

    Args:
        cfg: The composed config.

    Returns:
        A table by layer and its pictures; with ``bound=true`` the theorem's bound of every block.

    Raises:
        ValueError: If pictures or model cannot be opened, or a name is not known.
    """
    options = plain(cfg, "metrics", "layers", "prefix_tokens", "outlier_ratio", "drop_outliers")
    check_arguments(diversity, options)
    device = set_up(cfg)
    found = open_network(cfg)
    kept = found.preprocessing or preprocessing_of_timm(found.model)
    images = kept.batch(find_pictures(list(cfg.images) or PICTURES)).to(device)
    model = found.model.to(device)
    rows = diversity(model, images, **options)
    folder = run_dir()
    note = f"{len(images)} pictures; {'trained' if found.trained else 'random'} weights"
    tables = [layer_table(rows, f"{found.name}: diversity by layer")]
    tables[0].note = f"{note}. Relative, absolute and directional measures need not agree."
    files = [draw_layers({found.name: rows}, folder / "diversity.png", title=f"Tokens by layer ({note})")]
    files.append(
        draw_similarity(
            last_similarity(model, images).cpu(), folder / "similarity.png", title=f"{found.name}: last block"
        )
    )
    norms = path_norms(model)
    if norms:
        files.append(draw_norms(norms, folder / "paths.png", title=f"{found.name}: Lipschitz constants of the paths"))
    data: dict[str, Any] = {"rows": rows}
    code = 0
    if cfg.bound:
        bound = collapse_bound(model, images)
        tables.append(layer_table(bound, f"{found.name}: the theorem's bound"))
        files.append(draw_bound(bound, folder / "bound.png", title=f"{found.name}: d(out) and its bound"))
        data["bound"], code = bound, 0 if all(row["holds"] for row in bound) else 1
    return Report("augshortcut diversity", tables, data=data, files=files, exit_code=code)
