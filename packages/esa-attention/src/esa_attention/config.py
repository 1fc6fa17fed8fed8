"""What ESA is told: sizes of the segments, how tokens are selected, how the cache stores them.

Letters of the paper in brackets. Defaults marked "paper" are stated there (section 4); the rest is inferred and named
as such in the package's README, because the paper does not give it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from effkit.errors import UserError, choose, written

__all__ = ["CPU_FORMS", "ESAConfig"]

Selection = Literal["paper", "strict_causal", "rerank", "reuse"]
Method = Literal["esa", "full", "sinks_local", "infllm_blocks", "quest_pages"]
IndexDtype = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Backend = Literal["auto", "reference", "torch", "triton"]
Forms = Literal["auto", "first"] | Mapping[str, str]

# The products of a decoding step on a CPU, and the forms they can be had in (:mod:`esa_attention.ops.forms`).
CPU_FORMS: dict[str, tuple[str, ...]] = {
    "scores": ("columns", "onednn", "rows", "blocks", "native", "mv"),
    "scores_int8": ("pair", "rows", "columns", "native", "blocks"),
    "select": ("numpy", "native", "plain"),
    "attend": ("pieces", "native", "flash"),
}


@dataclass(frozen=True)
class ESAConfig:
    """Hyper-parameters of Efficient Selective Attention.

    Args:
        num_initial: Tokens at the beginning that every query reads (l_I). Paper: 128.
        num_selected: Middle tokens selected per step and layer (k). Paper: 2048.
        num_local: Tokens right before the current chunk that every query reads (l_L). Paper: 4096.
        chunk_size: Tokens processed at once while reading a prompt (l_C). Not in our copy of the paper; InfLLM, whose
            segments it follows, uses 512.
        proximity: Half-width of the max filter over scores (eps, Eq. 8). The paper's main results equal its row 3.
        far_position: Position of the query towards initial and selected keys, which stand at 0 (w). The paper gives no
            value; ``None`` is ``num_local``.
        selection: ``paper``: one choice a chunk. ``strict_causal``: segments and choice of every token are its own, so
            that no later token takes part in an earlier one's and reading in chunks of any size equals decoding (with
            ``selection_block``, blocks of so many tokens share them). ``rerank``: twice the candidates by compressed
            score, then exact scores. ``reuse``: a decoded token keeps the last choice while its query barely turned.
            The last two are ours.
        selection_block: Tokens that choose together; ``None`` is the chunk (``paper``) or 1 (``strict_causal``).
        rerank_factor: Candidates per selected token under ``rerank``.
        reuse_threshold: Least cosine between compressed queries for a choice to be kept under ``reuse``.
        dense_until: Full attention at true positions while no more than so many tokens are seen (ours; 0 never).
            ``auto``: up to where ESA becomes faster on the device and in the type at hand, at most the model's trained
            length (:mod:`esa_attention.attention.crossover`); without a model, in functions on tensors, 0.
        method: ``esa``, or a baseline on the same cache: ``full`` attention, ``sinks_local`` (StreamingLLM,
            LM-Infinite), ``infllm_blocks``, ``quest_pages``. Exact scores and key PCA are compressors, not methods.
        block_size: Tokens of a block under ``infllm_blocks``.
        block_representatives: Keys that stand for such a block.
        page_size: Tokens of a page under ``quest_pages``.
        index_dtype: How compressed keys are stored; ``auto`` is fp32 on a CPU, int8 on a CUDA device, else the model's.
        offload: Keep keys and values in host memory and only the index on the device.
        backend: ``auto``, ``reference`` (float64 loops), ``torch``, ``triton``.
        cpu_forms: In which forms the products of a decoding step are taken on a CPU; they differ in the last bits.
            ``auto``: the fastest in a short measurement at first use in the process. ``first``: the first one that
            runs, which is the same every time. Or forms by product, ``{"scores": "mv"}``, the others being measured;
            see :data:`CPU_FORMS`.
        check_finite: Raise when a query, key or value is NaN or infinite (while decoding on a GPU it would cost a
            synchronisation and is left out: NaN then shows in the logits).

    Raises:
        UserError: If a value is out of range; names it and the range.
    """

    num_initial: int = 128
    num_selected: int = 2048
    num_local: int = 4096
    chunk_size: int = 512
    proximity: int = 3
    far_position: int | None = None
    selection: Selection = "paper"
    selection_block: int | None = None
    rerank_factor: int = 2
    reuse_threshold: float = 0.9
    dense_until: int | Literal["auto"] = "auto"
    method: Method = "esa"
    block_size: int = 128
    block_representatives: int = 4
    page_size: int = 16
    index_dtype: IndexDtype = "auto"
    offload: bool = False
    backend: Backend = "auto"
    cpu_forms: Forms = "auto"
    check_finite: bool = True

    def __post_init__(self) -> None:
        least = {
            "num_initial": 0,
            "num_selected": 1,
            "num_local": 1,
            "chunk_size": 1,
            "proximity": 0,
            "far_position": 0,
            "selection_block": 1,
            "rerank_factor": 1,
            "dense_until": 0,
            "block_size": 1,
            "block_representatives": 1,
            "page_size": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is None and name in ("far_position", "selection_block"):
                continue
            if value == "auto" and name == "dense_until":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                also = "'auto' or " if name == "dense_until" else ""
                raise UserError(f"{name} must be {also}a whole number of at least {low}, got {value!r}")
        if not -1.0 <= self.reuse_threshold <= 1.0:
            raise UserError(f"reuse_threshold is a cosine and must be in -1..1, got {self.reuse_threshold!r}")
        for name, kind in (
            ("selection", Selection),
            ("method", Method),
            ("index_dtype", IndexDtype),
            ("backend", Backend),
        ):
            choose(name, getattr(self, name), list(get_args(kind)))
        for name in ("offload", "check_finite"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, got {getattr(self, name)!r}")
        self._check_forms()
        if self.block_representatives > self.block_size:
            raise UserError(
                f"block_representatives must be at most block_size={self.block_size}, got {self.block_representatives}"
            )

    def _check_forms(self) -> None:
        forms = self.cpu_forms
        if isinstance(forms, str):
            choose("cpu_forms", forms, ["auto", "first"])
            return
        if not isinstance(forms, Mapping):
            raise UserError(
                f"cpu_forms={written(forms)} must be 'auto', 'first' or a form by product, such as {{scores: mv}}"
            )
        for product, form in forms.items():
            choose("product in cpu_forms", product, CPU_FORMS)
            choose(f"cpu_forms.{product}", form, CPU_FORMS[product])

    @property
    def w(self) -> int:
        """The far position in force."""
        return self.num_local if self.far_position is None else self.far_position

    @property
    def choosing_block(self) -> int:
        """How many tokens of a chunk choose together."""
        if self.selection_block is not None:
            return self.selection_block
        return 1 if self.selection == "strict_causal" else self.chunk_size

    @property
    def step_size(self) -> int:
        """How many tokens of a call share their segments: a chunk, or what chooses together under ``strict_causal``.

        A token whose local part begins where its chunk's does sees other tokens than the same token decoded by itself.
        """
        strict = self.selection == "strict_causal" and self.method != "full"  # full attention has no segments
        return min(self.choosing_block, self.chunk_size) if strict else self.chunk_size

    @property
    def attended(self) -> int:
        """Most tokens a chunk attends to, itself included (l_I + k + l_L + l_C)."""
        return self.num_initial + self.num_selected + self.num_local + self.chunk_size

    @classmethod
    def for_context(cls, trained_context: int, **changes: Any) -> ESAConfig:
        """Sizes of the paper, or the same proportions where a model's context is too short for them.

        Args:
            trained_context: Longest sequence the model was trained on.
            **changes: Fields given as they are.

        Raises:
            UserError: If the context is shorter than 16 tokens, or a field is out of range.

        Example:
            >>> ESAConfig.for_context(512).num_local
            309
        """
        if trained_context < 16:
            raise UserError(f"trained_context must be at least 16 tokens, got {trained_context}")
        paper = cls()
        if trained_context >= paper.attended:
            return paper.replace(**changes)
        share = trained_context / paper.attended
        names = ("num_initial", "num_selected", "num_local", "chunk_size")
        sizes = {name: max(1, int(share * getattr(paper, name))) for name in names}
        return paper.replace(**{**sizes, **changes})

    def replace(self, **changes: Any) -> ESAConfig:
        """A copy with some values changed.

        Raises:
            UserError: If a name is not one of the fields, or a value is out of range.
        """
        for name in changes:
            choose("field of ESAConfig", name, [f.name for f in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)
