"""Parameters and MACs of a model, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from effkit.errors import UserError
from effkit.report import Table

__all__ = ["Cost", "LayerCost", "count_params"]


@dataclass(frozen=True)
class LayerCost:
    """What one module costs by itself, its children not included.

    Args:
        name: Dotted path inside the model; "" is the model itself.
        kind: Class name.
        params: Parameters owned directly; a shared one counts for its first owner.
        macs: Multiply-adds of operators that ran while this was the innermost module.
        shape: Shape of the (first) output tensor of the last call; `()` if the module was never called.
    """

    name: str
    kind: str
    params: int
    macs: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cost:
    """Parameters and MACs of a model; `layers` in the model's order, whose sums are `params` and `macs`.

    `uncounted` names operators that ran and may hide products but have no formula; see `register_macs`.
    """

    params: int
    macs: int
    layers: list[LayerCost] = field(default_factory=list)
    uncounted: tuple[str, ...] = ()

    def table(self, depth: int = 2, title: str = "Parameters and MACs") -> Table:
        """Costs summed up to a depth of the module tree.

        Args:
            depth: Components of the dotted name to keep; 1 gives the model's direct children, 0 only the total.
            title: Title of the table.

        Returns:
            Columns layer, kind, output, params, MACs, share of the MACs in %; the last row is the total.
        """
        if depth < 0:
            raise UserError(f"depth must be 0 or more, got {depth}")
        groups: dict[str, list[LayerCost]] = {}
        for layer in self.layers:
            groups.setdefault(".".join(layer.name.split(".")[:depth]), []).append(layer)
        rows = []
        for name, members in groups.items():
            params, macs = sum(m.params for m in members), sum(m.macs for m in members)
            if depth == 0 or not (params or macs):
                continue
            head = members[0]  # modules come parent first
            share = round(100 * macs / self.macs, 1) if self.macs else 0.0
            rows.append(
                [name or "(model)", head.kind, "x".join(map(str, head.shape)) if name else "", params, macs, share]
            )
        rows.append(["total", "", "", self.params, self.macs, 100.0 if self.macs else 0.0])
        note = "MACs: multiply-adds of convolutions, linear maps and attention products."
        if self.uncounted:
            note += f" Not counted, no formula known: {', '.join(self.uncounted)}."
        return Table(title, ["layer", "kind", "output", "params", "MACs", "share %"], rows, note)


def count_params(module: nn.Module, trainable_only: bool = False, include_buffers: bool = False) -> int:
    """Count parameters; a tensor used twice counts once.

    Args:
        module: Any module, also on the meta device.
        trainable_only: Leave out parameters with `requires_grad=False`.
        include_buffers: Add buffers (running statistics, tables).

    Returns:
        Number of elements.
    """
    total = sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)
    return total + (sum(b.numel() for b in module.buffers()) if include_buffers else 0)
