"""The networks written out from their equations, naive and obviously right: what every fast path is tested against."""

from tnt_vit.reference.pyramid import pyramid_reference
from tnt_vit.reference.tnt import Trace, inner_block_reference, reference_forward

__all__ = ["Trace", "inner_block_reference", "pyramid_reference", "reference_forward"]
