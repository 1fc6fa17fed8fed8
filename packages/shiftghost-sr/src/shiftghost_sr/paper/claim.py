"""The laptop-scale claim, in five parts that can each fail.

1. Parameters and MACs fall as the tables say, and deployment falls below the paper's own count.
2. A deployed network computes what its ghost network does, to rounding in double precision, on frames of any size.
3. A dense network learns super-resolution from bundled photographs within the run.
4. Converted to ghosts and finetuned, it is as good on held-out photographs as the dense one, within 0.3 dB.
5. On this machine's CPU the deployed form is faster than the dense network.

The full form also converts a trained VDSR, where there is one at hand.

What the shift itself is worth is shown, not claimed: copies, depthwise ghosts and a narrower network stand beside it.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from effkit.data.at_hand import data_at_hand
from effkit.papers import Claim, ClaimRun, Findings
from effkit.progress import report_progress
from effkit.report import Table
from shiftghost_sr.commands.evaluate import decibels
from shiftghost_sr.images.metrics import luma
from shiftghost_sr.images.picture import Picture
from shiftghost_sr.images.resampling import imresize
from shiftghost_sr.images.sets import find_pairs
from shiftghost_sr.inference.upscale import Upscaler
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.files import load_model
from shiftghost_sr.paper.claim_measured import agreement, counts, latency, speed
from shiftghost_sr.paper.claim_trained import TRAINED, cubic, psnr, recover, train
from shiftghost_sr.plots.comparisons import busiest_part, draw_comparison, draw_errors
from shiftghost_sr.plots.rose import draw_rose
from shiftghost_sr.plots.tradeoff import Point, draw_ablation, draw_tradeoff

__all__ = ["FULL", "SHORT", "Form", "run_claim"]

GHOSTS = {"learned shift": "default", "copy": "copy", "depthwise": "depthwise"}
"""Variant -> kind of ghosts, all converted and finetuned alike."""

WITHIN = 0.3  # dB below the dense network
ABOVE = 0.4  # dB over cubic interpolation
REGAINED = 1.0  # dB that finetuning must bring back
FASTER = 1.5  # of the deployed VDSR; by MACs 2.5 to 2.9
AGREE = 1e-12
NARROW = 11  # channels of the network whose MACs are about those of the ghost network's


class Form(NamedTuple):
    """How long a claim trains.

    Attributes:
        seeds: One dense network and its variants each.
        ghosts: Keys of :data:`GHOSTS`.
        words: Of the dense training and of each finetuning, beside the experiment.
        narrow: Of the narrower network's training, as many steps as the other two together; nothing leaves it out.
    """

    seeds: tuple[int, ...]
    ghosts: tuple[str, ...]
    words: tuple[str, ...]
    narrow: tuple[str, ...]


SHORT = Form((0,), ("learned shift", "copy"), ("trainer.max_epochs=1",), ())
FULL = Form((0, 1), tuple(GHOSTS), ("data.crops=1600",), ("data.crops=1600", "trainer.max_epochs=4"))


def run_claim(run: ClaimRun) -> Claim:
    """Run all parts and judge them.

    Args:
        run: Gets a folder per training, and the pictures.
    """
    form = FULL if run.full else SHORT
    found = Findings(command=f"shiftghost-sr reproduce claim=true{' full=true' if run.full else ''}")
    report_progress("counting", 0.0)
    _judge_counts(found, run.part("counts", counts))
    for name, difference in run.part("agreement", agreement).items():
        found.add(
            f"{name}: deployed against ghost", "largest difference", difference, AGREE, "at_most", source="rounding"
        )
    times = run.part("speed", speed)
    found.add("VDSR, 20 layers of 64", "dense time / deployed time", times["deployed"][0], FASTER, unit="x",
              source="our floor; 2.5x to 2.9x by MACs")  # fmt: skip
    found.add("VDSR, 20 layers of 64", "dense time / ghost time", times["ghost"][0], unit="x")
    trained = [_train_all(run, form, seed, place / len(form.seeds)) for place, seed in enumerate(form.seeds)]
    mean = {name: statistics.fmean(_mean(one[name]) for one in trained) for name in trained[0]}
    found.add("dense network", "gain over cubic interpolation", mean["dense"] - mean["cubic"], ABOVE, unit="dB")
    found.add("learned shift", "gain over cubic interpolation", mean["learned shift"] - mean["cubic"], ABOVE, unit="dB")
    found.add("learned shift", "below the dense network", mean["dense"] - mean["learned shift"], WITHIN, "at_most",
              unit="dB")  # fmt: skip
    regained = mean["learned shift"] - mean["converted, not finetuned"]
    found.add("learned shift", "gain of finetuning over conversion alone", regained, REGAINED, unit="dB")
    for name in (n for n in ("copy", "depthwise", "narrower network") if n in mean):
        found.add(name, "gain over cubic interpolation", mean[name] - mean["cubic"], unit="dB")
    tables = [_table(trained), _speed_table(times)]
    if run.full:
        tables += _recovered(run, found)
    files = _draw(run, form, trained)
    return Claim(found.rows, files, tables, _notes(form, mean))


def _recovered(run: ClaimRun, found: Findings) -> list[Table]:
    """The same with a network of 20 layers that others have trained, if it is at hand: what 120 steps bring back.

    That is shown, since so few do not come as near to the dense network as a whole finetuning does.
    """
    file = data_at_hand(*TRAINED)
    if file is None:
        return []
    report_progress("trained VDSR", 0.95)
    stages = run.part("vdsr", recover, str(file), 0, run.subfolder("vdsr"))
    stages = {"cubic": cubic(), **stages}
    mean = {name: _mean(values) for name, values in stages.items()}
    title = "trained VDSR, 20 layers of 64"
    regained = mean["learned shift"] - mean["converted, not finetuned"]
    found.add(title, "gain of finetuning over conversion alone", regained, unit="dB")
    found.add(title, "dense: gain over cubic interpolation", mean["dense"] - mean["cubic"], ABOVE, unit="dB")
    found.add(title, "learned shift: gain over cubic interpolation", mean["learned shift"] - mean["cubic"], unit="dB")
    found.add(title, "learned shift: below the dense network", mean["dense"] - mean["learned shift"], unit="dB")
    return [_table([stages], f"Held-out photographs, x2: {title}")]


def _judge_counts(found: Findings, counts: dict[str, list[int]]) -> None:
    for name, (ours, exact) in counts.items():
        found.add(name, "count", ours, exact, "exact", source="computed from the architecture", evidence="computed")


def _train_all(run: ClaimRun, form: Form, seed: int, begun: float) -> dict[str, list[float]]:
    """PSNR on each held-out photograph by variant."""
    steps = 1 + len(form.ghosts) + bool(form.narrow)

    def say(text: str, number: int) -> None:
        report_progress(f"{text}, seed {seed}", begun + (0.1 + 0.9 * number / steps) / len(form.seeds))

    say("dense", 0)
    dense = run.subfolder(f"dense-{seed}")
    found = {"cubic": cubic()}
    words = ["experiment=laptop", *form.words]
    found["dense"] = run.part(dense.name, train, "train", words, seed, dense, None, None)
    parent = str(dense / "model.safetensors")
    for number, name in enumerate(form.ghosts, 1):
        say(name, number)
        ghost = GHOSTS[name]
        folder = run.subfolder(f"{ghost}-{seed}")
        words = ["experiment=laptop_finetune", f"model={parent}", *form.words]
        found[name] = run.part(folder.name, train, "finetune", words, seed, folder, ghost, parent)
        if ghost == "default":
            start = folder / "converted.safetensors"
            found["converted, not finetuned"] = psnr(load_model(start))
    if not form.narrow:
        return found
    say("narrower network", 1 + len(form.ghosts))
    narrow = run.subfolder(f"narrow-{seed}")
    words = ["experiment=laptop", f"size.features={NARROW}", *form.narrow]
    found["narrower network"] = run.part(narrow.name, train, "train", words, seed, narrow, None, None)
    return found


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _draw(run: ClaimRun, form: Form, trained: list[dict[str, list[float]]]) -> list[Path]:
    seed = form.seeds[0]
    folders = {"dense": f"dense-{seed}", "learned shift": f"default-{seed}"}
    folders |= {"narrower network": f"narrow-{seed}"} if form.narrow else {}
    models = {name: load_model(run.subfolder(folder) / "model.safetensors") for name, folder in folders.items()}
    times = run.part("latency", latency, models)
    models.pop("narrower network", None)
    high, low = find_pairs("bundled", "test", 2)[0].both(2)
    pictures = {"cubic": imresize(low, 2)}
    pictures |= {name: Upscaler(model)(Picture(low)).picture.colour for name, model in models.items()}
    psnr = {name: decibels(picture, high, 2) for name, picture in pictures.items()}
    errors = {name: abs(luma(picture) - luma(high)) for name, picture in pictures.items()}
    gains = {
        name: [_mean(one[name]) - _mean(one["cubic"]) for one in trained]
        for name in ("dense", *form.ghosts, *(["narrower network"] if form.narrow else []))
    }
    layers = {name: shift.chosen_directions() for name, shift in shifts(models["learned shift"])}
    mean = {name: statistics.fmean(values) for name, values in gains.items()}
    part = busiest_part(high, 96)
    points = [
        Point(name, mean[name.removesuffix(", deployed")], median, (low_time, high_time))
        for name, (median, low_time, high_time) in times.items()
    ]
    title, line = "Held-out photographs, x2", (f"claimed: {ABOVE} dB", ABOVE)
    folder = run.folder
    return [
        draw_comparison({**pictures, "original": high}, psnr, part, folder / "before_after.png", f"{title}: astronaut"),
        draw_ablation(gains, folder / "ablation.png", f"{title}: gain", floor=line),
        draw_errors(errors, folder / "errors.png", f"{title}: where the error is"),
        draw_rose(layers, folder / "rose.png", "Directions that the finetuning found"),
        draw_tradeoff(points, folder / "latency.png", f"{title}: gain, and time for 512 x 512 pixels", gain=True),
    ]


def _table(trained: list[dict[str, list[float]]], title: str = "Held-out photographs, x2") -> Table:
    names = [pair.name for pair in find_pairs("bundled", "test", 2)]
    rows = [
        [variant, seed, *values, _mean(values)] for seed, one in enumerate(trained) for variant, values in one.items()
    ]
    note = "PSNR of the luma, two pixels left out at each side, dB."
    return Table(title, ["network", "seed", *names, "mean"], rows, note)


def _speed_table(times: dict[str, list[float]]) -> Table:
    rows = [[name, *values] for name, values in times.items()]
    return Table("VDSR (20 layers, 64 channels), a frame of 128 x 128, one interleaved run",
                 ["form", "times faster than dense", "median ms"], rows)  # fmt: skip


def _notes(form: Form, mean: dict[str, float]) -> list[str]:
    shown_ones = [name for name in (*GHOSTS, "narrower network") if name in mean]
    order = sorted(shown_ones, key=lambda name: -mean[name])
    shown = ", ".join(f"{name} {mean[name] - mean['dense']:+.2f} dB" for name in order)
    seeds = f"{len(form.seeds)} seed{'s' * (len(form.seeds) > 1)}"
    return [
        f"Against the dense network: {shown} ({seeds}, which do not settle differences as small as these).",
        f"full=true also shows depthwise ghosts and a narrower network: {NARROW} channels, about the ghost network's "
        "MACs, trained from scratch for as many steps as dense training and finetuning together.",
        "A network of 6 layers and 16 channels trained for seconds says little about the paper's tables on DIV2K, "
        "which need days on GPUs; counts, agreement and speed are those of the real thing.",
    ]
