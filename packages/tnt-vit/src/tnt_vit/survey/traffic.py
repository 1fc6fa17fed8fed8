"""What a network moves through memory and puts out if every operator works by itself: told by shapes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effkit.cost.formulas import FORMULAS
from effkit.watching import evaluating

__all__ = ["Traffic", "traffic"]

# Not views by their schema, yet nothing is read or written.
_IDLE = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@dataclass(frozen=True)
class Traffic:
    """Numbers that one picture moves, whatever their width in bytes.

    Attributes:
        weights: Read of parameters and buffers, once a call whatever the batch.
        picture: Read and written of all else, for each picture.
        activations: Put out by convolutions, linear maps and attention products (timm's "activations").
    """

    weights: int
    picture: int
    activations: int

    def moved(self, batch: int) -> int:
        """Numbers that a call moves."""
        return self.weights + batch * self.picture


def traffic(net: nn.Module, size: int) -> Traffic:
    """Count what each operator reads and writes; views cost nothing, and fused attention keeps its weights to itself.

    A floor is nothing of the kind: caches and fused kernels save what one operator hands to the next. It is what the
    network as it is written asks of memory, and the same for all networks.

    Args:
        net: On any device; on the meta device nothing is computed.
        size: Side of the picture.
    """
    tensors = [*net.parameters(), *net.buffers()]
    floats = [t for t in tensors if t.is_floating_point()]
    x = torch.zeros(1, 3, size, size, device=floats[0].device if floats else None)
    operators = _Operators(tensors)
    with evaluating(net), _FusedAttention(operators), operators:
        net(x)
    return Traffic(operators.weights, operators.picture, operators.activations)


def _numbers(tensor: Tensor) -> int:
    """In memory: of an expanded axis there is one."""
    count = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride else min(length, 1)
    return count


class _Operators(TorchDispatchMode):
    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._stored = {self._place(tensor) for tensor in weights}
        self.weights = self.picture = self.activations = 0

    @staticmethod
    def _place(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def add(self, read: Any, written: Any) -> None:
        """One operator's tensors, in any nesting."""
        for tensor in tree_leaves(read):
            if isinstance(tensor, Tensor):
                if self._place(tensor) in self._stored:
                    self.weights += _numbers(tensor)
                else:
                    self.picture += _numbers(tensor)
        self.picture += sum(_numbers(tensor) for tensor in tree_leaves(written) if isinstance(tensor, Tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = getattr(func, "overloadpacket", None)
        if packet is None or not (func.is_view or packet.__name__ in _IDLE):
            self.add((args, kwargs), result)
        if packet in FORMULAS:
            self.activations += sum(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


class _FusedAttention(TorchFunctionMode):
    """Attention as one operator, of which torch makes several where no kernel is: on the meta device."""

    def __init__(self, operators: _Operators) -> None:
        super().__init__()
        self._operators = operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        query, key, value = given["query"], given["key"], given["value"]
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        self._operators.add((query, key, value, given.get("attn_mask")), out)
        scores = query.numel() // query.shape[-1] * key.shape[-2]
        self._operators.activations += scores + out.numel()
        return out
