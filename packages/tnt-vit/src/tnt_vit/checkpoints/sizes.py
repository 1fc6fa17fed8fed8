"""The arguments of a TNT read from the shapes of its weights, and from elsewhere where shapes do not tell.

Shapes do not show the number of heads, nor how many pixels a word stands for. Those come from the run that wrote the
checkpoint, from the published variant of the same widths, or from the caller.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from effkit.errors import UserError, choose
from tnt_vit.checkpoints.weights import is_legacy_state
from tnt_vit.checkpoints.zoo import VARIANTS, full_name
from tnt_vit.model import TNT

__all__ = ["HIDDEN", "Sizes", "infer_sizes"]

HIDDEN = ("num_heads", "inner_num_heads", "patch_size")
_DEFAULTS = {name: p.default for name, p in inspect.signature(TNT.__init__).parameters.items()}


@dataclass
class Sizes:
    """Arguments of :class:`~tnt_vit.model.TNT`, each with where it was found.

    Attributes:
        args: The arguments.
        origin: Argument -> "shapes", "given", "training run" or "variant NAME".
        variant: The published variant of these sizes, whatever its number of classes; empty if there is none.
    """

    args: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    variant: str = ""

    def put(self, origin: str, **args: Any) -> None:
        """Note arguments that are not known yet."""
        for name, value in args.items():
            if name not in self.args:
                self.args[name], self.origin[name] = value, origin


def _ratio(hidden: int, width: int) -> float:
    """A ratio whose product with ``width``, cut to a whole number, is ``hidden`` despite rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _from_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What shapes tell; ``word_grid`` and ``sentences`` are ours, the rest are arguments of TNT."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise UserError(f"the checkpoint has no {name}, so its sizes cannot be told; it is incomplete or no TNT")
        return tuple(state[name].shape)

    numbers = {int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise UserError(f"the checkpoint has blocks {sorted(numbers)}, expected 0, 1, 2, ... without gaps")
    width, head = shape("cls_token")[-1], "head.weight"
    inner_blocks = tuple(i + 1 for i in sorted(numbers) if f"blocks.{i}.norm_in.weight" in state)
    gate = "blocks.0.se_layer.fc.1.weight"
    return {
        "embed_dim": width,
        "inner_dim": shape("pixel_pos")[1],
        "in_chans": shape("pixel_embed.proj.weight")[1],
        "num_classes": shape(head)[0] if head in state else 0,
        "depth": len(numbers),
        "tnt_blocks": "all" if len(inner_blocks) == len(numbers) else inner_blocks,
        "legacy": bool(is_legacy_state(state)),
        "mlp_ratio": _ratio(shape("blocks.0.mlp.fc1.weight")[0], width),
        "se_ratio": _ratio(shape(gate)[0], width) if gate in state else 0.0,
        "qkv_bias": "blocks.0.attn_out.qk.bias" in state,
        "word_grid": shape("pixel_pos")[2:],
        "sentences": shape("patch_pos")[1] - 1,
    }


def _full(variant: str) -> dict[str, Any]:
    """All arguments of a variant, its defaults included."""
    args = {**_DEFAULTS, **VARIANTS[variant].args}
    return {**args, "tnt_blocks": args["tnt_blocks"] if args["tnt_blocks"] == "all" else tuple(args["tnt_blocks"])}


def _word_grid(args: Mapping[str, Any]) -> tuple[int, int]:
    height, width = _pair(args["patch_size"])
    return height // args["inner_stride"], width // args["inner_stride"]


def _disagreement(shapes: Mapping[str, Any], variant: str) -> str:
    """Where weights and a variant differ, apart from classes and picture size; empty if they agree."""
    args = _full(variant)
    wrong = [
        f"{name}={args[name]!r} (the checkpoint: {shapes[name]!r})"
        for name in ("embed_dim", "inner_dim", "depth", "tnt_blocks", "legacy", "mlp_ratio", "se_ratio", "qkv_bias")
        if args[name] != shapes[name]
    ]
    if _word_grid(args) != shapes["word_grid"]:
        wrong.append(f"words {_word_grid(args)} (the checkpoint: {shapes['word_grid']})")
    return ", ".join(wrong)


def _matching(shapes: Mapping[str, Any]) -> str:
    """The variant that agrees with the weights, with the picture size of the position table if there is a choice."""
    names = [name for name in VARIANTS if not _disagreement(shapes, name)]
    for name in names:
        args = _full(name)
        if (args["img_size"] // args["patch_size"]) ** 2 == shapes["sentences"]:
            return name
    return names[0] if names else ""


def _relative(shapes: Mapping[str, Any]) -> str:
    """A variant of the same widths and words, which has the same heads whatever its depth and blocks."""
    for name in VARIANTS:
        args = _full(name)
        if all(args[k] == shapes[k] for k in ("embed_dim", "inner_dim")) and _word_grid(args) == shapes["word_grid"]:
            return name
    return ""


def infer_sizes(
    state: Mapping[str, Tensor],
    *,
    variant: str | None = None,
    run: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    table_grid: Callable[[tuple[int, int]], tuple[int, int] | None] = lambda _: None,
) -> Sizes:
    """Find the arguments of the model that weights belong to.

    Args:
        state: Weights by timm's names.
        variant: A name of ``list_models``, to be confirmed by the shapes.
        run: The ``model`` config of the run that trained the weights.
        given: Values of :data:`HIDDEN` and ``img_size`` from the caller; they win.
        table_grid: From the size of a sentence in pixels to the grid of the position table, as far as the file says.

    Returns:
        The arguments, the picture size being that of the position table.

    Raises:
        ValueError: If the weights are no TNT, the variant is another one, or something cannot be told.
    """
    shapes = _from_shapes(state)
    found = Sizes()
    grid, sentences = shapes.pop("word_grid"), shapes.pop("sentences")
    every = {**shapes, "word_grid": grid, "sentences": sentences}
    if variant is not None:
        name = full_name(variant)
        if name not in VARIANTS:
            choose("variant", variant, list(VARIANTS))
        if wrong := _disagreement(every, name):
            raise UserError(f"the checkpoint is not variant={variant}: that has {wrong}")
        found.variant = name
    else:
        found.variant = _matching(every)
    found.put("shapes", **shapes)
    _hidden(found, every, dict(run or {}), dict(given or {}))
    _picture_size(found, sentences, (given or {}).get("img_size"), table_grid)
    return found


def _hidden(found: Sizes, shapes: Mapping[str, Any], run: dict[str, Any], given: dict[str, Any]) -> None:
    """Find what shapes do not tell: from the caller, the training run, or a variant of the same widths.

    Raises:
        ValueError: If nothing tells, or what was found does not fit the word positions.
    """
    found.put("given", **{k: v for k, v in given.items() if v is not None and k in HIDDEN})
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in run.items() if v is not None}
    kept = (*HIDDEN, "img_size", "global_pool", "positions")
    found.put("training run", **{k: v for k, v in known.items() if k in kept})
    for name in (known.get("name", ""), f"{known.get('name')}_patch16_224"):
        if name in VARIANTS:
            found.put("training run", **{k: _full(name)[k] for k in HIDDEN})
    if relative := found.variant or _relative(shapes):
        found.put(f"variant {relative}", **{k: _full(relative)[k] for k in HIDDEN})
    grid = shapes["word_grid"]
    missing = [k for k in HIDDEN if k not in found.args]
    if missing:
        raise UserError(
            f"no published variant has embed_dim={shapes['embed_dim']}, inner_dim={shapes['inner_dim']} and words "
            f"{grid}, and shapes do not tell the rest: give {', '.join(f'{k}=...' for k in missing)}"
        )
    ph, pw = _pair(found.args["patch_size"])
    if ph % grid[0] or ph // grid[0] * grid[1] != pw:
        raise UserError(
            f"patch_size={found.args['patch_size']} does not fit the checkpoint's {grid[0]} x {grid[1]} words"
        )
    found.put("shapes", inner_stride=ph // grid[0])


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _picture_size(
    found: Sizes,
    sentences: int,
    wanted: int | tuple[int, int] | None,
    grid: Callable[[tuple[int, int]], tuple[int, int] | None],
) -> None:
    """Find the picture size of the position table: the file's, the run's, a square, or else the one wanted."""
    ph, pw = _pair(found.args["patch_size"])

    def fits(size: Any) -> bool:
        if size is None:
            return False
        height, width = _pair(size)
        return height % ph == 0 and width % pw == 0 and (height // ph) * (width // pw) == sentences

    known = grid((ph, pw))
    if known is not None and fits(size := (known[0] * ph, known[1] * pw)):
        found.args.pop("img_size", None)
        found.put("file", img_size=size[0] if size[0] == size[1] else size)
        return
    if fits(found.args.get("img_size")):
        return
    found.args.pop("img_size", None)
    side = round(sentences**0.5)
    if side * side != sentences and fits(wanted):
        found.put("given", img_size=wanted)
        return
    if side * side != sentences:
        raise UserError(
            f"the position table has {sentences} sentences, which is no square grid: give the img_size it is for"
        )
    found.put("shapes", img_size=side * ph if ph == pw else (side * ph, side * pw))
