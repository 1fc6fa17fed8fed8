"""Measure a trained TNT on the test split of a data set."""

from __future__ import annotations

from typing import Any

from effkit.data import DataModule, create_data
from effkit.errors import UserError
from effkit.lightning import evaluation_report
from effkit.report import Report
from effkit.runs import given_words
from tnt_vit.commands.build import build_data_and_model, set_up
from tnt_vit.commands.opened import Opened, open_elsewhere
from tnt_vit.commands.options import options

__all__ = ["open_both", "run"]


def open_both(cfg: Any) -> tuple[DataModule, Opened]:
    """The data and the network that a command's words name, the pictures prepared as the network expects them.

    Args:
        cfg: Composed config with ``run``, ``weights``, ``exported``, ``model`` and ``data``.

    Raises:
        ValueError: If data and model do not fit together.
    """
    found = open_elsewhere(cfg)
    if found is None:
        data, model = build_data_and_model(cfg, fresh_head=False)
        return data, Opened(model, cfg.model.name, cfg.model.pretrained, data.preprocessing)
    args = options(cfg, "data")["data"]
    if found.run is not None:
        return found.run.open_data(args, given_words()), found
    data = create_data(**args)
    if data.num_classes != found.model.num_classes:
        raise UserError(
            f"exported={str(found.weights)!r} tells {found.model.num_classes} classes apart and data={data.name} has "
            f"{data.num_classes}: evaluate on the classes it was trained on"
        )
    assert found.preprocessing is not None
    data.use(found.preprocessing)
    return data, found


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit eval`` does.

    Args:
        cfg: The composed config.

    Raises:
        ValueError: If data and model do not fit together.
    """
    set_up(cfg)
    data, found = open_both(cfg)
    lines = [] if found.weights else ["random weights: give model.pretrained=PATH"]
    return evaluation_report(
        "tnt-vit eval", cfg, found.model, data, name=found.name, printed=cfg.expected.top1, lines=lines
    )
