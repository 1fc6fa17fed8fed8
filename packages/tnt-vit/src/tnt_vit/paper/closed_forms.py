"""What a TNT costs, as formulas: multiply-adds and parameters from the paper's symbols alone, nothing is built or run.

Symbols: ``L`` blocks, of which ``T`` have an inner part; sentence width ``d``, word width ``c``; ``n`` sentences a
picture, ``N = n + 1`` with the class token; ``m`` words a sentence; ``K`` classes. With three channels, 7x7 filters and
MLPs four times as wide as their tokens,

    MACs   = T (12nmc² + 2nm²c + nmcd) + L (12Nd² + 2N²d) + 147nmc + nmcd + dK
    params = T (12c² + 10c + 2mc + mcd + 2d) + L (12d² + 10d)
             + (147c + c) + mc + (2mc + mcd + d + 2d) + d + Nd + 2d + dK + K

and the functions below generalise this to any of the arguments of :class:`~tnt_vit.model.TNT`. MACs are counted as
everywhere here: convolutions, linear maps and attention products of one picture, with the patch-wise 7x7 convolution of
the paper (not the folded stem). The paper's own per-block estimate (its section 2.2) leaves out the class token, norms
and biases; it is here as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from tnt_vit.layers.checks import check_architecture, parse_blocks

if TYPE_CHECKING:
    from tnt_vit.model import TNT

__all__ = ["Sizes", "dead_params", "estimated_block_macs", "macs", "params"]

TAPS = 49  # of the stem's 7x7 filters
INNER_MLP_RATIO = 4  # the words' MLP; fixed in the official code


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@dataclass(frozen=True)
class Sizes:
    """The numbers that the costs of a TNT depend on; defaults are TNT-S.

    Heads, dropout rates and position options are missing because they cost nothing here: a position table that is not
    learnt is still kept.

    Args:
        img_size: Height and width of the picture in pixels (one number for a square).
        patch_size: Height and width of a sentence.
        inner_stride: Distance between words.
        in_chans: Channels of the picture.
        embed_dim: ``d``.
        inner_dim: ``c``.
        depth: ``L``.
        tnt_blocks: 1-based numbers of the blocks with an inner part, or ``"all"``.
        mlp_ratio: Hidden over outer width of the sentence MLPs.
        qkv_bias: Whether queries, keys and values have a bias.
        se_ratio: Hidden fraction of the channel gates, 0 for none.
        legacy: The first public variant.
        num_classes: ``K``; 0 for no classifier.

    Raises:
        ValueError: If sizes do not divide, or a block number is out of range or repeated.
    """

    img_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    inner_stride: int = 4
    in_chans: int = 3
    embed_dim: int = 384
    inner_dim: int = 24
    depth: int = 12
    tnt_blocks: Literal["all"] | Sequence[int] = "all"
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    se_ratio: float = 0.0
    legacy: bool = False
    num_classes: int = 1000

    def __post_init__(self) -> None:
        check_architecture(
            img_size=_pair(self.img_size),
            patch_size=_pair(self.patch_size),
            inner_stride=self.inner_stride,
            in_chans=self.in_chans,
            num_classes=self.num_classes,
            embed_dim=self.embed_dim,
            inner_dim=self.inner_dim,
            depth=self.depth,
            num_heads=1,
            inner_num_heads=1,
            mlp_ratio=self.mlp_ratio,
            se_ratio=self.se_ratio,
        )
        parse_blocks(self.tnt_blocks, self.depth)

    @classmethod
    def of(cls, model: TNT) -> Sizes:
        """The sizes of a model.

        Args:
            model: A TNT with at least one block.
        """
        block = model.blocks[0]
        gate = block.se_layer
        return cls(
            img_size=model.img_size,
            patch_size=model.patch_size,
            inner_stride=model.pixel_embed.stride,
            in_chans=model.in_chans,
            embed_dim=model.embed_dim,
            inner_dim=model.inner_dim,
            depth=model.depth,
            tnt_blocks=model.tnt_blocks,
            mlp_ratio=block.mlp.fc1.out_features / model.embed_dim,
            qkv_bias=block.attn_out.v.bias is not None,
            se_ratio=0.0 if gate is None else gate.fc[1].out_features / model.embed_dim,
            legacy=model.legacy,
            num_classes=model.num_classes,
        )

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Sizes:
        """The sizes that arguments of :class:`~tnt_vit.model.TNT` stand for; those that cost nothing are left out.

        Args:
            args: Keyword arguments; :class:`~tnt_vit.model.TNT`'s defaults for the others.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in args.items() if k in known})

    @property
    def sentences(self) -> int:
        """``n``."""
        (height, width), (rows, cols) = _pair(self.img_size), _pair(self.patch_size)
        return (height // rows) * (width // cols)

    @property
    def words(self) -> int:
        """``m``."""
        rows, cols = _pair(self.patch_size)
        return (rows // self.inner_stride) * (cols // self.inner_stride)

    @property
    def inner_blocks(self) -> int:
        """``T``."""
        return len(parse_blocks(self.tnt_blocks, self.depth))

    @property
    def hidden(self) -> int:
        """Hidden width of the sentence MLPs; ``4d`` in the paper."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def gate(self) -> int:
        """Hidden width of the channel gates; ``d / 4`` in Table 12, 0 for none."""
        return int(self.embed_dim * self.se_ratio)


def macs(sizes: Sizes) -> dict[str, int]:
    """Multiply-adds of one picture, part by part; the sum is the model's.

    Args:
        sizes: The model's sizes.

    Returns:
        ``inner linear``, ``inner attention``, ``word to sentence`` (equation 8), ``outer linear``, ``outer attention``,
        ``SE``, ``stem`` (the 7x7 convolution), ``stem projection`` (the first sentence tokens) and ``head``.

    Example:
        >>> sum(macs(Sizes()).values())
        5216875008
    """
    n, m, c, d = sizes.sentences, sizes.words, sizes.inner_dim, sizes.embed_dim
    L, T, N = sizes.depth, sizes.inner_blocks, sizes.sentences + 1
    return {
        "inner linear": T * n * m * c * c * (4 + 2 * INNER_MLP_RATIO),
        "inner attention": T * 2 * n * m * m * c,
        "word to sentence": T * n * m * c * d,
        "outer linear": L * N * (4 * d * d + 2 * d * sizes.hidden),
        "outer attention": L * 2 * N * N * d,
        "SE": L * 2 * d * sizes.gate,  # one token a block: the mean over the others
        "stem": TAPS * sizes.in_chans * n * m * c,
        "stem projection": n * m * c * d,
        "head": d * sizes.num_classes,
    }


def params(sizes: Sizes) -> dict[str, int]:
    """Parameters, part by part; the sum is the model's.

    Args:
        sizes: The model's sizes.

    Returns:
        ``inner``, ``word to sentence``, ``outer``, ``SE`` (all with their norms), ``stem``, ``stem projection``,
        ``positions`` (words, sentences, class token) and ``head`` (with the last norm).

    Example:
        >>> sum(params(Sizes()).values())
        23768584
    """
    m, c, d, h, g = sizes.words, sizes.inner_dim, sizes.embed_dim, sizes.hidden, sizes.gate
    L, T, N, K = sizes.depth, sizes.inner_blocks, sizes.sentences + 1, sizes.num_classes
    r = INNER_MLP_RATIO
    biases_in, biases_out = (3 * c, 3 * d) if sizes.qkv_bias else (0, 0)
    norms = 2 * c if sizes.legacy else 2 * m * c + 2 * d
    return {
        # attention, its output bias, MLP with biases, two norms: 12c² + 10c
        "inner": T * (4 * c * c + c + 2 * r * c * c + r * c + c + 4 * c + biases_in),
        "word to sentence": T * (norms + m * c * d + (d if sizes.legacy else 0)),
        # the same for sentences: 12d² + 10d
        "outer": L * (4 * d * d + d + 2 * d * h + h + d + 4 * d + biases_out),
        "SE": L * (2 * d + d * g + g + g * d + d) if g else 0,
        "stem": TAPS * sizes.in_chans * c + c,
        "stem projection": 2 * m * c + m * c * d + d + 2 * d,
        "positions": m * c + N * d + d,
        "head": 2 * d + (d * K + K if K else 0),
    }


def dead_params(sizes: Sizes) -> int:
    """Entries of the official code's ``outer_tokens`` (``n x d``), counted by the paper and read by nothing."""
    return sizes.sentences * sizes.embed_dim


def estimated_block_macs(sizes: Sizes, *, inner: bool = True) -> int:
    """The paper's own estimate for one block (section 2.2), which neglects the class token.

    Args:
        sizes: The model's sizes, with an MLP ratio of 4.
        inner: A TNT block, ``2nmc(6c + m) + nmcd + 2nd(6d + n)``; otherwise a plain one, ``2nd(6d + n)``.

    Example:
        >>> round(estimated_block_macs(Sizes()) / 1e6), round(estimated_block_macs(Sizes(), inner=False) / 1e6)
        (429, 376)
    """
    n, m, c, d = sizes.sentences, sizes.words, sizes.inner_dim, sizes.embed_dim
    plain = 2 * n * d * (6 * d + n)
    return plain + 2 * n * m * c * (6 * c + m) + n * m * c * d if inner else plain
