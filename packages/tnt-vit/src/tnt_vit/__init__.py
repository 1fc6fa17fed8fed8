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
    from tnt_vit.export import export_model as export_model
    from tnt_vit.model import TNT as TNT
    from tnt_vit.model import AttentionMaps as AttentionMaps
    from tnt_vit.optimize import InferenceTNT as InferenceTNT
    from tnt_vit.optimize import optimize_for_inference as optimize_for_inference
    from tnt_vit.weights import load_checkpoint as load_checkpoint
    from tnt_vit.weights import save_checkpoint as save_checkpoint
    from tnt_vit.zoo import create_model as create_model
    from tnt_vit.zoo import list_models as list_models

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "TNT": "tnt_vit.model",
        "AttentionMaps": "tnt_vit.model",
        "InferenceTNT": "tnt_vit.optimize",
        "create_model": "tnt_vit.zoo",
        "export_model": "tnt_vit.export",
        "list_models": "tnt_vit.zoo",
        "load_checkpoint": "tnt_vit.weights",
        "optimize_for_inference": "tnt_vit.optimize",
        "save_checkpoint": "tnt_vit.weights",
    },
)
after_import("timm", "tnt_vit.zoo")  # registers the variants; timm itself takes seconds to import and --help should not
