"""Translate a checkpoint of any known layout to timm's names, and show that the result computes the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from effkit.arguments import check_arguments
from effkit.checkpoints import SUFFIXES, Checkpoint
from effkit.errors import UserError
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from effkit.runs import config_of
from tnt_vit.checkpoints.layout import describe_layout
from tnt_vit.checkpoints.origin import is_untrained
from tnt_vit.checkpoints.sizes import Sizes, infer_sizes
from tnt_vit.checkpoints.weights import (
    adapt_state,
    load_checkpoint,
    read_state,
    read_weights,
    save_checkpoint,
    stored_grid,
)
from tnt_vit.commands.known import preprocessing_of_weights
from tnt_vit.commands.options import options
from tnt_vit.inference.preprocessing import preprocessing
from tnt_vit.model import TNT

__all__ = ["convert_checkpoint", "run"]

_PARITY = 1e-10  # in float64, relative to the largest logit: other summation orders stay far below


def _load(args: Mapping[str, Any], weights: Path | Checkpoint, img_size: Any) -> TNT:
    model = TNT(**args, backend="torch")
    load_checkpoint(model, weights, img_size=img_size)
    return model.eval()


def _timm_twin(args: Mapping[str, Any]) -> torch.nn.Module | None:
    """Timm's model of the same sizes, or ``None`` if timm has none: it knows no hybrids and no gates."""
    if args["tnt_blocks"] != "all" or args["se_ratio"]:
        return None
    from timm.models.tnt import TNT as Twin

    renamed = {"num_heads": "num_heads_outer", "inner_num_heads": "num_heads_inner", "inner_stride": "first_stride"}
    kept = {renamed.get(k, k): v for k, v in args.items() if k not in ("tnt_blocks", "se_ratio", "positions")}
    return Twin(**kept)


def _distance(ours: torch.nn.Module, other: torch.nn.Module, x: Tensor) -> tuple[float, float]:
    """Largest difference of outputs in float64, and the size of the outputs."""
    with torch.no_grad():
        a, b = ours.double().eval()(x), other.double().eval()(x)
    return float((a - b).abs().max()), float(a.abs().max())


