"""Runs a module once, in evaluation mode and without gradients, and counts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from effkit.cost.cost import Cost, LayerCost
from effkit.cost.counter import Counter
from effkit.errors import UserError
from effkit.watching import evaluating

__all__ = ["measure", "measure_image"]


def measure(module: nn.Module, *inputs: Any, **kwargs: Any) -> Cost:
    """Run a module once, in evaluation mode and without gradients, and count.

    The module keeps its training flags, buffers and hooks. Attention runs in its plain form meanwhile, so that kernels
    which pad head widths do not change the count.

    Args:
        module: Any module; on the meta device nothing is allocated, and inputs are taken for their shape only.
        *inputs: What `forward` takes; the MACs are those of this call, so of one image for a batch of one.
        **kwargs: Keyword arguments of `forward`.

    Returns:
        The cost, layer by layer.

    Raises:
        UserError: If `module` is not a module.

    Example:
        >>> cost = measure(nn.Linear(4, 3), torch.zeros(2, 4))
        >>> cost.params, cost.macs
        (15, 24)
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps: count operators, not generated kernels
    if _device_and_dtype(module)[0].type == "meta":
        inputs, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (inputs, kwargs))
    counter = Counter()
    shapes: dict[str, tuple[int, ...]] = {}
    with evaluating(module), _tracked(module, counter.stack, shapes), _plain_attention(), counter:
        module(*inputs, **kwargs)
    layers: list[LayerCost] = []
    seen: set[int] = set()
    for name, layer in module.named_modules():
        own = [p for p in layer.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        kind, params = type(layer).__name__, sum(p.numel() for p in own)
        layers.append(LayerCost(name, kind, params, counter.macs.get(name, 0), shapes.get(name, ())))
    return Cost(
        sum(c.params for c in layers), sum(counter.macs.values()), layers, uncounted=tuple(sorted(counter.uncounted))
    )


def measure_image(model: nn.Module, img_size: int | tuple[int, int], in_chans: int = 3) -> Cost:
    """Count for one image of zeros, on the model's own device and in its dtype.

    Build the model under `with torch.device("meta"):` and neither weights nor activations take memory.

    Args:
        model: A model of images `(1, in_chans, H, W)`.
        img_size: Side in pixels, or `(H, W)`.
        in_chans: Channels.

    Returns:
        The cost, layer by layer.

    Raises:
        UserError: If a size is not positive.
    """
    height, width = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if min(height, width, in_chans) < 1:
        raise UserError(f"img_size and in_chans must be positive, got img_size={img_size}, in_chans={in_chans}")
    device, dtype = _device_and_dtype(model)
    return measure(model, torch.zeros(1, in_chans, height, width, device=device, dtype=dtype))


def _device_and_dtype(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.get_default_dtype()


@contextlib.contextmanager
def _tracked(module: nn.Module, stack: list[str], shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Keep the name of the innermost running module on top of `stack`, and note output shapes."""

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            stack.pop()
            while isinstance(output, (tuple, list)) and output:
                output = output[0]
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return hook

    handles = []
    try:
        for name, layer in module.named_modules():
            # First in, last out: operators in the user's own hooks belong to the module as well.
            handles.append(layer.register_forward_pre_hook(enter(name), prepend=True))
            handles.append(layer.register_forward_hook(leave(name), always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products: fused kernels may get padded heads, the encoder's fast path hides linear maps."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
