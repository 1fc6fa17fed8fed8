"""The steps of ESA as functions without state (section 3 of the paper), in plain torch, differentiable by nobody.

This is the door for notebooks; each step is written where it is needed first. The naive specification of all of them is
:func:`esa_attention.reference.esa_reference`.
"""

from esa_attention.attention.engine.stateless import esa_decode, esa_prefill
from esa_attention.compression.folding import fold_keys, fold_queries
from esa_attention.ops.selection_torch import dilate, importance_score, select_topk
from esa_attention.ops.states_torch import attention_states, gather_kv, merge_attention_states

__all__ = [
    "attention_states",
    "dilate",
    "esa_decode",
    "esa_prefill",
    "fold_keys",
    "fold_queries",
    "gather_kv",
    "importance_score",
    "merge_attention_states",
    "select_topk",
]
