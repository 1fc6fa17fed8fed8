"""The tables of ``esa-attention inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effkit.report import Table
from esa_attention.compression.geometry import ModelGeometry
from esa_attention.config import ESAConfig
from esa_attention.integration import costs
from esa_attention.integration.costs import ModelShape, Storage

__all__ = ["by_length_table", "memory_table", "model_table", "parameters_table", "segments_table"]


def model_table(shape: ModelShape, found: ModelGeometry | None, parameters: int, config: Any) -> Table:
    """Sizes, and the attention weights of a layer as built."""
    rows: list[list[Any]] = [
        ["type", config.model_type],
        ["parameters", parameters],
        ["attention layers", shape.num_layers],
        ["query heads (H)", shape.num_heads],
        ["key-value heads (H_G)", shape.num_kv_heads],
        ["head dimension (d)", shape.head_dim],
        ["queries of a token (d_H)", shape.query_dim],
        ["keys of a token (d_G)", shape.key_dim],
    ]
    if found is not None:
        rotary: Any = found.base.rotary_emb
        weights = {n: p.shape for n, p in found.attentions[0].named_parameters() if p.ndim == 2}
        rows += [[f"{n.removesuffix('.weight')} of a layer", " x ".join(map(str, s))] for n, s in weights.items()]
        rows += [
            ["rotated dimensions of a head", found.rotary_dim],
            ["rotary embedding", str(getattr(rotary, "rope_type", "default"))],
            ["trained context", found.trained_context],
        ]
    return Table("Model", ["what", "value"], rows)


def segments_table(config: ESAConfig) -> Table:
    """The segments in force beside the defaults."""
    paper = ESAConfig()
    rows: list[list[Any]] = [
        [what, letter, getattr(config, field), getattr(paper, field)]
        for what, letter, field in (
            ("initial", "l_I", "num_initial"),
            ("selected", "k", "num_selected"),
            ("local", "l_L", "num_local"),
            ("chunk", "l_C", "chunk_size"),
            ("attended at once", "l_I + k + l_L + l_C", "attended"),
            ("proximity", "eps", "proximity"),
            ("far position", "w", "w"),
        )
    ]
    note = "The paper gives l_I, k and l_L; l_C, eps and w are inferred, as the README says."
    return Table("Segments, tokens", ["segment", "letter", "here", "default"], rows, note)


def by_length_table(
    shape: ModelShape, config: ESAConfig, rank: int, storage: Storage, lengths: Sequence[int], dtype: str
) -> Table:
    """Operations and bytes of one step."""
    int8, bare = Storage.named(dtype, "int8"), Storage(storage.kv, 1)
    rows: list[list[Any]] = []
    for length in lengths:
        rows.append(
            [
                length,
                100 * costs.operations_ratio(shape, config, length, rank),
                costs.full_decode_bytes(shape, length, storage) / 1e6,
                costs.esa_decode_bytes(shape, config, length, rank, storage) / 1e6,
                *(costs.decode_ratio(shape, config, length, rank, s) for s in (storage, int8, bare)),
            ]
        )
    columns = ["tokens", "operations, %", "full, MB", "ESA, MB", "fewer bytes, times"]
    columns += ["with int8 index", "int8 without scales"]
    note = (
        f"Per layer. Operations: a chunk of {config.chunk_size}, of full attention's (Appendix A). MB (10^6 bytes) are "
        f"what one decoding step reads in {dtype}; an int8 index has a float32 scale a token."
    )
    return Table("One step by length", columns, rows, note)


def memory_table(shape: ModelShape, config: ESAConfig, rank: int, dtype: str, lengths: Sequence[int]) -> Table:
    """What a sequence holds."""
    rows: list[list[Any]] = []
    held = [costs.cache_bytes(shape, config, length, rank, Storage.named(dtype)) for length in lengths]
    name, unit = ("GB", 1e9) if max(h.kv for h in held) >= 1e9 else ("MB", 1e6)
    for length, h in zip(lengths, held, strict=True):
        int8 = costs.cache_bytes(shape, config, length, rank, Storage.named(dtype, "int8"))
        rows.append([length, h.kv / unit, h.index / unit, int8.index / unit, h.window / unit])
    overhead = 100 * costs.cache_overhead(shape, rank, Storage.named(dtype))
    note = (
        f"All layers, {dtype}. The index adds {overhead:.4g} % to keys and values. Buffers keep room to grow, up to as "
        "much again; new_cache(reserve=N) avoids it. Rotated local keys are not kept by the Triton kernels."
    )
    parts = ("keys and values", "index", "int8 index", "rotated local keys")
    return Table("Cache of one sequence", ["tokens", *(f"{part}, {name}" for part in parts)], rows, note)


def parameters_table(shape: ModelShape, rank: int) -> Table:
    """Parameters of the maps, as the paper has them and as they are here."""
    kinds = (
        ("all heads, with biases (paper)", False, True),
        ("folded, with biases", True, True),
        ("folded, no biases (closed form)", True, False),
    )
    rows: list[list[Any]] = []
    for kind, folded, bias in kinds:
        count = costs.compressor_parameters(shape, rank, folded=folded, bias=bias)
        rows.append([kind, count, 4 * count / 1e6])
    return Table(f"Compressor parameters, rank {rank}", ["maps", "parameters", "MB in fp32"], rows)
