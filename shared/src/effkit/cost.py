"""What a module costs: parameters and MACs, by the one definition of the house.

MACs are multiply-adds of convolutions, linear maps and attention products (query x key and weights x value); no bias,
norm, activation, softmax or pooling, and a causal mask does not halve the products. The count is made at the level of
torch's operators while the module runs once, so `F.linear`, `matmul`, `einsum`, a fused attention and `nn.Linear` all
count alike, whatever layers a model is written in. A model on the meta device is counted without any memory:

    >>> with torch.device("meta"):
    ...     model = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    >>> measure_image(model, 32).macs == 8 * 27 * 32 * 32
    True
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from effkit.errors import UserError
from effkit.report import Table

__all__ = ["Cost", "LayerCost", "count_params", "measure", "measure_image", "register_macs"]

MacsFormula = Callable[..., int]

aten = torch.ops.aten


def _matrix_product(first: int) -> MacsFormula:
    """Product of argument `first`, (..., M, K), and the one after it, (..., K, N)."""

    def macs(*args: Any, out: Any, **_: Any) -> int:
        left, right = args[first], args[first + 1]
        return left.numel() * right.shape[-1]

    return macs


def _vector_product(first: int) -> MacsFormula:
    def macs(*args: Any, out: Any, **_: Any) -> int:
        return args[first].numel()

    return macs


def _convolution(x: Tensor, weight: Tensor, *args: Any, out: Tensor, **_: Any) -> int:
    # aten.convolution(input, weight, bias, stride, padding, dilation, transposed, ...). Each output element of a
    # convolution, and each input element of a transposed one, meets weight[0] once: (C_in / groups) * kernel, or
    # (C_out / groups) * kernel.
    transposed = bool(args[4])
    return (x if transposed else out).numel() * weight[0].numel()


def _attention(query: Tensor, key: Tensor, value: Tensor, *_args: Any, out: Any, **_: Any) -> int:
    # (B, H, Nq, D), (B, Hkv, Nk, D), (B, Hkv, Nk, Dv)
    rows = query.numel() // query.shape[-1]
    return rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_BUILT_IN: dict[str, MacsFormula] = {
    "mm": _matrix_product(0),
    "bmm": _matrix_product(0),
    "_int_mm": _matrix_product(0),
    "_scaled_mm": _matrix_product(0),
    "addmm": _matrix_product(1),
    "_addmm_activation": _matrix_product(1),
    "baddbmm": _matrix_product(1),
    "addbmm": _matrix_product(1),
    "mv": _vector_product(0),
    "dot": _vector_product(0),
    "vdot": _vector_product(0),
    "addmv": _vector_product(1),
    "convolution": _convolution,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_attention_math_for_mps": _attention,
}
_FORMULAS: dict[Any, MacsFormula] = {getattr(aten, name): f for name, f in _BUILT_IN.items() if hasattr(aten, name)}
# Operators of torch that hide products and have no formula here: named in `Cost.uncounted` rather than passed over.
_OPAQUE = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_trilinear", "_native_multi_head_attention"}


def register_macs(op: Any, formula: MacsFormula) -> None:
    """Say what a custom operator costs, so that a fused kernel counts as much as the layers it replaces.

    Args:
        op: An operator: `torch.ops.ns.name`, an overload of it, what `torch.library.custom_op` returns, or "ns::name".
        formula: Called as `formula(*args, out=result, **kwargs)` with the operator's own arguments (tensors included);
            returns multiply-adds.

    Raises:
        UserError: If `op` is not a torch operator.

    Example:
        >>> register_macs("mine::gemm", lambda a, b, out: a.numel() * b.shape[1])  # doctest: +SKIP
    """
    found = op
    if isinstance(op, str):
        namespace, _, name = op.partition("::")
        found = getattr(getattr(torch.ops, namespace), name, None) if name else None
    found = getattr(found, "_opoverload", found)  # torch.library.CustomOpDef
    found = getattr(found, "overloadpacket", found)
    if not isinstance(found, torch._ops.OpOverloadPacket):
        raise UserError(
            f"op={op!r} is not a torch operator; give torch.ops.ns.name or 'ns::name' of one already defined"
        )
    _FORMULAS[found] = formula


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


class _Counter(TorchDispatchMode):
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
        formula = _FORMULAS.get(packet)
        if formula is None and packet not in self._torch_formulas and isinstance(func, torch._ops.OpOverload):
            # Under inference mode composite operators (linear, matmul) arrive whole: look inside.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
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
    counter = _Counter()
    shapes: dict[str, tuple[int, ...]] = {}
    with _evaluating(module), _tracked(module, counter.stack, shapes), torch.no_grad(), _plain_attention(), counter:
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
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, flag in training.items():
            m.training = flag


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
