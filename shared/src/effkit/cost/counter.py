"""Counts multiply-adds operator by operator while a module runs, under the name of the module that ran them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from effkit.cost.formulas import FORMULAS

__all__ = ["Counter"]

# Operators of torch that hide products and have no formula here: named in `Cost.uncounted` rather than passed over.
_OPAQUE = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_trilinear", "_native_multi_head_attention"}


class Counter(TorchDispatchMode):
    """Adds up MACs per name on top of `stack`, operator by operator."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.stack = [""]
        self.macs: dict[str, int] = {}
        self.uncounted: set[str] = set()
        self._torch_formulas = FlopCounterMode(display=False).flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", None)
        formula = FORMULAS.get(packet)
        if formula is None and packet not in self._torch_formulas and isinstance(func, torch._ops.OpOverload):
            # Under inference mode composite operators (linear, matmul) arrive whole: look inside.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key != "out"}  # where the result was written to
        if formula is not None:
            self._add(int(formula(*args, out=result, **kwargs)))
        elif packet in self._torch_formulas:
            self._add(
                self._torch_formulas[packet](*args, **kwargs, out_val=result) // 2
            )  # torch counts two per multiply-add
        elif packet is None or func.namespace not in ("aten", "prim", "prims") or packet.__name__ in _OPAQUE:
            self.uncounted.add(str(packet or func))
        return result

    def _add(self, macs: int) -> None:
        self.macs[self.stack[-1]] = self.macs.get(self.stack[-1], 0) + macs
