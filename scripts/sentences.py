"""Sentences of the READMEs that repeat figures of the committed results files, and where each figure comes from.

The words are written by hand, with a place for each figure: a file that is measured anew changes the sentences as it
changes the tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from highlights import Figure, Rows, only, speedup, value

from effkit.results import read_csv

NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"


def time(file: str, unit: float = 1e3, **wanted: object) -> Figure:
    """A measured time, in milliseconds unless told otherwise."""
    return file, lambda rows: unit * only(rows, metric="time", **wanted).median


def times(file: str, over: str, provider: str, scale: float = 1.0, **wanted: object) -> Figure:
    """How many times as long as ``over`` one provider takes: the ratio of their medians."""

    def read(rows: Rows) -> float:
        found = [only(rows, metric="time", provider=name, **wanted).median for name in (provider, over)]
        return scale * found[0] / found[1]

    return file, read


def of(figure: Figure, change: Callable[[float], float]) -> Figure:
    """Another figure that follows from one."""
    file, read = figure
    return file, lambda rows: change(read(rows))


def quantile(file: str, name: str, **wanted: object) -> Figure:
    """The ``p20`` or ``p80`` of one row."""
    return file, lambda rows: getattr(only(rows, **wanted), name)


def shorter(pick: Callable[[list[float]], float], lengths: tuple[int, ...]) -> Figure:
    """By how many percent the 8-bit index makes a step shorter: the least or the most."""
    ratios = [times("cpu.csv", "esa", "esa_int8", mode="decode", dtype="fp32", x=x)[1] for x in lengths]
    return "cpu.csv", lambda rows: 100 * pick([1 - read(rows) for read in ratios])


LENGTHS = (32768, 65536, 131072, 262144)
TRAIN = {"mode": "train eager", "x": 8}
SINGLE = "{size} N=2 {fill}, single {kind}, operators of {peer}"
SECOND = {"mode": "second order", "provider": "functional", "metric": "speedup_over_published"}
SHORT_RACE = {"provider": "racing 2550 5100", "metric": "loss"}


def single(size: int, kind: str, peer: str, fill: str = "nearest") -> Figure:
    """Pictures that come alone, against a peer."""
    mode = SINGLE.format(size=f"{size}x{size}", fill=fill, kind=kind, peer=peer)
    return speedup("cpu.csv", provider="ours", mode=mode)


def batch(size: int, fill: str, peer: str) -> Figure:
    """Pictures in a batch, against a peer."""
    wanted = {"provider": "ours", "mode": f"{size}x{size} N=2 {fill}"}
    if peer == "timm":
        return speedup("cpu.csv", **wanted)
    return value("cpu.csv", metric=f"ratio_to_{peer}", **wanted)


SENTENCES: dict[str, list[tuple[str, list[Figure]]]] = {
    "augshortcut": [
        (
            "The products allow four times; {:.2f} (one picture) and {:.2f} (eight) are reached in inference, {:.2f} "
            "and {:.2f} in training;",
            [speedup(file, provider="ours", x=x) for file in ("paths.csv", "paths_train.csv") for x in (1, 8)],
        ),
        (
            "a fifth of the official {:.1f} ms is {:.1f} ms, of which the products of ours alone take {:.1f}.",
            [
                time("paths_train.csv", provider="official", **TRAIN),
                time("paths_train.csv", 200, provider="official", **TRAIN),
                time("paths_train.csv", provider="floor_ours", **TRAIN),
            ],
        ),
    ],
    "esa-attention": [
        (
            "In float32 a step reaches {:.0f}, {:.0f} and {:.0f} % of its floor at 32,768, 131,072 and 262,144 tokens",
            [times("cpu.csv", "esa", "floor_esa", 100, mode="decode", dtype="fp32", x=LENGTHS[i]) for i in (0, 2, 3)],
        ),
        (
            "in bfloat16 {:.0f} % at 131,072 (40 %).",
            [times("cpu.csv", "esa", "floor_esa", 100, mode="decode", dtype="bf16", x=131072)],
        ),
        (
            "exceeds the ratio of the bytes ({:.1f}).",
            [times("cpu.csv", "floor_esa", "floor_sdpa", mode="decode", dtype="fp32", x=LENGTHS[-1])],
        ),
        ("The 8-bit index makes a step {:.0f} to {:.0f} % shorter.", [shorter(min, LENGTHS), shorter(max, LENGTHS)]),
        ("The closed form of a layer (d_G = 1024) takes {:.1f} s.", [time("cpu.csv", 1, mode="calibrate")]),
    ],
    "greedy-enlarge": [
        ("a pick costs {:.1f} points on average", [value("racing.csv", **SHORT_RACE)]),
        (
            "one pick of three is the same, at {:.1f} points.",
            [value("racing.csv", provider="racing and inheritance 2550 5100", metric="loss")],
        ),
    ],
    "kd-autoaug": [
        (
            "At 32x32 that is {:.1f} times timm and {:.1f} times torchvision on Pillow.",
            [batch(32, "nearest", peer) for peer in ("timm", "torchvision")],
        ),
        (
            "ours is {:.2f} times timm (nearest) and {:.2f} times (bilinear or bicubic",
            [batch(224, fill, "timm") for fill in ("nearest", "random")],
        ),
        (
            "ours is {:.1f} times as fast at 32x32 and {:.1f} times at 224x224 on Pillow pictures, its quicker kind, "
            "and {:.1f} and {:.1f} times on uint8 tensors; against timm {:.1f} and {:.1f} times, and {:.1f} times with "
            "its own interpolation.",
            [
                *(single(size, kind, "torchvision") for kind in ("pillow", "tensor") for size in (32, 224)),
                *(single(size, "pillow", "timm") for size in (32, 224)),
                single(224, "pillow", "timm", "random"),
            ],
        ),
        (
            "distillation from the cache costs {:.2f} of a cross-entropy step, with the teacher beside it {:.2f}.",
            [of(speedup("step.csv", provider=side), lambda ratio: 1 / ratio) for side in ("cached", "online")],
        ),
        (
            "at 32x32, 512 together run {:.1f} times as fast as timm's, one by one {:.1f} times.",
            [batch(32, "nearest", "timm"), single(32, "pillow", "timm")],
        ),
    ],
    "tnt-vit": [
        (
            "In float32 the products alone take {:.0f} and {:.0f} % of ours",
            [
                times("cpu.csv", "ours", "products", 100, mode="inference eager", dtype="fp32", x=x)
                for x in (1, 8)
            ],
        ),
        (
            "In bfloat16 TNT-S takes {:.2f} times as long as DeiT-S at batch 8 and {:.2f} times at batch 1.",
            [times("cpu.csv", "deit", "ours", mode="inference eager", dtype="bf16", x=x) for x in (8, 1)],
        ),
    ],
    "ws-nas": [
        (
            "The second-order step takes 1/{:.2f} of the published one's time ({:.2f} to {:.2f}):",
            [value("cpu.csv", **SECOND), quantile("cpu.csv", "p20", **SECOND), quantile("cpu.csv", "p80", **SECOND)],
        ),
        (
            "copying the model and beginning a loader with two processes anew take {:.0f} and {:.0f} ms",
            [
                time("cpu.csv", mode="second order, parts", provider=part)
                for part in ("copied_model", "loader_begun_anew")
            ],
        ),
    ],
}  # fmt: skip


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    """Pairs of words, as a pattern that may be wrapped anywhere, and the form of the figure behind them."""
    words = [*re.split(r"(\{[^}]*\})", template), ""]
    for text, form in zip(words[::2], words[1::2], strict=True):
        yield r"\s+".join(re.escape(word) for word in re.split(r"\s+", text)), form


def with_figures(text: str, package: str, folder: Path) -> str:
    """A README's text whose sentences have the figures of its results files.

    Args:
        text: Of the README.
        package: Its distribution.
        folder: Of the results files.

    Raises:
        SystemExit: If a sentence does not stand there once.
    """
    for template, figures in SENTENCES.get(package, []):
        pattern = "".join(words + (NUMBER if form else "") for words, form in _pieces(template))
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise SystemExit(
                f"sentences: {len(found)} of the README of {package} are as here, expected one: {template}"
            )
        forms = [form for _, form in _pieces(template) if form]
        for place in range(len(forms), 0, -1):  # from the end, so that places before stay where they are
            file, read = figures[place - 1]
            figure = forms[place - 1].format(read(read_csv(folder / file)))
            text = text[: found[0].start(place)] + figure + text[found[0].end(place) :]
    return text
