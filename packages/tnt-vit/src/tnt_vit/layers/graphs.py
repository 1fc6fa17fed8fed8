"""The plain path of a model as a graph of torch.fx, which ``torch.jit.script`` compiles."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.fx import GraphModule, Tracer

from effkit.errors import UserError

__all__ = ["check_traced_size", "graph_of"]


class _Plain(Tracer):
    """Leaves modules whole that decide as they run, and that ``torch.jit.script`` can compile."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DropPath) or super().is_leaf_module(m, module_qualified_name)


def check_traced_size(x: Tensor, img_size: tuple[int, int], *, dynamic: bool) -> None:
    """Put into a graph that is being made that it takes pictures of one size, as graphs hold no decisions.

    Args:
        x: The pictures, in the graph.
        img_size: Height and width of the model's pictures.
        dynamic: Whether the model takes other sizes.

    Raises:
        UserError: If it does.
    """
    if dynamic:
        raise UserError("torch.fx and torch.jit take one picture size: build the model with dynamic_img_size=False")
    torch._assert(x.shape[2] == img_size[0], f"the graph takes pictures of height {img_size[0]}")
    torch._assert(x.shape[3] == img_size[1], f"the graph takes pictures of width {img_size[1]}")


def graph_of(model: nn.Module) -> GraphModule:
    """The plain path of a model as a graph, with its parameters under their names.

    Args:
        model: A TNT of one picture size.
    """
    graph = GraphModule(model, _Plain().trace(model))
    graph.graph.eliminate_dead_code()  # attention weights that nobody asked for
    graph.recompile()
    graph.train(model.training)
    return graph
