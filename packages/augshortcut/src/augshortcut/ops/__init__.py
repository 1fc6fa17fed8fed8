"""Fast paths on tensors: products with block-circulant matrices, and sums of activated paths.

:mod:`~augshortcut.ops.product` chooses between the implementations and is what layers call.
"""
