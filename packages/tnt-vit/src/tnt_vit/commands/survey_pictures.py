"""The pictures of a survey: of each only what the rows have figures for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tnt_vit.plots.alike import FEWEST_CHANNELS, draw_cka, draw_tsne
from tnt_vit.plots.by_depth import draw_attention, draw_diversity
from tnt_vit.plots.roofline import draw_roofline
from tnt_vit.plots.survey import draw_front, draw_slopes, draw_sweep
from tnt_vit.survey.fronts import COSTS
from tnt_vit.survey.roofline import positions
from tnt_vit.survey.run import between_models, kept_features

__all__ = ["draw_survey"]

Rows = Sequence[Mapping[str, Any]]


def draw_survey(rows: Rows, folder: Path, *, tsne: bool = False, seed: int = 0) -> list[Path]:
    """Draw all that the rows have figures for, in the order of the page.

    Args:
        rows: Of a survey.
        folder: Of the survey; gets the PNG files.
        tsne: Also t-SNE of the channel maps of the last blocks: seconds a network.
        seed: Of t-SNE.
    """
    return [*_accuracy(rows, folder), *_speed(rows, folder), *_inside(rows, folder, tsne, seed)]


def _accuracy(rows: Rows, folder: Path) -> list[Path]:
    """Published accuracy against costs; a picture needs two points."""
    files = []
    for cost in COSTS:
        points = cost.points(rows)
        if len(points) > 1:
            words = {"cost": cost.label, "title": f"Accuracy against {cost.label}"}
            files.append(draw_front(points, folder / f"accuracy_{cost.key}.png", front=cost.front(points), **words))
    return files


def _speed(rows: Rows, folder: Path) -> list[Path]:
    files = []
    v100 = {
        row["name"]: (row["backbone"]["published"]["v100"], row["throughput"])
        for row in rows
        if row.get("throughput") and row["backbone"]["published"].get("v100")
    }
    if len(v100) > 1:
        words = {"left": "V100, survey (images/s)", "right": "here (images/s)", "title": "The survey's V100 and here"}
        files.append(draw_slopes(v100, folder / "paper_here.png", **words))
    sweeps = {r["name"]: [(c["batch"], c["images_per_second"]) for c in r["sweep"]] for r in rows if r.get("sweep")}
    if any(len(cases) > 1 for cases in sweeps.values()):
        files.append(draw_sweep(sweeps, folder / "sweep.png", title="Images per second by batch size"))
    placed = {row["name"]: row for row in rows if positions(row)}
    if placed:
        points = {}
        for name, row in placed.items():
            ends = [p for p in positions(row) if p.batch in (row["sweep"][0]["batch"], row["best_batch"])]
            points[name] = [(p.intensity, p.flops_per_second) for p in ends]
        groups = {name: row["backbone"]["group"] or "other" for name, row in placed.items()}
        floor = next(iter(placed.values()))["floor"]
        title = "Speed below the roof of products and memory, measured here"
        files.append(draw_roofline(points, floor, folder / "roofline.png", groups=groups, title=title))
    return files


def _inside(rows: Rows, folder: Path, tsne: bool, seed: int) -> list[Path]:
    looked = {row["name"]: row for row in rows if row.get("diversity")}
    if not looked:
        return []
    weights = {row["weights"] if row["weights"] == "random" else "trained" for row in looked.values()}
    of = f"({' and '.join(sorted(weights))} weights)"
    diversity = {name: row["diversity"] for name, row in looked.items()}
    files = [draw_diversity(diversity, folder / "diversity.png", title=f"Diversity of tokens by depth {of}")]
    attention = {name: row["attention"] for name, row in looked.items() if row.get("attention")}
    if attention:
        files.append(draw_attention(attention, folder / "attention.png", title=f"Spread of attention by depth {of}"))
    blocks = {name: row["cka"] for name, row in looked.items()}
    files.append(draw_cka(blocks, folder / "cka_blocks.png", title=f"blocks of each network {of}"))
    features = kept_features(rows, folder)
    names, matrix = between_models(features)
    if names:
        title = f"last blocks of {len(names)} networks {of}"
        files.append(draw_cka({"": matrix}, folder / "cka_networks.png", title=title, names=names))
    channels = {name: x.T.numpy() for name, x in features.items() if x.shape[1] >= FEWEST_CHANNELS}
    if tsne and channels:
        files.append(draw_tsne(channels, folder / "tsne.png", title=f"Channels of the last block {of}", seed=seed))
    return files
