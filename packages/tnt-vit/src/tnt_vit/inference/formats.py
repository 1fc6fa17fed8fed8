"""A model as ONNX or torch.export file: captured, written, and loaded again to run."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from effkit.errors import UserError
from tnt_vit.inference.exportable import ExportableTNT
from tnt_vit.model import TNT
from tnt_vit.pyramid import PyramidTNT

__all__ = [
    "OPSETS",
    "PREPROCESSING_FILE",
    "SUFFIXES",
    "Runner",
    "capture",
    "need_onnx",
    "prepared",
    "run_onnx",
    "run_program",
    "run_torch_export",
    "write_onnx",
    "write_torch_export",
]

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
PREPROCESSING_FILE = "preprocessing.json"  # inside a torch.export file
OPSETS = (18, 23)  # torch writes 18 and up; onnxruntime reads what it was tested with
ONE_FILE_BYTES = 1 << 31  # protobuf's limit, above which ONNX keeps the weights beside the graph

Runner = Callable[[Tensor], Tensor]


def need_onnx(check: bool) -> None:
    """Refuse early if packages for ONNX are missing.

    Args:
        check: Whether files are run too, which takes one more than writing them.

    Raises:
        ValueError: Names them and the extra that has them.
    """
    wanted = ["onnx", "onnxscript", *(["onnxruntime"] if check else [])]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"files of ONNX need {', '.join(missing)}, not installed here: pip install 'tnt-vit[onnx]'")


def prepared(model: TNT | PyramidTNT, optimize: bool) -> nn.Module:
    """A copy on the CPU in float32 that computes with torch's own operators; ``optimize`` rewrites a TNT's."""
    plain = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    plain.dynamic_img_size = False
    if isinstance(plain, PyramidTNT):
        return plain
    plain.backend = "torch"
    return ExportableTNT(plain) if optimize else plain


def capture(module: nn.Module, x: Tensor, dynamic: bool) -> ExportedProgram:
    """Trace a module on pictures ``(B, C, H, W)``; ``dynamic`` leaves ``B`` open."""
    shapes = ({0: Dim("batch", min=1)},) if dynamic else None
    with torch.no_grad():  # else the graph holds switches of the gradient mode, which torch.export cannot load again
        return torch.export.export(module, (x,), dynamic_shapes=shapes)


def write_onnx(
    program: ExportedProgram, file: Path, opset: int | None, facts: dict[str, Any], metadata: dict[str, str]
) -> list[list[Any]]:
    """Translate to ONNX and save; one file, unless the weights are too large for one.

    The facts are properties one by one, for users of other libraries; the metadata is as it is read back by us.
    """
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
    written.model.metadata_props.update({**{k: json.dumps(v) for k, v in facts.items()}, **metadata})
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    written.save(str(file), external_data=size >= ONE_FILE_BYTES)
    onnx.checker.check_model(str(file))
    nodes = sum(1 for _ in written.model.graph)
    return [["opset", used], ["operators", nodes], ["input", "pixels"], ["output", "logits"]]


def run_onnx(file: Path) -> Runner:
    """Load an ONNX file for the CPU; returns the function from pictures to logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pixels": x.numpy()})[0])

    return run


def write_torch_export(
    program: ExportedProgram, file: Path, facts: dict[str, Any], metadata: dict[str, str]
) -> list[list[Any]]:
    """Save for ``torch.export.load``; facts and metadata, see :func:`write_onnx`, are extra files in it."""
    torch.export.save(program, str(file), extra_files={PREPROCESSING_FILE: json.dumps(facts), **metadata})
    return [["operators", sum(node.op == "call_function" for node in program.graph.nodes)]]


def run_torch_export(file: Path) -> Runner:
    """Load such a file; returns the function from pictures to logits."""
    return run_program(torch.export.load(str(file)))


def run_program(program: ExportedProgram) -> Runner:
    """The function from pictures to logits that an exported program is."""
    module = program.module()

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        return module(x)

    return run
