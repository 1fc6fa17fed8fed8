"""Goes through a traced network once and writes the deployed one."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from shiftghost_sr.compression.deployment.acts import ADDITIONS, OUT_OF_PLACE, PRODUCTS, activation_of, slopes_allow
from shiftghost_sr.compression.deployment.convs import Decision, fold_groups, plain_conv
from shiftghost_sr.compression.deployment.folded import FoldedConv2d, WithHalo
from shiftghost_sr.compression.deployment.fusing import fuse
from shiftghost_sr.compression.deployment.layout import Base, Channel, is_plain, is_whole
from shiftghost_sr.compression.deployment.slices import AddSlices, Materialise
from shiftghost_sr.compression.deployment.tracing import channels_of
from shiftghost_sr.layers.ghost_conv import GhostConv2d

__all__ = ["Rewriter", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How a network is deployed; see :func:`~shiftghost_sr.compression.deploy.deploy`."""

    diagonal: str = "auto"
    portable: bool = False
    backend: str = "auto"


class Rewriter:
    """One pass over a traced network.

    Args:
        traced: From :func:`~shiftghost_sr.compression.deployment.tracing.trace`.
        settings: How.
    """

    def __init__(self, traced: fx.GraphModule, settings: Settings) -> None:
        self.old, self.settings = traced, settings
        self.modules = dict(traced.named_modules())
        self.root, self.graph = nn.Module(), fx.Graph()
        self.bases: list[Base] = []
        self.opaque: dict[fx.Node, Any] = {}  # old node -> new node or value, for what is no batch of maps
        self.values: dict[fx.Node, list[Channel]] = {}  # old node -> channels
        self.sizes: dict[int, int] = {}  # channels of every tensor so far
        self.holders: dict[int, list[fx.Node]] = {}  # tensor -> old nodes whose value it is a part of
        self.whole: dict[tuple[Channel, ...], fx.Node] = {}
        self.order = {node: i for i, node in enumerate(traced.graph.nodes)}
        self.now = 0
        self.decisions: list[Decision] = []
        self.made: dict[Any, str] = {}  # modules of shared weights are made once
        self.source_of: dict[str, nn.Conv2d] = {}  # convolution that a module was made from

    def run(self) -> fx.GraphModule:
        """The deployed network."""
        for node in self.old.graph.nodes:
            self.now = self.order[node]
            getattr(self, f"_{node.op}")(node)
        if not self.settings.portable:
            fuse(self.root, self.graph, self.settings.backend)
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph)

    # New nodes and modules

    def _add(self, module: nn.Module, name: str, key: Any = None) -> str:
        if key is not None and key in self.made:
            return self.made[key]
        target = f"{name.replace('.', '_')}"
        number = 1
        while hasattr(self.root, target):
            number += 1
            target = f"{name.replace('.', '_')}_{number}"
        self.root.add_module(target, module)
        if key is not None:
            self.made[key] = target
        return target

    def _call(self, target: str, *arguments: fx.Node) -> fx.Node:
        return self.graph.call_module(target, arguments)

    def _base(self, node: fx.Node, size: int, fresh: bool, owner: fx.Node | None = None) -> int:
        self.bases.append(Base(node, size, fresh, owner=owner))
        self.sizes[len(self.bases) - 1] = size
        return len(self.bases) - 1

    def _give(self, node: fx.Node, channels: list[Channel]) -> None:
        """Say what a value of the old graph is."""
        self.values[node] = channels
        self._hold(node, channels)

    def _hold(self, node: fx.Node, channels: Sequence[Channel]) -> None:
        for base in {c.base for c in channels}:
            self.holders.setdefault(base, []).append(node)

    def _forced(self, number: int) -> fx.Node:
        """A tensor with its activation applied."""
        base = self.bases[number]
        if base.act is not None:
            target = self._add(base.act, "act", ("act", id(base.act)))
            base.node, base.act, base.fresh = self._call(target, base.node), None, True
        return base.node

    def _tensor(self, node: fx.Node) -> Any:
        """What a value of the old graph is in the new one, as one tensor."""
        if node not in self.values:
            return self.opaque[node]
        channels = self.values[node]
        if is_whole(channels, self.sizes):
            return self._forced(channels[0].base)
        key = tuple(channels)
        if key not in self.whole:
            local, inputs = self._local(channels)
            made = Materialise(local, self.settings.portable)
            self.whole[key] = self._call(self._add(made, "materialise"), *[self._forced(i) for i in inputs])
        return self.whole[key]

    @staticmethod
    def _local(channels: Sequence[Channel]) -> tuple[list[Channel], list[int]]:
        inputs = list(dict.fromkeys(c.base for c in channels))
        place = {base: i for i, base in enumerate(inputs)}
        return [Channel(place[c.base], c.source, c.move) for c in channels], inputs

    def _set_whole(self, node: fx.Node, new: fx.Node, fresh: bool) -> None:
        """A value that is one tensor of the new graph."""
        size = channels_of(node)
        if size is None:
            self.opaque[node] = new
            return
        base = self._base(new, size, fresh, node)
        self._give(node, [Channel(base, i) for i in range(size)])

    def _copied(self, node: fx.Node) -> None:
        """A node as it stands, on whole tensors."""
        self._held(node)
        new = self.graph.node_copy(node, self._tensor)
        if node.target in OUT_OF_PLACE:  # also where it is the caller's own picture that would be changed
            new.target = OUT_OF_PLACE[node.target]
        self._set_whole(node, new, False)
        if node.target in OUT_OF_PLACE and isinstance(node.args[0], fx.Node):
            self._replace(node.args[0], node)

    def _held(self, node: fx.Node) -> None:
        """What a node reads may live on in its result, as a view: it is never changed in place from now on."""
        for source in node.all_input_nodes:
            for c in self.values.get(source, []):
                self.bases[c.base].fresh = False

    # What a node may be

    def _placeholder(self, node: fx.Node) -> None:
        self._copied(node)

    def _get_attr(self, node: fx.Node) -> None:
        value: Any = self.old
        for part in str(node.target).split("."):
            value = getattr(value, part)
        name = str(node.target).replace(".", "_")
        if not hasattr(self.root, name):
            if isinstance(value, nn.Parameter):
                self.root.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))
            elif isinstance(value, torch.Tensor):
                self.root.register_buffer(name, value.detach().clone(), persistent=False)
            else:
                setattr(self.root, name, value)
        self.opaque[node] = self.graph.get_attr(name)

    def _output(self, node: fx.Node) -> None:
        self.graph.output(fx.map_arg(node.args[0], self._tensor))

    def _call_module(self, node: fx.Node) -> None:
        module = self.modules[str(node.target)]
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or len(node.args) != 1 or node.kwargs:
            return self._foreign_module(node, module)
        if isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d):
            return self._same(node, source)
        if type(module) in (nn.Conv2d, GhostConv2d) and source in self.values:
            return self._convolution(node, module, source)
        if self._activation(node, module):
            return None
        return self._foreign_module(node, module)

    def _same(self, node: fx.Node, source: fx.Node) -> None:
        if source in self.values:
            self._give(node, self.values[source])
        else:
            self.opaque[node] = self.opaque[source]

    def _foreign_module(self, node: fx.Node, module: nn.Module) -> None:
        self._held(node)
        target = self._add(module, str(node.target), ("module", id(module)))
        arguments = fx.map_arg(node.args, self._tensor)
        self._set_whole(node, self.graph.call_module(target, arguments, fx.map_arg(node.kwargs, self._tensor)), False)

    def _call_function(self, node: fx.Node) -> None:
        handled = self._activation(node, None) or self._joined(node) or self._split(node) or self._arithmetic(node)
        if not handled:
            self._copied(node)

    def _call_method(self, node: fx.Node) -> None:
        handled = self._activation(node, None) or self._split(node) or self._arithmetic(node)
        if not handled:
            self._copied(node)
            if str(node.target).endswith("_") and isinstance(node.args[0], fx.Node):
                self._replace(node.args[0], node)

    def _replace(self, old: fx.Node, by: fx.Node) -> None:
        """An operation in place: whoever reads the old value later reads the new one."""
        for store in (self.values, self.opaque):
            store.pop(old, None)
        if by in self.values:
            self._give(old, self.values[by])
        else:
            self.opaque[old] = self.opaque[by]

    # Convolutions

    def _convolution(self, node: fx.Node, conv: nn.Conv2d, source: fx.Node) -> None:
        channels = self.values[source]
        if isinstance(conv, GhostConv2d) and conv.depthwise is not None:
            self._foreign_module(node, conv)
            self.decisions.append(Decision(str(node.target), "kept", "its ghosts are of a depthwise convolution"))
            return
        groups, reason = fold_groups(conv, channels, self.sizes, self.settings.diagonal)
        if groups is None:
            target = self._add(plain_conv(conv), str(node.target), ("plain", id(conv)))
            new = self._call(target, self._tensor(source))
            self.source_of[target] = conv
            if reason:
                self.decisions.append(Decision(str(node.target), "not folded", reason))
        else:
            inputs = list(dict.fromkeys(c.base for c in channels))
            acts = [self._fusible(i, source) for i in inputs]
            key = (
                "folded",
                id(conv),
                tuple(self._local(channels)[0]),
                tuple(id(a) if a is not None else None for a in acts),
            )
            how = (self.settings.diagonal, self.settings.portable)
            made = FoldedConv2d(conv.weight, conv.bias, groups, acts, *how)
            nodes = [self._forced(i) if a is None else self.bases[i].node for i, a in zip(inputs, acts, strict=True)]
            target = self._add(made, str(node.target), key)
            self.source_of[target] = conv
            folded = getattr(self.root, target)
            if folded.takes_buffer:
                halo = self._add(WithHalo(folded), f"{node.target}_halo", (*key, "halo"))
                nodes = [self._call(halo, *nodes)]
            new = self._call(target, *nodes)
            self.decisions.append(Decision(str(node.target), "folded", ""))
        base = self._base(new, conv.out_channels, True, node)
        if isinstance(conv, GhostConv2d) and conv.total_channels > conv.out_channels:
            sources, moves = conv.channel_map()
            self._give(node, [Channel(base, s, v) for s, v in zip(sources, moves, strict=True)])
        else:
            self._give(node, [Channel(base, i) for i in range(conv.out_channels)])

    def _fusible(self, base: int, source: fx.Node) -> nn.Module | None:
        """An activation that only this convolution needs, so that it is applied where the halo is written."""
        act = self.bases[base].act
        if act is None or len(source.users) != 1 or isinstance(act, nn.PReLU):
            return None
        return act if not any(self._read_later(n) for n in self.holders[base] if n is not source) else None

    def _read_later(self, node: fx.Node) -> bool:
        """Whether anybody after this node reads a value."""
        return any(self.order[user] > self.now for user in node.users)

    # Activations, joins, parts

    def _activation(self, node: fx.Node, module: nn.Module | None) -> bool:
        found = activation_of(node, module)
        source = node.args[0] if node.args else None
        if found is None or not isinstance(source, fx.Node) or source not in self.values:
            return False
        act, inplace = found
        channels = self.values[source]
        each = slopes_allow(act, channels, self.sizes)
        if each is None:
            whole = self._tensor(source)
            target = self._add(act, "act", ("act", id(act)))
            self._set_whole(node, self._call(target, whole), True)
            self.decisions.append(Decision(str(node.target), "not folded", "ghosts have other slopes than their maps"))
        else:
            moved = {base: self._activated(base, one) for base, one in each.items()}
            self._give(node, [Channel(moved[c.base], c.source, c.move) for c in channels])
        if inplace:
            self._replace(source, node)
        return True

    def _activated(self, base: int, act: nn.Module) -> int:
        """The tensor after an activation, which is applied where it is first needed."""
        known = self.bases[base].activated
        if id(act) not in known:
            node = self._forced(base) if self.bases[base].act is not None else self.bases[base].node
            made = self._base(node, self.bases[base].size, False)
            self.bases[made].act = act
            known[id(act)] = made
        return known[id(act)]

    def _joined(self, node: fx.Node) -> bool:
        if node.target not in (torch.cat, torch.concat) or not node.args:
            return False
        parts: Any = node.args[0]
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if dim not in (1, -3) or not isinstance(parts, list | tuple) or any(p not in self.values for p in parts):
            return False
        self._give(node, [c for p in parts for c in self.values[p]])
        return True

    def _split(self, node: fx.Node) -> bool:
        """``torch.split``, ``chunk``, and what is taken from them: parts of the channels."""
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            parts = self.opaque.get(node.args[0])
            if isinstance(parts, list) and isinstance(node.args[1], int):
                self._give(node, parts[node.args[1]])
                return True
            return False
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        source = node.args[0] if node.args else None
        if name not in ("split", "chunk") or not isinstance(source, fx.Node) or source not in self.values:
            return False
        dim = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
        if dim not in (1, -3):
            return False
        how: Any = node.args[1] if len(node.args) > 1 else next((v for k, v in node.kwargs.items() if k != "dim"), None)
        channels = self.values[source]
        if name == "chunk" and isinstance(how, int):
            how = -(-len(channels) // how)
        if isinstance(how, int):
            how = [min(how, len(channels) - i) for i in range(0, len(channels), how)]
        if not isinstance(how, list | tuple) or any(not isinstance(n, int) for n in how):
            return False
        edges = [sum(how[:i]) for i in range(len(how) + 1)]
        self.opaque[node] = [channels[a:b] for a, b in itertools.pairwise(edges)]
        self._hold(node, channels)
        return True

    # Products and sums

    def _arithmetic(self, node: fx.Node) -> bool:
        target = node.target if node.op == "call_function" else f".{node.target}"
        if len(node.args) != 2 or node.kwargs:
            return False
        first, second = node.args
        inplace = target in (operator.iadd, operator.imul, ".add_", ".mul_")
        done = False
        if target in (*PRODUCTS, ".mul", ".mul_"):
            if isinstance(second, fx.Node):
                first, second = second, first
            if isinstance(first, fx.Node) and isinstance(second, int | float) and first in self.values:
                done = self._scaled(node, first, second)
        elif target in (*ADDITIONS, ".add", ".add_") and isinstance(first, fx.Node) and isinstance(second, fx.Node):
            a, b = self.values.get(first), self.values.get(second)
            done = a is not None and b is not None and len(a) == len(b) and self._added(node, first, second)
        if done and inplace and isinstance(node.args[0], fx.Node):
            self._replace(node.args[0], node)
        return done

    def _scaled(self, node: fx.Node, source: fx.Node, factor: float) -> bool:
        channels = self.values[source]
        bases = list(dict.fromkeys(c.base for c in channels))
        if is_plain(channels) and not (len(bases) == 1 and self.bases[bases[0]].owner is source):
            return False
        moved = {}
        for number in bases:
            base = self.bases[number]
            new = None
            if base.owner is source and len(source.users) == 1 and base.act is None and base.node.op == "call_module":
                new = self._scaled_conv(base.node, factor)
            moved[number] = number if new else self._base(self._times(self._forced(number), factor), base.size, True)
        self._give(node, [Channel(moved[c.base], c.source, c.move) for c in channels])
        for number in moved.values():
            self.bases[number].owner = node if len(moved) == 1 else None
        return True

    def _times(self, node: fx.Node, factor: float) -> fx.Node:
        return self.graph.call_function(operator.mul, (node, factor))

    def _scaled_conv(self, node: fx.Node, factor: float) -> bool:
        """Put a factor into a convolution that nothing else uses."""
        module, conv = getattr(self.root, str(node.target)), self.source_of.get(str(node.target))
        calls = [n for n in self.old.graph.nodes if n.op == "call_module" and self.modules[str(n.target)] is conv]
        if len(calls) != 1 or len(node.users):
            return False
        with torch.no_grad():
            for value in module.parameters():
                value.mul_(factor)
        return True

    def _added(self, node: fx.Node, first: fx.Node, second: fx.Node) -> bool:
        a, b = self.values[first], self.values[second]
        sizes = self.sizes
        if is_whole(a, sizes) and is_whole(b, sizes):
            return self._added_whole(node, first, second)
        (local_a, bases_a), (local_b, bases_b) = self._local(a), self._local(b)
        if local_a == local_b and len(bases_a) == 1 and sizes[bases_a[0]] == sizes[bases_b[0]]:
            # Moved alike: the sum of the maps, moved.
            new = self.graph.call_function(operator.add, (self._forced(bases_a[0]), self._forced(bases_b[0])))
            base = self._base(new, sizes[bases_a[0]], True)
            self._give(node, [Channel(base, c.source, c.move) for c in a])
            return True
        if not is_whole(a, sizes) and is_whole(b, sizes):
            first, second, a, b = second, first, b, a
        local, inputs = self._local(b)
        if is_whole(a, sizes):
            x, inplace = self._forced(a[0].base), self._last_reader(a[0].base)
        else:
            key = tuple(a)
            again = key in self.whole
            x, inplace = self._tensor(first), not again and not self._read_later(first)
            if inplace:
                self.whole.pop(key)
        made = AddSlices(local, inplace and not self.settings.portable, self.settings.portable)
        new = self._call(self._add(made, "add"), x, *[self._forced(i) for i in inputs])
        self._set_whole(node, new, True)
        return True

    def _added_whole(self, node: fx.Node, first: fx.Node, second: fx.Node) -> bool:
        """Add one tensor to another that nobody reads later; nothing is done where both are still needed."""
        shapes = [n.meta["tensor_meta"].shape for n in (first, second)]
        if self.settings.portable or shapes[0] != shapes[1]:
            return False
        for x, y in ((first, second), (second, first)):
            base = self.values[x][0].base
            if self._last_reader(base):
                local, inputs = self._local(self.values[y])
                nodes = self._forced(base), self._forced(inputs[0])
                self._set_whole(node, self._call(self._add(AddSlices(local, True, False), "add"), *nodes), True)
                return True
        return False

    def _last_reader(self, base: int) -> bool:
        """Whether a tensor is ours and nobody reads it after this node."""
        own = self.bases[base]
        if not own.fresh:
            return False
        alike = [i for i, b in enumerate(self.bases) if b.node is own.node]
        return not any(self._read_later(n) for i in alike for n in self.holders.get(i, []))
