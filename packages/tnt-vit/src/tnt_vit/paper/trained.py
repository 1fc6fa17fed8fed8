"""Rows that need trained weights, data sets or a V100.

They are shown with the reason why they are empty and, where there is one, the command that would fill them.
"""

from __future__ import annotations

from typing import Any

from effkit.rows import Row
from tnt_vit.paper import figures

__all__ = [
    "accuracy_rows",
    "data_set_rows",
    "dense_rows",
    "fine_tuning_rows",
    "picture_rows",
    "pyramid_accuracy_rows",
    "speed_rows",
]

NEEDS_WEIGHTS = "needs ImageNet's validation pictures and the published weights, which are not part of this package"
NEEDS_TRAINING = "no weights of it are public: training takes ImageNet and 300 epochs on 8 GPUs"
QUOTED = "another model, quoted from its own publication; needs ImageNet and its weights"
UNSTATED = "the paper does not state the learning rate and batch size of fine-tuning"
NEEDS_V100 = "timed on a V100 in the paper: a speed can only be compared on that GPU"
NEEDS_FILES = "needs the data set's files, which are not part of this package"
NEEDS_DISK = "needs ImageNet's validation pictures and the authors' weights, which are on a disk of Baidu's only"
NEEDS_DETECTOR = "needs COCO, 8 GPUs and the authors' detection code, which was never released"
DETR_PARAMS = (
    "the authors' head is not described: transformers' DETR (six and six layers of width 256, 91 classes) with our "
    "TNT-S at stride 32 has 41.0 M"
)
NEEDS_SEGMENTER = "needs ADE20K, 8 GPUs and the authors' segmentation code, which was never released"

NEEDS_HEAD = "the paper names Trans2Seg's head without its sizes, so parameters and MACs of the whole cannot be counted"

# Weights of these are published; of all others they are not.
_PUBLISHED = {"tnt_s_patch16_224": "tnt_s", "tnt_b_patch16_224": "tnt_b", "tnt_s_legacy_patch16_224": "tnt_s_legacy"}


def _row(table: str, name: str, metric: str, figure: float | None, reason: str, **more: Any) -> Row:
    defaults = {"unit": "%", "source": f"Table {table}", "evidence": "printed"}
    return Row(table=table, name=name, metric=metric, paper=figure, not_measured=reason, **{**defaults, **more})


def _evaluate(model: str) -> dict[str, str]:
    command = f"tnt-vit eval model={model} model.pretrained=true data.root=PATH"
    return {"reason": NEEDS_WEIGHTS, "command": command}


def _train(words: str) -> dict[str, str]:
    return {"reason": NEEDS_TRAINING, "command": f"tnt-vit train experiment=imagenet/{words} data.root=PATH"}


def _model(variant: str) -> str:
    """Name in the config group ``model``."""
    return variant.replace("_patch16_224", "")


def _accuracy(table: str, name: str, variant: str, top1: float, top5: float | None = None) -> list[Row]:
    if variant in _PUBLISHED:
        how = _evaluate(_PUBLISHED[variant])
    elif variant == "tnt_ti_patch16_224":
        how = _train("tnt_ti")
    else:
        how = _train(f"tnt_s model={_model(variant)}")
    rows = [_row(table, name, "top-1", top1, **how)]
    return rows if top5 is None else [*rows, _row(table, name, "top-5", top5, **how)]


def accuracy_rows() -> list[Row]:
    """ImageNet accuracies: Tables 4 to 8 and 12, and what others report."""
    rows: list[Row] = []
    for name, trained in figures.IMAGENET.items():
        rows += _accuracy("12" if "SE" in name else "4", name, trained.variant, trained.top1, trained.top5)
    reference = figures.IMAGENET["TNT-S"]
    rows += _accuracy("12", "TNT-S", reference.variant, reference.top1, reference.top5)
    for name, model in figures.CONTEXT.items():
        rows.append(_row("4", name, "top-1", model.top1, QUOTED))
    for name, hybrid in figures.HYBRIDS.items():
        if hybrid.variant:
            rows += _accuracy("5", name, hybrid.variant, hybrid.top1)
        else:
            rows.append(_row("5", name, "top-1", hybrid.top1, QUOTED))
    for positions, top1 in figures.POSITIONS.items():
        how = _evaluate("tnt_s") if positions == "both" else _train(f"tnt_s model.positions={positions}")
        rows.append(_row("6", f"TNT-S, positions: {positions}", "top-1", top1, **how))
    for heads, top1 in figures.HEADS.items():
        how = _evaluate("tnt_s") if heads == 4 else _train(f"tnt_s model.inner_num_heads={heads}")
        rows.append(_row("7", f"TNT-S, {heads} inner heads", "top-1", top1, **how))
    for kind in figures.WORDS:
        rows += _accuracy("8", f"{kind.words} words of width {kind.width}", kind.variant, kind.top1)
    for name, variant, top1, others_top5, source in figures.ELSEWHERE:
        table = "legacy" if "legacy" in name else "elsewhere"
        how = _evaluate(_PUBLISHED[variant])
        found = {"source": source, "evidence": "found"}
        rows.append(_row(table, name, "top-1", top1, **how, **found))
        if others_top5 is not None:
            rows.append(_row(table, name, "top-5", others_top5, **how, **found))
    return rows


