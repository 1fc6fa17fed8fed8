"""A teacher's best logits on disk, one record per sample and view: what makes a teacher cheap under augmentation.

Records are only ever found by (sample, view), so a cache stays right where one by sample alone answers about another
view from the second epoch on. The arrays are memory-mapped; reading a batch touches its records alone.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkit.errors import UserError, choose
from kd_autoaug.cache.files import check_files, flush, make_folder, open_arrays
from kd_autoaug.cache.header import Header, library
from kd_autoaug.cache.sums import record_sums
from kd_autoaug.distillation.terms import TopLogits, top_logits
from kd_autoaug.distillation.views import ViewKey

__all__ = ["LogitCache"]

RECORD = ("logits.bin", "classes.bin", "rest.bin")
"""The files that hold a record; sums.bin and done.bin speak about it."""
FLUSH_RECORDS = 16_384
FLUSH_SECONDS = 30.0


class LogitCache:
    """A folder of records: the k largest logits, their classes, and the log-sum-exp of the other classes.

    Made by :meth:`create` or :meth:`open`. Several processes may write one cache at once if each has its own samples.
    A record is marked done on disk only after its data is there (every 30 seconds, 16,384 records, at :meth:`flush`
    and at the end of the process), so an interrupted build loses some work and never claims what it has not. Each
    record carries a checksum, which is compared whenever the record is read.

    The sum is that of the other classes, not of all: together with the rounded logits it gives probabilities that add
    up to one, and keeps its digits where the top classes hold nearly all of the mass.

    Attributes:
        path: The folder.
        header: Its sizes and fingerprints.
        mode: ``"read"`` or ``"readwrite"``.
    """

    def __init__(self, path: Path, header: Header, mode: str) -> None:
        self.path, self.header, self.mode = path, header, mode
        self._pending: set[int] = set()
        self._flushed = time.monotonic()
        self._complete = False
        self._arrays = open_arrays(path, header, mode)
        # Whoever forgets to flush loses nothing either: this runs when the cache or the process goes away.
        self._finish = weakref.finalize(self, flush, self._arrays, self._pending)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        num_samples: int,
        num_views: int,
        num_classes: int,
        k: int,
        dtype: str = "float16",
        fingerprints: Mapping[str, str] | None = None,
        temperatures: Sequence[float] = (1.0,),
    ) -> LogitCache:
        """Make an empty cache, with its space on disk reserved.

        Args:
            path: A folder that does not exist yet, or is empty.
            num_samples: Samples of the data set.
            num_views: Views of each, after which they start again.
            num_classes: Classes of the teacher.
            k: Classes kept in each record, ``1..num_classes``.
            dtype: Of the logits: ``"float16"`` or ``"float32"``.
            fingerprints: By name (``teacher``, ``augment``, ``data``, ``normalisation``), of what the records depend
                on; ``library`` is added.
            temperatures: At which the other classes' sum is kept; only ``partial`` and ``bucket`` need it.

        Raises:
            UserError: If a value is out of range, something is there already, or the disk has not enough room.
        """
        folder = Path(path).expanduser()
        prints = {**(fingerprints or {}), "library": library()}
        header = Header(num_samples, num_views, num_classes, k, dtype, tuple(float(t) for t in temperatures), prints)
        make_folder(folder, header)
        return cls(folder, header, "readwrite")

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None, mode: str = "read"
    ) -> LogitCache:
        """Open a cache.

        Args:
            path: Its folder.
            expect: What it must be, see :meth:`kd_autoaug.cache.header.Header.check`; ``None`` compares nothing.
            mode: ``"read"`` or ``"readwrite"``.

        Raises:
            UserError: If there is none, it is damaged, or was made of something else; names the cause.
        """
        choose("cache.mode", mode, ["read", "readwrite"])
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UserError(f"cache.path={str(path)!r} is not a folder: build a cache there first")
        header = Header.read(folder)
        if expect is not None:
            header.check(expect, folder)
        check_files(folder, header)
        return cls(folder, header, mode)

    # --- what is there ------------------------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """Samples of the data set."""
        return self.header.num_samples

    @property
    def num_views(self) -> int:
        """Views of each sample; view v is found at v mod this."""
        return self.header.num_views

    @property
    def num_classes(self) -> int:
        """Classes of the teacher."""
        return self.header.num_classes

    @property
    def k(self) -> int:
        """Classes kept in each record."""
        return self.header.k

    def count(self) -> int:
        """Number of records that are there."""
        done = self._arrays["done.bin"]
        step = max(1, (1 << 24) // self.num_views)
        on_disk = sum(int(np.count_nonzero(done[i : i + step])) for i in range(0, self.num_samples, step))
        return on_disk + len(self._pending)

    @property
    def complete(self) -> bool:
        """Whether every record is there."""
        self._complete = self._complete or self.count() == self.num_samples * self.num_views
        return self._complete

    def has(self, index: Tensor, view: Tensor | int) -> Tensor:
        """Whether each record is there, bool ``(B,)`` on the CPU."""
        return torch.from_numpy(self._has(*self._places(index, view)))

    def _has(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        there = self._arrays["done.bin"][rows, columns] != 0
        if self._pending:
            flat = (rows * self.num_views + columns).tolist()
            there |= np.fromiter((place in self._pending for place in flat), bool, len(flat))
        return there

    def missing(self, view: int, begin: int = 0, end: int | None = None) -> Tensor:
        """Samples in ``begin <= index < end`` that lack a record of a view, int64.

        Raises:
            UserError: If the range is not in ``0..num_samples``.
        """
        end = self.num_samples if end is None else end
        if not 0 <= begin <= end <= self.num_samples:
            raise UserError(f"begin={begin} and end={end} must be in 0..{self.num_samples}, the number of samples")
        index = torch.arange(begin, end)
        return index[~self.has(index, view)]

    def damaged(self, view: int, begin: int = 0, end: int | None = None) -> Tensor:
        """Samples in ``begin <= index < end`` whose record of a view is there and is not what was written, int64.

        Reads every record of the range.

        Raises:
            UserError: If the range is not in ``0..num_samples``.
        """
        end = self.num_samples if end is None else end
        index = torch.arange(begin, end)
        there = self.has(index, view)
        if not 0 <= begin <= end <= self.num_samples:
            raise UserError(f"begin={begin} and end={end} must be in 0..{self.num_samples}, the number of samples")
        rows, columns = self._places(index[there], view)
        return index[there][torch.from_numpy(self._changed(rows, columns, self._content(rows, columns)))]

    def _content(self, rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
        return [self._arrays[name][rows, columns] for name in RECORD]

    def _changed(self, rows: np.ndarray, columns: np.ndarray, content: Sequence[np.ndarray]) -> np.ndarray:
        return self._arrays["sums.bin"][rows, columns] != record_sums(rows * self.num_views + columns, content)

    def info(self) -> dict[str, Any]:
        """Sizes, fingerprints and how much is there, as plain values."""
        there, all_of_them = self.count(), self.num_samples * self.num_views
        names = ("num_samples", "num_views", "num_classes", "k", "dtype", "record_bytes", "total_bytes")
        values = {name: getattr(self.header, name) for name in names}
        return {
            "path": str(self.path),
            **values,
            "temperatures": list(self.header.temperatures),
            "records": there,
            "share": there / all_of_them,
            "complete": there == all_of_them,
            "fingerprints": dict(self.header.fingerprints),
        }

    # --- records ------------------------------------------------------------------------------------------------------

    def read(
        self, key: ViewKey | Tensor, view: Tensor | int | None = None, temperature: float | None = None
    ) -> TopLogits:
        """Return the records of a batch, on the CPU; logits in float32.

        Args:
            key: Which views; or the samples' numbers, int64 ``(B,)``, with ``view`` beside them.
            view: View numbers ``(B,)``, or one for all; taken modulo the number of views.
            temperature: Of the sums; ``None`` takes the first that is kept. With all classes in a record any will do.

        Raises:
            UserError: If a record is missing or damaged, a sample out of range, the views of ``key`` are made by
                another augmentation, or there are no sums for ``temperature``.
        """
        if isinstance(key, ViewKey):
            made = self.header.fingerprints.get("augment")
            if made is not None and key.augment != made:
                raise UserError(
                    f"the cache {self.path} holds answers about other views: augment is {made[:12]}, "
                    f"the batch's is {key.augment[:12]}"
                )
            index, view = key.index, key.view
        else:
            index = key
        if view is None:
            raise UserError("view is not given: the cache is read by sample and view")
        rows, columns = self._places(index, view)
        if not self._complete:
            lacking = ~self._has(rows, columns)
            if lacking.any():
                place = int(lacking.argmax())
                raise UserError(
                    f"the cache {self.path} has no record of sample {rows[place]}, view {columns[place]} "
                    f"({int(lacking.sum())} of {len(rows)} in this batch are missing): finish building it"
                )
        column, temperature = self._temperature(temperature)
        content = self._content(rows, columns)
        changed = self._changed(rows, columns, content)
        if changed.any():
            place = int(changed.argmax())
            raise UserError(
                f"the cache {self.path} is damaged: the record of sample {rows[place]}, view {columns[place]} is not "
                f"what was written ({int(changed.sum())} of {len(rows)} in this batch): `kd-autoaug cache verify` "
                "finds all of them, `cache build` with the words that built it asks about these again"
            )
        logits, found, sums = content
        values = torch.from_numpy(logits.astype(np.float32))
        classes = torch.from_numpy(found.astype(np.int64))
        rest = torch.from_numpy(sums[:, column].copy())
        total = torch.logaddexp(torch.logsumexp(values / temperature, 1), rest)
        return TopLogits(values, classes, total, temperature, rest)

    def _temperature(self, wanted: float | None) -> tuple[int, float]:
        kept = self.header.temperatures
        if wanted is None or wanted in kept:
            return (0, kept[0]) if wanted is None else (kept.index(wanted), float(wanted))
        if self.k == self.num_classes:
            return 0, float(wanted)  # no other classes: their sum is nothing at any temperature
        raise UserError(f"temperature={wanted} is not among those of the cache {self.path}: {list(kept)}")

    def write(self, index: Tensor, view: Tensor | int, logits: Tensor) -> None:
        """Keep the best of a teacher's logits.

        Args:
            index: Samples' numbers, int64 ``(B,)``.
            view: View numbers ``(B,)``, or one for all; taken modulo the number of views.
            logits: ``(B, num_classes)``.

        Raises:
            UserError: If the cache is open for reading only, shapes do not fit, or logits are not finite or too large
                for the dtype.
        """
        if self.mode == "read":
            raise UserError(f"the cache {self.path} is open for reading: open it with mode='readwrite'")
        rows, columns = self._places(index, view)
        if logits.shape != (len(rows), self.num_classes):
            raise UserError(f"logits have shape {tuple(logits.shape)}, expected {(len(rows), self.num_classes)}")
        logits = logits.detach().float()
        largest = float(logits.abs().max()) if logits.numel() else 0.0
        if not largest <= float(np.finfo(self.header.dtype).max):
            what = "not finite" if not largest < float("inf") else f"as large as {largest:.3g}"
            raise UserError(f"the teacher's logits are {what}, which cache.dtype={self.header.dtype} cannot hold")
        ordered = top_logits(logits, self.num_classes, 1.0)
        if self.k == self.num_classes:
            rest = torch.full((len(rows), len(self.header.temperatures)), -torch.inf)
        else:
            tail = ordered.values[:, self.k :]
            rest = torch.stack([torch.logsumexp(tail / t, 1) for t in self.header.temperatures], 1)
        for name, part in zip(RECORD, (ordered.values[:, : self.k], ordered.classes[:, : self.k], rest), strict=True):
            self._arrays[name][rows, columns] = part.cpu().numpy()
        sums = record_sums(rows * self.num_views + columns, self._content(rows, columns))
        self._arrays["sums.bin"][rows, columns] = sums
        done = self._arrays["done.bin"][rows, columns] != 0
        self._pending.update((rows * self.num_views + columns)[~done].tolist())
        if len(self._pending) >= FLUSH_RECORDS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring everything to the disk: first the data, then the marks that say it is there."""
        flush(self._arrays, self._pending)
        self._flushed = time.monotonic()

    def _places(self, index: Tensor, view: Tensor | int) -> tuple[np.ndarray, np.ndarray]:
        rows = index.cpu().numpy()
        views = torch.as_tensor(view).cpu().expand(index.shape).numpy()
        if index.ndim != 1 or rows.dtype.kind != "i" or views.dtype.kind != "i":
            raise UserError(f"index must be int64 (B,), got {index.dtype} of shape {tuple(index.shape)}")
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.num_samples and views.min() >= 0):
            wrong = rows[(rows < 0) | (rows >= self.num_samples)]
            what = f"index {wrong[0]} is not in 0..{self.num_samples - 1}" if len(wrong) else "a view is negative"
            raise UserError(f"{what}: the cache {self.path} has {self.num_samples} samples")
        return rows.astype(np.int64), views.astype(np.int64) % self.num_views

    def __repr__(self) -> str:
        """One line."""
        h = self.header
        return f"LogitCache({str(self.path)!r}, {h.num_samples} samples x {h.num_views} views, k={h.k}, {h.dtype})"
