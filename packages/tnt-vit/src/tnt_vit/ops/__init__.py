"""Fast paths of tnt-vit on tensors: the inner block (:mod:`~tnt_vit.ops.inner`), and whether a fused one may run."""

from tnt_vit.ops.dispatch import fused_available, resolve_backend
from tnt_vit.ops.inner import BACKENDS, InnerParams, inner_block, inner_stack

__all__ = ["BACKENDS", "InnerParams", "fused_available", "inner_block", "inner_stack", "resolve_backend"]