def pyramid_accuracy_rows() -> list[Row]:
    """ImageNet accuracies of PyramidTNT, from the readme of the official code."""
    return [
        _row(
            "pyramid",
            name,
            "top-1",
            pyramid.top1,
            NEEDS_DISK,
            source="readme of the official code",
            evidence="found",
            command=f"tnt-vit eval model={pyramid.variant} model.pretrained=PATH data.root=PATH",
        )
        for name, pyramid in figures.PYRAMIDS.items()
    ]


def speed_rows() -> list[Row]:
    """V100 throughput of Table 5."""
    rows = []
    for name, hybrid in figures.HYBRIDS.items():
        words = f"model={_model(hybrid.variant)}" if hybrid.variant else "providers=[deit]"
        command = f"tnt-vit bench {words} device=cuda batch_sizes=[128]"
        rows.append(_row("5", name, "throughput", hybrid.speed, NEEDS_V100, unit="img/s", command=command))
    return rows


def data_set_rows() -> list[Row]:
    """Sizes of the data sets (Table 2)."""
    rows = []
    for name, counts in figures.DATA_SETS.items():
        for metric, figure in zip(("training pictures", "test pictures", "classes"), counts, strict=True):
            if figure is not None:
                rows.append(_row("2", name, metric, figure, NEEDS_FILES, unit=""))
    return rows


def fine_tuning_rows() -> list[Row]:
    """Fine-tuning at 384x384 (Table 9)."""
    rows = []
    for name, accuracies in figures.FINE_TUNED.items():
        for (data, experiment), figure in zip(figures.FINE_TUNE_SETS.items(), accuracies, strict=True):
            if figure is None:
                continue
            if name.startswith("DeiT"):
                rows.append(_row("9", name, f"top-1 on {data}", figure, QUOTED))
                continue
            model = "" if name == "TNT-S@384" else " model=tnt_b_384"
            reason = f"needs {data}, ImageNet weights and GPUs; {UNSTATED}"
            command = f"tnt-vit train experiment={experiment}{model} model.pretrained=PATH data.root=PATH"
            rows.append(_row("9", name, f"top-1 on {data}", figure, reason, command=command))
    return rows


def dense_rows() -> list[Row]:
    """Detection (Tables 10 and 13) and segmentation (Table 11)."""
    rows: list[Row] = []
    for table, found in (("10", figures.DETECTION_DETR), ("13", figures.DETECTION_FASTER_RCNN)):
        for name, (millions, precisions) in found.items():
            if millions is not None:
                reason = DETR_PARAMS if (table, name) == ("10", "TNT-S") else NEEDS_DETECTOR
                rows.append(_row(table, name, "params of the detector", millions, reason, unit="M"))
            for metric, figure in zip(figures.AP, precisions, strict=False):  # of the others only the first is printed
                rows.append(_row(table, name, metric, figure, NEEDS_DETECTOR))
    for name, (millions, giga, miou) in figures.SEGMENTATION.items():
        rows.append(_row("11", name, "params of the segmenter", millions, NEEDS_HEAD, unit="M"))
        rows.append(_row("11", name, "MACs of the segmenter", giga, NEEDS_HEAD, unit="G"))
        rows.append(_row("11", name, "mIoU", miou, NEEDS_SEGMENTER))
    return rows


def picture_rows() -> list[Row]:
    """The paper's pictures: nothing to compare, but there is a command that draws ours."""
    reason = "a picture, not a figure to compare; the command draws ours"
    rows = []
    for number, (what, words) in figures.FIGURES.items():
        how = {"source": f"Figure {number}", "command": f"tnt-vit visualize {words} model.pretrained=PATH", "unit": ""}
        rows.append(_row(f"fig{number}", what, "picture", None, reason, **how))
    return rows
