"""How a survey measures: what a row depends on besides the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from effkit.arguments import check_arguments
from effkit.device import PRECISIONS, resolve_device, resolve_precision
from effkit.errors import UserError, choose
from effkit.provenance import package_version
from effkit.results import stamp
from tnt_vit.survey.registry import Backbone

__all__ = ["PARTS", "Settings"]

PARTS = ("speed", "memory", "features", "energy")
_BATCHES = {"cuda": (1, 8, 32, 128), "cpu": (1, 4), "mps": (1, 8)}
_LIBRARIES = ("torch", "timm", "transformers")


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` ...
        precision: ``auto``, ``fp32``, ``bf16``, ``fp16``: of inference's weights and pictures, of training's autocast.
        threads: CPU threads of torch; its choice if not given.
        structural: Count on the meta device and measure nothing.
        parts: What to measure: ``speed``, ``memory``, ``features``; ``energy`` (NVIDIA GPUs) only if it is named.
        pretrained: With the registry's weights, which are downloaded; random ones if not.
        batch_sizes: Of the throughput sweep; 1 and 4 on a CPU, 1 to 128 on a GPU if not given.
        min_rounds: Rounds at least, each network once a round.
        min_seconds: Seconds a case at least, all networks of a group together; of energy, each network.
        together: Networks that are timed in turns; the first of the suite is in every group, as what others are
            compared with.
        compile: Through ``torch.compile``.
        channels_last: Weights and pictures in that layout.
        train_batch: Pictures of the training step; above 1, because of batch norms over single values.
        largest_batch: Also search the largest batch that fits (GPU).
        seed: Of random weights and pictures.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    structural: bool = False
    parts: Sequence[str] = PARTS[:3]
    pretrained: bool = False
    batch_sizes: Sequence[int] | None = None
    min_rounds: int = 10
    min_seconds: float = 5.0
    together: int = 8
    compile: bool = False
    channels_last: bool = False
    train_batch: int = 2
    largest_batch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_arguments(Settings, dataclasses.asdict(self))
        for part in self.parts:
            choose("parts", part, PARTS)
        if "energy" in self.parts and "speed" not in self.parts:
            raise UserError(f"parts=[{','.join(self.parts)}]: energy is measured at the best batch of speed, name both")
        counts = {k: getattr(self, k) for k in ("min_rounds", "train_batch")} | {"together": self.together - 1}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least {2 if name == 'together' else 1}")
        if not 0 <= self.min_seconds < float("inf"):
            raise UserError(f"min_seconds={self.min_seconds} must be at least 0, and finite")
        batches = self.batch_sizes
        if batches is not None and (not batches or min(batches) < 1 or len(set(batches)) != len(batches)):
            raise UserError(f"batch_sizes={list(batches)} must be different whole numbers of at least 1")
        if self.largest_batch and self.where.type != "cuda":
            raise UserError(f"largest_batch=true needs a CUDA device: {self.where} refuses no memory but swaps")
        _ = self.dtype

    @property
    def where(self) -> torch.device:
        """The device."""
        return resolve_device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and pictures in inference."""
        return resolve_precision(self.precision, self.where)

    @property
    def batches(self) -> tuple[int, ...]:
        """The sweep, from the smallest; 1 is always in it, as that is the latency."""
        return tuple(sorted({1, *(self.batch_sizes or _BATCHES[self.where.type])}))

    def record(self, pictures: Sequence[str], digest: str = "") -> dict[str, Any]:
        """All that figures depend on besides the network, as plain values: settings resolved, machine, libraries.

        Args:
            pictures: Names of the pictures that are looked at.
            digest: Of their bytes.
        """
        if self.structural:
            return {"structural": True, "timm": package_version("timm"), "torch": package_version("torch")}
        plain = dataclasses.asdict(self) | {
            "device": str(self.where),
            "precision": next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype),
            "threads": self.threads or torch.get_num_threads(),
            "batch_sizes": self.batches,
            "parts": sorted(self.parts),
            "pictures": list(pictures) if "features" in self.parts else [],
            "picture_bytes": digest if "features" in self.parts else "",
            "machine": stamp(self.where)["machine"],
            "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
            "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
        }
        return plain | {name: package_version(name) for name in _LIBRARIES}

    def identity(self, backbone: Backbone, record: Mapping[str, Any]) -> dict[str, Any]:
        """What a row depends on."""
        shown = ("published", "found", "note", "families", "suites", "group", "row")
        made_of = {k: v for k, v in dataclasses.asdict(backbone).items() if k not in shown}
        return {"settings": dict(record), "backbone": made_of}
