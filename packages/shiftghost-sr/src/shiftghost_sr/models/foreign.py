"""Networks that spandrel reads, before and after they were given ghosts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from effkit.errors import UserError
from shiftghost_sr.layers.config import GhostConfig, read_ghost
from shiftghost_sr.layers.ghost_conv import GhostConv2d

__all__ = ["Foreign", "foreign_of", "ghost_like", "rebuild", "replace_module", "spandrel_model"]


@dataclass(frozen=True)
class Foreign:
    """A network of another library.

    Args:
        architecture: What spandrel calls it.
        scale: What it upscales by.
        channels: Of its pictures.
        ghosts: Name of a convolution -> channels with the ghosts, and kind of these.
    """

    architecture: str
    scale: int
    channels: int
    ghosts: dict[str, tuple[int, GhostConfig]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ghosts = {name: [total, config.to_dict()] for name, (total, config) in self.ghosts.items()}
        return {"foreign": self.architecture, "scale": self.scale, "channels": self.channels, "ghosts": ghosts}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Foreign:
        """From :meth:`to_dict`."""
        ghosts = {}
        for name, (total, fields) in values["ghosts"].items():
            config = read_ghost(fields)
            assert config is not None
            ghosts[name] = (int(total), config)
        return Foreign(values["foreign"], int(values["scale"]), int(values["channels"]), ghosts)


def foreign_of(model: nn.Module) -> Foreign | None:
    """What a network of another library is; ``None`` for one of ours, and for one that we do not know."""
    found = getattr(model, "foreign", None)
    return found if isinstance(found, Foreign) else None


def replace_module(model: nn.Module, name: str, by: nn.Module) -> None:
    """Put a module in the place of another, wherever it is used."""
    old = model.get_submodule(name)
    for parent in model.modules():
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = by


def ghost_like(conv: nn.Conv2d, config: GhostConfig) -> GhostConv2d:
    """A ghost convolution of the sizes of a dense one, on its device and in its type, with its training flag.

    Raises:
        UserError: If its sizes allow none.
    """
    made = GhostConv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], stride=conv.stride[0],
        padding=conv.padding[0] if isinstance(conv.padding, tuple) else None, groups=conv.groups,
        bias=conv.bias is not None, config=config,
    )  # fmt: skip
    return made.to(conv.weight.device, conv.weight.dtype).train(conv.training)


def _own_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Some networks (RCAN) scale the picture that they are given in place."""
    return tuple(a.clone() if isinstance(a, Tensor) else a for a in args)


def spandrel_model(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> nn.Module:
    """A network that spandrel recognises.

    Raises:
        UserError: If spandrel is not installed, or does not know it either.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise UserError(
            f"weights {os.fspath(path)!r} are no network that is known here; with the extra 'spandrel' "
            "(pip install 'shiftghost-sr[spandrel]') many more are"
        )
    import spandrel

    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # UnsupportedModelError, and whatever a constructor raises on strange shapes
        raise UserError(f"weights {os.fspath(path)!r} are no network that is known here or to spandrel") from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UserError(f"weights {os.fspath(path)!r} are a {found.architecture.name}, which takes more than a picture")
    if found.input_channels != found.output_channels:
        raise UserError(f"weights {os.fspath(path)!r}: {found.input_channels} channels become {found.output_channels}")
    model: nn.Module = found.model.eval()
    model.register_forward_pre_hook(_own_input)
    model.foreign = Foreign(str(found.architecture.id), int(found.scale), int(found.input_channels))  # type: ignore[assignment]
    model.scale, model.channels, model.grid = found.scale, found.input_channels, "lr"  # type: ignore[assignment]
    return model


def rebuild(foreign: Foreign, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> nn.Module:
    """A converted network of another library: spandrel makes the dense one, which gets its ghosts again.

    Raises:
        UserError: As :func:`spandrel_model`.
    """
    dense = {}
    for name, value in state.items():
        layer, _, part = name.rpartition(".")
        owner = layer if layer in foreign.ghosts else layer.rpartition(".")[0]
        if owner in foreign.ghosts and (layer != owner or part not in ("weight", "bias")):
            continue  # indices and logits
        if layer in foreign.ghosts:
            value = value.new_zeros((foreign.ghosts[layer][0], *value.shape[1:]))
        dense[name] = value
    model = spandrel_model(dense, path)
    for name, (_, config) in foreign.ghosts.items():
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        replace_module(model, name, ghost_like(conv, config))
    model.foreign = foreign  # type: ignore[assignment]
    return model
