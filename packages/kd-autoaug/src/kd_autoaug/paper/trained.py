"""Rows that need ImageNet, CIFAR, weights or GPU weeks: shown with the reason and, where there is one, the command."""

from __future__ import annotations

from typing import Any

from effkit.rows import Row, Tolerance
from kd_autoaug.paper import figures as paper
from kd_autoaug.paper.efficientnet import efficientnet
from kd_autoaug.paper.evidence import cite, evidence

__all__ = [
    "adversarial_rows",
    "baseline_rows",
    "digits_rows",
    "efficientnet_rows",
    "method_rows",
    "randaugment_rows",
]

NEEDS_IMAGENET = "needs ImageNet and GPU weeks; neither weights nor code of the paper were ever released"
NEEDS_CIFAR = "needs the CIFAR files and GPU days; neither weights nor code of the paper were ever released"
NEEDS_V100 = "timed on a V100 by others: a speed can only be compared on that GPU"
OTHERS = "a result of others, quoted for comparison; needs the data set and GPU days"
SVHN = "a result of others, quoted for comparison; SVHN is not among the data sets here"
SIZE = "a setting, not a result; timm's B8 has 672 pixels as its own size"
STATEMENT = "a statement without a figure, in a summary that may err"
NOT_FOUND = "no figure was found, and the full text was not reachable"
PILOT = "a pilot with float operators in one bilinear sampling; the claim repeats the experiment with exact operators"

_B7 = "kd-autoaug distill experiment=imagenet/efficientnet_b7_kd data.root=PATH teacher.weights=PATH"
_B8 = f"{_B7} model.name=tf_efficientnet_b8 teacher.name=tf_efficientnet_b8 data.image_size=800"
_COMMANDS = {
    "EfficientNet-B8 + KD": _B8,
    "EfficientNet-B7, baseline": (
        "kd-autoaug train experiment=imagenet/efficientnet_b0 data.root=PATH model.name=tf_efficientnet_b7 "
        "data.image_size=600 data.batch_size=32 policy=randaugment policy.m=28 policy.extrapolate=true"
    ),
    "EfficientNet-B7 + KD": _B7,
    "PyramidNet-272 + ShakeDrop + KD": (
        "kd-autoaug distill experiment=cifar/pyramidnet_272_kd data.root=PATH teacher.weights=PATH"
    ),
    "WRN-28-10 (by context) + KD": (
        "kd-autoaug distill experiment=cifar/wrn_28_10_kd data.root=PATH teacher.weights=PATH"
    ),
    "WRN-28-10 (by context), augmentation off for the last 50 epochs": (
        "kd-autoaug train experiment=cifar/wrn_28_10 data=cifar100 data.root=PATH policy=randaugment policy.m=14 "
        "policy.space=resmooth policy_until=0.75"
    ),
}
_REASONS = {
    ("imagenet", "side of the pictures"): SIZE,
    ("imagenet", "throughput on a V100"): NEEDS_V100,
    ("detection", "AP"): NOT_FOUND,
}
_MODELS = {
    "WRN-40-2": "wrn_28_10 model=wrn_40_2",
    "WRN-28-10": "wrn_28_10",
    "Shake-Shake 26 2x32d": "shake_shake_26_2x96d model=shake_shake_26_2x32d",
    "Shake-Shake 26 2x96d": "shake_shake_26_2x96d",
    "Shake-Shake 26 2x112d": "shake_shake_26_2x96d model=shake_shake_26_2x112d",
    "PyramidNet-272 + ShakeDrop": "pyramidnet_272",
}
_POLICIES = {
    "baseline": " policy=none view=cifar_no_cutout",
    "cutout": " policy=none",
    "AutoAugment": "",
    "Fast AutoAugment": " policy=fast_aa_cifar10",
}


def _row(table: str, name: str, metric: str, figure: float | None, mark: str, source: str, **more: Any) -> Row:
    found = {"unit": "%", "evidence": evidence(mark), "source": cite(mark, source), **more}
    return Row(table=table, name=name, metric=metric, paper=figure, **found)


