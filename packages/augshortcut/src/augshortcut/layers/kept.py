"""Dense parts of a layer's weights, kept between calls at inference."""

from __future__ import annotations

import torch
from torch import Tensor

from augshortcut.ops.crt import CrtParts
from augshortcut.ops.product import materialise

__all__ = ["KeptParts"]


class KeptParts:
    """Keeps the parts of the last weights it saw, and makes them anew as soon as a number differs.

    Values are compared, not versions: an average written through ``.data``, a swapped tensor or a loaded state must
    never meet parts of the weights before. The weights are a few thousand numbers, so on a CPU comparing is nothing.
    On other devices it would wait for the device, and parts are made in each call there. With gradients, under
    ``torch.compile`` and for tensors that are no plain ones, they are too.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor | None, int, torch.dtype, CrtParts] | None = None

    def __deepcopy__(self, memo: object) -> KeptParts:
        """An empty one: copies and files hold parameters only."""
        return KeptParts()

    def __reduce__(self) -> tuple[type[KeptParts], tuple[()]]:
        """Likewise."""
        return KeptParts, ()

    def get(self, weight: Tensor, bias: Tensor | None, level: int, dtype: torch.dtype) -> CrtParts:
        """Parts of ``(b_out, b_in, n)`` weights and their bias.

        Args:
            weight: The weights.
            bias: ``(b_out n,)`` or ``None``.
            level: Splits.
            dtype: Of the parts.
        """
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not (_plain(weight) and _plain(bias)):
            return materialise(weight, bias, level, dtype)
        kept = self._kept
        if (
            kept is not None
            and kept[2:4] == (level, dtype)
            and _same(kept[0], weight)
            and (bias is None if kept[1] is None else bias is not None and _same(kept[1], bias))
        ):
            return kept[4]
        parts = materialise(weight, bias, level, dtype)
        self._kept = (weight.detach().clone(), None if bias is None else bias.detach().clone(), level, dtype, parts)
        return parts


def _plain(tensor: Tensor | None) -> bool:
    if tensor is None:
        return True
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and not torch.jit.is_tracing()
    )


def _same(kept: Tensor, tensor: Tensor) -> bool:
    return kept.dtype == tensor.dtype and torch.equal(kept, tensor)
