"""How different the tokens (or places) of pictures are inside a network, layer by layer."""

from effkit.diversity.layers import diversity_by_layer
from effkit.diversity.measures import MEASURES, distance, residual
from effkit.diversity.tokens import as_tokens

__all__ = ["MEASURES", "as_tokens", "distance", "diversity_by_layer", "residual"]