def _check(src: Checkpoint, dst: Path, sizes: Sizes, args: dict[str, Any], resized: bool) -> Table:
    """Load the result in our model and in timm's, and compare."""
    rows: list[list[Any]] = []
    empty = TNT(**args, device="meta")
    stored = _pair(sizes.args["img_size"])
    grid = (stored[0] // empty.patch_size[0], stored[1] // empty.patch_size[1])
    original = adapt_state(read_state(src), empty, grid)
    written = read_state(dst)
    same = written.keys() == original.keys() and all(torch.equal(written[k], original[k].float()) for k in written)
    rows.append(["names and values equal the source's", None, "match" if same else "differs"])
    model = _load(args, dst, args["img_size"])
    height, width = model.img_size
    x = torch.randn(1, model.in_chans, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if not resized:
        far, size = _distance(model, _load(sizes.args, src, stored), x)
        rows.append(["our model: source and result", far, "match" if far <= _PARITY * size else "differs"])
    twin = _timm_twin(args)
    if twin is None:
        rows.append(["timm's model: it has none of these sizes", None, "skipped"])
    else:
        twin.load_state_dict(written)
        far, size = _distance(model, twin, x)
        rows.append(["timm's model, strict load", far, "match" if far <= _PARITY * size else "differs"])
    note = "Differences are of logits (float64) on a random picture."
    return Table("Checks", ["check", "largest difference", "verdict"], rows, note)


def convert_checkpoint(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    variant: str | None = None,
    img_size: int | tuple[int, int] | None = None,
    *,
    num_heads: int | None = None,
    inner_num_heads: int | None = None,
    patch_size: int | None = None,
    ema: bool | Literal["auto"] = "auto",
) -> Report:
    """Convert a checkpoint to timm's layout, in float32.

    Args:
        src: The official layout, timm's, or a Lightning checkpoint of ours; ``.pth.tar`` with or without EMA (which
            wins), with or without ``module.``; or ``.safetensors``.
        dst: The result, ``.safetensors``, ``.pth`` or ``.pt``; its folder is made if it is missing.
        variant: What the checkpoint must be, a name of ``list_models``; found from the shapes if not given.
        img_size: Resample the position table for pictures of this size (bicubic); else it stays as it is. Of a table
            that is no square, and whose file does not say what it is, this is the size it was trained for.
        num_heads: Heads among sentences, where neither shapes nor variants tell.
        inner_num_heads: Heads among words, likewise.
        patch_size: Pixels of a sentence, likewise.
        ema: Of a file with averaged weights beside others: ``"auto"`` takes the averaged ones, as timm's loader does;
            true insists on them, false on the others.

    Returns:
        The sizes found and where they come from, and the checks; exit code 1 if one failed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no TNT, is not the variant, or sizes cannot be told.
    """
    source, target = Path(src).expanduser(), check_output_file("dst", dst, SUFFIXES)
    sizes_given = {"num_heads": num_heads, "inner_num_heads": inner_num_heads, "patch_size": patch_size}
    for name, value in sizes_given.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be a whole number of at least 1")
    stored = read_weights(source, ema)
    state = read_state(stored)
    if target.exists() and target.samefile(source):
        raise UserError(f"dst={str(dst)!r} is the source itself; give another name")
    layout, count = describe_layout(stored)
    size = tuple(img_size) if isinstance(img_size, list | tuple) else img_size
    given = {**sizes_given, "img_size": size}
    run = config_of(source).get("model")
    sizes = infer_sizes(state, variant=variant, run=run, given=given, table_grid=partial(stored_grid, stored))
    args: dict[str, Any] = {**sizes.args, **({"img_size": size} if size is not None else {})}
    resized = _pair(args["img_size"]) != _pair(sizes.args["img_size"])

    model = _load(args, stored, sizes.args["img_size"])
    known = preprocessing_of_weights(source)
    kept = {} if known is None else {"preprocessing": preprocessing(model, known=known)}
    save_checkpoint(model, target, **kept)
    checks = _check(stored, target, sizes, args, resized)
    good = all(row[-1] != "differs" for row in checks.rows)

    rows = [[name, str(value), sizes.origin[name]] for name, value in sorted(sizes.args.items())]
    if resized:
        rows.append(["img_size, new", str(args["img_size"]), "given"])
    params = sum(p.numel() for p in model.parameters())
    rows = [["layout", layout, "file"], ["variant", sizes.variant or "none published", "shapes"], *rows]
    found = Table(f"What {source.name} is", ["argument", "value", "from"], rows)
    lines = [f"took {stored}; the file also has {', '.join(stored.others)}"] if stored.others else []
    lines += [f"{count} tensors read, {len(model.state_dict())} written, {params:,} parameters"]
    if is_untrained(model):
        lines.append("WARNING: these weights look untrained (all norms have gain 1 and offset 0)")
    if kept and target.suffix != ".safetensors":
        lines.append(f"how the run prepared its pictures is kept in .safetensors only, not in {target.name}")
    data = {"args": args, "variant": sizes.variant, "layout": layout, "origin": sizes.origin, "match": good}
    return Report(
        "tnt-vit convert", [found, checks], data=data, files=[target], lines=lines, exit_code=0 if good else 1
    )


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def run(cfg: Any) -> Report:
    """Do what ``tnt-vit convert`` does.

    Args:
        cfg: The composed config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no TNT, is not the variant, or sizes cannot be told.
    """
    keys = ("src", "dst", "variant", "img_size", "num_heads", "inner_num_heads", "patch_size", "ema")
    given = options(cfg, *keys)
    check_arguments(convert_checkpoint, given)
    return convert_checkpoint(**given)
