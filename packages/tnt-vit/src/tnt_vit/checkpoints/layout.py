"""What kind of file a checkpoint is: its container, whose names it uses, and under which prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["describe_layout"]


def describe_layout(file: Path) -> tuple[str, int]:
    """Describe a readable checkpoint: container and names, and how many tensors it holds."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
        container = "safetensors"
    else:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
        key = next((k for k in ("state_dict_ema", "state_dict", "model") if isinstance(content.get(k), dict)), "")
        stored = content[key] if key else content
        names = [k for k, v in stored.items() if isinstance(v, Tensor)]
        container = key or "plain dictionary"
        if "pytorch-lightning_version" in content:
            container = "Lightning checkpoint"
    parts = {part for name in names for part in name.split(".")}
    style = "official names" if parts & {"outer_pos", "inner_pos", "outer_attn"} else "timm's names"
    prefixes = [p for p in ("module.", "model.", "_orig_mod.") if any(n.startswith(p) for n in names)]
    return f"{container}, {style}" + (f", prefix {prefixes[0]!r}" if prefixes else ""), len(names)
