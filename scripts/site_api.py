"""The API pages of the site: which objects a package offers, read from its source without importing it."""

from __future__ import annotations

import ast
from pathlib import Path


def public_names(file: Path, module: str) -> dict[str, str]:
    """Names a module offers, each with the dotted path of where it is defined.

    A module offers what ``__all__`` lists; for a name that it imports from elsewhere, the import says where it is
    (those for type checkers only included), and for names attached lazily the mapping given to ``attach``.
    """
    offered: list[str] = []
    places: dict[str, str] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            places |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            if isinstance(node.value, ast.List):
                offered += ast.literal_eval(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "attach":
            attached = ast.literal_eval(node.args[1])
            offered += attached
            places |= {name: f"{home}.{name}" for name, home in attached.items()}
    return {name: places.get(name, f"{module}.{name}") for name in sorted(set(offered), key=str.lower)}


def api_page(name: str, source: Path) -> str:
    """Markdown of a distribution's API page: a directive for every public object.

    Args:
        name: Of the distribution.
        source: Its ``src`` folder.
    """
    package = source / name.replace("-", "_")
    names = public_names(package / "__init__.py", package.name)
    parts = [f"# {name}: the API"]
    if names:
        parts += [f"What `import {package.name}` offers. How it is used: [{name}](../packages/{name}.md)."]
        below_title = "\n    options:\n      heading_level: 2"  # of the core's modules objects come one level lower
        return "\n\n".join([*parts, *(f"::: {path}{below_title}" for path in names.values())]) + "\n"
    parts += [f"The core's modules. What they are for: [{name}](../packages/{name}.md)."]
    for file in sorted([*package.glob("*.py"), *package.glob("*/__init__.py")]):
        part = file.parent.name if file.name == "__init__.py" else file.stem
        module = f"{package.name}.{part}"
        names = {} if file.parent == package and file.stem.startswith("__") else public_names(file, module)
        own = {key: path for key, path in names.items() if path.startswith(f"{module}.")}
        if own:
            parts += [f"## `{module}`", *(f"::: {path}" for path in own.values())]
    return "\n\n".join(parts) + "\n"
