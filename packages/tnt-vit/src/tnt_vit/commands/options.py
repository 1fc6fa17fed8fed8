"""Keys of a command's config as keyword arguments in plain Python."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

__all__ = ["options"]


def options(cfg: Any, *keys: str) -> dict[str, Any]:
    """Some keys of a config, with lists and dictionaries instead of config objects.

    Args:
        cfg: The composed config of a command.
        *keys: Which keys.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return {key: plain[key] for key in keys}