def method_rows() -> list[Row]:
    """The paper's own results, as far as they are known."""
    rows = []
    for known in paper.METHOD:
        more: dict[str, Any] = {"unit": known.unit}
        if known.metric == "params":
            more |= {"compute": lambda: efficientnet("B8").params / 1e6, "tolerance": Tolerance("rounds_to")}
        else:
            usual = NEEDS_IMAGENET if known.table == "imagenet" else NEEDS_CIFAR
            reason = _REASONS.get((known.table, known.metric), STATEMENT if known.figure is None else usual)
            more["not_measured"] = f"{reason}; the data set is not known" if known.figure == 7.1 else reason
            if reason in (NEEDS_IMAGENET, NEEDS_CIFAR):
                more["command"] = _COMMANDS.get(known.name, "")
        rows.append(_row(known.table, known.name, known.metric, known.figure, known.mark, known.source, **more))
    return rows


def digits_rows() -> list[Row]:
    """The pilot of the laptop claim."""
    rows = []
    what: dict[str, Any] = {"not_measured": PILOT, "command": "kd-autoaug reproduce claim=true", "evidence": "measured"}
    for cell in paper.DIGITS:
        spread = "" if cell.deviation is None else f", standard deviation {cell.deviation}"
        name = f"{cell.trained_with}, M={cell.magnitude:g}"
        source = f"pilot, {cell.seeds} seeds{spread}"
        rows.append(_row("digits", name, "test accuracy", cell.mean, "V", source, **what))
    for paired in paper.DIGIT_DIFFERENCES:
        source = f"pilot, {paired.seeds} seeds, 95 % interval +- {paired.half}"
        rows.append(_row("digits", paired.name, "difference", paired.mean, "V", source, unit="points", **what))
    return rows


def baseline_rows() -> list[Row]:
    """The same networks without distillation (README of Fast AutoAugment)."""
    rows = []
    for (network, data), errors in paper.BASELINES.items():
        for column, error in zip(paper.BASELINE_COLUMNS, errors, strict=True):
            command = f"kd-autoaug train experiment=cifar/{_MODELS[network]}{_POLICIES[column]}"
            command += f" data={data.lower().replace('-', '')} data.root=PATH"
            metric = f"error on {data}, {column}"
            what = {"not_measured": OTHERS, "command": command}
            rows.append(_row("baselines", network, metric, error, "C", paper.FAST_AA, **what))
    return rows


def randaugment_rows() -> list[Row]:
    """RandAugment as its best-known re-implementation reports it."""
    rows = []
    for (network, data), accuracy in paper.RANDAUGMENT.items():
        what: dict[str, Any] = {"not_measured": SVHN if data == "SVHN" else OTHERS}
        if data != "SVHN":
            n, m = (2, 14) if network.startswith("WRN") else (3, 9)
            command = f"kd-autoaug train experiment=cifar/{_MODELS[network]} data={data.lower().replace('-', '')}"
            command += f" data.root=PATH policy=randaugment policy.space=resmooth policy.n={n} policy.m={m}"
            what["command"] = command
        rows.append(_row("randaugment", network, f"top-1 on {data}", accuracy, "C", paper.ILDOONET, **what))
    return rows


def adversarial_rows() -> list[Row]:
    """Adversarial AutoAugment, which searches while it trains; not implemented here."""
    reason = f"{OTHERS}; the method is not part of this package"
    return [
        _row("adversarial", network, f"error on {data}", error, "C", paper.ADVERSARIAL_SOURCE, not_measured=reason)
        for (network, data), error in paper.ADVERSARIAL.items()
    ]


def efficientnet_rows() -> list[Row]:
    """ImageNet accuracy of EfficientNets without distillation (README of tensorflow/tpu)."""
    rows = []
    for name, accuracies in paper.EFFICIENTNET_TOP1.items():
        for column, accuracy in zip(paper.EFFICIENTNET_COLUMNS, accuracies, strict=True):
            if accuracy is not None:
                what = {"not_measured": OTHERS.replace("GPU days", "GPU weeks"), "command": _efficientnet(name, column)}
                rows.append(_row("efficientnet", name, f"top-1, {column}", accuracy, "C", paper.TPU, **what))
    return rows


def _efficientnet(name: str, column: str) -> str:
    policies = {
        "plain": " policy=none",
        "AutoAugment": "",
        "RandAugment": " policy=randaugment policy.m=28 policy.extrapolate=true",
    }
    if column not in policies:
        return ""  # AdvProp needs adversarial examples and a second set of batch norms, which are not here
    model = f"model.name=tf_efficientnet_{name.lower()}"
    return f"kd-autoaug train experiment=imagenet/efficientnet_b0 data.root=PATH {model}{policies[column]}"
