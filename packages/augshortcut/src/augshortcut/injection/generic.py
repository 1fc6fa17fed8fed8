"""Blocks of types that nobody registered: their own ``forward`` runs, and the paths are put around its two norms.

A pre-norm block reads its stream through two norms and only ever adds to it. So it is enough to see what the norms
read and give: paths beside attention change what the second norm reads, and everything that was added is added to the
output. That a block is of this kind is proven with numbers before it is changed (:mod:`~augshortcut.injection.probe`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar

from torch import Tensor, nn

from augshortcut.injection.joining import Augmented
from effkit.errors import UserError

__all__ = ["GenericBlock", "TappedBlock", "generic_class", "methods_of", "stream"]


class TappedBlock:
    """Stands for a block inside its own ``forward``, with other functions in the place of its two norms.

    Nothing of the block changes, so threads, recomputation and copies do not meet anything half done.

    Args:
        block: The block.
        methods: Functions of its class, which meet the taps too where ``forward`` calls them.
        taps: Functions by the name of the norm that each stands for.
    """

    def __init__(self, block: nn.Module, methods: Mapping[str, Any], taps: Mapping[str, Any]) -> None:
        object.__setattr__(self, "tapped_block", block)
        object.__setattr__(self, "tapped_methods", methods)
        object.__setattr__(self, "tapped_norms", taps)

    def __getattr__(self, name: str) -> Any:
        if name in self.tapped_norms:
            return self.tapped_norms[name]
        if name in self.tapped_methods:
            return functools.partial(self.tapped_methods[name], self)
        return getattr(self.tapped_block, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.tapped_block, name, value)


def methods_of(kind: type) -> dict[str, Any]:
    """Plain methods that a block's class and its parents define, below ``nn.Module``."""
    found: dict[str, Any] = {}
    for parent in reversed([c for c in kind.__mro__ if c not in nn.Module.__mro__]):
        for name, value in vars(parent).items():
            if isinstance(value, FunctionType) and not name.startswith("__"):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """The residual stream among a block's arguments (the first of them), and what puts another one in its place."""
    if args:
        return args[0], lambda x: ((x, *args[1:]), kwargs)
    first = next(iter(kwargs))
    return kwargs[first], lambda x: ((), {**kwargs, first: x})


class GenericBlock(Augmented):
    """A proven pre-norm block with paths; see :func:`generic_class`."""

    block_type: ClassVar[Any]
    block_methods: ClassVar[dict[str, Any]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The block's own, with paths: what it takes and gives is unchanged."""
        config = self.aug_config
        scale, raw = config.residual_scale, config.tap == "input"
        x = args[0] if args else next(iter(kwargs.values()))
        first: Any = getattr(self, self.norms[0])
        second: Any = getattr(self, self.norms[1])
        seen: dict[str, Any] = {}

        def before_attention(z: Tensor) -> Tensor:
            seen["y1"] = first(z)
            return seen["y1"]

        def before_mlp(u: Tensor) -> Tensor:
            if self.aug_attn is not None:
                paths = self.aug_attn(x if raw else seen["y1"])
                seen["moved"] = paths if scale == 1.0 else (u + paths) * scale - u
                u = u + seen["moved"]
            seen["u"], seen["y2"] = u, second(u)
            return seen["y2"]

        taps = {self.norms[0]: before_attention, self.norms[1]: before_mlp}
        found = self.block_type.forward(TappedBlock(self, self.block_methods, taps), *args, **kwargs)
        out = found[0] if isinstance(found, tuple) else found
        if "y2" not in seen:
            raise UserError(f"{self.block_type.__name__} ran past its norms this time, so its paths could not be added")
        if self.aug_attn is not None:
            out = out + seen["moved"]
        if self.aug_mlp is not None:
            out = out + self.aug_mlp(seen["u"] if raw else seen["y2"])
            out = out if scale == 1.0 else out * scale
        return (out, *found[1:]) if isinstance(found, tuple) else out

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Made again from the block's class, since these classes lie in no module."""
        kind = type(self)
        if "block_type" in vars(kind):
            return _blank, (kind.block_type, kind.norms), self.__dict__.copy()
        return super().__reduce_ex__(protocol)


_CLASSES: dict[tuple[type[nn.Module], tuple[str, str]], type[GenericBlock]] = {}


def generic_class(base: type[nn.Module], norms: tuple[str, str]) -> type[GenericBlock]:
    """The augmented class of a block class: one for all blocks of a process, so that wrappers meet the same type.

    Args:
        base: The block's own class.
        norms: Names of the norms before attention and before the MLP.
    """
    if (base, norms) not in _CLASSES:
        own = {"norms": norms, "block_type": base, "block_methods": methods_of(base), "__module__": __name__}
        _CLASSES[base, norms] = type(f"Augmented{base.__name__}", (GenericBlock, base), own)
    return _CLASSES[base, norms]


def _blank(base: type[nn.Module], norms: tuple[str, str]) -> GenericBlock:
    kind = generic_class(base, norms)
    return kind.__new__(kind)
