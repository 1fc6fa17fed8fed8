"""Principal components of the keys, as in Loki (Singhania et al., 2024): the comparison of the paper's Fig. 2."""

from __future__ import annotations

import torch

from effkit.errors import UserError
from esa_attention.calibration.closed_form import check_rank
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.compression.qk_compressor import QKCompressor

__all__ = ["key_pca"]


def key_pca(moments: StreamingMoments, rank: int, *, num_kv_heads: int = 1) -> QKCompressor:
    """Keep the directions in which keys vary most; queries play no part in the choice.

    Loki takes components of each head by itself and scores heads apart. Here scores are summed over heads, so
    components are those of all key-value heads together, and the same orthonormal rows map queries and keys.

    Args:
        moments: What was seen of the layer.
        rank: Compressed dimension, at most ``K * D``.
        num_kv_heads: Key-value heads (K), for the compressor's shape.

    Returns:
        A float64 compressor; its spectrum holds the standard deviations along the components.

    Raises:
        UserError: If ``rank`` or ``num_kv_heads`` is out of range or no token was seen.
    """
    dim = moments.key_dim
    check_rank(rank, dim)
    if num_kv_heads < 1 or dim % num_kv_heads:
        raise UserError(f"num_kv_heads must divide the {dim} dimensions of keys, got {num_kv_heads}")
    moments.warn_if_few()
    values, vectors = torch.linalg.eigh(moments.key_covariance)
    weight = vectors.flip(1)[:, :rank].T.contiguous()
    weight = weight * weight.gather(1, weight.abs().argmax(dim=1, keepdim=True)).sign()
    spectrum = values.flip(0).clamp_min(0).sqrt().cpu()
    return QKCompressor(num_kv_heads, dim // num_kv_heads, weight, weight.clone(), spectrum=spectrum)
