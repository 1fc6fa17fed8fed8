"""The command ``inspect``: what ESA would do to a model, from its configuration alone: no weights, no download.

The model is built on the meta device, so shapes and parameters are counted in the very modules that ESA would take
over, and what ESA refuses is refused here by the same code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from effkit.arguments import check_arguments, named_path
from effkit.errors import UserError
from effkit.report import Report, Table
from esa_attention.attention.rope import LENGTH_DEPENDENT
from esa_attention.commands.build import in_keys, plain
from esa_attention.commands.inspect_tables import (
    by_length_table,
    memory_table,
    model_table,
    parameters_table,
    segments_table,
)
from esa_attention.compression.geometry import ModelGeometry, geometry
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.registry import config_for
from esa_attention.integration import costs
from esa_attention.integration.apply import check_context
from esa_attention.integration.costs import ModelShape, Storage
from esa_attention.integration.model_shape import RANK, check_rank

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["LENGTHS", "inspect_report", "meta_model", "run"]

LENGTHS = (8_192, 32_768, 65_536, 131_072, 262_144, 1_048_576)


@in_keys
def run(cfg: Any) -> Report:
    """Run the command with a composed config."""
    options = plain(cfg)
    given = {k: options[k] for k in ("rank", "lengths", "dtype")}
    check_arguments(inspect_report, given)
    check_arguments(ESAConfig, options["esa"], "esa.", also=options["esa"])
    sizes = {k: v for k, v in options["esa"].items() if v is not None}
    model = options["model"]
    where = model["name"] if model["path"] is None else named_path("model.path", model["path"])
    return inspect_report(where, sizes, **given)


def inspect_report(
    model: str | os.PathLike[str] | PreTrainedConfig,
    config: ESAConfig | Mapping[str, Any] | None = None,
    *,
    rank: int = RANK,
    lengths: Sequence[int] = LENGTHS,
    dtype: str = "bf16",
) -> Report:
    """Say what ESA costs and saves with a model, and whether it can be applied.

    Args:
        model: A name that :func:`~esa_attention.evaluation.models.registry.config_for` knows, a folder with a
            ``config.json``, or a transformers configuration.
        config: Sizes and options, or those fields of them that are given; the rest is what ``apply_esa`` would take.
        rank: Compressed dimension.
        lengths: Tokens in all, for the tables by length.
        dtype: Of keys and values: ``bf16``, ``fp16`` or ``fp32``.

    Returns:
        Tables "Model", "Segments", "One step by length", "Cache of one sequence", "Compressor parameters" and "Can ESA
        be applied"; exit code 1 if it cannot. ``data`` has the same figures unformatted.

    Raises:
        UserError: If the model is unknown or no causal language model, or an argument is out of range.

    Example:
        >>> report = inspect_report("llama3_8b")
        >>> report.data["operations_ratio_limit"] == 257 / 16480
        True
    """
    name, transformers_config = _find(model)
    if not lengths:
        raise UserError("lengths must hold at least one number of tokens, got none")
    storage = Storage.named(dtype)
    shape = ModelShape.from_config(transformers_config)
    built = meta_model(transformers_config)
    found, refusal = _geometry(built)
    if found is not None:  # what was built is the truth
        shape = ModelShape(found.num_layers, found.num_heads, found.num_kv_heads, found.head_dim)
    check_rank(rank, shape)
    if not isinstance(config, ESAConfig):
        trained = int(getattr(transformers_config.get_text_config(), "max_position_embeddings", 8192))
        config = ESAConfig.for_context(found.trained_context if found else trained, **(config or {}))
    checks = _checks(found, refusal, config)
    by_length = by_length_table(shape, config, rank, storage, lengths, dtype)
    parameters = parameters_table(shape, rank)
    applicable = all(row[1] != "no" for row in checks.rows)
    data = {
        "model": name,
        "shape": {n: getattr(shape, n) for n in ("num_layers", "num_heads", "num_kv_heads", "head_dim")},
        "parameters": sum(p.numel() for p in built.parameters()),
        "operations_ratio_limit": costs.operations_ratio_limit(shape, rank),
        "cache_overhead": costs.cache_overhead(shape, rank, storage),
        "break_even_length": costs.break_even_length(shape, config, rank, storage),
        "by_length": [dict(zip(by_length.columns, row, strict=True)) for row in by_length.rows],
        "compressor_parameters": {row[0]: row[1] for row in parameters.rows},
        "applicable": applicable,
    }
    tables = [
        model_table(shape, found, data["parameters"], transformers_config),
        segments_table(config),
        by_length,
        memory_table(shape, config, rank, dtype, lengths),
        parameters,
        checks,
    ]
    title = f"ESA with {name}, from its configuration"
    return Report(title, tables, data, lines=[_in_words(data)], exit_code=0 if applicable else 1)


def _in_words(data: dict[str, Any]) -> str:
    return (
        f"With length the operations tend to {100 * data['operations_ratio_limit']:.4g} % of full attention's, the "
        f"bytes of a decoding step to one in {1 / data['cache_overhead']:.4g}: limits, which real lengths are far "
        f"from. A decoding step reads less than full attention from {data['break_even_length']:,} tokens on."
    )


def meta_model(config: PreTrainedConfig) -> Any:
    """The causal language model of a configuration, without memory for its weights.

    Args:
        config: A transformers configuration.

    Raises:
        UserError: If transformers has no causal language model for it, or cannot build it.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, AttributeError, ImportError, NotImplementedError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        kind = config.model_type
        raise UserError(f"model of type {kind!r} cannot be built as a causal language model: {first}") from error


