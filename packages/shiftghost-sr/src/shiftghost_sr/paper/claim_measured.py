"""What the claim measures: counts, agreement of the forms, and how fast they are."""

from __future__ import annotations

from typing import Any

import torch

from effkit.timing import compare
from shiftghost_sr.compression.count import count
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.images.sets import find_pairs
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.zoo import create_model
from shiftghost_sr.training.module import prepared

__all__ = ["agreement", "counts", "latency", "speed"]


def counts() -> dict[str, list[int]]:
    """Ours and the fact sheet's: parameters, and MACs per pixel of the large frame."""
    forms = {direction: count("vdsr", 2, "default", hr=(64, 64), direction=direction) for direction in ("stay", "axis")}
    pixels = 64 * 64
    vdsr = forms["axis"]
    return {
        "VDSR dense, params": [vdsr["dense"].params, 664_704],
        "VDSR ghost, params": [vdsr["ghost"].params, 332_928],
        "VDSR dense, MACs a pixel": [vdsr["dense"].macs // pixels, 664_704],
        "VDSR ghost, MACs a pixel": [vdsr["ghost"].macs // pixels, 332_928],
        "VDSR deployed, shifts along an axis, MACs a pixel": [vdsr["deployed"].macs // pixels, 228_288],
        "VDSR deployed, no moves, MACs a pixel": [forms["stay"]["deployed"].macs // pixels, 175_968],
    }


def _turned(name: str, **size: Any) -> Any:
    """A ghost network whose shifts point everywhere."""
    torch.manual_seed(0)
    model = create_model(name, 2, ghost="default", **size).eval()
    ways = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    for number, (_, shift) in enumerate(shifts(model)):
        shift.set_directions([ways[(5 * number + 2) % 9]] * len(shift.logits))
    return model


def agreement() -> dict[str, float]:
    """Largest difference in double precision, relative to the largest value, over frames of several sizes."""
    sizes = {"edsr_baseline": {"blocks": 4, "features": 16}, "vdsr": {"layers": 10, "features": 16}, "carn": {}}
    differences = {}
    for name, size in sizes.items():
        model = _turned(name, **size).double()
        fast = deploy(model)
        worst = 0.0
        for height, width in ((1, 1), (1, 6), (5, 7), (24, 33)):
            given = torch.rand(1, model.channels, height, width, dtype=torch.float64)
            with torch.inference_mode():
                expected = model(given)
                worst = max(worst, float((fast(given) - expected).abs().max() / expected.abs().max()))
        differences[name] = worst
    return differences


def speed() -> dict[str, list[float]]:
    """How many times faster than dense, and milliseconds, for a frame of 128 x 128; one interleaved run."""
    ghost = _turned("vdsr")
    torch.manual_seed(0)
    dense = create_model("vdsr", 2).eval()
    forms = {"dense": dense, "ghost": ghost, "deployed": deploy(ghost)}
    given = torch.rand(1, 1, 128, 128)

    timed = compare(
        {name: _call(m, given) for name, m in forms.items()}, warmup=1, min_rounds=5, min_seconds=0.0, memory=False
    )
    return {name: [timed.ratio("dense", name).median, 1e3 * timed.timings[name].median] for name in forms}


def _call(model: Any, given: torch.Tensor) -> Any:
    def run() -> None:
        with torch.inference_mode():
            model(given)

    return run


def latency(models: dict[str, Any]) -> dict[str, list[float]]:
    """Median, 20 and 80 % milliseconds for the astronaut of the networks trained here; one interleaved run."""
    forms = {**models, "learned shift, deployed": deploy(models["learned shift"])}
    _, low = find_pairs("bundled", "test", 2)[0].both(2)
    given = prepared(models["dense"], torch.from_numpy(low.transpose(2, 0, 1).copy())[None])
    calls = {name: _call(model, given) for name, model in forms.items()}
    timed = compare(calls, warmup=1, min_rounds=5, min_seconds=0.0, memory=False).timings
    return {name: [1e3 * t.median, 1e3 * t.p20, 1e3 * t.p80] for name, t in timed.items()}
