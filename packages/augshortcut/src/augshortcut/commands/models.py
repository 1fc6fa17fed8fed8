"""Models that can have augmented shortcuts."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

from augshortcut.injection.registry import supported_blocks
from augshortcut.models.zoo import OFFICIAL, OWN, list_models
from effkit.errors import UserError, nearest
from effkit.report import Report, Table

__all__ = ["models_report", "run"]


def models_report(pattern: str = "*") -> Report:
    """List names.

    Args:
        pattern: As of a shell: ``aug_swin*``.

    Raises:
        UserError: If nothing matches.
    """
    names = list_models()
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        hint = nearest(pattern.strip("*"), names)
        raise UserError(f"pattern={pattern!r} matches none of {len(names)} models; try {hint or 'aug_*'}")
    kinds = {name: "official code" if name in OFFICIAL else "ours" if name[4:] in OWN else "timm" for name in found}
    rows = [[name, kinds[name]] for name in found]
    counts = Counter(kinds.values())
    note = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    blocks = Table("Block types that are known", ["type"], [[name] for name in supported_blocks()])
    return Report(
        "augshortcut list-models", [Table("Models", ["name", "base"], rows, note), blocks], data={"names": found}
    )


def run(cfg: Any) -> Report:
    """Do what ``augshortcut list-models`` does.

    Args:
        cfg: The composed config.

    Raises:
        UserError: If nothing matches.
    """
    return models_report(cfg.pattern)
