"""The command ``doctor``: what loads on this machine of what ESA can use, and why the rest does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from effkit.device import Backend
from effkit.doctor import doctor_report, triton_kernels
from effkit.report import Report
from esa_attention.integration.cache_argument import CACHE_NAMES
from esa_attention.ops.attention_torch import _cpu_kernel_works
from esa_attention.ops.forms import PRODUCTS, Size
from esa_attention.ops.index_products import decode_scores, decode_scores_int8
from esa_attention.ops.index_rows import quantised
from esa_attention.ops.native.build import library
from esa_attention.ops.selection_cpu import chosen_size, select

_TOKENS, _RANK = 32768, 128  # of the index that is measured
_SELECTED = 2048

__all__ = ["checks", "run"]


def run(cfg: Any) -> Report:
    """Run the command; its config says nothing of what is looked at."""
    return doctor_report("ESA", checks(), key="esa")


def checks() -> list[Backend]:
    """Everything ESA can use, in order."""
    return [_transformers(), _cpu_attention(), _int8_product(), _compiled(), *_cpu_forms(), triton_kernels()]


def _transformers() -> Backend:
    import transformers

    return Backend("transformers", True, f"{transformers.__version__}; cache argument {' or '.join(CACHE_NAMES)}")


def _cpu_attention() -> Backend:
    if _cpu_kernel_works(torch.float32):
        return Backend("CPU flash kernel with lse", True, "private operator of torch, checked against ours")
    return Backend("CPU flash kernel with lse", False, "this torch has no such operator; plain products are used")


def _int8_product() -> Backend:
    keys, digits = torch.ones(8, 16, dtype=torch.int8), torch.ones(16, 2, dtype=torch.int8)
    try:
        torch._int_mm(keys, digits)
    except (RuntimeError, AttributeError) as error:
        return Backend("CPU int8 product", False, f"float products are used instead: {str(error).splitlines()[0]}")
    return Backend("CPU int8 product", True, "torch._int_mm, exact integer sums")


def _compiled() -> Backend:
    try:
        file = library("decode")._name
    except NotImplementedError as error:
        return Backend("compiled CPU forms", False, f"products of torch and numpy are used instead: {error}")
    where = file if Path(file).is_file() else "for this process only, since no folder of yours can keep them"
    return Backend("compiled CPU forms", True, f"{where}; by the system's C compiler (CC= for none)")


def _cpu_forms() -> Iterator[Backend]:
    """Which forms of the products of a decoding step are taken here, by a short measurement on a made-up index."""
    keys = torch.randn(_TOKENS, _RANK, generator=torch.Generator().manual_seed(0))
    query = keys[0].clone()
    digits, scale = quantised(keys)
    select(decode_scores(query, keys), 3, _SELECTED)
    decode_scores_int8(query, digits, scale)
    for name, size in (("scores", Size.of(keys)), ("scores_int8", Size.of(digits)), ("select", None)):
        race = PRODUCTS[name].remembered[size or chosen_size(_TOKENS, _SELECTED), True]
        yield Backend(f"CPU form of {name}", True, f"{race}; esa.cpu_forms={{{name}: FORM}} decides otherwise")
