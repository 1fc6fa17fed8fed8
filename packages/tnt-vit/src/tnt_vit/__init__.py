"""TNT, Transformer in Transformer: the model, its variants in timm, weights, fast inference.

Example:
    >>> import torch, tnt_vit
    >>> model = tnt_vit.create_model("tnt_ti_patch16_224", num_classes=10)
    >>> model(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
"""

from tnt_vit.model import TNT, AttentionMaps
from tnt_vit.weights import load_checkpoint, save_checkpoint
from tnt_vit.zoo import create_model, list_models

__version__ = "0.1.0"
__all__ = ["TNT", "AttentionMaps", "create_model", "list_models", "load_checkpoint", "save_checkpoint"]
