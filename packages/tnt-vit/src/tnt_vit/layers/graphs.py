"""The plain path of a model as a graph of torch.fx, which ``torch.jit.script`` compiles."""

from __future__ import annotations

from timm.layers import DropPath
from torch import nn
from torch.fx import GraphModule, Tracer

__all__ = ["graph_of"]


class _Plain(Tracer):
    """Leaves modules whole that decide as they run, and that ``torch.jit.script`` can compile."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DropPath) or super().is_leaf_module(m, module_qualified_name)


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
