"""Objects from configs: the one place that instantiates, limited to an allow-list of packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effkit.cli.explain import one_line
from effkit.cli.running import RUNNING
from effkit.cli.targets import BUILDABLE, check_target, targets_of
from effkit.errors import UserError

__all__ = ["build"]


def build(cfg: Any, *args: Any, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Instantiate the class that a config names in ``_target_``, if it comes from a package that may be named there.

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
    targets = targets_of(cfg) | targets_of(kwargs)
    if targets.get("_target_") is None:
        listed = ", ".join(prefix.rstrip(".") for prefix in allowed)
        raise UserError(f"_target_ must be given: a class to build, from {listed}")
    for key, target in targets.items():
        check_target(key, target, allowed)
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


def _path(cfg: Any, key: str) -> str:
    from omegaconf import DictConfig

    return str(cfg._get_full_key(key)) if isinstance(cfg, DictConfig) else key
