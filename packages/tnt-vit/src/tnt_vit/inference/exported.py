"""A file that :func:`~tnt_vit.inference.export.export_model` wrote, read back as a network with its preprocessing."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from effkit.data.preprocessing import METADATA_KEY, Preprocessing
from effkit.errors import UserError
from tnt_vit.inference.formats import PREPROCESSING_FILE, SUFFIXES, Runner, need_onnx, run_onnx, run_program

__all__ = ["ExportedTNT", "load_exported"]


class ExportedTNT(nn.Module):
    """Pictures to logits by an exported file; it runs on the CPU and only predicts.

    Attributes:
        file: The file.
        preprocessing: What the file says about pictures.
        num_classes: Logits a picture.
        batch: Pictures a call, if the file was made for a fixed number; else ``None``.
    """

    def __init__(self, file: Path, run: Runner, preprocessing: Preprocessing, batch: int | None) -> None:
        super().__init__()
        self.file, self.preprocessing, self.batch, self._run = file, preprocessing, batch, run
        self.img_size, self.in_chans = preprocessing.size, preprocessing.channels
        self.num_classes = int(self(torch.zeros(1, self.in_chans, *self.img_size)).shape[-1])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Logits of pictures: ``(B, in_chans, H, W) -> (B, num_classes)``, on the device of the pictures."""
        pixels = x.detach().float().cpu()
        if self.batch is None:
            return self._run(pixels).to(x.device)
        logits = []
        for part in pixels.split(self.batch):
            filled = torch.cat([part, part.new_zeros(self.batch - len(part), *part.shape[1:])])
            logits.append(self._run(filled)[: len(part)])
        return torch.cat(logits).to(x.device)


def load_exported(path: str | os.PathLike[str]) -> ExportedTNT:
    """Read an exported file.

    Args:
        path: An ``.onnx`` or ``.pt2`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was not written by us, is damaged, or packages are missing.
    """
    file = Path(path).expanduser()
    if file.suffix not in SUFFIXES.values():
        raise UserError(f"exported={str(path)!r} must end in one of {', '.join(SUFFIXES.values())}")
    if not file.is_file():
        raise FileNotFoundError(f"the exported file {str(path)!r} does not exist")
    onnx = file.suffix == SUFFIXES["onnx"]
    if onnx:
        need_onnx(check=True)
    elif not zipfile.is_zipfile(file):  # torch would say so in a page of its own
        raise UserError(f"exported={str(path)!r} cannot be read: it is no archive of torch.export, or cut short")
    try:
        facts, batch, run = (_read_onnx if onnx else _read_torch)(file)
    except Exception as error:  # two libraries, and each raises types of its own for damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"exported={str(path)!r} cannot be read: {reason}") from error
    return ExportedTNT(file, run, _preprocessing(facts, file), batch)


def _preprocessing(facts: dict[str, str], file: Path) -> Preprocessing:
    found = Preprocessing.from_metadata(facts, str(file))
    if found is not None:
        return found
    try:  # files from before class names were kept
        size, mean, std, pct, how = (
            json.loads(facts[key]) for key in ("img_size", "mean", "std", "crop_pct", "interpolation")
        )
    except (KeyError, ValueError):
        raise UserError(f"exported={str(file)!r} does not say how pictures are prepared: export it again") from None
    return Preprocessing(size, pct, how, mean, std)


def _read_onnx(file: Path) -> tuple[dict[str, str], int | None, Runner]:
    """Metadata, the fixed batch if there is one, and what runs the file."""
    import onnx

    model = onnx.load(str(file), load_external_data=False)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return {p.key: p.value for p in model.metadata_props}, batch or None, run_onnx(file)


def _read_torch(file: Path) -> tuple[dict[str, str], int | None, Runner]:
    extra = {METADATA_KEY: "", PREPROCESSING_FILE: ""}
    program = torch.export.load(str(file), extra_files=extra)
    first = next(node for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0])
    batch = first.meta["val"].shape[0]
    facts = {key: json.dumps(value) for key, value in json.loads(extra[PREPROCESSING_FILE] or "{}").items()}
    return {**facts, METADATA_KEY: extra[METADATA_KEY]}, batch if isinstance(batch, int) else None, run_program(program)
