"""Latencies of architectures: looked up whole, or the sum of what each gene's option takes."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError
from effkit.notes import say_once
from ws_nas.meters.tables.benchmark import TabularBenchmark
from ws_nas.meters.tables.columns import Latency
from ws_nas.spaces.space import Genotype, Space

__all__ = ["KIND", "LatencyTable", "latency_lookup"]

KIND = "ws-nas latency table"
_PLAUSIBLE = 0.02  # ms; of networks that are not connected, tables hold less


@dataclass(frozen=True)
class LatencyTable:
    """A model of latency that adds up: milliseconds of every option of every gene, and of the rest.

    Attributes:
        space_id: Name and hash of the space.
        device: What it was measured on.
        batch: Pictures at a time; latencies of other batches cannot be told from it.
        entries: Milliseconds, one row a gene, one entry an option.
        constant: Milliseconds of what all networks have.
        about: How it came about.

    Raises:
        UserError: If a figure is negative or not finite, or the batch is no whole number.
    """

    space_id: str
    device: str
    batch: int
    entries: tuple[tuple[float, ...], ...]
    constant: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(tuple(float(v) for v in row) for row in self.entries))
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise UserError(f"batch={self.batch!r} of a latency table must be a whole number of at least 1")
        for gene, row in enumerate(self.entries):
            for option, value in enumerate(row):
                if not math.isfinite(value) or value < 0:
                    raise UserError(f"latency of gene {gene}, option {option} is {value} ms, it must be >= 0")
        if not math.isfinite(self.constant) or self.constant < 0:
            raise UserError(f"constant={self.constant} of a latency table must be >= 0 ms")

    def check(self, space: Space, device: str | None = None, batch: int | None = None) -> None:
        """Refuse another space, device or batch than was measured.

        Raises:
            UserError: Naming both.
        """
        if space.space_id != self.space_id:
            raise UserError(f"the latency table is of space {self.space_id}, not of {space.space_id}")
        if [len(row) for row in self.entries] != list(space.choices):
            raise UserError(
                f"the latency table has {[len(row) for row in self.entries]} options, {space.name} {space.choices}"
            )
        if device is not None and device != self.device:
            raise UserError(f"the latency table was measured on device={self.device!r}, not {device!r}")
        if batch is not None and batch != self.batch:
            raise UserError(f"the latency table was measured at batch={self.batch}, not {batch}")

    def latency(self, genotype: Sequence[int]) -> float:
        """Milliseconds of an architecture.

        Raises:
            UserError: If it has other genes.
        """
        if len(genotype) != len(self.entries) or not all(
            0 <= g < len(row) for g, row in zip(genotype, self.entries, strict=False)
        ):
            raise UserError(f"genotype={tuple(genotype)} does not fit the latency table of {self.space_id}")
        return self.constant + math.fsum(row[g] for g, row in zip(genotype, self.entries, strict=True))

    def expected(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Expected milliseconds of a mixture: ``sum_e sum_k p_ek lat_ek`` and the constant, with gradients.

        Args:
            probabilities: Of each gene's options, one vector a gene.

        Raises:
            UserError: If there are other genes or options.
        """
        sizes, own = [len(p) for p in probabilities], [len(row) for row in self.entries]
        if sizes != own:
            raise UserError(f"probabilities have {sizes} options, the latency table of {self.space_id} {own}")
        total = probabilities[0].new_tensor(self.constant)
        for p, row in zip(probabilities, self.entries, strict=True):
            total = total + (p * torch.tensor(row, dtype=p.dtype, device=p.device)).sum()
        return total

    def to_json(self) -> str:
        """The file's text."""
        plain = {
            "kind": KIND, "space_id": self.space_id, "device": self.device, "batch": self.batch,
            "constant": self.constant, "entries": [list(row) for row in self.entries], "about": dict(self.about),
        }  # fmt: skip
        return json.dumps(plain, indent=1) + "\n"

    @classmethod
    def read(cls, path: str | os.PathLike[str], space: Space) -> LatencyTable:
        """Read a file of :meth:`to_json`.

        Raises:
            UserError: If there is none, it is no such table, or of another space.
        """
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"latency_table={str(path)!r} is not a file")
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            if value["kind"] != KIND:
                raise KeyError("kind")
            about, sizes = value["about"], (value["space_id"], value["device"], value["batch"], value["entries"])
            table = cls(*sizes, float(value["constant"]), about)
        except UserError as error:
            raise UserError(f"latency_table={str(path)!r}: {error}") from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"latency_table={str(path)!r} is no latency table: {' '.join(str(error).split())}"
            ) from error
        table.check(space)
        return table

    @classmethod
    def fit(cls, table: TabularBenchmark, metric: str, batch: int | None = None) -> LatencyTable:
        """The sum of parts that comes nearest to measured whole networks: least squares with no part below 0.

        Args:
            table: Has the column.
            metric: E.g. ``lat_fpga_ms``.
            batch: At which it was measured, where the column does not say.

        Returns:
            The model; ``about`` says how far it is off: root mean square and rank correlation.

        Raises:
            UserError: If the column is no latency, or no batch is known.
        """
        from scipy.optimize import nnls

        from ws_nas.ops.ranks import kendall_tau

        figures = latency_lookup(table, metric)
        column = table.columns[metric]
        assert isinstance(column, Latency)
        batch = column.batch if column.batch is not None else batch
        if batch is None:
            raise UserError(f"metric={metric} does not say at which batch it was measured: give batch=")
        genes = np.array(list(figures))
        values = np.array(list(figures.values()))
        choices = table.space.choices
        design = np.concatenate([genes[:, i, None] == np.arange(m) for i, m in enumerate(choices)], axis=1)
        solved, _ = nnls(np.concatenate([design, np.ones((len(genes), 1))], axis=1).astype(float), values)
        bounds = np.cumsum([0, *choices])
        entries = tuple(tuple(solved[a:b].tolist()) for a, b in itertools.pairwise(bounds))
        predicted = design @ solved[:-1] + solved[-1]
        about = {
            "fitted to": metric, "networks": len(values),
            "root mean square error, ms": float(np.sqrt(((predicted - values) ** 2).mean())),
            "tau-b": kendall_tau(np.round(predicted, 9), np.round(values, 9)),  # what rounds off is no order
        }  # fmt: skip
        return cls(table.space.space_id, column.device, batch, entries, float(solved[-1]), about)


def latency_lookup(table: TabularBenchmark, metric: str) -> dict[Genotype, float]:
    """Measured latencies of whole networks, without those that cannot be.

    Some tables hold next to nothing for networks whose output is not connected to the input.

    Args:
        table: Has the column.
        metric: E.g. ``lat_pixel3_ms``.

    Returns:
        Milliseconds by genotype, all above 0.02.

    Raises:
        UserError: If the column is no latency.
    """
    column = table.columns.get(metric)
    if not isinstance(column, Latency):
        names = [name for name, c in table.columns.items() if isinstance(c, Latency)]
        raise UserError(f"metric={metric!r} is no latency of the table, choose one of {', '.join(names) or 'none'}")
    values = table.values(metric)
    good = values >= _PLAUSIBLE
    if not good.all():
        say_once(f"{metric}: {int((~good).sum())} networks below {_PLAUSIBLE} ms are left out", "ws_nas")
    return {g: float(v) for g, v, keep in zip(table, values, good, strict=True) if keep}
