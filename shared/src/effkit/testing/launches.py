"""What a call would make a GPU do, counted on any machine: launches, copies from the host, reads back to it.

The rule, operator by operator, below autograd, so a backward pass and code that was compiled count alike:

- **A launch** is every operator of torch that writes a tensor's elements: arithmetic, copies, casts, fills (``zeros``
  too). None are views (``t``, ``unbind``), what only allocates (``empty``) or asks (``is_same_size``), and numbers that
  travel as arguments. An operator counts once, though a GPU may need several kernels for it (``sort``, ``topk``), so
  a count is a floor for operators of torch, and exact for kernels of ours.
- **A Triton kernel** counts once a grid, under its own name, interpreted or compiled. What the interpreter does with
  tensors does not count. It has no bfloat16, and the casts around it would count: use float16 or float32.
- **An operator of a library** (:func:`torch.library.custom_op`) counts as what its implementation does; as one launch
  if none of that can be seen.
- **A copy** is a tensor that is made from the host's values (``torch.tensor``, ``from_numpy``, an index that is a
  list), or is moved with ``.to(device)`` after it was made without saying a device. Such a tensor's operators count
  as launches all the same, because a CPU cannot tell where they would have run.
- **A read** waits for the device: ``item`` and whatever Python asks of a value, ``tolist``, ``numpy``, ``cpu``, and
  operators whose shape or result depends on values (``nonzero``, a boolean index, ``equal``).

Code that was compiled by :func:`torch.compile` runs as written here, so its count is a ceiling of the compiled one's.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from effkit.triton import installed

__all__ = ["Launches", "count_launches"]

_ALLOCATES = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_"}
_RESHAPES = {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "set_", "t_", "transpose_"}
_RESHAPES |= {"squeeze_", "unsqueeze_", "as_strided_", "detach_"}
_ARGUMENTS = {"scalar_tensor"}  # made of the numbers in `torch.where(mask, x, 0.0)`; a GPU takes them as arguments
_NO_LAUNCH = _ALLOCATES | _RESHAPES | _ARGUMENTS
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "zeros")
_READERS = ("tolist", "numpy", "cpu", "__array__", "__dlpack__")


@dataclass(frozen=True)
class Launches:
    """What a call would make a GPU do.

    Attributes:
        by_name: Under ``"launches"``, ``"copies"`` and ``"reads"``, how often, by name of operator or kernel.
        result: What the call returned.
    """

    by_name: dict[str, Counter[str]]
    result: Any = field(default=None, repr=False, compare=False)

    @property
    def launches(self) -> int:
        """Kernels that would be launched."""
        return self.by_name["launches"].total()

    @property
    def copies(self) -> int:
        """Copies from the host to the device."""
        return self.by_name["copies"].total()

    @property
    def reads(self) -> int:
        """Times the host would wait for a value of the device."""
        return self.by_name["reads"].total()

    def __repr__(self) -> str:
        parts = []
        for kind, names in self.by_name.items():
            listed = ", ".join(f"{n} {name}" if n > 1 else name for name, n in names.most_common())
            parts.append(f"{names.total()} {kind}" + (f" ({listed})" if listed else ""))
        return "; ".join(parts)


def count_launches(fn: Callable[[], Any]) -> Launches:
    """Count what a call would launch, copy and read on a GPU; see the module for the rule.

    Make the inputs outside, or say their device, or making them counts too. Run the call once before, if its first
    time prepares something. (:func:`effkit.triton.count_launches` counts kernels of ours alone, and does not slow.)

    Args:
        fn: Runs it, a backward pass with it if that is to count.

    Returns:
        The counts, by name too, and the call's result.

    Raises:
        NotImplementedError: From torch, if the call has a higher-order operator (``torch.cond``), which hides what it
            runs.

    Example:
        >>> x = torch.ones(3)
        >>> count_launches(lambda: (x * 2 + 1).view(3, 1).sum().item())
        3 launches (mul, add, sum); 0 copies; 1 reads (item)
    """
    recorder = _Recorder()
    with contextlib.ExitStack() as stack:
        _patch_readers(stack, recorder)
        _patch_factories(stack, recorder)
        _patch_kernels(stack, recorder)
        if "torch._dynamo" in sys.modules:  # compiled code refuses to run under a mode
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(recorder)
        result = fn()
    return Launches(recorder.counts, result)


class _Recorder(TorchDispatchMode):
    """Sees every operator below autograd, and is told of what is none."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Counter[str]] = {"launches": Counter(), "copies": Counter(), "reads": Counter()}
        self.on_host = WeakTensorKeyDictionary()
        self.paused = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler for the first operator, which takes seconds

    def add(self, kind: str, name: str) -> None:
        if not self.paused:
            self.counts[kind][name] += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if func.namespace not in ("aten", "prim", "prims"):
            return self._inside(func, args, kwargs)
        result = func(*args, **kwargs)
        self._count(func, args, kwargs, result)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and all(tensor in self.on_host for tensor in given):
            self.mark(result)
        return result

    def mark(self, result: Any) -> None:
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.on_host[leaf] = True

    def _count(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        name = func.overloadpacket.__name__
        if name == "lift_fresh":
            self.add("copies", "tensor")
        elif name == "_local_scalar_dense":
            self.add("reads", "item")
        elif name in ("_to_copy", "copy_") and (route := _route(args, result)):
            self.add(route, name)
        elif _launches(func, name):
            self.add("launches", name)
            if _waits(func, name, args, kwargs):
                self.add("reads", name)

    def _inside(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator's implementation for the device of its tensors, and see what it does."""
        kind = next((x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)), "cpu")
        key = torch._C.DispatchKey.CUDA if kind == "cuda" else torch._C.DispatchKey.CPU
        before = sum(counter.total() for counter in self.counts.values())
        with self:
            result = func.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)
        if before == sum(counter.total() for counter in self.counts.values()):
            self.add("launches", f"{func.namespace}.{func.overloadpacket.__name__}")
        return result


