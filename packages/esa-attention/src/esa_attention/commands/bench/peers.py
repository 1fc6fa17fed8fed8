"""Full attention in every form that torch runs here: the peer is the best of them, and is named.

Which kernel torch takes by itself depends on the layout of the queries, and is not always the fastest one: every kernel
is asked for in turn, for every layout.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from effkit.timing import compare

__all__ = ["Call", "captured", "fastest", "full_forms", "runs"]

Call = Callable[[], Any]
KERNELS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
_ROUNDS, _SECONDS = 3, 0.5  # to find the fastest; it is timed in earnest with the others afterwards


def _packed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """The queries of a group as rows of one product: keys are read once for all of them."""
    group = query.shape[1] // key.shape[1]
    rows = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    return {"query": rows, "key": key, "value": value, "attn_mask": None if mask is None else mask.repeat(group, 1)}


def _enable_gqa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """Torch is told that several heads share their keys."""
    return {"query": query, "key": key, "value": value, "attn_mask": mask, "enable_gqa": True}


def _expanded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """Every query head has keys of its own, which are views of the same memory (of one sequence)."""
    group = query.shape[1] // key.shape[1]
    heads = {n: t[0][:, None].expand(-1, group, -1, -1) for n, t in {"key": key, "value": value}.items()}
    return {"query": query[0].unflatten(0, (-1, group)), "attn_mask": mask, **heads}


_LAYOUTS = {"packed": _packed, "enable_gqa": _enable_gqa, "expanded": _expanded}


def full_forms(query: Tensor, key: Tensor, value: Tensor) -> dict[str, Call]:
    """Every way to attend with the last queries to all keys of one sequence.

    Args:
        query: ``(1, H, T, D)``.
        key: ``(1, K, S, D)``, contiguous; the queries are of its last tokens.
        value: ``(1, K, S, D)``.

    Returns:
        By name, ``LAYOUT KERNEL``; whether they run here is another question, see :func:`runs`.
    """
    new, total = query.shape[2], key.shape[2]
    mask = None
    if new > 1:
        mask = torch.ones(new, total, dtype=torch.bool, device=query.device).tril(total - new)
    found: dict[str, Call] = {}
    for layout, arrange in _LAYOUTS.items():
        arguments = arrange(query, key, value, mask)
        for kernel in KERNELS:
            found[f"{layout} {kernel}"] = functools.partial(_call, getattr(SDPBackend, kernel), arguments)
    if query.device.type == "cuda":
        found |= _only_on_a_gpu(query, key, value)
    return found


def _call(kernel: Any, arguments: dict[str, Any]) -> Tensor:
    with torch.inference_mode(), sdpa_kernel([kernel]):
        return torch.nn.functional.scaled_dot_product_attention(**arguments)


def _only_on_a_gpu(query: Tensor, key: Tensor, value: Tensor) -> dict[str, Call]:
    """Chunks without a matrix for a mask, and the package flash-attn where it is installed."""
    from torch.nn.attention.bias import causal_lower_right

    found: dict[str, Call] = {}
    if query.shape[2] > 1:
        arguments = _enable_gqa(query, key, value, causal_lower_right(query.shape[2], key.shape[2]))
        for kernel in KERNELS[:3]:
            found[f"lower_right {kernel}"] = functools.partial(_call, getattr(SDPBackend, kernel), arguments)
    try:
        from flash_attn import flash_attn_func
    except Exception:  # a broken build raises anything, and the other forms remain
        return found
    rows = [t.transpose(1, 2).contiguous() for t in (query, key, value)]
    return {**found, "flash_attn": lambda: flash_attn_func(*rows, causal=True)}


def runs(call: Call) -> bool:
    """Whether a form runs on this machine; torch says why not in warnings, which are of no interest here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except (RuntimeError, ValueError, NotImplementedError):
        return False
    return True


def captured(call: Call, device: torch.device) -> Call:
    """On CUDA the call as a replayed graph, so that the host's time is no part of it; elsewhere the call."""
    if device.type != "cuda":
        return call
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def fastest(
    forms: dict[str, Call], device: torch.device, threads: int | None, seconds: float = _SECONDS
) -> tuple[str, Call, dict[str, float]]:
    """Race the forms that run here.

    Args:
        forms: By name.
        device: Where they run.
        threads: CPU threads.
        seconds: For all of them together.

    Returns:
        Name and call of the fastest (a graph on CUDA), and the seconds of each.

    Raises:
        RuntimeError: If none runs, which torch's plain form always does.
    """
    here = {name: captured(call, device) for name, call in forms.items() if runs(call)}
    if not here:
        raise RuntimeError("no form of scaled_dot_product_attention runs")
    raced = compare(here, device=device, threads=threads, min_rounds=_ROUNDS, min_seconds=seconds, memory=False)
    found = {name: timing.median for name, timing in raced.timings.items()}
    best = min(found, key=lambda name: found[name])
    return best, here[best], found
