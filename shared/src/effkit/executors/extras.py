"""Libraries that come with an extra: imported when asked for, and named with the command that installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from effkit.errors import UserError

__all__ = ["library"]


def library(executor: str, module: str, extra: str) -> ModuleType:
    """Import a library.

    Args:
        executor: The executor that needs it.
        module: Its name.
        extra: The extra of effkit that brings it.

    Raises:
        UserError: If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(
            f"executor={executor} needs {module}, which is not installed: pip install 'effkit[{extra}]'"
        ) from error