def _find(model: str | os.PathLike[str] | PreTrainedConfig) -> tuple[str, PreTrainedConfig]:
    if not isinstance(model, (str, os.PathLike)):
        return str(model.model_type), model
    if Path(model).is_dir():
        from transformers import AutoConfig

        try:
            return Path(model).name, AutoConfig.from_pretrained(os.fspath(model), local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"model={os.fspath(model)!r} has no configuration that transformers can read") from error
    return str(model), config_for(os.fspath(model))


def _geometry(model: Any) -> tuple[ModelGeometry | None, str]:
    """What ESA sees of the model, or why it refuses."""
    try:
        return geometry(model), ""
    except UserError as error:
        return None, str(error)


def _checks(found: ModelGeometry | None, refusal: str, config: ESAConfig) -> Table:
    rows: list[list[Any]] = [["model is supported", "no" if found is None else "yes", refusal]]
    if found is not None:
        rows.append(_fits(config, found.trained_context))
        rows.append(_rotary(config, found))
    return Table("Can ESA be applied", ["check", "answer", "reason"], rows)


def _fits(config: ESAConfig, trained: int) -> list[Any]:
    """Ask what :func:`~esa_attention.integration.apply.apply_esa` asks; it warns where it could go on."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            check_context(config, trained)
        except UserError as error:
            return ["sizes fit the trained context", "no", str(error)]
    if said:
        return ["sizes fit the trained context", "with a warning", str(said[0].message)]
    return ["sizes fit the trained context", "yes", f"{config.attended:,} of {trained:,} tokens"]


def _rotary(config: ESAConfig, found: ModelGeometry) -> list[Any]:
    """A rotary embedding that changes with the length goes with ESA, but not with true positions at any length."""
    check, kind = "rotary embedding", str(getattr(found.base.rotary_emb, "rope_type", "default"))
    if kind not in LENGTH_DEPENDENT:
        return [check, "yes", f"type {kind}"]
    if config.method == "full" or config.dense_until not in (0, "auto"):
        return [check, "no", f"type {kind} changes with the length; method='full' and dense_until cannot be used"]
    return [check, "yes", f"type {kind}; tables are made for the attended length"]
