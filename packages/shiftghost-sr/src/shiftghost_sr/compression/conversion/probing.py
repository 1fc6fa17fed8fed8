"""What a network does with its convolutions, found by running it: in which order, and with the weights they hold."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["around", "unusable"]


_ENLARGE = (nn.PixelShuffle, nn.Upsample, nn.ConvTranspose2d)


def around(model: nn.Module, channels: int, size: int = 16) -> dict[str, str]:
    """Convolutions that are no part of a body, with the reason, told from the order in which modules run.

    For networks that are no one graph; the others say more about themselves.

    Args:
        model: In evaluation mode; a copy is run.
        channels: Of its pictures.
        size: Side of the picture it is run on.
    """
    probe = copy.deepcopy(model).eval()
    order: list[tuple[str, nn.Module, int]] = []

    def look(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            order.append((name, module, output.shape[-1]))

    leaves = [(n, m) for n, m in probe.named_modules() if not any(True for _ in m.children())]
    for name, module in leaves:
        module.register_forward_hook(lambda m, _, out, name=name: look(name, m, out))
    first = next(probe.parameters())
    try:
        with torch.no_grad():
            probe(torch.full((1, channels, size, size), 0.5, dtype=first.dtype, device=first.device))
    except Exception:
        return {}
    kinds = (nn.Conv2d, *_ENLARGE)
    calls = [(name, module, side) for name, module, side in order if isinstance(module, kinds)]
    found = {}
    for number, (name, module, side) in enumerate(calls):
        after = calls[number + 1][1] if number + 1 < len(calls) else None
        if isinstance(module, nn.Conv2d) and module.in_channels == channels:
            found[name] = "it reads the picture"
        elif side > size:
            found[name] = "it stands behind the upsampler"
        elif after is None:
            found[name] = "it writes the picture"
        elif isinstance(after, _ENLARGE):
            found[name] = "it belongs to the upsampler"
    return found


def unusable(model: nn.Module, names: Iterable[str], channels: int, size: int = 16) -> dict[str, str]:
    """Convolutions whose weights are not what the network computes with, and why.

    Some networks train several branches and write their sum into one convolution at every call: a change of that one
    would be undone in silence.

    Args:
        model: In evaluation mode; a copy is run.
        names: Convolutions to look at.
        channels: Of its pictures.
        size: Side of the picture it is run on.
    """
    probe = copy.deepcopy(model).eval()
    convs = {name: probe.get_submodule(name) for name in names}
    ran: set[str] = set()
    given: dict[str, torch.Tensor] = {}
    handles = []
    for name, conv in convs.items():
        assert isinstance(conv, nn.Conv2d)
        with torch.no_grad():
            conv.weight.add_(0.01)  # another than the one it was made from
        given[name] = conv.weight.detach().clone()
        handles.append(conv.register_forward_hook(lambda *_, name=name: ran.add(name)))
    first = next(probe.parameters())
    try:
        with torch.no_grad():
            probe(torch.full((1, channels, size, size), 0.5, dtype=first.dtype, device=first.device))
    except Exception:  # too small a picture, or more than a picture: nothing is known then
        return {}
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, conv in convs.items():
        weight = conv.weight
        assert isinstance(weight, torch.Tensor)
        if weight.shape != given[name].shape or not torch.equal(weight, given[name]):
            found[name] = "the network writes its weights anew at every call"
        elif name not in ran:
            found[name] = "the network never calls it"
    return found
