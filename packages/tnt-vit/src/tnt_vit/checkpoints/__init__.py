"""Weights: files in and out, the variants by name, and what a file tells about the model it is for.

Nothing is imported here: :mod:`~tnt_vit.checkpoints.zoo` is loaded as soon as timm is, which may be in the middle of
:mod:`tnt_vit.model`'s own imports.
"""
