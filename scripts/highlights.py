"""What the root README says each paper gives, with figures from the committed results files and from nowhere else.

A sentence names its figures; each is one row of a file, or a ratio of two. Where a side has several layouts, the
fastest one counts, so that no ratio is flattered by a slow peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effkit.results import ResultRow, read_csv

Rows = list[ResultRow]
Figure = tuple[str, Callable[[Rows], float]]


def only(rows: Rows, **wanted: object) -> ResultRow:
    """The one row with these values."""
    found = [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]
    if len(found) != 1:
        raise SystemExit(f"highlights: {len(found)} rows have {wanted}, expected one")
    return found[0]


def speedup(file: str, **wanted: object) -> Figure:
    """A measured ratio as it stands in a file: median of the ratios within rounds."""

    def read(rows: Rows) -> float:
        (metric,) = {row.metric for row in rows if row.metric.startswith("speedup_over_") and _fits(row, wanted)}
        return only(rows, metric=metric, **wanted).median

    return file, read


def fastest(file: str, slow: str, fast: str, **wanted: object) -> Figure:
    """How many times faster the fastest provider called ``fast*`` is than the fastest called ``slow*``."""

    def read(rows: Rows) -> float:
        times = {row.provider: row.median for row in rows if row.metric == "time" and _fits(row, wanted)}
        best = {side: min(time for name, time in times.items() if name.startswith(side)) for side in (slow, fast)}
        return best[slow] / best[fast]

    return file, read


def value(file: str, **wanted: object) -> Figure:
    """A measured figure that is no ratio."""
    return file, lambda rows: only(rows, **wanted).median


def microseconds(file: str, **wanted: object) -> Figure:
    """A measured time."""
    return file, lambda rows: 1e6 * only(rows, metric="time", **wanted).median


def _fits(row: ResultRow, wanted: dict[str, object]) -> bool:
    return all(getattr(row, key) == value for key, value in wanted.items())


@dataclass(frozen=True)
class Highlight:
    """One package's line.

    Args:
        paper: The paper, short.
        gives: What one has from it.
        picture: Beside the package's README, with its alt text.
        measured: A sentence with a place for each figure.
        figures: Results file and reader of each figure, in the order of the places.
    """

    paper: str
    gives: str
    picture: tuple[str, str]
    measured: str
    figures: tuple[Figure, ...]

    def sentence(self, folder: Path) -> str:
        """The sentence with its figures."""
        return self.measured.format(*(read(read_csv(folder / "results" / file)) for file, read in self.figures))


EAGER = {"provider": "ours", "mode": "inference eager"}
HIGHLIGHTS = {
    "augshortcut": Highlight(
        "Augmented Shortcuts for Vision Transformers (NeurIPS 2021)",
        "Parallel paths beside the shortcuts of any timm transformer, in one line; how alike its tokens become.",
        ("diversity.png", "Difference of tokens by block"),
        "The paths of ViT-S run {:.2f} times as fast as the official formulation on one picture, {:.2f} on eight; a "
        "block with them runs at {:.2f} of the speed of one without.",
        (speedup("paths.csv", x=1, **EAGER), speedup("paths.csv", x=8, **EAGER), speedup("block.csv", x=8, **EAGER)),
    ),
    "esa-attention": Highlight(
        "Efficient Selective Attention (arXiv 2502.14477)",
        "A language model reads far past its context, attending to a constant number of tokens; no weight changes.",
        ("needle.png", "Needle found by length and depth"),
        "A decoding step of one layer runs {:.1f} times as fast as attention to all of 32,768 tokens, {:.1f} times at "
        "262,144.",
        tuple(speedup("cpu.csv", provider="esa", mode="decode", dtype="fp32", x=x) for x in (32768, 262144)),
    ),
    "greedy-enlarge": Highlight(
        "Greedy Network Enlarging (arXiv 2108.00177)",
        "A small CNN grows to an exact budget of MACs, stage by stage, keeping its function.",
        ("path.png", "MACs of stages growing step by step"),
        "On 80 recorded trainings the greedy search ends {:.1f} points below the best network of its budget, a random "
        "path {:.1f}; the MACs of EfficientNet-B0 are counted in {:.0f} microseconds.",
        (
            value("regret.csv", provider="greedy", metric="regret"),
            value("regret.csv", provider="random monotone path", metric="regret"),
            microseconds("cpu.csv", case="efficientnet_b0", provider="ours", mode="count"),
        ),
    ),
    "kd-autoaug": Highlight(
        "KD for AutoAugment (ECCV 2020)",
        "Augmentation per sample with Pillow's bits, distillation on the same view, and what each operator destroys.",
        ("accuracy.png", "Accuracy against magnitude"),
        "RandAugment on 32x32 pictures runs {:.1f} times as fast as timm's, on 224x224 {:.2f} times; on single "
        "pictures {:.1f} and {:.1f} times as fast as torchvision's; a step with a cached teacher at {:.2f} of the "
        "speed of one without.",
        (
            speedup("cpu.csv", provider="ours", mode="32x32 N=2 nearest"),
            speedup("cpu.csv", provider="ours", mode="224x224 N=2 nearest"),
            speedup("cpu.csv", provider="ours", mode="32x32 N=2 nearest, single pillow, operators of torchvision"),
            speedup("cpu.csv", provider="ours", mode="224x224 N=2 nearest, single pillow, operators of torchvision"),
            speedup("step.csv", provider="cached"),
        ),
    ),
    "shiftghost-sr": Highlight(
        "GhostSR (TMLR 2022)",
        "Super-resolution with half of each layer moved instead of computed, deployed as plain convolutions.",
        ("before_after.png", "A photograph enlarged in three ways, and the original"),
        "Deployed, EDSR runs {:.2f}, EDSR-baseline {:.2f} and VDSR {:.2f} times as fast as the dense network in its "
        "fastest form.",
        tuple(fastest(f"{name}.csv", "dense", "deployed", x=57600) for name in ("edsr", "edsr_baseline", "vdsr")),
    ),
    "tnt-vit": Highlight(
        "Transformer in Transformer (NeurIPS 2021)",
        "TNT and PyramidTNT: training, inference, export, and backbones for detectors, exact against timm.",
        ("word_maps.png", "Words of three blocks, tiled to a picture"),
        "TNT-S classifies {:.2f} times as fast as timm's, eight pictures at once; with both compiled {:.2f} times.",
        (
            speedup("cpu.csv", x=8, dtype="fp32", **EAGER),
            speedup("cpu.csv", x=8, dtype="fp32", provider="ours", mode="inference compile"),
        ),
    ),
    "ws-nas": Highlight(
        "Weight-Sharing NAS: the optimization gap (arXiv 2008.01475)",
        "How well a super-network ranks its sub-networks, beside seed noise and plain counting.",
        ("taus.png", "Rank correlations of two supernets beside seed noise and counting"),
        "All 81 networks of a chain are scored {:.1f} times as fast as one at a time, all 6,561 of another {:.1f} "
        "times, 24 trained {:.1f} times.",
        (
            speedup("cpu.csv", provider="prefix", x=81),
            speedup("cpu.csv", provider="prefix", x=6561),
            speedup("cpu.csv", provider="stacked"),
        ),
    ),
}


def highlights_table(root: Path) -> str:
    """Markdown of the table of packages."""
    lines = ["| package | what it gives | measured here, on a CPU | picture |", "| --- | --- | --- | --- |"]
    for folder in sorted(path.parent for path in root.glob("packages/*/pyproject.toml")):
        line = HIGHLIGHTS[folder.name]
        picture, alt = line.picture
        where = f"packages/{folder.name}"
        cells = [f"[{folder.name}]({where})", f"{line.paper}. {line.gives}", line.sentence(folder)]
        lines.append(f"| {' | '.join(cells)} | ![{alt}]({where}/pictures/{picture}) |")
    core = "The core: command lines, timing, MACs, data, training, reports."
    lines.append(f"| [effkit](shared) | {core} | | |")
    return "\n".join(lines) + "\n"
