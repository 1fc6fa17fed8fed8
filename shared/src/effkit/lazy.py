"""Packages that import fast: public names are loaded at first use, registrations wait for the library they register in.

``PACKAGE --help`` and tab completion import the package, and torch and timm take seconds. A paper's ``__init__``
therefore lists where its public names live, and says which module to import once timm is there (the one that registers
models).
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["after_import", "attach"]


def attach(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` for a package's ``__init__``.

    Args:
        package: The package's ``__name__``.
        names: Public name -> module of the package that has it.

    Returns:
        The three, in that order.

    Example:
        >>> __getattr__, __dir__, __all__ = attach("effkit", {"App": "effkit.cli"})
        >>> __getattr__("App").__name__
        'App'
    """

    def getter(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(names[name]), name)
        if package in sys.modules:
            setattr(sys.modules[package], name, value)
        return value

    return getter, lambda: sorted([*names, *getattr(sys.modules.get(package), "__dict__", {})]), sorted(names)


class _After(importlib.abc.MetaPathFinder):
    """Finds a library once, as everybody else would, and imports another module after it."""

    def __init__(self, library: str, module: str) -> None:
        self.library, self.module = library, module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.library:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_import(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(self.module)

            spec.loader.exec_module = then_import  # type: ignore[method-assign]
        return spec


def after_import(library: str, module: str) -> None:
    """Import ``module`` now if ``library`` is loaded, else right after somebody imports ``library``.

    Args:
        library: Top-level name, e.g. ``"timm"``.
        module: E.g. ``"tnt_vit.zoo"``, which registers models.
    """
    if library in sys.modules:
        importlib.import_module(module)
    else:
        sys.meta_path.insert(0, _After(library, module))
