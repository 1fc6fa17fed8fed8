"""Rows that are worked out here and now: operations, cache, parameters, bytes, and settings shared with the paper.

Of the costs the paper prints two, 1.56 % and 6.25 %. The rest is arithmetic on its formulas, done by hand before
("computed").
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from effkit.rows import Row, Tolerance, counted_row
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.geometries import published_shape
from esa_attention.integration import costs
from esa_attention.integration.costs import Storage
from esa_attention.paper import figures as paper

__all__ = ["bytes_rows", "cost_rows", "setting_rows"]

NAMES = {"llama3_8b": "Llama-3-8B", "mistral_7b": "Mistral-7B-v0.2", "qwen3_8b": "Qwen3-8B"}
FORMULA = "closed form of Appendix A"
OURS = "closed form, not in the paper"
INT8_BARE = Storage(kv=2, index=1)

_row = partial(counted_row, source=OURS)


def _rounds(figure: str | float) -> dict[str, Any]:
    """To as many decimals as written."""
    text = str(figure)
    return {"tolerance": Tolerance("rounds_to", decimals=len(text.split(".")[1]) if "." in text else 0)}


def cost_rows() -> list[Row]:
    """Operations, cache overhead and parameters of the compressors (Appendix A)."""
    rows: list[Row] = []
    printed = {"unit": "%", "source": "Appendix A", "evidence": "printed"}

    def limit(model: str) -> Callable[[], float]:
        return lambda: 100 * costs.operations_ratio_limit(published_shape(model))

    def overhead(model: str) -> Callable[[], float]:
        return lambda: 100 * costs.cache_overhead(published_shape(model))

    def ratio(model: str, length: int) -> Callable[[], float]:
        return lambda: 100 * costs.operations_ratio(published_shape(model), ESAConfig(), length)

    def count(model: str, folded: bool, bias: bool) -> Callable[[], float]:
        return lambda: costs.compressor_parameters(published_shape(model), folded=folded, bias=bias)

    for model in paper.GEOMETRY_OF_APPENDIX_A:
        name, figure = NAMES[model], paper.RATIO_LIMIT
        metric = "operations, of full attention's"
        rows.append(_row("cost", name, f"{metric}, limit", figure, limit(model), **printed, **_rounds(figure)))
        for length, percent in paper.FINITE_RATIOS.items():
            more = {"unit": "%", "source": FORMULA, **_rounds(percent)}
            rows.append(_row("cost", name, f"{metric}, at {length:,} tokens", percent, ratio(model, length), **more))
        figure = paper.CACHE_OVERHEAD
        rows.append(_row("cost", name, "compressed keys, of keys and values", figure, overhead(model), **printed))
    for model, counts in paper.COMPRESSOR_PARAMETERS.items():
        for words, figure, folded, bias in (
            ("all heads, with biases (the paper's)", counts.unfolded, False, True),
            ("folded, with biases", counts.folded, True, True),
            ("folded, no biases", counts.without_biases, True, False),
        ):
            metric = f"parameters of the maps: {words}"
            rows.append(_row("cost", NAMES[model], metric, figure, count(model, folded, bias)))
    return rows


def bytes_rows() -> list[Row]:
    """Bytes that a decoding step reads; the paper reports no latency and no bytes."""
    rows: list[Row] = []
    name = NAMES["llama3_8b"]
    ours = Storage.named("bf16", "int8")

    def ratio(length: int, storage: Storage) -> Callable[[], float]:
        return lambda: costs.decode_ratio(published_shape("llama3_8b"), ESAConfig(), length, storage=storage)

    def limit(storage: Storage) -> Callable[[], float]:
        return lambda: costs.decode_ratio_limit(published_shape("llama3_8b"), storage=storage)

    bare, scaled = f"{name}, int8 index without scales", f"{name}, int8 index"
    for length, figures in paper.BYTES_RATIOS.items():
        metric, (bf16, int8) = f"times fewer bytes at {length:,} tokens", figures
        rows += [
            _row("bytes", name, metric, float(bf16), ratio(length, Storage()), **_rounds(bf16)),
            _row("bytes", bare, metric, float(int8), ratio(length, INT8_BARE), **_rounds(int8)),
            _row("bytes", scaled, metric, None, ratio(length, ours)),
        ]
    metric, (bf16, int8) = "times fewer bytes, limit", paper.BYTES_RATIO_LIMITS
    rows += [
        _row("bytes", name, metric, float(bf16), limit(Storage())),
        _row("bytes", bare, metric, float(int8), limit(INT8_BARE)),
        _row("bytes", scaled, metric, None, limit(ours)),
    ]

    def break_even() -> float:
        return (costs.break_even_length(published_shape("llama3_8b"), ESAConfig()) or math.inf) / 1e3

    more = {"unit": "k tokens", **_rounds(paper.BREAK_EVEN)}
    return [*rows, _row("bytes", name, "break-even length", paper.BREAK_EVEN, break_even, **more)]


def _default(argument: str) -> Any:
    """Of ``calibrate``."""
    from esa_attention.calibration import calibrate  # loads torch

    return inspect.signature(calibrate).parameters[argument].default


def setting_rows() -> list[Row]:
    """What the paper states of its settings against our defaults, and what had to be inferred."""
    printed = {"source": "section 4", "evidence": "printed"}

    def field(name: str) -> Callable[[], float]:
        return lambda: getattr(ESAConfig(), name)

    def argument(name: str) -> Callable[[], float]:
        return lambda: _default(name)

    def steps() -> float:
        return _default("epochs") * math.ceil(_default("num_tokens") / _default("sgd_batch_size"))

    rows = [_row("settings", "segments", n, v, field(n), **printed) for n, v in paper.DEFAULTS.items()]
    rows += [_row("settings", "calibration", n, v, argument(n), **printed) for n, v in paper.TRAINING.items()]
    source = "50,000 tokens in batches of 128, 10 times"
    rows.append(_row("settings", "calibration", "steps", paper.TRAINING_STEPS, steps, source=source))
    for name, (value, why) in paper.INFERRED.items():
        inferred = {"source": f"not stated; {why}", "evidence": "unverified"}
        rows.append(_row("settings", "segments", name, value, field(name), **inferred))
    return rows
