"""ESA on a transformers model in one line: ``handle = apply_esa(model, config, compressors)``.

The model stays the same object with the same weights. ``handle.remove()`` gives back its own attention, and the handle
is a context manager that does so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from effkit.errors import UserError
from esa_attention.compression.compressor import Compressors
from esa_attention.compression.geometry import ModelGeometry, geometry
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.graphs import CudaGraph
from esa_attention.integration.handle import ESAHandle
from esa_attention.integration.verify import check_handle
from esa_attention.ops.checks import check_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["apply_esa", "check_context"]


def apply_esa(
    model: PreTrainedModel,
    config: ESAConfig | None = None,
    compressors: Compressors | Sequence[QKCompressor] | None = None,
    *,
    verify: bool = True,
    strict: bool = True,
    cuda_graphs: bool = False,
) -> ESAHandle:
    """Let a model read past its trained context with ESA.

    Args:
        model: A causal language model with RoPE and full attention in every layer (Llama, Mistral, Qwen2, Qwen3 ...).
        config: Sizes and options; those of the paper, made smaller if the model's context asks for it, if not given.
        compressors: From :func:`esa_attention.calibrate` or :func:`esa_attention.load_compressors`; exact scores (no
            compression, more to read per step) if not given.
        verify: Compare every layer's attention on a few tokens with the model's own before returning. It costs one pass
            over the attention weights and finds models whose rotary embedding is of a kind ESA does not know.
        strict: Compare also the weights the compressors were calibrated on with the model's.
        cuda_graphs: Record the decoding step of the decoder and replay it while the sequence grows; the tokens are the
            same. Give ``new_cache(reserve=N)`` room: where a buffer has to grow, the step is recorded anew.

    Returns:
        A handle with ``new_cache()`` and ``remove()``; also a context manager.

    Raises:
        UserError: If the model is not supported, sizes exceed its trained context, or the compressors are not its.

    Example:
        >>> handle = apply_esa(model, ESAConfig(), compressors)  # doctest: +SKIP
        >>> model.generate(input_ids, max_new_tokens=32)  # doctest: +SKIP
        >>> handle.remove()  # doctest: +SKIP
    """
    shape = geometry(model)
    if next(model.parameters()).device.type == "meta":
        raise UserError(f"model={type(model).__name__} is on the meta device, without weights; load it first")
    where = sorted({str(p.device) for p in model.parameters()})
    if cuda_graphs and (len(where) > 1 or not where[0].startswith("cuda")):
        raise UserError(f"cuda_graphs=True needs a model on one CUDA device, this one is on {', '.join(where)}")
    config = ESAConfig.for_context(shape.trained_context) if config is None else config
    check_context(config, shape.trained_context)
    if compressors is None:
        layers: list[QKCompressor] = [QKCompressor.exact(shape.num_kv_heads, shape.head_dim)] * shape.num_layers
    else:
        _check_compressors(compressors, model, shape, config, strict)
        layers = list(compressors)
    handle = ESAHandle(model, config, layers)
    try:
        if config.method == "full" or config.dense_until not in (0, "auto"):
            _check_length_dependence(handle)
        if verify:
            check_handle(handle)
        if cuda_graphs:
            handle.replay(CudaGraph)
    except BaseException:
        handle.remove()
        raise
    return handle


def check_context(config: ESAConfig, trained: int) -> None:
    """Check that no position exceeds what a model was trained on; warn where more tokens are attended to at once.

    Args:
        config: Sizes and options.
        trained: The model's trained context.

    Raises:
        UserError: If local positions or the far position exceed it.
    """
    near = config.num_local + config.chunk_size
    if config.method != "full" and near > trained:
        raise UserError(
            f"num_local + chunk_size = {near} positions exceed the model's trained context of {trained}; "
            f"make them smaller, or use ESAConfig.for_context({trained})"
        )
    if config.method != "full" and config.w > trained:
        raise UserError(f"far_position must be at most the model's trained context of {trained}, got {config.w}")
    if config.method != "full" and config.attended > trained:
        warnings.warn(
            f"num_initial + num_selected + num_local + chunk_size = {config.attended} tokens are attended to at once, "
            f"more than the model's trained context of {trained}",
            stacklevel=3,
        )


def _check_compressors(
    compressors: Compressors | Sequence[QKCompressor],
    model: PreTrainedModel,
    shape: ModelGeometry,
    config: ESAConfig,
    strict: bool,
) -> None:
    if len(compressors) != shape.num_layers:
        raise UserError(
            f"compressors must be one a layer, the model has {shape.num_layers} layers, got {len(compressors)}"
        )
    for index, layer in enumerate(compressors):
        if layer.key_dim != shape.key_dim:
            raise UserError(
                f"the compressor of layer {index} is made for keys of {layer.key_dim} numbers, the model's have "
                f"{shape.key_dim}"
            )
        check_finite(f"the compressor of layer {index}", **layer.tensors())
    if isinstance(compressors, Compressors):
        compressors.check_model(model, strict=strict)
        far = compressors.far_position
        if far is not None and far != config.w and compressors.method != "exact":
            raise UserError(
                f"far_position is {config.w}, but the compressors were calibrated for {far}; give far_position={far}, "
                "or calibrate again"
            )


def _check_length_dependence(handle: ESAHandle) -> None:
    """Full attention at true positions needs tables that do not change as the sequence grows.

    Raises:
        UserError: If the model's do.
    """
    if handle.tables.length_dependent:
        raise UserError(
            f"method='full' and dense_until need a rotary embedding that does not depend on the length; this model's "
            f"is of type {handle.tables.rope_type!r}"
        )
