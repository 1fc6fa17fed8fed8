"""What kind of file a checkpoint is: its container, whose names it uses, and under which prefix."""

from __future__ import annotations

from effkit.checkpoints import Checkpoint

__all__ = ["describe_layout"]


def describe_layout(found: Checkpoint) -> tuple[str, int]:
    """Describe a checkpoint that was read: container and names, and how many tensors it holds."""
    container = found.wrapper or ("safetensors" if found.container == "safetensors" else "plain dictionary")
    if found.lightning:
        container = "Lightning checkpoint"
    parts = {part for name in found.stored for part in name.split(".")}
    style = "official names" if parts & {"outer_pos", "inner_pos", "outer_attn"} else "timm's names"
    prefixes = [p for p in ("module.", "model.", "_orig_mod.") if any(n.startswith(p) for n in found.stored)]
    return f"{container}, {style}" + (f", prefix {prefixes[0]!r}" if prefixes else ""), len(found.stored)
