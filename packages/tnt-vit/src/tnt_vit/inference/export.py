"""Write a model as ONNX or torch.export file, and check what was written against torch.

The file is loaded again and run before it gets its name; how far it may be from torch is said in
:mod:`tnt_vit.inference.verify`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from effkit.arguments import check_arguments
from effkit.atomic import followed
from effkit.data.pictures import BUNDLED
from effkit.data.preprocessing import Preprocessing
from effkit.errors import UserError, choose
from effkit.outputs import check_output_file
from effkit.report import Report, Table
from tnt_vit.checkpoints.origin import RANDOM, weights_note
from tnt_vit.inference.formats import (
    OPSETS,
    SUFFIXES,
    capture,
    need_onnx,
    prepared,
    run_onnx,
    run_torch_export,
    write_onnx,
    write_torch_export,
)
from tnt_vit.inference.preprocessing import preprocessing as expected
from tnt_vit.inference.verify import compare_with_torch
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT

__all__ = ["check_export", "export_model"]


def _parse_batch(batch: str | int) -> int | None:
    """Return the fixed batch, or ``None`` for any."""
    if batch == "dynamic":
        return None
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch must be dynamic or a whole number of at least 1, got {batch!r}")
    return batch


def _inputs(model: TNT | PyramidTNT, batches: list[int], prepare: Preprocessing | None) -> list[tuple[str, Tensor]]:
    """Random pictures and photographs in batches of every size to be tried."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in batches:
        found.append(("random", torch.randn(batch, model.in_chans, *model.img_size, generator=generator)))
        if prepare is not None:
            found.append(("photographs", prepare.batch((list(BUNDLED) * batch)[:batch])))
    return found


def _facts(model: TNT | PyramidTNT, prepare: Preprocessing | None) -> dict[str, Any]:
    """What a user of the file must do to pictures, in words that other libraries have too."""
    if prepare is None:
        return {"img_size": list(model.img_size)}
    return {
        "img_size": list(prepare.size),
        "mean": list(prepare.mean),
        "std": list(prepare.std),
        "crop_pct": prepare.crop_pct,
        "interpolation": prepare.interpolation,
    }


def _publish(work: Path, file: Path) -> list[Path]:
    """Move finished files to their place, the graph last: whoever sees it sees its weights too."""
    names = sorted((p.name for p in work.iterdir()), key=lambda name: name == file.name)
    umask = os.umask(0)
    os.umask(umask)
    for name in names:
        os.chmod(work / name, 0o666 & ~umask)
        os.replace(work / name, file.parent / name)
    return [file.parent / name for name in reversed(names)]


def check_export(
    out: str | os.PathLike[str] | None, to: str, batch: str | int, optimize: bool, opset: int | None, check: bool
) -> None:
    """Refuse what :func:`export_model` refuses, before there is a model and anything is traced.

    Args:
        out: The file; ``None`` where it is not chosen yet.
        to: See :func:`export_model`, as the others.
        batch: Likewise.
        optimize: Likewise.
        opset: Likewise.
        check: Likewise.

    Raises:
        ValueError: If an argument does not fit, the file cannot be written, or packages are missing.
    """
    choose("to", to, list(SUFFIXES))
    _parse_batch(batch)
    check_arguments(export_model, {"optimize": optimize, "opset": opset, "check": check})
    if out is not None:
        check_output_file("out", out, (SUFFIXES[to],))
    if to == "onnx":
        need_onnx(check)
        if opset is not None and not OPSETS[0] <= opset <= OPSETS[1]:
            raise UserError(f"opset={opset!r} must be a whole number in {OPSETS[0]}..{OPSETS[1]}")
    elif opset is not None:
        raise UserError(f"opset={opset!r} is for to=onnx, not for to={to}")


def export_model(
    model: TNT | PyramidTNT,
    out: str | os.PathLike[str],
    to: Literal["onnx", "torch_export"] = "onnx",
    batch: Literal["dynamic"] | int = "dynamic",
    optimize: bool = True,
    opset: int | None = None,
    check: bool = True,
    *,
    pretrained: bool | str | os.PathLike[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Report:
    """Export a model: pictures ``(B, in_chans, H, W)`` in, logits ``(B, num_classes)`` out, float32, on any machine.

    Args:
        model: A TNT or PyramidTNT; it stays as it is.
        out: The file; its suffix must be that of the format (``.onnx``, ``.pt2``).
        to: ``onnx``, or ``torch_export`` for ``torch.export.load``.
        batch: ``dynamic`` for any number of pictures, or a fixed number.
        optimize: Fold norms, stem and inner attention into fewer operators first, as ``optimize_for_inference`` does; a
            PyramidTNT is written as it is.
        opset: ONNX operator set; torch's choice if not given.
        check: Load the file and compare it with torch, on random pictures and photographs; a dynamic batch with 1 and 3
            pictures. A file that differs is not kept.
        pretrained: What the weights are, as given to ``create_model``; ``None`` finds out whether they are trained.
        preprocessing: What the model expects of pictures, with its class names, kept in the file; by default what its
            variant expects.

    Returns:
        What was written, and the comparison; exit code 1 if it failed.

    Raises:
        ValueError: If an argument does not fit, or packages are missing.
    """
    if not isinstance(model, TNT | PyramidTNT):
        raise UserError(
            f"export_model takes a tnt_vit.TNT or PyramidTNT, got {type(model).__name__}; optimize=True rewrites it"
        )
    check_export(out, to, batch, optimize, opset, check)
    fixed, file = _parse_batch(batch), followed(Path(out).expanduser())

    example = torch.zeros(fixed or 2, model.in_chans, *model.img_size)
    program = capture(prepared(model, optimize), example, fixed is None)
    prepare = expected(model, known=preprocessing) if model.in_chans in (1, 3) else None
    facts, metadata = _facts(model, prepare), prepare.to_metadata() if prepare else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=file.parent, prefix=f".{file.name}."))
    try:
        temporary = work / file.name
        if to == "onnx":
            details = write_onnx(program, temporary, opset, facts, metadata)
        else:
            details = write_torch_export(program, temporary, facts, metadata)
        tables = []
        good = True
        if check:
            loaded = run_onnx(temporary) if to == "onnx" else run_torch_export(temporary)
            batches = [1, 3] if fixed is None else [fixed]
            tables.append(compare_with_torch(model, loaded, _inputs(model, batches, prepare)))
            good = all(row[-1] == "match" for row in tables[0].rows)
            del loaded
        files = _publish(work, file) if good else []
    finally:
        shutil.rmtree(work, ignore_errors=True)

    note = weights_note(model, pretrained)
    size = sum(f.stat().st_size for f in files) / 2**20
    rows: list[list[Any]] = [
        ["to", to],
        ["batch", batch],
        ["picture", "x".join(map(str, (model.in_chans, *model.img_size)))],
        ["optimize", optimize and isinstance(model, TNT)],
        *details,
        ["size, MiB", size if files else None],
        ["weights", note],
    ]
    return Report(
        "tnt-vit export",
        [Table("Export", ["", "value"], rows), *tables],
        data={"checked": check, "match": good if check else None, "preprocessing": facts, "weights": note},
        files=files,
        lines=_remarks(check, good, note),
        exit_code=0 if good else 1,
    )


def _remarks(check: bool, good: bool, note: str) -> list[str]:
    lines = []
    if not check:
        lines.append("not checked (check=false)")
    elif not good:
        lines.append(
            "The file differs from torch by more than rounding and was not kept (check=false writes it anyway)."
        )
    if note == RANDOM:
        lines.append(f"WARNING: {RANDOM}; give model.pretrained=PATH")
    return lines
