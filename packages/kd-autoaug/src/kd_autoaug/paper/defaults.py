"""Rows of the default hyper-parameters: what the presets hold beside what is known of the paper, and how well.

None of these is asserted as the paper's. They are read from ``kd_autoaug.distillation.presets``, so a changed default
shows here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from effkit.rows import Row
from kd_autoaug.paper.evidence import EVIDENCE, evidence

__all__ = ["default_rows"]

# Figures that summary, re-implementation or citing code name, by preset and argument of the loss.
KNOWN: dict[tuple[str, str], float] = {
    ("paper", "weight"): 0.5,
    ("paper", "temperature"): 5.0,
    ("paper", "k"): 5,
    ("paper", "ce_temperature"): 1.0,
    ("paper", "label_smoothing"): 0.0,
    ("resmooth", "weight"): 0.5,
    ("resmooth", "temperature"): 5.0,
    ("resmooth", "k"): -1,
    ("resmooth", "ce_temperature"): 5.0,
    ("label_smoothing", "label_smoothing"): 0.1,
    ("hinton", "temperature"): 4.0,
    ("hinton", "weight"): 0.9,
    ("deit_hard", "weight"): 0.5,
    ("funmatch", "temperature"): 1.0,
    ("funmatch", "ce_weight"): 0.0,
}
NAMES = {
    "weight": "lambda (loss.weight)",
    "temperature": "tau (loss.temperature)",
    "k": "K (loss.k, -1: all classes)",
    "ce_temperature": "tau of the cross-entropy (loss.ce_temperature)",
    "label_smoothing": "label smoothing (loss.label_smoothing)",
    "ce_weight": "weight of the cross-entropy (loss.ce_weight)",
}
WORDS = {
    "direction": "direction of the divergence",
    "mode": "reading of the top-K divergence",
}


def default_rows() -> list[Row]:
    """One row per number of a preset that a source names; choices that are no numbers follow as remarks."""
    from kd_autoaug.distillation import presets

    rows = []
    for (preset, argument), figure in KNOWN.items():
        note = presets.EVIDENCE[preset][argument]
        rows.append(
            Row(
                "defaults",
                f"loss={preset}",
                NAMES[argument],
                figure,
                "",
                note,
                evidence(weakest(note)),
                compute=_value(preset, argument),
                command="kd-autoaug reproduce table=defaults",
            )
        )
    for argument, what in WORDS.items():
        value = presets.PRESETS["paper"][argument]
        reason = f"a choice, not a number: {value} by default; the equation as printed was not reachable"
        note = presets.EVIDENCE["paper"][argument]
        rows.append(Row("defaults", "loss=paper", what, None, "", note, "unverified", not_measured=reason))
    return rows


def weakest(note: str) -> str:
    """The mark of a note that promises least: what only one of several sources verifies is not verified."""
    order = ["?", "S", "R", "M", "V", "C", "A"]
    marks = [m for m in re.findall(r"\[([A-Z?])\]", note) if m in EVIDENCE]
    return min(marks, key=order.index, default="?")


def _value(preset: str, argument: str) -> Callable[[], float]:
    def compute() -> float:
        from kd_autoaug.distillation.presets import PRESETS

        return PRESETS[preset][argument]

    return compute
