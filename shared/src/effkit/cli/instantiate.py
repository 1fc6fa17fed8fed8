"""Objects from configs: the one place that instantiates, limited to an allow-list of packages."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

from effkit.cli.explain import one_line
from effkit.cli.running import RUNNING
from effkit.errors import UserError

__all__ = ["build"]


# What a config may name in `_target_`; the package of the running command is added.
BUILDABLE = ("effkit.", "torch.nn.", "torch.optim.", "torch.utils.data.", "torchvision.", "timm.", "lightning.")


def build(cfg: Any, *args: Any, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Instantiate what a config names in ``_target_``, if it comes from a package that may be named there.

    The one place that instantiates: a config somebody sends you can build layers, data and callbacks, and call nothing
    else. Errors of the constructor come out as they were raised.

    Args:
        cfg: A config node with ``_target_``.
        *args: Positional arguments of the target.
        allow: Further prefixes of targets, e.g. ``"my_models."``.
        **kwargs: Keyword arguments of the target; they win over those in the config.

    Returns:
        The object.

    Raises:
        UserError: If a ``_target_`` is not allowed, does not exist, or does not take the arguments given.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    allowed = (*BUILDABLE, *(f"{package}." for package in RUNNING), *allow)
    targets = dict(_targets(cfg, ""))
    if "_target_" not in targets:
        raise UserError(f"_target_ must be given: a class to build, from {_listed(allowed)}")
    for key, target in targets.items():
        _check(key, target, allowed)
    try:
        return instantiate(cfg, *args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, TypeError) and cause.__traceback__ is not None and cause.__traceback__.tb_next is None:
            # Raised by the call itself: an argument too many, or one missing.
            raise UserError(f"{_path(cfg, '_target_')}={cfg['_target_']}: {one_line(cause)}") from error
        if cause is not None:
            raise cause from None
        raise


def _targets(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    from omegaconf import DictConfig, ListConfig

    if isinstance(node, (dict, DictConfig)):
        pairs = [(str(k), v) for k, v in node.items()]
    elif isinstance(node, (list, tuple, ListConfig)):
        pairs = [(str(k), v) for k, v in enumerate(node)]
    else:
        return
    for key, value in pairs:
        if key == "_target_":
            yield f"{path}{key}", value
        else:
            yield from _targets(value, f"{path}{key}.")


def _check(key: str, target: Any, allowed: Sequence[str]) -> None:
    """Refuse a target outside the packages, and one inside that leads outside (``torch.nn.os.system``)."""
    if not isinstance(target, str) or not target.startswith(tuple(allowed)):
        raise UserError(f"{key}={target!r} is not allowed, targets come from {_listed(allowed)}")
    try:
        found = pkgutil.resolve_name(target)
    except Exception as error:
        raise UserError(f"{key}={target!r} does not exist: {one_line(error)}") from error
    packages = tuple(sorted({prefix.split(".")[0] for prefix in allowed}))
    home = getattr(found, "__module__", None) or type(found).__module__
    if not callable(found) or home.split(".")[0] not in packages:
        raise UserError(f"{key}={target!r} is not allowed: it is defined in {home!r}, not in {', '.join(packages)}")


def _path(cfg: Any, key: str) -> str:
    from omegaconf import DictConfig

    return str(cfg._get_full_key(key)) if isinstance(cfg, DictConfig) else key


def _listed(allowed: Sequence[str]) -> str:
    return ", ".join(prefix.rstrip(".") for prefix in allowed)
