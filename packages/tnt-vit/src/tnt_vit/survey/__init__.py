"""The surveyed backbones counted, timed and looked into on this machine, beside what is published of them.

Example:
    >>> from pathlib import Path
    >>> from tnt_vit.survey.registry import read_registry, select
    >>> from tnt_vit.survey.counting import count
    >>> (deit,) = select(read_registry(), "all", ["deit_tiny"])
    >>> count(deit)["params"], deit.published["top1"]
    (5717416, 72.2)
"""
