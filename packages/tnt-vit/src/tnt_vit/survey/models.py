"""From an entry of the registry to a network, or to the reason why there is none here."""

from __future__ import annotations

import importlib
import re
from typing import Any

import torch
from torch import Tensor, nn

from effkit.errors import UserError
from tnt_vit.checkpoints.zoo import create_model
from tnt_vit.inference.optimize import optimize_for_inference
from tnt_vit.survey.registry import Backbone

__all__ = ["Logits", "Skipped", "block_names", "build", "is_out_of_memory", "reason_of"]

_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)


class Skipped(Exception):
    """There is no such network here; says why."""


class Logits(nn.Module):
    """Any classifier as a function of pictures to one tensor.

    Libraries return a tensor, a tuple (distilled heads, in training) or an object with ``logits``.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        out = getattr(out, "logits", out)
        while isinstance(out, tuple | list):
            out = out[0]
        return out


def build(backbone: Backbone, *, pretrained: bool = False, fast: bool = False, seed: int = 0) -> Logits:
    """Make a network on torch's present default device, in evaluation mode.

    Args:
        backbone: What to make.
        pretrained: With its weights; they are downloaded if they are not here.
        fast: For timing inference: ours is rewritten as its users run it.
        seed: Of random weights.

    Raises:
        Skipped: If the library or the network is not there, or its weights are asked for and are not to be had.
    """
    torch.manual_seed(seed)
    net = _net(backbone, pretrained)
    if not isinstance(net, nn.Module):
        raise UserError(f"backbone {backbone.name!r}: {backbone.model} gives a {type(net).__name__}, no torch module")
    net.eval()
    if fast and backbone.source == "tnt_vit":
        net = optimize_for_inference(net)  # type: ignore[arg-type]
    return Logits(net).eval()


def _net(backbone: Backbone, pretrained: bool) -> Any:
    if backbone.source == "none":
        raise Skipped(backbone.absent)
    if pretrained and backbone.source == "transformers":
        raise Skipped("no weights of it are known; pretrained=false measures it with random ones")
    if pretrained and backbone.source in ("timm", "tnt_vit") and not backbone.tag:
        raise Skipped("the registry names no weights of it; pretrained=false measures it with random ones")
    args = dict(backbone.args)
    if backbone.source == "python":
        return _function(backbone)(**args, **({"pretrained": True} if pretrained else {}))
    try:
        library: Any = importlib.import_module(backbone.source)
    except ImportError as error:
        raise Skipped(f"{backbone.source} is not installed ({error})") from None
    if backbone.source == "transformers":
        kind = getattr(library, backbone.model, None)
        if kind is None:
            raise Skipped(f"transformers {library.__version__} has no {backbone.model}")
        return kind(kind.config_class(**args))
    try:
        if backbone.source == "tnt_vit":
            return create_model(backbone.model, pretrained, **args)
        if not library.is_model(backbone.model):
            raise Skipped(f"timm {library.__version__} has no {backbone.model}")
        return library.create_model(backbone.weights if pretrained else backbone.model, pretrained=pretrained, **args)
    except (OSError, UserError) as error:  # of the hub, without a connection
        if not pretrained:
            raise
        raise Skipped(f"weights {backbone.weights} are not to be had: {reason_of(error)}") from None


def _function(backbone: Backbone) -> Any:
    module, _, name = backbone.model.partition(":")
    if not module or not name:
        raise UserError(f"backbone {backbone.name!r}: model={backbone.model!r} must be package.module:function")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise Skipped(f"{module} cannot be imported ({error})") from None
    if not callable(getattr(found, name, None)):
        raise Skipped(f"{module} has no function {name}")
    return getattr(found, name)


def block_names(net: nn.Module, pattern: str) -> list[str]:
    """Names of the modules that a registry calls the blocks, in the order of the network.

    Raises:
        UserError: If none fits.
    """
    found = [name for name, _ in net.named_modules() if re.fullmatch(pattern, name)]
    if not found:
        raise UserError(f"no module of {type(net).__name__} is called as blocks={pattern!r} says")
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on any device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    line = next((part.strip() for part in str(error).splitlines() if part.strip()), "")
    return f"{type(error).__name__}: {line}"[:300]
