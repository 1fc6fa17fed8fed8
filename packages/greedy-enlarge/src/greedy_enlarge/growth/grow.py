"""Growth: a larger network that computes what the smaller one did, in evaluation and in training mode.

New blocks, new residual channels and new hidden channels contribute exactly 0 at first, and learn from there. What
cannot be preserved is said: a picture of another size, and a skip connection that appears or vanishes because two
neighbouring stages become, or stop being, equally wide.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from effkit.errors import UserError
from greedy_enlarge.growth.copying import Copier
from greedy_enlarge.growth.ghost import grow_ghost
from greedy_enlarge.growth.mbconv import grow_mbconv
from greedy_enlarge.growth.residual import grow_regnet, grow_resnet
from greedy_enlarge.networks.build import build, spec_of
from greedy_enlarge.spec import ArchSpec

__all__ = ["GrowthReport", "grow", "grow_optimizer"]

log = logging.getLogger(__name__)

_GROWERS = {
    "efficientnet": grow_mbconv,
    "custom": grow_mbconv,
    "ghostnet": grow_ghost,
    "ghostnet_large": grow_ghost,
    "resnet": grow_resnet,
    "regnet": grow_regnet,
}


@dataclass(frozen=True)
class GrowthReport:
    """What growing did.

    Attributes:
        preserved: Whether the larger network computes what the smaller one did.
        reason: Why not; empty if it does.
        old: The smaller network.
        new: The larger one.
        copied: Parameters that were taken over.
        added: Parameters that are new.
        plan: Per tensor of the larger network that has old entries: the old tensor's name, and per dimension where old
            indices went (``None``: unchanged).
    """

    preserved: bool
    reason: str
    old: ArchSpec
    new: ArchSpec
    copied: int
    added: int
    plan: dict[str, tuple[str, tuple[Tensor | None, ...]]] = field(repr=False, default_factory=dict)


def grow(
    model: nn.Module,
    spec: ArchSpec,
    *,
    forbid_skip_change: bool = False,
    drop_rate: float | None = None,
    drop_path_rate: float = 0.0,
) -> tuple[nn.Module, GrowthReport]:
    """Make a larger network that starts as the function of a smaller one.

    Args:
        model: A network of :func:`greedy_enlarge.build`, trained or not; it stays as it is.
        spec: The larger architecture, in no coordinate smaller.
        forbid_skip_change: Refuse where a skip connection appears or vanishes, instead of saying so.
        drop_rate: Dropout of the larger network; the smaller one's if not given.
        drop_path_rate: Stochastic depth of the larger one. It is linear in the block's index, so that added blocks
            change the rates of all later ones.

    Returns:
        The larger network, on the same device, in the same dtype and modes (norms that were put into evaluation mode,
        parameters that were frozen); and what was done.

    Raises:
        UserError: If the architecture is not larger or of another kind, the network has parts that would be lost
            (adapters, hooks, another classifier, other activations or norms than it was built with), or a skip
            connection changes and that is forbidden.
    """
    old = spec_of(model)
    _check(model, old, spec)
    weight = next(model.parameters())
    keep = getattr(model, "drop_rate", 0.0) if drop_rate is None else drop_rate
    larger = build(spec, drop_rate=keep, drop_path_rate=drop_path_rate, device=weight.device, dtype=weight.dtype)
    copier = Copier.of(model, larger)
    with torch.no_grad():
        reasons = _GROWERS[spec.family](model, larger, copier)
    if reasons and forbid_skip_change:
        raise UserError(
            f"spec: {reasons[0]}, which changes the function; choose another move or forbid_skip_change=false"
        )
    if old.resolution != spec.resolution:
        reasons.append(f"the picture side changes from {old.resolution} to {spec.resolution}")
    if reasons:
        log.warning("growth does not preserve the function: %s", "; ".join(reasons))
    _carry_modes(model, larger)
    copied = sum(p.numel() for p in model.parameters())
    total = sum(p.numel() for p in larger.parameters())
    report = GrowthReport(not reasons, "; ".join(reasons), old, spec, copied, total - copied, copier.plan)
    return larger, report


def _check(model: nn.Module, old: ArchSpec, spec: ArchSpec) -> None:
    """Refuse what would not be copied whole, before anything is built."""
    for name in ("family", "template", "classes", "in_chans"):
        if getattr(old, name) != getattr(spec, name):
            raise UserError(f"spec.{name}={getattr(spec, name)!r} must be the network's own, {getattr(old, name)!r}")
    if not spec.includes(old):
        pairs = zip(old.coordinates(), spec.coordinates(), strict=True)
        smaller = [f"{a} -> {b}" for a, b in pairs if b < a]
        raise UserError(f"spec must not be smaller than the network in any coordinate, got {', '.join(smaller)}")
    for name in ("stem", "head"):
        before, after = getattr(old, name), getattr(spec, name)
        if before != after and (before is None or after is None or after < before):
            raise UserError(f"spec.{name}={after} must not be smaller than the network's {before}")
    built = build(old, device="meta")
    expected = {n: tuple(t.shape) for n, t in built.state_dict().items()}
    found = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    if expected != found:
        strange = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))[0]
        raise UserError(
            f"the network is not as it was built ({strange} differs): undo adapters and other changes first"
        )
    parts = dict(built.named_modules())
    for name, part in model.named_modules():
        where = name or "the network"
        if any(getattr(part, kind) for kind in _HOOKS):
            raise UserError(f"{where} has hooks, which would be lost: remove them first")
        if "forward" in vars(part):
            raise UserError(f"{where} has a forward of its own, which would be lost: remove it first")
        kind, built_as = _kind(part), _kind(parts.get(name, nn.Identity()))
        if kind != built_as:
            raise UserError(f"{where} is {kind}, and was built as {built_as}: undo that, and change the larger network")


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_RANDOM = ("Identity", "Dropout", "DropPath")  # rates are asked for anew


def _kind(part: nn.Module) -> str:
    """What a part is and how it is set; writing over its input or not is all the same."""
    if type(part).__name__ in _RANDOM:
        return "Identity()"
    return f"{type(part).__name__}({part.extra_repr().replace('inplace=True', '').replace('inplace=False', '')})"


def _carry_modes(model: nn.Module, larger: nn.Module) -> None:
    """Norms that stand still, frozen parameters and checkpointing are so in the larger network too."""
    larger.train(model.training)
    parts, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name, part in larger.named_modules():
        if name in parts:
            part.training = parts[name].training
            if hasattr(part, "grad_checkpointing"):
                part.grad_checkpointing = parts[name].grad_checkpointing
    for name, parameter in larger.named_parameters():
        if name in parameters:
            parameter.requires_grad_(parameters[name].requires_grad)


def grow_optimizer(old: Optimizer, new: Optimizer, model: nn.Module, larger: nn.Module, report: GrowthReport) -> int:
    """Carry an optimizer's state over: momenta to where their weights went, zeros for new entries.

    Args:
        old: The smaller network's optimizer.
        new: A fresh one of the same kind for the larger network; its state is set.
        model: The smaller network.
        larger: The larger one.
        report: Of their growth.

    Returns:
        How many parameters got a state.

    Raises:
        UserError: If the optimizers are of different kinds, or keep what is no number a weight (Adafactor); the new one
            may then hold a part of the states.
    """
    if type(old) is not type(new):
        raise UserError(f"the optimizers must be of one kind, got {type(old).__name__} and {type(new).__name__}")
    smaller = dict(model.named_parameters())
    carried = 0
    for name, parameter in larger.named_parameters():
        source, maps = report.plan.get(name, ("", ()))
        state = old.state.get(smaller[source]) if source else None
        if not state:
            continue
        before = smaller[source]
        for key, value in state.items():
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != before.shape != parameter.shape:
                raise UserError(
                    f"{type(old).__name__} keeps {key} of shape {tuple(value.shape)} for {source}, which is no "
                    "momentum of each weight and cannot be carried over: begin the larger network's optimizer anew"
                )
        new.state[parameter] = {k: _mapped(v, before, parameter, maps) for k, v in state.items()}
        carried += 1
    return carried


def _mapped(value: Any, before: Tensor, after: Tensor, maps: tuple[Tensor | None, ...]) -> Any:
    if not isinstance(value, Tensor) or value.shape != before.shape or not maps:
        return value.clone() if isinstance(value, Tensor) else value
    found = torch.zeros(after.shape, dtype=value.dtype, device=value.device)
    index = [torch.arange(n) if m is None else m for m, n in zip(maps, before.shape, strict=True)]
    found[torch.meshgrid(*(i.to(value.device) for i in index), indexing="ij")] = value[
        tuple(slice(0, len(i)) for i in index)
    ]
    return found
