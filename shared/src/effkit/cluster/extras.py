"""Libraries that come with an extra: imported when asked for, and named with the command that installs them."""

from __future__ import annotations

import importlib
from typing import Any

from effkit.errors import UserError

__all__ = ["library"]


def library(what: str, module: str, extra: str) -> Any:
    """Import a library.

    Args:
        what: What needs it, as the user wrote it: ``"hydra/launcher=slurm"``.
        module: Its name.
        extra: The extra of effkit that brings it.

    Raises:
        UserError: If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        needed = module.split(".")[-1 if module.startswith("hydra_plugins.") else 0]
        raise UserError(f"{what} needs {needed}, which is not installed: pip install 'effkit[{extra}]'") from error
