"""Write a model as ONNX or torch.export file, and check what was written against torch.

The file is loaded again and run before it gets its name. The rule: against float64, it may be wrong by at most twice as
much as torch in float32 is, plus eight units in the last place of the largest logit. That is what other orders of
summation cost; a wrong weight or operator is orders of magnitude above it.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from effkit.errors import UserError, choose
from effkit.report import Report, Table
from tnt_vit.model import TNT
from tnt_vit.origin import RANDOM, weights_note
from tnt_vit.pictures import BUNDLED, preprocessing

__all__ = ["SUFFIXES", "export_model", "tolerance"]

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
OPSETS = (18, 23)  # torch writes 18 and up; onnxruntime reads what it was tested with
ONE_FILE_BYTES = 1 << 31  # protobuf's limit, above which ONNX keeps the weights beside the graph
_ULPS = 8

Runner = Callable[[Tensor], Tensor]


def tolerance(reference: Tensor, ours: Tensor) -> float:
    """Largest error against ``reference`` that a correct export may have.

    Args:
        reference: Logits of torch in float64.
        ours: Logits of torch in float32.
    """
    rounding = float((ours.double() - reference).abs().max())
    return 2 * rounding + _ULPS * torch.finfo(torch.float32).eps * float(reference.abs().max())


def _need_onnx(check: bool) -> None:
    wanted = ["onnx", "onnxscript", *(["onnxruntime"] if check else [])]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format='onnx' needs {', '.join(missing)}, not installed here: pip install 'tnt-vit[onnx]'")


def _prepared(model: TNT, optimize: bool) -> nn.Module:
    """A copy on the CPU in float32 that computes with torch's own operators."""
    plain = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    plain.backend, plain.dynamic_img_size = "torch", False
    if not optimize:
        return plain
    from tnt_vit.exportable import ExportableTNT

    return ExportableTNT(plain)


def _capture(module: nn.Module, x: Tensor, dynamic: bool) -> ExportedProgram:
    shapes = ({0: Dim("batch", min=1)},) if dynamic else None
    with torch.no_grad():  # else the graph holds switches of the gradient mode, which torch.export cannot load again
        return torch.export.export(module, (x,), dynamic_shapes=shapes)


def _write_onnx(program: ExportedProgram, file: Path, opset: int | None, facts: dict[str, Any]) -> list[list[Any]]:
    """Translate to ONNX and save; one file, unless the weights are too large for one."""
    import onnx

    written = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["pixels"],
        output_names=["logits"],
        opset_version=opset,
        verbose=False,
    )
    assert written is not None
    used = written.model.opset_imports[""]
    if opset is not None and used != opset:
        raise UserError(f"opset={opset}: torch reaches only {used} for this model; leave opset out")
    written.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    written.save(str(file), external_data=size >= ONE_FILE_BYTES)
    onnx.checker.check_model(str(file))
    nodes = sum(1 for _ in written.model.graph)
    return [["opset", used], ["operators", nodes], ["input", "pixels"], ["output", "logits"]]


