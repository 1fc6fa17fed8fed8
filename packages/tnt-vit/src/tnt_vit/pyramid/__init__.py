"""PyramidTNT (Han et al., 2022): TNT with a convolutional stem and four stages at strides 8, 16, 32 and 64.

The names in a ``state_dict`` are those of the official code, which nobody else has: weights of the authors load as they
are, and ours load there. Shape legend beside that of :mod:`tnt_vit.layers`: ``(R, C)`` rows and columns of the grid of
sentences, ``n = R * C``.
"""

from tnt_vit.pyramid.model import PyramidTNT

__all__ = ["PyramidTNT"]
