"""ESA, Efficient Selective Attention: RoPE language models read past their context.

The whole cache is kept; every step attends to a constant number of single tokens, chosen by compressed queries and
keys.

Example:
    >>> from esa_attention import ESAConfig, apply_esa, calibrate
    >>> compressors = calibrate(model, token_ids, rank=128)  # doctest: +SKIP
    >>> handle = apply_esa(model, ESAConfig(), compressors)  # doctest: +SKIP
    >>> model.generate(input_ids)  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from effkit.lazy import attach

if TYPE_CHECKING:
    from esa_attention.attention import functional as functional
    from esa_attention.attention.cache.cache import ESACache as ESACache
    from esa_attention.attention.cache.layer import ESALayer as ESALayer
    from esa_attention.attention.rope import RopeTables as RopeTables
    from esa_attention.calibration.calibrate import calibrate as calibrate
    from esa_attention.compression.compressor import Compressors as Compressors
    from esa_attention.compression.compressor import load_compressors as load_compressors
    from esa_attention.compression.compressor import save_compressors as save_compressors
    from esa_attention.compression.qk_compressor import QKCompressor as QKCompressor
    from esa_attention.config import ESAConfig as ESAConfig
    from esa_attention.integration.apply import apply_esa as apply_esa
    from esa_attention.integration.handle import ESAHandle as ESAHandle
    from esa_attention.reference import esa_reference as esa_reference

__version__ = "0.1.0"
_public, __dir__, __all__ = attach(
    __name__,
    {
        "Compressors": "esa_attention.compression.compressor",
        "ESACache": "esa_attention.attention.cache.cache",
        "ESAConfig": "esa_attention.config",
        "ESAHandle": "esa_attention.integration.handle",
        "ESALayer": "esa_attention.attention.cache.layer",
        "QKCompressor": "esa_attention.compression.qk_compressor",
        "RopeTables": "esa_attention.attention.rope",
        "apply_esa": "esa_attention.integration.apply",
        "calibrate": "esa_attention.calibration.calibrate",
        "esa_reference": "esa_attention.reference",
        "load_compressors": "esa_attention.compression.compressor",
        "save_compressors": "esa_attention.compression.compressor",
    },
)


def __getattr__(name: str) -> Any:
    """Public names at their first use; ``functional``, the steps one by one, is a whole module."""
    return importlib.import_module("esa_attention.attention.functional") if name == "functional" else _public(name)
