"""A network as a Python file of its own, which needs torch and timm only."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from typing import Any

from effkit.errors import UserError
from greedy_enlarge.families import FAMILIES, family_of, ghost, macs, params
from greedy_enlarge.families.mbconv import arch_string
from greedy_enlarge.spec import ArchSpec

__all__ = ["check_name", "standalone_source"]

_HEAD = '''"""{name}: {family}, {params:,} parameters, {macs:,} MACs at {resolution} pixels. Needs torch and timm only.

    import {name}
    model = {name}.{name}()                                     # or, once imported, timm.create_model("{name}")
"""

from __future__ import annotations

import json

{imports}

SPEC = json.loads({spec!r})

default_cfgs = generate_default_cfgs({{"{name}": {{
    "url": "", "num_classes": {classes}, "input_size": ({in_chans}, {resolution}, {resolution}),
    "pool_size": ({pool}, {pool}), "crop_pct": 0.875, "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406)[:{in_chans}], "std": (0.229, 0.224, 0.225)[:{in_chans}],
    "first_conv": "{first}", "classifier": "{classifier}",
}}}})

'''

_TAIL = '''
@register_model
def {name}(pretrained=False, **kwargs):
    """The network, with random weights."""
    if pretrained:
        raise ValueError("{name} has no published weights")
    kwargs.pop("pretrained_cfg", None), kwargs.pop("pretrained_cfg_overlay", None), kwargs.pop("cache_dir", None)
    kwargs = {{"num_classes": {classes}, "in_chans": {in_chans}, **kwargs}}
    model = {make}
    model.default_cfg = model.pretrained_cfg = default_cfgs["{name}"].default.to_dict()
    return model
'''


def check_name(name: Any) -> str:
    """Return a name that a module and a function can have, and that is nobody else's.

    Raises:
        UserError: If it is none, a network of that name is registered in timm, or a file of it would hide a module.
    """
    from timm.models import is_model

    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"name={name!r} must be a Python name in lower case, e.g. my_network")
    if is_model(name):
        raise UserError(f"name={name!r} is a network that timm knows, which the file would replace: give another")
    if name in {*sys.stdlib_module_names, "torch", "timm"}:
        raise UserError(f"name={name!r} is a module that a file of this name would hide: give another")
    return name


def standalone_source(spec: ArchSpec, name: str) -> str:
    """Write the source of a module that registers a network in timm.

    Args:
        spec: The network.
        name: Of module, function and model.

    Raises:
        UserError: If the network is not one its family can be.
    """
    family = family_of(spec)
    imports = ["from timm.models import generate_default_cfgs, register_model"]
    body, first, classifier = "", "conv_stem", "classifier"
    if spec.family in ("efficientnet", "custom"):
        rows = [[arch_string(*row)] for row in zip(family.blocks(spec), spec.depths, spec.widths, strict=True)]
        imports = ["from torch import nn", *imports, "from timm.models._efficientnet_builder import decode_arch_def"]
        imports += ["from timm.models.efficientnet import EfficientNet"]
        make = (
            f"EfficientNet(block_args=decode_arch_def({rows!r}), num_features={spec.head or family.head}, "
            f"stem_size={spec.stem or family.stem}, fix_stem=True, round_chs_fn=lambda c: c, "
            "act_layer=nn.SiLU, **kwargs)"
        )
    elif spec.family == "resnet":
        block = "BasicBlock" if spec.template == ("basic",) else "Bottleneck"
        planes = spec.widths if block == "BasicBlock" else tuple(w // 4 for w in spec.widths)
        imports += [f"from timm.models.resnet import {block}, ResNet"]
        make, first, classifier = f"ResNet({block}, layers={spec.depths}, channels={planes}, **kwargs)", "conv1", "fc"
    elif spec.family == "regnet":
        from greedy_enlarge.networks import regnet

        kind = family.blocks(spec)[0]
        imports = ["import numpy as np", *imports, "from timm.models.regnet import RegNet, RegNetCfg"]
        body = inspect.getsource(regnet.StagedRegNet)
        stem = spec.stem or family.stem
        make = f"StagedRegNet({spec.depths}, {spec.widths}, {kind.group}, {kind.squeeze}, {stem}, **kwargs)"
        first, classifier = "stem.conv", "head.fc"
    else:
        from greedy_enlarge.networks import ghostnet

        large = spec.family == "ghostnet_large"
        imports = [
            "import math", "from types import SimpleNamespace", "", "import torch",
            "from timm.layers import DropPath, Linear, SelectAdaptivePool2d", *imports,
            "from timm.models._efficientnet_blocks import SqueezeExcite",
            "from timm.models._features import feature_take_indices",
            "from timm.models._manipulate import checkpoint_seq", "from torch import Tensor, nn",
        ]  # fmt: skip
        numbers = [[vars(b) for b in row] for row in ghost.blocks(spec.depths, spec.widths, large=large)]
        head = ghost.head_width(spec.widths) if large else 1280
        body = f"UserError = ValueError\nSTRIDES = {ghost.STRIDES}\n\n\n"
        body += "def blocks(depths, widths, *, large):\n"
        body += f"    return [[SimpleNamespace(**block) for block in row] for row in {numbers!r}]\n\n\n"
        body += f"def head_width(widths):\n    return {head}\n\n\n"
        parts = (ghostnet.GhostModule, ghostnet.GhostBottleneck, ghostnet.GhostNet)
        body += "\n\n".join(inspect.getsource(part) for part in parts)
        form = "large" if large else "published"
        make = f'GhostNet({spec.depths}, {spec.widths}, "{form}", **kwargs)'
    stride = FAMILIES[spec.family].total_stride(spec)
    facts = {
        "name": name, "family": spec.family, "params": params(spec), "macs": macs(spec), "resolution": spec.resolution,
        "spec": spec.to_json(), "classes": spec.classes, "in_chans": spec.in_chans, "make": make,
        "pool": -(-spec.resolution // stride), "first": first, "classifier": classifier,
    }  # fmt: skip
    return _HEAD.format(imports="\n".join(imports), **facts) + body + "\n" + _TAIL.format(**facts)
