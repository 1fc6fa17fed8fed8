"""Growth of ResNet and RegNet: a ReLU follows each addition, and leaves sums of what was positive alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from greedy_enlarge.growth.copying import Copier, lead

__all__ = ["grow_regnet", "grow_resnet"]


def _layers(
    copier: Copier, name: str, layers: list[tuple[str, str]], inputs: Tensor, squeeze_after: int = -1
) -> Tensor:
    """Copy the convolutions of a block, each with its norm; the last one's new outputs are 0."""
    seen = inputs
    for i, (conv, norm) in enumerate(layers):
        last, grouped = i + 1 == len(layers), copier.width(f"{name}.{conv}", 1)[0] < len(seen)
        outputs = lead(*copier.width(f"{name}.{conv}"))
        copier.conv(f"{name}.{conv}", f"{name}.{conv}", outputs, None if grouped else seen, zero=i > 0)
        copier.norm(f"{name}.{norm}", f"{name}.{norm}", outputs, zero=last)
        seen = outputs
        if i == squeeze_after and f"{name}.se.fc1.weight" in copier.old:
            copier.squeeze(f"{name}.se", f"{name}.se", "fc1", "fc2", seen)
    return seen


def _projection(copier: Copier, conv: str, norm: str, where: str, inputs: Tensor, outputs: Tensor) -> list[str]:
    there = [f"{conv}.weight" in tensors for tensors in (copier.old, copier.new)]
    if all(there):
        copier.conv(conv, conv, outputs, inputs)
        copier.norm(norm, norm, outputs, zero=True)
    if there[0] != there[1]:
        return [f"a skip connection {'vanishes' if there[1] else 'appears'} in the first block of {where}"]
    return []


def grow_resnet(old: Any, new: Any, copier: Copier) -> list[str]:
    """Copy; returns why the function is not preserved, if it is not."""
    reasons = []
    residual = lead(*copier.width("conv1"))
    copier.conv("conv1", "conv1", residual, lead(*copier.width("conv1", 1)))
    copier.norm("bn1", "bn1", residual, zero=True)
    for s in range(1, 5):
        before, after = getattr(old, f"layer{s}"), getattr(new, f"layer{s}")
        for b in range(len(after)):
            name, convs = f"layer{s}.{b}", 3 if f"layer{s}.0.conv3.weight" in copier.new else 2
            if b >= len(before):
                copier.silence(f"{name}.bn{convs}")
                continue
            layers = [(f"conv{i}", f"bn{i}") for i in range(1, convs + 1)]
            outputs = _layers(copier, name, layers, residual)
            if b == 0:
                where = f"stage {s}"
                reasons += _projection(copier, f"{name}.downsample.0", f"{name}.downsample.1", where, residual, outputs)
            residual = outputs
    copier.conv("fc", "fc", lead(*copier.width("fc")), residual)
    return reasons


def grow_regnet(old: Any, new: Any, copier: Copier) -> list[str]:
    """Copy; returns why the function is not preserved, if it is not."""
    reasons = []
    residual = lead(*copier.width("stem.conv"))
    copier.conv("stem.conv", "stem.conv", residual, lead(*copier.width("stem.conv", 1)))
    copier.norm("stem.bn", "stem.bn", residual, zero=True)
    layers = [(f"conv{i}.conv", f"conv{i}.bn") for i in (1, 2, 3)]
    for s in range(1, 5):
        before, after = getattr(old, f"s{s}"), getattr(new, f"s{s}")
        for b in range(1, len(list(after.children())) + 1):
            name = f"s{s}.b{b}"
            if b > len(list(before.children())):
                copier.silence(f"{name}.conv3.bn")
                continue
            outputs = _layers(copier, name, layers, residual, squeeze_after=1)
            down = f"{name}.downsample"
            reasons += _projection(copier, f"{down}.conv", f"{down}.bn", f"stage {s}", residual, outputs)
            residual = outputs
    copier.conv("head.fc", "head.fc", lead(*copier.width("head.fc")), residual)
    return reasons