def _run_onnx(file: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": x.numpy()})[0])

    return run


def _write_torch_export(program: ExportedProgram, file: Path, facts: dict[str, Any]) -> list[list[Any]]:
    torch.export.save(program, str(file), extra_files={"preprocessing.json": json.dumps(facts)})
    return [["operators", sum(node.op == "call_function" for node in program.graph.nodes)]]


def _run_torch_export(file: Path) -> Runner:
    module = torch.export.load(str(file)).module()

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        return module(x)

    return run


def _inputs(model: TNT, batches: list[int]) -> list[tuple[str, Tensor]]:
    """Random pictures and photographs in batches of every size to be tried."""
    generator = torch.Generator().manual_seed(0)
    found = []
    photographs = model.in_chans in (1, 3)
    for batch in batches:
        found.append(("random", torch.randn(batch, model.in_chans, *model.img_size, generator=generator)))
        if photographs:
            names = (list(BUNDLED) * batch)[:batch]
            found.append(("photographs", preprocessing(model).batch(names)))
    return found


def _checked(model: TNT, run: Runner, batches: list[int]) -> Table:
    """Compare a loaded file with torch."""
    ours = copy.deepcopy(model).cpu().float().eval()
    ours.backend = "torch"
    exact = copy.deepcopy(ours).double()
    rows: list[list[Any]] = []
    with torch.no_grad():
        for name, x in _inputs(model, batches):
            reference, logits, exported = exact(x.double()), ours(x), run(x)
            error, allowed = float((exported.double() - reference).abs().max()), tolerance(reference, logits)
            good = exported.shape == logits.shape and bool(torch.isfinite(exported).all()) and error <= allowed
            difference = float((exported - logits).abs().max())
            rows.append([name, len(x), difference, error, allowed, "match" if good else "differs"])
    note = (
        "Allowed: twice the float32 error of torch itself, plus 8 units in the last place of the largest logit; "
        "both errors against float64."
    )
    columns = ["input", "batch", "largest difference to torch", "error", "allowed", "verdict"]
    return Table("The file, loaded again, against torch", columns, rows, note)


def _parse_batch(batch: str | int) -> int | None:
    """Return the fixed batch, or ``None`` for any."""
    if batch == "dynamic":
        return None
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch must be 'dynamic' or a whole number of at least 1, got {batch!r}")
    return batch


def export_model(
    model: TNT,
    out: str | os.PathLike[str],
    format: Literal["onnx", "torch_export"] = "onnx",
    batch: Literal["dynamic"] | int = "dynamic",
    optimize: bool = True,
    opset: int | None = None,
    check: bool = True,
    *,
    pretrained: bool | str | os.PathLike[str] | None = None,
) -> Report:
    """Export a model: pictures ``(B, in_chans, H, W)`` in, logits ``(B, num_classes)`` out, float32, on any machine.

    Args:
        model: A TNT; it stays as it is.
        out: The file; its suffix must be that of the format (``.onnx``, ``.pt2``).
        format: ``onnx``, or ``torch_export`` for ``torch.export.load``.
        batch: ``dynamic`` for any number of pictures, or a fixed number.
        optimize: Fold norms, stem and inner attention into fewer operators first, as ``optimize_for_inference`` does.
        opset: ONNX operator set; torch's choice if not given.
        check: Load the file and compare it with torch, on random pictures and photographs; a dynamic batch with 1 and 3
            pictures. A file that differs is not kept.
        pretrained: What the weights are, as given to ``create_model``; ``None`` finds out whether they are trained.

    Returns:
        What was written, and the comparison; exit code 1 if it failed.

    Raises:
        ValueError: If an argument does not fit, or packages are missing.
    """
    choose("format", format, list(SUFFIXES))
    if not isinstance(model, TNT):
        raise UserError(f"export_model takes a tnt_vit.TNT, got {type(model).__name__}; optimize=True rewrites it")
    fixed = _parse_batch(batch)
    file = Path(out)
    if file.suffix != SUFFIXES[format]:
        raise UserError(f"out={str(out)!r} must end in {SUFFIXES[format]} for format={format!r}")
    if format == "onnx":
        _need_onnx(check)
        if opset is not None and not (isinstance(opset, int) and OPSETS[0] <= opset <= OPSETS[1]):
            raise UserError(f"opset must be a whole number in {OPSETS[0]}..{OPSETS[1]}, got {opset!r}")
    elif opset is not None:
        raise UserError(f"opset={opset!r} is for format='onnx', not for {format!r}")

    example = torch.zeros(fixed or 2, model.in_chans, *model.img_size)
    program = _capture(_prepared(model, optimize), example, fixed is None)
    facts = _facts(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=file.parent, prefix=f".{file.name}."))
    try:
        temporary = work / file.name
        if format == "onnx":
            details = _write_onnx(program, temporary, opset, facts)
        else:
            details = _write_torch_export(program, temporary, facts)
        tables = []
        good = True
        if check:
            run = _run_onnx(temporary) if format == "onnx" else _run_torch_export(temporary)
            tables.append(_checked(model, run, [1, 3] if fixed is None else [fixed]))
            good = all(row[-1] == "match" for row in tables[0].rows)
            del run
        files = _publish(work, file) if good else []
    finally:
        shutil.rmtree(work, ignore_errors=True)

    note = weights_note(model, pretrained)
    size = sum(f.stat().st_size for f in files) / 2**20
    rows: list[list[Any]] = [
        ["format", format],
        ["batch", batch],
        ["picture", "x".join(map(str, (model.in_chans, *model.img_size)))],
        ["optimize", optimize],
        *details,
        ["size, MiB", size if files else None],
        ["weights", note],
    ]
    lines = []
    if not check:
        lines.append("not checked (check=false)")
    elif not good:
        lines.append(
            "The file differs from torch by more than rounding and was not kept (check=false writes it anyway)."
        )
    if note == RANDOM:
        lines.append(f"WARNING: {RANDOM}; give model.pretrained=PATH")
    return Report(
        "tnt-vit export",
        [Table("Export", ["", "value"], rows), *tables],
        data={"checked": check, "match": good if check else None, "preprocessing": facts, "weights": note},
        files=files,
        lines=lines,
        exit_code=0 if good else 1,
    )


def _facts(model: TNT) -> dict[str, Any]:
    """What a user of the file must do to pictures."""
    if model.in_chans not in (1, 3):
        return {"img_size": list(model.img_size)}
    prepare = preprocessing(model)
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
