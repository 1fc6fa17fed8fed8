"""What a TNT is made of: attention, blocks, channel gates; what was put in their place; their plain graph."""

from tnt_vit.layers.block import KINDS, Attention, SqueezeExcite, TNTBlock, resample_positions

__all__ = ["KINDS", "Attention", "SqueezeExcite", "TNTBlock", "resample_positions"]
