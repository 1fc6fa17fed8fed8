"""Augmented shortcuts: learnable parallel paths for any timm vision transformer, and fast block-circulant layers.

Example:
    >>> import timm
    >>> from augshortcut import augment
    >>> model = augment(timm.create_model("deit_tiny_patch16_224"), "retrofit")
    >>> sum(p.numel() for name, p in model.named_parameters() if "aug_" in name)
    46128
"""

from typing import TYPE_CHECKING

from effkit.lazy import after_import, attach

if TYPE_CHECKING:
    from augshortcut.checkpoints.files import load_checkpoint as load_checkpoint
    from augshortcut.checkpoints.files import load_paths as load_paths
    from augshortcut.checkpoints.files import save_checkpoint as save_checkpoint
    from augshortcut.checkpoints.files import save_paths as save_paths
    from augshortcut.checkpoints.official import convert_official as convert_official
    from augshortcut.config import AugmentConfig as AugmentConfig
    from augshortcut.config import preset as preset
    from augshortcut.injection.augment import augment as augment
    from augshortcut.injection.augment import freeze_base as freeze_base
    from augshortcut.injection.augment import remove_paths as remove_paths
    from augshortcut.injection.fold import fold as fold
    from augshortcut.injection.rules import path_parameters as path_parameters
    from augshortcut.layers.circulant import BlockCirculantLinear as BlockCirculantLinear
    from augshortcut.layers.shortcut import AugmentedShortcut as AugmentedShortcut
    from augshortcut.metrics.bound import collapse_bound as collapse_bound
    from augshortcut.metrics.diversity import diversity as diversity
    from augshortcut.models.zoo import create_model as create_model
    from augshortcut.models.zoo import list_models as list_models
    from augshortcut.models.zoo import supported_models as supported_models

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "AugmentConfig": "augshortcut.config",
        "AugmentedShortcut": "augshortcut.layers.shortcut",
        "BlockCirculantLinear": "augshortcut.layers.circulant",
        "augment": "augshortcut.injection.augment",
        "collapse_bound": "augshortcut.metrics.bound",
        "convert_official": "augshortcut.checkpoints.official",
        "create_model": "augshortcut.models.zoo",
        "diversity": "augshortcut.metrics.diversity",
        "fold": "augshortcut.injection.fold",
        "freeze_base": "augshortcut.injection.augment",
        "list_models": "augshortcut.models.zoo",
        "load_checkpoint": "augshortcut.checkpoints.files",
        "load_paths": "augshortcut.checkpoints.files",
        "path_parameters": "augshortcut.injection.rules",
        "preset": "augshortcut.config",
        "remove_paths": "augshortcut.injection.augment",
        "save_checkpoint": "augshortcut.checkpoints.files",
        "save_paths": "augshortcut.checkpoints.files",
        "supported_models": "augshortcut.models.zoo",
    },
)
# Registers the models; timm itself takes seconds to import, and --help should not.
after_import("timm", "augshortcut.models.zoo")
