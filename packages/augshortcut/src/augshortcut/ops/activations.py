"""Activations of the paths by name, and how much they can stretch a difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ACTIVATIONS", "IN_PLACE", "LIPSCHITZ", "SLOPES", "unobserved"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "identity": lambda x: x,
}

# The same, written over their input: for tensors that nobody else reads (see ``unobserved``).
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "gelu_tanh": partial(torch.ops.aten.gelu_, approximate="tanh"),
    "relu": torch.relu_,
    "silu": torch.ops.aten.silu_,
    "identity": lambda x: x,
}

# Gradient with respect to the input, from that of the output and the input.
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_backward,
    "gelu_tanh": partial(torch.ops.aten.gelu_backward, approximate="tanh"),
    "relu": lambda grad, x: torch.where(x > 0, grad, 0),
    "silu": torch.ops.aten.silu_backward,
    "identity": lambda grad, x: grad,
}

# Largest slopes. Exact GELU has it at sqrt(2); SiLU's is found numerically, and so is that of GELU's tanh form (both
# rounded up in the last digit).
LIPSCHITZ: dict[str, float] = {
    "gelu": 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi),
    "gelu_tanh": 1.12900,
    "relu": 1.0,
    "silu": 1.09984,
    "identity": 1.0,
}


def unobserved(tensor: Tensor) -> bool:
    """Whether results may be written into memory of ours: nothing records, traces or batches this computation.

    Saves passes over memory at inference, where they are a good part of the time.
    """
    return not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or type(tensor) is not Tensor
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
