r"""What the closed form needs of the calibration text: second moments of queries and keys, sequence by sequence.

A sum over all pairs :math:`(c, m)` of :math:`(q_c^\top E k_m)^2` is :math:`\mathrm{tr}(S_q E C_k E^\top)` times the
number of pairs, with :math:`S_q` and :math:`C_k` the second moments. So two matrices of size ``(K * D, K * D)`` a
layer stand for any number of samples. Keys are centred per sequence: what is the same for all keys of a sequence never
changes which are chosen, and must not take up dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from effkit.errors import UserError

__all__ = ["StreamingMoments", "check_finite"]

_BLOCK = 4096  # rows converted to float64 at once


def check_finite(what: str, layer: int, values: Tensor) -> None:
    """Refuse NaN and infinities, which would spoil a layer without a sound.

    Args:
        what: ``queries`` or ``keys``.
        layer: Number of the layer.
        values: What has to be finite.

    Raises:
        UserError: If a value is not.
    """
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            f"calibration {what} of layer {layer} must be finite, got NaN or infinity "
            "(a model in float16 may overflow: load it in bfloat16 or float32)"
        )


class StreamingMoments:
    """Second moments of one layer, in float64.

    Everything is accumulated in float64: directions whose variance is a millionth of the largest matter for keys with
    outlier channels, and float32 sums would bury them. The matrices live where the samples are (on the CPU for devices
    without float64).

    Args:
        key_dim: ``K * D``.
        layer: Number of the layer, for messages.
        uncentred: Also keep what is needed for keys that are not centred (the literal Eq. 7); one more matrix.

    Attributes:
        num_tokens: Tokens seen.
        num_sequences: Sequences seen.
    """

    def __init__(self, key_dim: int, *, layer: int = 0, uncentred: bool = False) -> None:
        if key_dim < 1:
            raise UserError(f"key_dim must be at least 1, got {key_dim}")
        self.key_dim, self.layer = key_dim, layer
        self.num_tokens = 0
        self.num_sequences = 0
        self._query = torch.zeros(key_dim, key_dim, dtype=torch.float64)
        self._scatter = torch.zeros(key_dim, key_dim, dtype=torch.float64)
        self._between = torch.zeros(key_dim, key_dim, dtype=torch.float64) if uncentred else None

    @property
    def uncentred(self) -> bool:
        """Whether keys that are not centred can be told of."""
        return self._between is not None

    def update(self, query_bar: Tensor, key: Tensor) -> None:
        """Add one sequence (or a segment of one); nothing is added if it is refused.

        Args:
            query_bar: Folded queries, rotated to the far position, ``(N, K * D)``.
            key: Keys of the same tokens, unrotated, ``(N, K * D)``.

        Raises:
            UserError: If shapes are wrong, there is no token, or a value is NaN or infinite.
        """
        for name, rows in (("query_bar", query_bar), ("key", key)):
            if rows.ndim != 2 or rows.shape[1] != self.key_dim or rows.shape[0] != query_bar.shape[0]:
                raise UserError(
                    f"{name} must have the shape (N, {self.key_dim}), the same N in both, got {tuple(rows.shape)}"
                )
        count = key.shape[0]
        if count == 0:
            raise UserError(f"sequence must have at least 1 token, got 0 (layer {self.layer})")
        query_bar, key = query_bar.detach(), key.detach()
        # Relative to the first key, so that equal keys have exactly no variance.
        first = _wide(key[:1])
        mean = first + _sum_rows(key, first) / count
        # Sums of finite half or single precision values stay finite in float64, so they tell about all entries.
        check_finite("queries", self.layer, _sum_rows(query_bar, torch.zeros_like(first)))
        check_finite("keys", self.layer, mean)
        self.to(first.device)
        for rows in query_bar.split(_BLOCK):
            wide = _wide(rows)
            self._query.addmm_(wide.T, wide)
        for rows in key.split(_BLOCK):
            wide = _wide(rows) - mean
            self._scatter.addmm_(wide.T, wide)
        if self._between is not None:
            self._between.addmm_(mean.T, mean, alpha=count)
        self.num_tokens += count
        self.num_sequences += 1

    def merge(self, other: StreamingMoments) -> StreamingMoments:
        """Add what another accumulator of the same layer has seen.

        Args:
            other: E.g. of another process; this one moves to its device.

        Returns:
            Itself.

        Raises:
            UserError: If the two do not fit.
        """
        ours, theirs = (self.key_dim, self.layer, self.uncentred), (other.key_dim, other.layer, other.uncentred)
        if ours != theirs:
            raise UserError(f"moments to merge must have (key_dim, layer, uncentred) = {ours}, got {theirs}")
        self.to(other._query.device)
        for own, new in zip(self._matrices().values(), other._matrices().values(), strict=True):
            own.add_(new)
        self.num_tokens += other.num_tokens
        self.num_sequences += other.num_sequences
        return self

    @property
    def query_moment(self) -> Tensor:
        """``E[q q^T]`` of folded queries, ``(K * D, K * D)``."""
        return self._query / self._count()

    @property
    def key_covariance(self) -> Tensor:
        """``E[(k - m) (k - m)^T]`` with ``m`` the mean key of the sequence, ``(K * D, K * D)``."""
        return self._scatter / self._count()

    @property
    def key_moment(self) -> Tensor:
        """``E[k k^T]``, ``(K * D, K * D)``.

        Raises:
            UserError: If the moments were gathered without ``uncentred=True``.
        """
        if self._between is None:
            raise UserError("moments must be gathered with uncentred=True for keys that are not centred, got False")
        return (self._scatter + self._between) / self._count()

    def warn_if_few(self) -> None:
        """Warn if there are fewer tokens than dimensions: the maps then know nothing of some directions.

        Raises:
            UserError: If there is no token at all.
        """
        if self._count() < self.key_dim:
            warnings.warn(
                f"calibration saw {self.num_tokens} tokens, fewer than the {self.key_dim} dimensions of the keys: "
                "the maps will be blind to some directions; give more text",
                stacklevel=3,
            )

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors by name, for a file."""
        counts = torch.tensor([self.num_tokens, self.num_sequences], dtype=torch.int64)
        return {**self._matrices(), "counts": counts}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, layer: int = 0) -> StreamingMoments:
        """The inverse of :meth:`state`.

        Raises:
            UserError: If tensors are missing, superfluous or of wrong shapes, types or values.
        """
        wrong = UserError(
            f"moments of layer {layer} must be query, scatter, counts and perhaps between, got {sorted(state)}"
        )
        if not {"query", "scatter", "counts"} <= set(state) <= {"query", "scatter", "counts", "between"}:
            raise wrong
        made = cls(
            max(1, state["query"].shape[0] if state["query"].ndim else 0), layer=layer, uncentred="between" in state
        )
        for name, own in made._matrices().items():
            given = state[name]
            if given.shape != own.shape or given.dtype != torch.float64 or not bool(torch.isfinite(given).all()):
                raise UserError(
                    f"{name} of layer {layer} must be finite float64 of the shape {tuple(own.shape)}, "
                    f"got {given.dtype} of the shape {tuple(given.shape)}"
                )
            own.copy_(given)
        counts = state["counts"]
        if counts.shape != (2,) or counts.dtype != torch.int64 or bool((counts < 0).any()):
            raise UserError(f"counts of layer {layer} must be 2 whole numbers of at least 0, got {counts.tolist()}")
        made.num_tokens, made.num_sequences = counts.tolist()
        return made

    def _matrices(self) -> dict[str, Tensor]:
        named = {"query": self._query, "scatter": self._scatter}
        return named if self._between is None else {**named, "between": self._between}

    def _count(self) -> int:
        if self.num_tokens == 0:
            raise UserError(f"moments of layer {self.layer} must hold at least 1 token, got 0")
        return self.num_tokens

    def to(self, device: torch.device) -> StreamingMoments:
        """Move the matrices to a device; returns itself."""
        self._query, self._scatter = self._query.to(device), self._scatter.to(device)
        self._between = None if self._between is None else self._between.to(device)
        return self


def _wide(rows: Tensor) -> Tensor:
    """In float64, on a device that has it."""
    return rows.to("cpu" if rows.device.type == "mps" else rows.device).to(torch.float64)


def _sum_rows(rows: Tensor, origin: Tensor) -> Tensor:
    """Sum of the rows less ``origin``, ``(1, d)`` in float64."""
    total = torch.zeros_like(origin)
    for block in rows.split(_BLOCK):
        total += (_wide(block) - origin).sum(dim=0, keepdim=True)
    return total
