"""TNT, Transformer in Transformer: the model, its variants in timm, weights, fast inference.

Example:
    >>> import torch, tnt_vit
    >>> model = tnt_vit.create_model("tnt_ti_patch16_224", num_classes=10)
    >>> model(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
"""

from typing import TYPE_CHECKING

from effkit.lazy import after_import, attach

if TYPE_CHECKING:
    from tnt_vit.checkpoints.weights import load_checkpoint as load_checkpoint
    from tnt_vit.checkpoints.weights import save_checkpoint as save_checkpoint
    from tnt_vit.checkpoints.zoo import create_model as create_model
    from tnt_vit.checkpoints.zoo import list_models as list_models
    from tnt_vit.inference.dense import DenseBackbone as DenseBackbone
    from tnt_vit.inference.dense import FeaturePyramid as FeaturePyramid
    from tnt_vit.inference.export import export_model as export_model
    from tnt_vit.inference.optimize import InferenceTNT as InferenceTNT
    from tnt_vit.inference.optimize import optimize_for_inference as optimize_for_inference
    from tnt_vit.model import TNT as TNT
    from tnt_vit.model import AttentionMaps as AttentionMaps
    from tnt_vit.pyramid import PyramidTNT as PyramidTNT

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "DenseBackbone": "tnt_vit.inference.dense",
        "FeaturePyramid": "tnt_vit.inference.dense",
        "PyramidTNT": "tnt_vit.pyramid",
        "TNT": "tnt_vit.model",
        "AttentionMaps": "tnt_vit.model",
        "InferenceTNT": "tnt_vit.inference.optimize",
        "create_model": "tnt_vit.checkpoints.zoo",
        "export_model": "tnt_vit.inference.export",
        "list_models": "tnt_vit.checkpoints.zoo",
        "load_checkpoint": "tnt_vit.checkpoints.weights",
        "optimize_for_inference": "tnt_vit.inference.optimize",
        "save_checkpoint": "tnt_vit.checkpoints.weights",
    },
)
# Registers the variants; timm itself takes seconds to import, and --help should not.
after_import("timm", "tnt_vit.checkpoints.zoo")