def _launches(func: Any, name: str) -> bool:
    if name in _NO_LAUNCH or func.is_view:
        return False
    schema = func._schema
    writes = schema.is_mutable or any("Tensor" in str(returned.type) for returned in schema.returns)
    return writes or bool(_WAITS & set(func.tags)) or name == "_assert_async"


def _waits(func: Any, name: str, args: Any, kwargs: Any) -> bool:
    if name in _INDEXED:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return bool(_WAITS & set(func.tags))


def _route(args: Any, result: Any) -> str | None:
    """Whether a copy crosses between host and device, and which way; on a CPU none does."""
    source = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0]
    ways = {("cpu", "cuda"): "copies", ("cuda", "cpu"): "reads"}
    return ways.get((source.device.type, result.device.type))


def _patch_readers(stack: contextlib.ExitStack, recorder: _Recorder) -> None:
    """Readers that read a CPU's memory directly, so no operator is seen, and moves that are none on a CPU."""

    def reader(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            recorder.add("reads", name.strip("_"))
            with recorder.pause():
                return original(self, *args, **kwargs)

        return read

    def mover(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def move(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            asked = (*args[:1], kwargs.get("device"))
            if "cpu" in [x for x in asked if isinstance(x, str)]:
                recorder.add("reads", "cpu")
            moves = name == "cuda" or any(isinstance(x, (str, torch.device, Tensor)) for x in asked)
            if not (moves and self in recorder.on_host):
                return original(self, *args, **kwargs)
            recorder.add("copies", name)
            moved = torch.ops.aten.alias(original(self, *args, **kwargs))
            recorder.on_host.pop(moved, None)
            return moved

        return move

    for name in _READERS:
        stack.enter_context(mock.patch.object(Tensor, name, reader(name, getattr(Tensor, name))))
    for name in ("to", "cuda"):
        stack.enter_context(mock.patch.object(Tensor, name, mover(name, getattr(Tensor, name))))


def _patch_factories(stack: contextlib.ExitStack, recorder: _Recorder) -> None:
    """Remember which tensors were made without saying a device: they would be on the host."""

    def factory(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def make(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if kwargs.get("device") is None and kwargs.get("out") is None:
                recorder.mark(made)
            return made

        return make

    for name in _FACTORIES:
        stack.enter_context(mock.patch.object(torch, name, factory(getattr(torch, name))))


def _patch_kernels(stack: contextlib.ExitStack, recorder: _Recorder) -> None:
    """One launch a grid, whether it is interpreted or compiled."""
    if not installed():
        return
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    def runner(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            with recorder.pause():
                result = original(self, *args, **kwargs)
            if not kwargs.get("warmup"):
                recorder.add("launches", self.fn.__name__)
            return result

        return run

    for owner, name in ((GridExecutor, "__call__"), (JITFunction, "run")):
        stack.enter_context(mock.patch.object(owner, name, runner(getattr(owner, name))))
