"""Weights of others: which network a file holds, told from its names and shapes, and our names for its tensors.

EDSR of EDSR-PyTorch and torchSR, RDN of both, CARN and CARN-M of CARN-pytorch and torchSR, IMDN of its release and of
NTIRE 2022's baseline, VDSR of pytorch-vdsr.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from effkit.errors import UserError
from shiftghost_sr.models.parts import MEAN

__all__ = ["Found", "recognise"]


@dataclass(frozen=True)
class Found:
    """A network in a file.

    Args:
        name: Of :data:`~shiftghost_sr.models.zoo.MODELS`.
        scale: ``None`` if the weights are of several scales.
        state: Its tensors by our names.
        size: Arguments that differ from the name's own.
    """

    name: str
    scale: int | None
    state: dict[str, Tensor]
    size: dict[str, Any] = field(default_factory=dict)


def recognise(state: Mapping[str, Tensor]) -> Found | None:
    """The network that weights belong to; ``None`` if they are none of those known.

    Raises:
        UserError: If they are known but for a part that is not: another mean, a size that leaves something open.
    """
    for read in (_edsr, _rdn, _carn, _imdn, _imdn_ntire, _vdsr):
        found = read(dict(state))
        if found is not None:
            return found
    return None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for name in state if (m := re.match(pattern, name))})


def _without_mean(state: dict[str, Tensor], names: tuple[str, str], unit: float) -> dict[str, Tensor]:
    """Weights without the two fixed layers around them, which must be those that everybody uses."""
    for name, sign in zip(names, (-1, 1), strict=True):
        weight, bias = (state.pop(f"{name}.{part}", None) for part in ("weight", "bias"))
        if weight is None or bias is None:
            continue
        expected = sign * unit * torch.tensor(MEAN)
        if not torch.allclose(bias.float().cpu(), expected, rtol=1e-3) or not torch.equal(
            weight.float().cpu().flatten(), torch.eye(3).flatten()
        ):
            raise UserError(f"{name} of the weights shifts by {bias.tolist()}, expected {expected.tolist()}")
    return state


def _edsr(state: dict[str, Tensor]) -> Found | None:
    if not {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight", "tail.1.weight"} <= set(state):
        return None
    state = _without_mean(state, ("sub_mean", "add_mean"), 255.0)
    features, blocks = state["head.0.weight"].shape[0], _count(state, r"body\.(\d+)\.body\.0\.weight")
    steps = _count(state, r"tail\.0\.(\d+)\.weight")
    scale = 3 if state["tail.0.0.weight"].shape[0] == 9 * features else 2**steps
    if (blocks, features) == (32, 256):
        return Found("edsr", scale, state)
    if (blocks, features) == (16, 64):
        return Found("edsr_baseline", scale, state)
    raise UserError(
        f"weights are of an EDSR of {blocks} blocks and {features} channels, whose res_scale the file does not say; "
        "make it with create_model('edsr', scale, blocks=, features=, res_scale=) and load_state_dict"
    )


_RDN = (
    (r"^SFENet(\d)\.", r"sfe\1."),
    (r"^RDBs\.(\d+)\.convs\.(\d+)\.conv\.0\.", r"rdbs.\1.layers.\2.conv."),
    (r"^RDBs\.(\d+)\.LFF\.", r"rdbs.\1.lff."),
    (r"^GFF\.", "gff."),
)


def _rdn(state: dict[str, Tensor]) -> Found | None:
    official = "SFENet1.weight" in state
    if not official and not {"sfe1.weight", "rdbs.0.lff.weight", "output.weight"} <= set(state):
        return None
    if official:
        last = max(int(m[1]) for name in state if (m := re.match(r"UPNet\.(\d+)\.weight", name)))
        renamed = {}
        for name, value in state.items():
            new = name
            for pattern, by in _RDN:
                new = re.sub(pattern, by, new)
            new = re.sub(rf"^UPNet\.{last}\.", "output.", new)
            new = re.sub(r"^UPNet\.", "upscale.", new)
            # In range 0..255 there, 0..1 here: convolutions and rectifiers scale with their input, biases with it.
            renamed[new] = value / 255 if new.endswith("bias") else value
        state = renamed
    features, growth = state["sfe1.weight"].shape[0], state["rdbs.0.layers.0.conv.weight"].shape[0]
    blocks = _count(state, r"rdbs\.(\d+)\.lff\.weight")
    layers = _count(state, r"rdbs\.0\.layers\.(\d+)\.conv\.weight")
    four = "upscale.2.weight" in state
    scale = 4 if four else int((state["upscale.0.weight"].shape[0] // growth) ** 0.5)
    size = {"blocks": blocks, "layers": layers, "features": features, "growth": growth}
    return Found("rdn", scale, state, {} if list(size.values()) == [16, 8, 64, 64] else size)


def _carn(state: dict[str, Tensor]) -> Found | None:
    if not {"entry.weight", "b1.b1.body.0.weight", "upsample.up2.body.0.weight", "exit.weight"} <= set(state):
        return None
    state = _without_mean(state, ("sub_mean.shifter", "add_mean.shifter"), 1.0)
    return Found("carn" if "b1.b2.body.0.weight" in state else "carn_m", None, state)


def _imdn(state: dict[str, Tensor]) -> Found | None:
    if not {"fea_conv.weight", "IMDB1.c1.weight", "LR_conv.weight", "upsampler.0.weight"} <= set(state):
        return None
    return Found("imdn", int((state["upsampler.0.weight"].shape[0] // 3) ** 0.5), state)


_NTIRE = {"conv1.0": "c1", "conv2.0": "c2", "conv3.0": "c3", "conv4": "c4", "conv1x1": "c5"}


def _imdn_ntire(state: dict[str, Tensor]) -> Found | None:
    if not {"model.0.weight", "model.1.sub.0.conv1x1.weight", "model.2.weight"} <= set(state):
        return None
    if any(".cca." in name for name in state):
        return None
    blocks = _count(state, r"model\.1\.sub\.(\d+)\.conv1x1\.weight")
    renamed = {}
    for name, value in state.items():
        new = re.sub(r"^model\.0\.", "fea_conv.", name)
        new = re.sub(r"^model\.2\.", "upsampler.0.", new)
        new = re.sub(rf"^model\.1\.sub\.{blocks}\.", "LR_conv.", new)
        if m := re.match(r"model\.1\.sub\.(\d+)\.(.+)\.(weight|bias)$", new):
            new = f"IMDB{int(m[1]) + 1}.{_NTIRE.get(m[2], m[2])}.{m[3]}"
        renamed[new] = value
    scale = int((renamed["upsampler.0.weight"].shape[0] // 3) ** 0.5)
    return Found("imdn_ntire", scale, renamed, {} if blocks == 8 else {"blocks": blocks})


def _vdsr(state: dict[str, Tensor]) -> Found | None:
    if not {"input.weight", "residual_layer.0.conv.weight", "output.weight"} <= set(state):
        return None
    layers = _count(state, r"residual_layer\.(\d+)\.conv\.weight") + 2
    features, channels = state["input.weight"].shape[:2]
    size = {"layers": layers, "features": features, "channels": channels}
    own = {"layers": 20, "features": 64, "channels": 1}
    return Found("vdsr", None, state, {k: v for k, v in size.items() if v != own[k]})
