"""Which blocks are known: exact type -> augmented class; and which cannot have paths, with the reason."""

from __future__ import annotations

from torch import nn

from augshortcut.injection.families import PRE_NORM
from augshortcut.injection.joining import Augmented
from augshortcut.injection.post_norm import POST_NORM
from augshortcut.injection.windows import DAVIT

__all__ = [
    "LEFT_ALONE",
    "REASONS",
    "augmented_class",
    "base_class",
    "blocklike",
    "is_post_norm",
    "norm_names",
    "register_family",
    "supported_blocks",
    "type_name",
]

_KNOWN: dict[type, type[Augmented]] = {}
_POST_NORM: set[type] = set()


def base_class(augmented: type[Augmented]) -> type:
    """The class of somebody else's that an augmented class is."""
    return next(c for c in augmented.__mro__[1:] if issubclass(c, nn.Module) and not issubclass(c, Augmented))


def register_family(augmented: type[Augmented], *, post_norm: bool = False) -> None:
    """Make a block class known.

    Args:
        augmented: Its augmented class, at module level: a subclass of :class:`Augmented` and of the block's class.
        post_norm: Whether its norms come after attention and MLP.
    """
    _KNOWN[base_class(augmented)] = augmented
    if post_norm:
        _POST_NORM.add(base_class(augmented))


for _augmented in (*PRE_NORM, *DAVIT):
    register_family(_augmented)
for _augmented in POST_NORM:
    register_family(_augmented, post_norm=True)


def augmented_class(block: type) -> type[Augmented] | None:
    """The augmented class of a block's exact type, or ``None``."""
    return _KNOWN.get(block)


def is_post_norm(block: type) -> bool:
    """Whether a known type has its norms after attention and MLP."""
    return block in _POST_NORM


def type_name(kind: type) -> str:
    """A class as messages name it: ``vision_transformer.Block``."""
    return f"{kind.__module__.rsplit('.', 1)[-1]}.{kind.__qualname__}"


def supported_blocks() -> list[str]:
    """Names of all known block types."""
    return sorted(type_name(kind) for kind in _KNOWN)


_PARALLEL = "it runs attention and MLP side by side, so there is no shortcut of each"
_RESIZES = "its width or its number of tokens changes inside"
_CONV = "its tokens are channels of a picture (NCHW)"
_CLASS = "class attention"

# By module and name, so that a version of timm without one of them does not matter.
REASONS: dict[str, str] = {
    "vision_transformer.ParallelScalingBlock": _PARALLEL,
    "vision_transformer.DiffParallelScalingBlock": _PARALLEL,
    "vision_transformer.ParallelThingsBlock": _PARALLEL,
    "mvitv2.MultiScaleBlock": _RESIZES,
    "hiera.HieraBlock": _RESIZES,
    "hieradet_sam2.MultiScaleBlock": _RESIZES,
    "visformer.Block": _CONV,
    "maxxvit.TransformerBlock2d": _CONV,
    "maxxvit.PartitionAttention2d": _CONV,
}

# Known not to be a transformer block of the kind: they stay as they are beside augmented ones, which is said once.
LEFT_ALONE: dict[str, str] = {
    "cait.LayerScaleBlockClassAttn": _CLASS,
    "volo.ClassBlock": _CLASS,
    "volo.Outlooker": "outlook attention",
    "xcit.ClassAttentionBlock": _CLASS,
    "crossvit.CrossAttentionBlock": _CLASS,
    "t2t_vit.TokenPerformer": "linear attention that narrows tokens",
    "attention_pool.AttentionPoolLatent": "attention pooling",
}


def norm_names(block: nn.Module) -> list[str]:
    """Names of a block's own norms: children called so, or of a class called so."""
    return [
        name
        for name, child in block.named_children()
        if "norm" in name.lower() or type(child).__name__.lower().endswith("norm")
    ]


# How the first child of an MLP is called: timm's and most others' mlp or ffn, Hugging Face's intermediate, torch's own.
_MLPS = ("mlp", "ffn", "feed", "intermediate", "linear1")


def blocklike(module: nn.Module) -> bool:
    """Whether an unknown module looks like a transformer block: two norms and an MLP among its children."""
    mlp = any(name.startswith(_MLPS) for name, _ in module.named_children())
    return mlp and len(norm_names(module)) >= 2
