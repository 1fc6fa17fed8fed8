"""What works on this machine, shown by doing it, and why the rest does not."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from effkit.device import Backend
from effkit.doctor import doctor_report
from effkit.errors import UserError
from effkit.report import Report
from shiftghost_sr.compression.deploy import deploy
from shiftghost_sr.images.resampling import imresize, mod_crop
from shiftghost_sr.images.sets import find_pairs
from shiftghost_sr.inference.upscale import upscale
from shiftghost_sr.layers.schedule import shifts
from shiftghost_sr.models.zoo import create_model

__all__ = ["checks", "run"]

_MATLAB = "779d988f4eb5bb0e"  # of the astronaut at a third of its size


def _imresize() -> Backend:
    (pair, *_) = find_pairs("bundled", "test", 3)
    low = imresize(mod_crop(pair.both(1)[0], 3), 1 / 3)
    same = hashlib.sha256(low.tobytes()).hexdigest()[:16] == _MATLAB
    return Backend("imresize", same, "MATLAB's bytes" if same else "WRONG: differs from MATLAB's bytes")


def _deployed() -> Backend:
    torch.manual_seed(0)
    model = create_model("edsr_baseline", 2, ghost="default", blocks=1, features=8).double().eval()
    for number, (_, shift) in enumerate(shifts(model)):
        shift.set_directions([(1, -1) if number else (0, 1)])
    given = torch.rand(1, 3, 9, 12, dtype=torch.float64)
    with torch.inference_mode():
        fast, expected = deploy(model)(given), model(given)
    difference = float((fast - expected).abs().max() / expected.abs().max())
    holds = difference < 1e-12
    return Backend("deploy", holds, f"{'' if holds else 'WRONG: '}differs by {difference:.1g} in double precision")


def _tiles() -> Backend:
    torch.manual_seed(0)
    model = create_model("vdsr", 2, layers=4, features=8).double()
    with torch.no_grad():
        for weight in model.parameters():  # of whole numbers no sum is rounded, whatever the order of its terms
            weight.copy_(torch.randint(-1, 2, weight.shape))
    picture = torch.randint(0, 256, (1, 1, 20, 23)).double() / 256
    same = torch.equal(upscale(model, picture, tile=7), upscale(model, picture))
    return Backend("tiles", same, "equal the whole to the last bit" if same else "WRONG: differ from the whole")


def _half() -> Backend:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = create_model("edsr_baseline", 2, blocks=1, features=8).to(device, torch.float16)
        upscale(model, np.zeros((8, 8, 3), np.uint8))
    except (RuntimeError, UserError) as error:
        return Backend("half precision", False, " ".join(str(error).split())[:100])
    return Backend("half precision", True, f"fp16 convolutions on {device}")


def _optional(name: str, package: str, purpose: str, extra: str) -> Backend:
    if importlib.util.find_spec(package) is None:
        return Backend(name, False, f"{purpose}: pip install 'shiftghost-sr[{extra}]'")
    return Backend(name, True, f"{version(package)}: {purpose}")


def checks() -> list[Backend]:
    """Everything the package can use, in order."""
    return [
        _imresize(),
        _deployed(),
        _tiles(),
        _half(),
        _optional("spandrel", "spandrel", "reads models of OpenModelDB and the like", "spandrel"),
        _optional("onnx", "onnx", "exports", "onnx"),
        _optional("onnxruntime", "onnxruntime", "checks exports", "onnx"),
    ]


def run(cfg: Any) -> Report:
    """Look at this machine; there is nothing to configure.

    Args:
        cfg: The composed config.

    Returns:
        The report; exit code 1 if something computes wrongly here.
    """
    found = checks()
    report = doctor_report("shiftghost-sr", found, key="shiftghost_sr")
    if any(check.reason.startswith("WRONG") for check in found):
        report.exit_code = 1
    return report
