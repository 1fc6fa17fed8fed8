r"""Whether a block of an unknown type is pre-norm with additive residuals, shown by running it.

With norms N1 and N2, such a block computes ``u = x + f(N1(x))`` and ``u + g(N2(u))``. The outputs of the norms are
replaced by fixed numbers c1 and c2, and then

- ``u - x`` and ``out - u`` must be the same whatever x is: the stream is only ever added to, and read nowhere else;
- u must move with c1 and the output with c2: sub-layers come one after the other (side by side, u would not move);
- N1 must read x itself (in a post-norm block it reads a branch), each norm once, and x must stay as it was.

Rounding is the only difference allowed, so the proof is as sharp as the block's type; one of the two streams is zero,
so that branches scaled to a millionth still show. What is proven in evaluation holds in training too as long as the
same ``forward`` runs there: dropout and stochastic depth inside branches are the block's own and stay in force.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from augshortcut.injection.generic import TappedBlock, methods_of, stream
from augshortcut.injection.registry import norm_names

__all__ = ["Call", "prove"]

Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Run:
    """One pass of a block with its norms watched, and their outputs replaced by given ones."""

    def __init__(self, block: nn.Module, call: Call, given: Mapping[str, Tensor] | None = None) -> None:
        self.read: dict[str, Tensor] = {}
        self.gave: dict[str, Tensor] = {}
        self.order: list[str] = []
        kind: Any = type(block)
        args, kwargs = call
        taps = {name: self._tap(name, getattr(block, name), given or {}) for name in norm_names(block)}
        found = kind.forward(TappedBlock(block, methods_of(kind), taps), *args, **kwargs)
        self.out: Any = found[0] if isinstance(found, tuple) and found else found

    def _tap(self, name: str, norm: Any, given: Mapping[str, Tensor]) -> Any:
        def tap(z: Tensor) -> Tensor:
            self.order.append(name)
            self.read[name] = z.clone()
            self.gave[name] = norm(z) if name not in given else given[name].clone()
            return self.gave[name]

        return tap


def _takes_more(block: nn.Module) -> list[str]:
    """Names of arguments beside the tokens that a block's ``forward`` cannot do without."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(type(block).forward).parameters.values())[2:]
    return [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]


def prove(block: nn.Module, like: Tensor, dim: int, call: Call | None = None) -> tuple[str, tuple[str, str]]:
    """Try a block.

    Args:
        block: Stays as it is: a copy of it runs, in evaluation mode.
        like: Tensor with the device of the block and the type of its tokens.
        dim: Width of its tokens.
        call: Arguments that it was called with; tokens ``(2, 16, dim)`` and nothing else if not given.

    Returns:
        Why it cannot have paths (empty if it can), and its norms: before attention, before the MLP.
    """
    none = ("", "")
    if like.is_meta:
        return "it has no numbers (meta device), so its residuals cannot be tried", none
    if len(norm_names(block)) != 2:
        return f"it has {len(norm_names(block))} norms ({', '.join(norm_names(block))}), and two are asked for", none
    if call is None and (needed := _takes_more(block)):
        return f"its forward needs {', '.join(needed)}: give augment(..., example=INPUT) to try it with", none
    twin = copy.deepcopy(block).eval()
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Any) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)

    if call is None:
        call = ((draw((2, 16, dim)),), {})
    x, put = stream(*call)
    if not isinstance(x, Tensor) or x.shape[-1:] != (dim,) or x.shape[:1] == (0,):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        return f"its first argument is no tensor of tokens (..., {dim}), but {shape}", none
    with torch.no_grad():
        try:
            return _try(twin, draw(x.shape), put, draw)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            return f"it did not run on tokens {tuple(x.shape)} ({type(error).__name__}: {first[:120]})", none


def _try(block: nn.Module, x: Tensor, put: Any, draw: Any) -> tuple[str, tuple[str, str]]:
    none = ("", "")
    before = x.clone()
    plain = _Run(block, put(x))
    if not torch.equal(x, before):
        return "it writes over its input", none
    if not isinstance(plain.out, Tensor) or plain.out.shape != x.shape:
        return "its first output is no tensor of its input's shape", none
    if len(plain.order) != 2 or len(set(plain.order)) != 2:
        return f"its norms run as {plain.order or 'never'}, not each once", none
    first, second = plain.order
    if not torch.equal(plain.read[first], x):
        return f"{first} does not read the block's input (norms after attention and MLP?)", none
    if plain.read[second].shape != x.shape:
        return f"{second} reads a tensor of another shape than the block's input", none
    own: Any = type(block)
    args, kwargs = put(x.clone())
    again = own.forward(block, *args, **kwargs)
    if not torch.equal(again[0] if isinstance(again, tuple) else again, plain.out):
        return "two passes over the same tokens differ", none

    c = {name: draw(plain.gave[name].shape).to(plain.gave[name].dtype) for name in plain.order}
    zero = torch.zeros_like(x)
    at_zero, at_x = _Run(block, put(zero), c), _Run(block, put(x), c)
    if not _same(at_x.read[second] - x, at_zero.read[second], x):
        return f"what {second} reads is not the input plus a function of {first}", none
    if not _same(at_x.out - at_x.read[second], at_zero.out - at_zero.read[second], at_x.out):
        return f"the output is not what {second} reads plus a function of {second}", none
    moved = _Run(block, put(zero), {**c, first: draw(c[first].shape).to(c[first].dtype)})
    if torch.equal(moved.read[second], at_zero.read[second]):
        return f"what {second} reads does not depend on {first} (sub-layers side by side, or weights of zero)", none
    moved = _Run(block, put(zero), {**c, second: draw(c[second].shape).to(c[second].dtype)})
    if torch.equal(moved.out, at_zero.out):
        return f"its output does not depend on {second} (weights of zero?)", none
    return "", (first, second)


def _same(a: Tensor, b: Tensor, size: Tensor) -> bool:
    """Equal but for the rounding of two additions of numbers as large as those of ``size``."""
    largest = max(float(t.abs().max()) for t in (a, b, size))
    return float((a - b).abs().max()) <= 4 * torch.finfo(a.dtype).eps * largest
