r"""The calibration loss (Eq. 7) has a closed-form optimum; no training is needed.

Over all pairs, the squared error of maps with :math:`A = W_q^\top W_k` is
:math:`\|S_q^{1/2} (I - A) C_k^{1/2}\|_F^2`, with :math:`S_q = E[q q^\top]` of folded queries and :math:`C_k` the
covariance of keys. By Eckart and Young the best :math:`A` of rank ``R`` keeps the first ``R`` singular triples of
:math:`M = S_q^{1/2} C_k^{1/2} = U s V^\top`, and the loss left over is :math:`\sum_{i > R} s_i^2`.

Three remarks that shape the code:

* Any factors :math:`S_q = L_q L_q^\top`, :math:`C_k = L_k L_k^\top` do in place of the square roots. Cholesky is tried
  first, an eigendecomposition does the rest (rank-deficient moments).
* :math:`W_q = s_R^{1/2} U_R^\top L_q^{-1}` equals :math:`s_R^{-1/2} V_R^\top L_k^\top`, and
  :math:`W_k = s_R^{-1/2} U_R^\top L_q^\top`: no matrix is inverted. Where moments are singular the second form is the
  better one: it maps every query, also one unlike all that were seen, to its least-squares fit.
* The biases of the literal Eq. 7 buy nothing. Given the key map, the best compressed query minimises
  :math:`E_k[(q^\top k - q'^\top k')^2]`, so it is linear in :math:`q`, without a constant; likewise for keys. The
  optimum with biases is the one without, on keys that are not centred. What does help is to centre them: a constant of
  the query then costs no dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effkit.errors import UserError
from esa_attention.calibration.moments import StreamingMoments
from esa_attention.compression.qk_compressor import QKCompressor

__all__ = ["check_eps", "check_rank", "closed_form", "pair_loss"]


def check_rank(rank: int, key_dim: int) -> None:
    """Refuse a compressed dimension that is none.

    Raises:
        UserError: If ``rank`` is not in ``1..key_dim``.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= key_dim:
        raise UserError(f"rank must be a whole number in 1..{key_dim} (key-value heads x head dimension), got {rank!r}")


def check_eps(eps: float) -> None:
    """Refuse a floor that is none.

    Raises:
        UserError: If ``eps`` is not between 0 and 1.
    """
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < 1:
        raise UserError(f"eps must be between 0 and 1, got {eps!r}")


def closed_form(
    moments: StreamingMoments,
    rank: int,
    *,
    num_kv_heads: int = 1,
    bias: bool = False,
    eps: float = 1e-10,
) -> QKCompressor:
    """The maps that minimise the squared error of scores over all pairs of queries and keys (Eq. 7).

    Each compressed dimension ``i`` has the mean square ``s_i`` in queries and in keys, and dimensions are uncorrelated;
    signs are fixed, so that the result does not depend on the linear algebra library.

    Args:
        moments: What was seen of the layer.
        rank: Compressed dimension, at most ``K * D``. Beyond the rank of the moments rows are 0.
        num_kv_heads: Key-value heads (K), for the compressor's shape.
        bias: Minimise the literal Eq. 7, with biases and keys that are not centred. The best biases are 0; they are
            there so that the result has the paper's form.
        eps: Eigenvalues of a moment below ``eps`` times its largest are taken for rounding errors, and singular values
            below ``eps`` times the largest as well.

    Returns:
        A float64 compressor with the whole spectrum, ``(K * D,)``, on the moments' device.

    Raises:
        UserError: If ``rank``, ``eps`` or ``num_kv_heads`` is out of range, no token was seen, or ``bias`` is asked of
            moments gathered without ``uncentred=True``.
    """
    dim = moments.key_dim
    check_rank(rank, dim)
    check_eps(eps)
    if num_kv_heads < 1 or dim % num_kv_heads:
        raise UserError(f"num_kv_heads must divide the {dim} dimensions of keys, got {num_kv_heads}")
    key_moment = moments.key_moment if bias else moments.key_covariance
    moments.warn_if_few()
    left, right = _factor(moments.query_moment, eps), _factor(key_moment, eps)
    spectrum = left.new_zeros(dim)
    query_weight, key_weight = left.new_zeros(rank, dim), left.new_zeros(rank, dim)
    if left.shape[1] and right.shape[1]:
        u, s, vh = torch.linalg.svd(left.T @ right, full_matrices=False)
        spectrum[: s.numel()] = s
        kept = min(rank, int((s > eps * s[0]).sum()))
        root = s[:kept, None].rsqrt()
        key_weight[:kept] = root * (left @ u[:, :kept]).T
        query_weight[:kept] = root * (right @ vh[:kept].T).T
    sign = key_weight.gather(1, key_weight.abs().argmax(dim=1, keepdim=True)).sign()
    query_bias, key_bias = (left.new_zeros(rank), left.new_zeros(rank)) if bias else (None, None)
    weights = (query_weight * sign, key_weight * sign, query_bias, key_bias)
    return QKCompressor(num_kv_heads, dim // num_kv_heads, *weights, spectrum=spectrum.cpu())


def pair_loss(compressor: QKCompressor, moments: StreamingMoments) -> float:
    """Mean squared error of centred scores over all pairs, from moments alone.

    Args:
        compressor: Maps; their biases add constants of the query only or of the key only, and must not be there.
        moments: Of the training or of other text.

    Returns:
        ``tr(S_q (I - A) C_k (I - A)^T)``, in float64.

    Raises:
        UserError: If the compressor has biases other than 0, or acts on all heads.
    """
    if any(b is not None and bool(b.any()) for b in (compressor.query_bias, compressor.key_bias)):
        raise UserError(
            "compressor must have no biases for its loss to follow from moments; use score_error on samples"
        )
    query_moment = moments.query_moment
    error = torch.zeros_like(query_moment)
    if compressor.query_weight is not None and compressor.key_weight is not None:
        if not compressor.is_folded:
            raise UserError(
                f"query map must act on {compressor.key_dim} dimensions, got {compressor.query_weight.shape[1]}"
            )
        mapped = compressor.to(error.device, torch.float64)
        assert mapped.query_weight is not None
        assert mapped.key_weight is not None
        error = (
            torch.eye(moments.key_dim, dtype=error.dtype, device=error.device)
            - mapped.query_weight.T @ mapped.key_weight
        )
    return float(((query_moment @ error) * (error @ moments.key_covariance)).sum())


def _factor(moment: Tensor, eps: float) -> Tensor:
    """A matrix ``(d, n)`` whose product with its transpose is the moment, up to eigenvalues below ``eps``.

    Cholesky is some ten times cheaper than an eigendecomposition, and just as exact where it may be used: if the moment
    less ``eps * trace`` is positive definite, all eigenvalues are above the floor.
    """
    floor = eps * moment.diagonal().sum()
    eye = torch.eye(moment.shape[0], dtype=moment.dtype, device=moment.device)
    if int(torch.linalg.cholesky_ex(moment - floor * eye).info) == 0:
        factor, info = torch.linalg.cholesky_ex(moment)
        if int(info) == 0:
            return factor
    values, vectors = torch.linalg.eigh(moment)
    kept = values > max(eps * float(values[-1]), 0.0)
    return vectors[:, kept] * values[kept].sqrt()
