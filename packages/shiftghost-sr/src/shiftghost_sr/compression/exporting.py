"""A deployed network as a file that needs nothing of ours: ONNX, or a program of torch.export.

Plain convolutions, slices, padding, sums and a depth-to-space in the order of PixelShuffle (CRD), for frames of any
size.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from effkit.atomic import atomic, followed
from effkit.errors import UserError, choose
from effkit.outputs import check_output_file
from effkit.report import Table
from shiftghost_sr.compression.deploy import Deployed, deploy

__all__ = ["FORMATS", "OPSETS", "check_export", "export_network"]

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}
OPSETS = (18, 23)  # torch writes 18 and up; onnxruntime reads what it was tested with
_ONE_FILE = 1 << 31  # protobuf's limit
_SIZES = ((13, 9), (8, 21))  # frames that a file is checked on
_MIN_SIDE = 4  # of frames; below, the exporter would have to tell apart whether a kernel sees both sides

Runner = Callable[[Tensor], Tensor]


def check_export(out: str | os.PathLike[str] | None, to: str, opset: int | None) -> None:
    """Refuse what :func:`export_network` would refuse, before there is a network.

    Raises:
        UserError: If the format is unknown, the file cannot be written, or packages are missing.
    """
    choose("to", to, FORMATS)
    if out is not None:
        check_output_file("out", out, (FORMATS[to],))
    if to != "onnx":
        if opset is not None:
            raise UserError(f"opset={opset!r} is for to=onnx, not for to={to}")
        return
    if opset is not None and (isinstance(opset, bool) or not OPSETS[0] <= opset <= OPSETS[1]):
        raise UserError(f"opset={opset!r} must be a whole number in {OPSETS[0]}..{OPSETS[1]}")
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        raise UserError(f"files of ONNX need {', '.join(missing)}, not installed: pip install 'shiftghost-sr[onnx]'")


def _capture(network: nn.Module, channels: int) -> ExportedProgram:
    shapes = ({0: Dim("batch", min=1), 2: Dim("height", min=_MIN_SIDE), 3: Dim("width", min=_MIN_SIDE)},)
    example = torch.zeros(2, channels, 12, 16)
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=shapes)


def _write_onnx(program: ExportedProgram, file: Path, opset: int | None, facts: dict[str, str]) -> list[list[Any]]:
    import onnx

    written = torch.onnx.export(
        program, dynamo=True, input_names=["picture"], output_names=["upscaled"], opset_version=opset, verbose=False
    )
    assert written is not None
    used = written.model.opset_imports[""]
    if opset is not None and used != opset:
        raise UserError(f"opset={opset}: torch reaches only {used} for this network; leave opset out")
    written.model.metadata_props.update(facts)
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size >= _ONE_FILE:
        raise UserError("the network is too large for one file of ONNX; use to=torch_export")
    written.save(str(file))
    onnx.checker.check_model(str(file))
    kinds = sorted({node.op_type for node in onnx.load(str(file)).graph.node})
    return [["opset", used], ["operators", ", ".join(kinds)]]


def _run_onnx(file: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["upscaled"], {"picture": x.numpy()})[0])


def _run_program(file: Path) -> Runner:
    with open(file, "rb") as opened:
        module = torch.export.load(opened).module()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return run


def export_network(
    model: nn.Module, out: str | os.PathLike[str], to: str = "onnx", *, opset: int | None = None
) -> tuple[Path | None, list[Table]]:
    """Write a network, and check what was written against torch on frames of two sizes; one that differs is not kept.

    Args:
        model: Dense or with ghosts, in evaluation mode; not deployed yet.
        out: The file.
        to: ``onnx`` or ``torch_export``.
        opset: ONNX operator set; torch's choice if not given.

    Returns:
        The file, ``None`` if it differed, and what was found.

    Raises:
        UserError: If an argument does not fit, or packages are missing.
    """
    check_export(out, to, opset)
    if isinstance(model, Deployed):
        raise UserError("model is deployed already; give the network it was made from")
    network = deploy(model, portable=True).cpu().float()
    channels, file = int(model.channels), followed(Path(out).expanduser())  # type: ignore[arg-type]
    facts = {"scale": str(model.scale), "channels": str(channels), "grid": str(getattr(model, "grid", "lr"))}
    facts["input"] = json.dumps("pictures (batch, channels, height, width) in 0..1")
    program = _capture(network, channels)
    with atomic(file) as temporary:
        if to == "onnx":
            details = _write_onnx(program, Path(temporary), opset, facts)
        else:
            with open(temporary, "wb") as opened:
                torch.export.save(program, opened, extra_files={"facts.json": json.dumps(facts)})
            details = []
        rows, good = _compared(network, (_run_onnx if to == "onnx" else _run_program)(Path(temporary)), channels)
        if not good:
            raise _Differs(rows)
    size = round(file.stat().st_size / 2**20, 2)
    tables = [Table("Export", ["", "value"], [["to", to], *details, ["size, MiB", size]]), _checked(rows)]
    return file, tables


class _Differs(UserError):
    """A file that does not compute what the network computes."""

    def __init__(self, rows: list[list[Any]]) -> None:
        worst = max(rows, key=lambda row: row[1] / row[2])
        super().__init__(
            f"the exported file is wrong by {worst[1]:.3g} on {worst[0]} pixels, where {worst[2]:.3g} is allowed: "
            "twice what torch is; it is not kept"
        )


def _compared(network: nn.Module, run: Runner, channels: int) -> tuple[list[list[Any]], bool]:
    """How wrong the file is, by the network in double precision: at most twice what torch is in the file's own."""
    generator = torch.Generator().manual_seed(0)
    exact = copy.deepcopy(network).double()
    errors: list[tuple[str, float, float]] = []
    slack = 0.0
    for height, width in _SIZES:
        x = torch.rand(1, channels, height, width, generator=generator)
        with torch.no_grad():
            expected, plain = exact(x.double()), network(x)
        found = run(x)
        if found.shape != expected.shape:
            raise UserError(f"the exported file gives {tuple(found.shape)}, torch {tuple(expected.shape)}")
        ours, theirs = (float((y.double() - expected).abs().max()) for y in (found, plain))
        errors.append((f"{height} x {width}", ours, theirs))
        slack = max(slack, torch.finfo(torch.float32).eps * float(expected.abs().max()))
    # Of all frames together: on one of them torch may happen to be exact.
    allowed = 2 * max(theirs for _, _, theirs in errors) + max(slack, torch.finfo(torch.float32).tiny)
    rows: list[list[Any]] = [
        [frame, ours, allowed, "match" if ours <= allowed else "differs"] for frame, ours, _ in errors
    ]
    return rows, all(row[-1] == "match" for row in rows)


def _checked(rows: list[list[Any]]) -> Table:
    columns = ["frame", "largest error", "allowed: twice torch's", "verdict"]
    return Table("Loaded again and compared with the network in double precision", columns, rows)
