"""A group of networks measured: timed in turns, then each by itself for memory and features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from effkit.bench import inference
from effkit.data.from_timm import preprocessing_of_timm
from effkit.timing import Comparison, MachineFloor
from tnt_vit.survey.attention import attention_seen
from tnt_vit.survey.energy import Meter, energy
from tnt_vit.survey.features import block_features, cka_matrix, diversity
from tnt_vit.survey.memory import largest_batch, train_cost
from tnt_vit.survey.models import Logits, Skipped, build
from tnt_vit.survey.registry import Backbone
from tnt_vit.survey.settings import Settings
from tnt_vit.survey.speed import Failure, Speed, run_case, summarise

__all__ = ["Found", "measure_alone", "time_group"]

Tell = Callable[[str], None]


@dataclass
class Found:
    """What is known of one network so far."""

    status: str = "measured"
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    last_block: Tensor | None = None

    def fail(self, failure: Failure, where: str) -> None:
        """The network cannot be measured."""
        self.status, self.reason = failure.status, f"{where}: {failure.reason}"


def _ready(backbone: Backbone, settings: Settings) -> nn.Module:
    """The network as it is timed."""
    model: nn.Module = build(backbone, fast=True, seed=settings.seed)
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    model = model.to(settings.where, settings.dtype, memory_format=layout)  # type: ignore[call-overload]
    return torch.compile(model) if settings.compile else model  # type: ignore[return-value]


def time_group(
    group: Sequence[Backbone], settings: Settings, floor: MachineFloor, tell: Tell, meter: Meter | None = None
) -> dict[str, Found]:
    """Latency and throughput of some networks, in turns.

    Args:
        group: The networks; the first is what the others are compared with.
        settings: How.
        floor: What the machine can do at best.
        tell: Told how far it is.
        meter: Of energy, if that is to be measured too.

    Returns:
        By name: latency, sweep, best throughput, its ratio to the first network's at each batch, share of the peak,
        energy.
    """
    found = {b.name: Found() for b in group}
    models: dict[str, nn.Module] = {}
    for backbone in group:
        try:
            models[backbone.name] = _ready(backbone, settings)
        except Skipped:
            raise
        except Exception as error:
            found[backbone.name].fail(Failure.of(error), "building")
    sizes = {b.name: b.size for b in group}
    speed = Speed(settings.where, settings.dtype, settings.threads, settings.min_rounds, settings.min_seconds)
    anchor = group[0].name
    for batch in settings.batches:
        tell(f"batch {batch}: {', '.join(models)}")
        timings, together, failed = run_case(models, sizes, batch, speed, "wall" if batch == 1 else "auto")
        for name, failure in failed.items():
            if batch == 1:
                found[name].fail(failure, "a picture")
            else:
                found[name].notes.append(f"batch {batch}: {failure.status}, {failure.reason}")
            models.pop(name)  # a larger batch would fail too
        for name, timing in timings.items():
            case = summarise(timing, batch) | {"ratio": _ratio(together, anchor, name)}
            found[name].values.setdefault("sweep", []).append(case)
            if together is None:
                found[name].notes.append(f"batch {batch}: timed by itself, because another network failed beside it")
    for one in found.values():
        sweep = one.values.get("sweep", [])
        if sweep:
            best = max(sweep, key=lambda case: case["images_per_second"])
            one.values |= {"latency": sweep[0], "best_batch": best["batch"], "throughput": best["images_per_second"]}
            one.values |= {"peak_bytes": best["peak_bytes"], "anchor": anchor, "floor": _floor(floor)}
    for name in models if meter is not None else []:
        tell(f"energy of {name}")
        _add_energy(models[name], sizes[name], settings, found[name], meter)
    return found


def _add_energy(model: nn.Module, size: int, settings: Settings, found: Found, meter: Any) -> None:
    """At the best batch size; a failure is a note."""
    best = found.values["best_batch"]
    took = next(case["seconds"] for case in found.values["sweep"] if case["batch"] == best)
    try:
        x = torch.randn(best, 3, size, size, device=settings.where, dtype=settings.dtype)
        call = inference(model, x)
        call()
        found.values["energy"] = energy(
            call, meter, settings.where, batch=best, call_seconds=took, seconds=settings.min_seconds
        )
    except Exception as error:
        failure = Failure.of(error)
        found.notes.append(f"energy: {failure.status}, {failure.reason}")


def _ratio(together: Comparison | None, anchor: str, name: str) -> dict[str, float] | None:
    """How many times faster than the anchor, paired round by round."""
    if together is None or anchor not in together.timings:
        return None
    return together.ratio(anchor, name)._asdict()


def _floor(floor: MachineFloor) -> dict[str, float]:
    return {"flops_per_second": floor.flops_per_second, "bytes_per_second": floor.bytes_per_second}


def measure_alone(backbone: Backbone, settings: Settings, pictures: Sequence[Any], found: Found) -> None:
    """Memory and features of one network; what fails is a note, the times stay.

    Args:
        backbone: The network.
        settings: How.
        pictures: Files or names of bundled photographs.
        found: Gets the values.
    """
    parts: dict[str, Callable[[Logits], Mapping[str, Any]]] = {
        "memory": lambda model: _memory(backbone, model, settings),
        "features": lambda model: _features(backbone, model, settings, pictures, found),
    }
    wanted = [name for name in parts if name in settings.parts]
    if not wanted:
        return
    try:
        model = build(backbone, pretrained=settings.pretrained, seed=settings.seed).to(settings.where)
        found.values["weights"] = (backbone.weights or backbone.model) if settings.pretrained else "random"
    except Skipped as reason:  # memory does not depend on weights, features do
        found.notes.append(f"features: {reason}")
        wanted = [name for name in wanted if name != "features"]
        model = build(backbone, seed=settings.seed).to(settings.where)
    except Exception as error:
        failure = Failure.of(error)
        found.notes.append(f"memory and features: {failure.status}, {failure.reason}")
        return
    for name in reversed(wanted):  # features first: a training step moves the statistics of batch norms
        try:
            found.values |= parts[name](model)
        except Exception as error:
            failure = Failure.of(error)
            found.notes.append(f"{name}: {failure.status}, {failure.reason}")


def _memory(backbone: Backbone, model: Logits, settings: Settings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if settings.largest_batch:
        same = model.to(settings.dtype)
        values["largest_batch"] = largest_batch(same, backbone.size, settings.where, settings.dtype)
        model.float()
    train = train_cost(model, backbone.size, settings.train_batch, settings.where, settings.dtype)
    return {**values, "train": train}


def _features(
    backbone: Backbone, model: Logits, settings: Settings, pictures: Sequence[Any], found: Found
) -> dict[str, Any]:
    if not backbone.blocks:
        found.notes.append(f"features: not looked into, the registry names no blocks of {backbone.name}")
        return {}
    images = preprocessing_of_timm(model.net, backbone.size).batch(list(pictures)).to(settings.where)
    values: dict[str, Any] = {"diversity": diversity(model.net, images, backbone.blocks)}
    with attention_seen(model.net, backbone.blocks) as values["attention"]:  # in the same pass
        features = block_features(model.net, images, backbone.blocks)
    found.last_block = list(features.values())[-1]
    return {**values, "cka": cka_matrix(features), "blocks": list(features)}
