"""Layers of a deployed graph that belong together, made one step each."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, fx, nn

from effkit.errors import UserError
from shiftghost_sr.compression.deployment.acts import is_activation
from shiftghost_sr.compression.deployment.folded import FoldedConv2d, WithHalo
from shiftghost_sr.compression.deployment.slices import AddSlices
from shiftghost_sr.compression.deployment.steps import AddedConv, FoldedStep
from shiftghost_sr.compression.deployment.tail import StreamedTail, WithNumber
from shiftghost_sr.ops.bands import same_size
from shiftghost_sr.ops.dispatch import unfit

__all__ = ["fuse"]

_OPERATIONS = (operator.add, operator.sub, operator.mul, operator.truediv)


def fuse(root: nn.Module, graph: fx.Graph, backend: str) -> None:
    """Put steps in the place of layers that make something large for each other alone; in place.

    Args:
        root: Has the modules.
        graph: Of them; not portable.
        backend: Of folded convolutions.

    Raises:
        UserError: For ``triton``, if a folded convolution is none that its kernel computes.
    """
    _Fuser(root, graph, backend).run()


class _Fuser:
    def __init__(self, root: nn.Module, graph: fx.Graph, backend: str) -> None:
        self.root, self.graph, self.backend = root, graph, backend
        self.made: dict[Hashable, str] = {}  # a step for each set of modules, however often it is called

    def run(self) -> None:
        self._tail()
        for node in list(self.graph.nodes):
            module = self._module(node)
            if isinstance(module, FoldedConv2d):
                self._folded(node, module)
            elif isinstance(module, AddSlices):
                self._added(node, module)

    def _module(self, node: Any) -> nn.Module | None:
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        found: nn.Module = getattr(self.root, str(node.target))
        return found

    def _put(self, step: nn.Module, nodes: list[fx.Node], arguments: tuple[Any, ...]) -> None:
        """A step in the place of nodes, the last of which has its result."""
        key = tuple(str(n.target) for n in nodes)
        if key not in self.made:
            target, number = f"step_{nodes[0].target}", 1
            while hasattr(self.root, target):
                number += 1
                target = f"step_{nodes[0].target}_{number}"
            self.root.add_module(target, step)
            self.made[key] = target
        with self.graph.inserting_before(nodes[-1]):
            new = self.graph.call_module(self.made[key], arguments)
        nodes[-1].replace_all_uses_with(new)
        for node in reversed(nodes):
            self.graph.erase_node(node)

    def _calm(self, first: fx.Node, last: fx.Node) -> bool:
        """Whether nothing is changed in place between two nodes, so that the first may as well run at the last."""
        node = first.next
        while node is not last:
            module = self._module(node)
            if isinstance(module, FoldedStep | AddedConv):
                module = module.add
            if isinstance(module, AddSlices) and module.inplace:
                return False
            node = node.next
        return True

    def _sum_of(self, node: fx.Node, *sources: Any) -> fx.Node | None:
        """The sum that a layer's result alone goes into, if what is read for it is not what is added to."""
        (user,) = node.users if len(node.users) == 1 else (None,)
        add = self._module(user)
        if not isinstance(add, AddSlices) or user is None or len(user.args) != 2 or user.args[0] is node:
            return None
        if add.inplace and user.args[0] in sources:
            return None
        return user

    def _folded(self, node: fx.Node, conv: FoldedConv2d) -> None:
        halo_node: Any = node.args[0]
        halo = self._module(halo_node)
        if not conv.takes_buffer or not isinstance(halo, WithHalo) or len(halo_node.users) != 1:
            if self.backend == "triton" and len(node.args) > 1:
                raise UserError(f"backend='triton' reads one tensor, and {node.target} joins several; use 'auto'")
            return  # of one tensor that is not moved it is an ordinary convolution
        if self.backend == "triton" and (reason := unfit(halo.activations())):
            raise UserError(f"backend='triton' {reason} ({node.target}); use 'auto'")
        maps: Any = halo_node.args[0]
        producer = self._module(maps)
        first = halo_node
        if not (isinstance(producer, nn.Conv2d) and same_size(producer) and len(maps.users) == 1):
            producer = None
        elif len(halo_node.args) == 1 and self._calm(maps, node):
            first = maps
        else:
            producer = None
        nodes = [n for n in (maps if producer is not None else None, halo_node, node) if n is not None]
        sources = halo_node.args if producer is None else ()  # a producer has read them before anything is added
        add_node = self._sum_of(node, *sources)
        add = None
        if add_node is not None and self._calm(first, add_node):
            found = self._module(add_node)
            assert isinstance(found, AddSlices)
            add = found
            nodes.append(add_node)
        elif not self._calm(first, node):
            return
        given = maps.args if producer is not None else halo_node.args
        arguments = given if add is None or add_node is None else (add_node.args[0], *given)
        self._put(FoldedStep(halo, conv, producer, add, self.backend), nodes, tuple(arguments))

    def _added(self, node: fx.Node, add: AddSlices) -> None:
        if len(node.args) != 2:
            return
        source: Any = node.args[1]
        conv = self._module(source)
        if not isinstance(conv, nn.Conv2d) or not same_size(conv) or len(source.args) != 1:
            return
        if self._sum_of(source, source.args[0]) is node and self._calm(source, node):
            self._put(AddedConv(conv, add), [source, node], (node.args[0], source.args[0]))

    def _tail(self) -> None:
        (output,) = (n for n in self.graph.nodes if n.op == "output")
        node: Any = output.args[0]
        chain: list[tuple[fx.Node, nn.Module]] = []
        while isinstance(node, fx.Node) and len(node.users) == 1:
            stage, source = self._stage(node)
            if stage is None:
                break
            chain.insert(0, (node, stage))
            node = source
        shuffles = [i for i, (_, stage) in enumerate(chain) if isinstance(stage, nn.PixelShuffle)]
        if not shuffles:
            return
        convs = [i for i, (_, stage) in enumerate(chain[: shuffles[0]]) if isinstance(stage, nn.Conv2d)]
        if convs:
            chain = chain[convs[-1] :]
            self._put(StreamedTail([s for _, s in chain]), [n for n, _ in chain], (chain[0][0].args[0],))

    def _stage(self, node: fx.Node) -> tuple[nn.Module | None, Any]:
        """What a node does to one tensor row by row, and that tensor; ``None`` if it does anything else."""
        module = self._module(node)
        if module is not None:
            fits = isinstance(module, nn.PixelShuffle) or is_activation(module)
            fits = fits or (isinstance(module, nn.Conv2d) and same_size(module))
            return (module, node.args[0]) if fits and len(node.args) == 1 and not node.kwargs else (None, None)
        if node.op != "call_function" or node.target not in _OPERATIONS or len(node.args) != 2 or node.kwargs:
            return None, None
        first, second = node.args
        number = self._number(second)
        if number is None or not isinstance(first, fx.Node):
            return None, None
        return WithNumber(node.target, number), first  # type: ignore[arg-type]

    def _number(self, value: Any) -> Tensor | float | None:
        """A number, or one of each channel."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if isinstance(value, fx.Node) and value.op == "get_attr":
            found = getattr(self.root, str(value.target))
            if isinstance(found, torch.Tensor) and found.dim() == 4 and found.shape[2:] == (1, 1):
                return found
        return None
