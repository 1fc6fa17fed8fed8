"""What every super-network has: a path at a time, weights inherited by index, statistics of one path."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from effkit.errors import UserError, choose
from ws_nas.supernets.norm import Applying, BatchNorm, Collecting, Moments

__all__ = ["CALIBRATIONS", "Step", "Supernet"]

CALIBRATIONS = ("exact", "batch")

_Path: TypeAlias = tuple[int, ...]


class _Active(threading.local):
    """The genotypes set active in this thread, by supernet: threads that evaluate side by side do not meet."""

    def __init__(self) -> None:
        self.stacks: dict[int, list[_Path]] = {}


_active = _Active()


class Step(NamedTuple):
    """A part of a path through a chain: paths whose steps have equal keys so far have equal activations so far."""

    key: Hashable
    run: Callable[[Tensor], Tensor]


class Supernet(nn.Module):
    """A module that holds all networks of a space.

    Args:
        choices: How many options each gene has.
        space_id: Name and hash of the space; kept in checkpoints.
    """

    def __init__(self, choices: Sequence[int], space_id: str) -> None:
        super().__init__()
        self.choices, self.space_id = tuple(choices), space_id

    # What a supernet must say.

    def run(self, x: Tensor, genotype: _Path) -> Tensor:
        """Run one path.

        Args:
            x: (B, C, H, W).
            genotype: Checked.

        Returns:
            Logits (B, classes).
        """
        raise NotImplementedError

    def export(self, genotype: Sequence[int]) -> nn.Module:
        """The sub-network as a plain module with copies of its weights: in eval mode the same bits as the path here."""
        raise NotImplementedError

    def path_modules(self, genotype: _Path) -> list[nn.Module]:
        """The modules whose parameters this path uses, each once."""
        raise NotImplementedError

    # What a supernet may say.

    def chain(self, genotype: _Path) -> list[Step] | None:
        """The path as steps, for evaluation that shares prefixes; ``None`` where the space is no chain."""
        return None

    def run_many(self, x: Tensor, genotypes: Sequence[_Path]) -> Tensor:
        """Run several paths with one call an operation.

        Args:
            x: (B, C, H, W), the same pictures for every path.
            genotypes: G paths.

        Returns:
            Logits (G, B, classes).
        """
        return torch.stack([self.run(x, g) for g in genotypes])

    batched = False
    """Whether :meth:`run_many` is more than a loop."""

    def stem_bytes(self, x: Tensor) -> int:
        """Memory of what the stem makes of a batch: by this, callers choose how many paths to run at once."""
        stem = self.get_submodule("stem")
        with torch.no_grad(), Collecting():
            return (found := stem(x[:2])).nbytes // len(found) * len(x)

    # What is the same for all.

    def forward(self, x: Tensor, genotype: Sequence[int] | None = None) -> Tensor:
        """Run the path given, or the one set by :meth:`set_active`.

        Raises:
            UserError: If there is neither, or the genotype is of another space.
        """
        return self.run(x, self.active() if genotype is None else self.check(genotype))

    def check(self, genotype: Sequence[int]) -> _Path:
        """The genotype as a tuple.

        Raises:
            UserError: If it has another length or an index that is none.
        """
        genes = tuple(genotype)
        if len(genes) != len(self.choices) or not all(
            isinstance(g, int) and 0 <= g < m for g, m in zip(genes, self.choices, strict=True)
        ):
            raise UserError(
                f"genotype={genes} is none of this supernet's space {self.space_id}: "
                f"its genes have {self.choices} choices"
            )
        return genes

    @contextmanager
    def set_active(self, genotype: Sequence[int]) -> Iterator[Supernet]:
        """Make a path the one that runs in this thread; the one before comes back afterwards."""
        stack = _active.stacks.setdefault(id(self), [])
        stack.append(self.check(genotype))
        try:
            yield self
        finally:
            stack.pop()
            if not stack:
                _active.stacks.pop(id(self), None)

    def active(self) -> _Path:
        """The path set active in this thread.

        Raises:
            UserError: If there is none.
        """
        stack = _active.stacks.get(id(self))
        if not stack:
            raise UserError(
                "genotype is not set: give it to supernet(x, genotype), or use supernet.set_active(genotype)"
            )
        return stack[-1]

    def active_parameters(self, genotype: Sequence[int]) -> list[nn.Parameter]:
        """The parameters that a path uses, each once."""
        found: dict[int, nn.Parameter] = {}
        for module in self.path_modules(self.check(genotype)):
            found.update((id(p), p) for p in module.parameters())
        return list(found.values())

    def bn_statistics(
        self, batches: Iterable[Tensor], genotype: Sequence[int], mode: str = "exact"
    ) -> dict[BatchNorm, Moments]:
        """Estimate the statistics of one path anew; changes nothing.

        Args:
            batches: Pictures, (B, C, H, W) each.
            genotype: The path.
            mode: ``exact``: over the whole calibration set at every depth, whatever its batches; ``batch``: each batch
                is normalised by its own on the way down, and statistics are pooled (the usual way).

        Returns:
            Mean and variance by layer. The variance has the factor N / (N - 1), as PyTorch's ``running_var``.

        Raises:
            UserError: If there is no batch, or one value a channel.
        """
        choose("mode", mode, CALIBRATIONS)
        genes, parts = self.check(genotype), list(batches)
        if not parts or not sum(len(part) for part in parts):
            raise UserError("batches is empty: re-estimation of BN needs at least one batch")
        with torch.no_grad(), self.evaluating(), Collecting() as session:
            for part in [torch.cat(parts)] if mode == "exact" else parts:
                self.run(part, genes)
        return session.moments()

    def recalibrate_bn(
        self, batches: Iterable[Tensor], genotype: Sequence[int], mode: str = "exact"
    ) -> dict[BatchNorm, Moments]:
        """Estimate the statistics of one path anew, and write them into its running statistics.

        Args:
            batches: See :meth:`bn_statistics`.
            genotype: The path; layers off it stay as they are.
            mode: See :meth:`bn_statistics`.

        Raises:
            UserError: As :meth:`bn_statistics`; and if the supernet keeps no running statistics to write into.
        """
        found = self.bn_statistics(batches, genotype, mode)
        for layer, moments in found.items():
            if layer.running_mean is None or layer.running_var is None:
                raise UserError("track_running_stats=false: there are no running statistics to write into")
            channels = len(moments.mean)  # of an elastic layer the first ones
            layer.running_mean[:channels].copy_(moments.mean)
            layer.running_var[:channels].copy_(moments.var)
        return found

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In eval mode inside; as before afterwards."""
        modes = {module: module.training for module in self.modules()} if self.training else {}
        if modes:
            self.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    @contextmanager
    def with_statistics(self, moments: dict[BatchNorm, Moments]) -> Iterator[Supernet]:
        """Use estimated statistics inside, in this thread, and leave the running ones alone."""
        with Applying(moments):
            yield self
