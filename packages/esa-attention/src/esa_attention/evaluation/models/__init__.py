"""Models that need no download: one with known answers, one read from a small file, one trained here.

Big ones come by path (:func:`~esa_attention.evaluation.models.registry.build_model`).
"""
