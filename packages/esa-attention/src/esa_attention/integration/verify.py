"""Is a patched layer still the model's layer? Short sequences are all local, where ESA is plain causal attention.

Rotary embeddings come in conventions (halves or neighbours, partial, scaled) that no attribute names, and attention may
work on what the cache returns. A wrong guess gives fluent nonsense, so every layer is run on a few random vectors with
and without ESA, reading and decoding with a cache, and compared.

It is compared in float32, on a copy: what bfloat16 rounds away would hide a wrong convention. Layers whose weights are
no floating numbers (quantised) or elsewhere (offloaded) are compared on a layer of their class and sizes with other
weights, since what can be wrong is in the code.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from effkit.errors import UserError
from esa_attention.attention.cache.cache import ESACache
from esa_attention.compression.geometry import geometry
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.integration.cache_argument import CACHE_NAMES
from esa_attention.integration.handle import ESAHandle
from esa_attention.integration.interface import HANDLER, IMPLEMENTATION

__all__ = ["check_handle", "check_model"]

_PARTS = (8, 1, 3)  # tokens of the passes: reading, decoding, and several more at once
_TOKENS = sum(_PARTS)
# Largest difference over largest magnitude. A wrong convention gives about 1; what is allowed is rounding alone.
_ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-4}


# What models raise when they are called in a way they do not know.
_RAW = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


class _Unknown(Exception):
    """A layer that cannot be run by itself; says why."""


def check_handle(handle: ESAHandle) -> None:
    """Compare the patched model with itself: what its attention is given, and what every layer gives.

    Raises:
        UserError: If it asks for something that ESA does not know, or gives something else.
    """
    _check_call(handle)
    _check_layers(handle)


def check_model(model: Any) -> None:
    """Compare the layers of a model that ESA is not applied to; it is left as it was.

    Raises:
        UserError: If the model is not supported.
    """
    shape = geometry(model)
    exact = QKCompressor.exact(shape.num_kv_heads, shape.head_dim)
    with ESAHandle(model, ESAConfig(), [exact] * shape.num_layers) as handle:
        _check_layers(handle)


def _check_layers(handle: ESAHandle) -> None:
    """Compare the patched model's layers with what they give by their own attention.

    Raises:
        UserError: If one differs by more than rounding, or cannot be compared.
    """
    shape = handle.geometry
    name = f"model={type(handle.model).__name__} ({shape.model_type})"
    seen: set[Any] = set()
    for index, module in enumerate(shape.attentions):
        made = not _is_plain(module)
        if made and (kind := _kind(module)) in seen:
            continue
        try:
            layer = _made_anew(module) if made else _copied(module)
            with torch.no_grad():
                difference = _difference(handle, layer, index)
                if not made and not math.isfinite(difference):  # weights that are NaN: calls will say so
                    layer = _made_anew(module)
                    difference = _difference(handle, layer, index)
        except UserError as error:
            raise UserError(f"{name} is not supported: layer {index} with ESA: {error}") from error
        except _Unknown as error:
            raise UserError(f"{name} is not supported: layer {index} {error}") from error
        except _RAW as error:
            raise UserError(
                f"{name} is not supported: layer {index} cannot be run by itself to compare it ({_said(error)})"
            ) from error
        if made:
            seen.add(kind)
        if not difference <= _ALLOWED[_dtype(layer)]:
            raise UserError(
                f"{name} is not supported: with ESA layer {index} differs from its own attention by "
                f"{difference:.2g} of its size on {_TOKENS} tokens; its rotary embedding or attention is of a kind ESA "
                "does not know"
            )


class _Reached(Exception):
    """The first layer is reached; carries what it is given."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


def _check_call(handle: ESAHandle) -> None:
    """Run the decoder up to its first attention, on three tokens of which one is padding.

    Raises:
        UserError: If it asks for a mask that ESA does not know, or loses the padding on the way.
    """
    shape = handle.geometry
    name = f"model={type(handle.model).__name__} ({shape.model_type})"
    base: Any = shape.base
    weight = base.get_input_embeddings().weight
    device = torch.device("cpu") if weight.device.type == "meta" else weight.device

    def reached(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        raise _Reached(kwargs)

    padded = torch.tensor([[0, 1, 1]], device=device)
    hook = shape.attentions[0].register_forward_pre_hook(reached, with_kwargs=True)
    try:
        with torch.no_grad():
            base(input_ids=padded, attention_mask=padded)
    except _Reached as stop:
        mask = stop.given.get("attention_mask")
    except UserError as error:
        raise UserError(f"{name} is not supported: {error}") from error
    except _RAW as error:
        raise UserError(f"{name} is not supported: it cannot be called with token ids ({_said(error)})") from error
    else:
        raise UserError(f"{name} is not supported: its first layer is not reached")
    finally:
        hook.remove()
    if not isinstance(mask, Tensor) or mask.tolist() != [[False, True, True]]:
        raise UserError(f"{name} is not supported: its attention does not get the padding mask")


def _is_plain(module: nn.Module) -> bool:
    """Whether all weights are here and floating: then a copy can be run in float32."""
    held = [*module.parameters(), *module.buffers()]
    # Quantised layers of torch hold packed weights that are neither.
    quantised = any(type(m).__module__.startswith(("torch.ao", "bitsandbytes", "torchao")) for m in module.modules())
    return not quantised and all(t.is_floating_point() and t.device.type != "meta" for t in held) and bool(held)


def _kind(module: nn.Module) -> Any:
    """What may make layers of one class differ: their plain attributes."""
    plain = {n: v for n, v in vars(module).items() if isinstance(v, bool | int | float | str) and n != "layer_idx"}
    return type(module), tuple(sorted(plain.items(), key=lambda item: item[0]))


def _dtype(layer: nn.Module) -> torch.dtype:
    return next(p.dtype for p in layer.parameters() if p.is_floating_point())


def _copied(module: nn.Module) -> nn.Module:
    """A copy in float32, or in float64 where the layer is."""
    handler = getattr(module, HANDLER)
    layer = copy.deepcopy(module, {id(handler): handler})
    return layer.to(torch.promote_types(_dtype(layer), torch.float32)).eval()


def _made_anew(module: nn.Module) -> nn.Module:
    """A layer of the same class and sizes in float32, with weights of its own."""
    config = copy.deepcopy(module.config)
    try:
        # The caller's random numbers go on as if nothing had been drawn.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            layer: nn.Module = type(module)(config, layer_idx=module.layer_idx).float().eval()  # type: ignore[call-arg]
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _Unknown(
            f"has weights that cannot be compared in float32, and no other {type(module).__name__} can be made "
            f"({type(error).__name__}); verify=False applies ESA without comparing"
        ) from error
    setattr(layer, HANDLER, getattr(module, HANDLER))
    return layer


def _difference(handle: ESAHandle, layer: Any, index: int) -> float:
    """Largest difference between the layer's own attention and ESA's, over the largest magnitude."""
    base: Any = handle.geometry.base
    first = next(layer.parameters())
    generator = torch.Generator().manual_seed(index)
    hidden = torch.randn(1, _TOKENS, base.config.hidden_size, generator=generator).to(first)
    layer.config, layer.layer_idx = copy.deepcopy(layer.config), 0  # the caches here have one layer
    rotary = copy.deepcopy(base.rotary_emb.original).to(first.device)

    layer.config._attn_implementation = "eager"
    own = _run(layer, hidden, rotary, DynamicCache(), eager=True)
    if not bool(torch.isfinite(own).all()):
        return math.nan
    layer.config._attn_implementation = IMPLEMENTATION
    # Sizes under which a few tokens are all local, whatever the user's are; and full attention, if it is ever used.
    config = ESAConfig(num_local=_TOKENS, chunk_size=_TOKENS, backend="torch", dense_until=0)
    dense = config.replace(dense_until=0 if handle.tables.length_dependent else _TOKENS)
    exact = QKCompressor.exact(handle.geometry.num_kv_heads, handle.geometry.head_dim)
    differences = []
    users, handle.config = handle.config, config
    try:
        for cache in (ESACache(config, [exact], handle.tables), ESACache(dense, [exact], handle.tables), None):
            ours = _run(layer, hidden, base.rotary_emb, cache, eager=False)
            differences.append((ours.double() - own.double()).abs().max())
    finally:
        handle.config = users
    return float(torch.stack(differences).max() / own.double().abs().max().clamp(min=1e-30))


def _run(layer: Any, hidden: Tensor, rotary: nn.Module, cache: Any, *, eager: bool) -> Tensor:
    """Outputs of a layer for passes that follow one another, or for one pass without a cache."""
    names = inspect.signature(type(layer).forward).parameters
    cache_name = next((n for n in CACHE_NAMES if n in names), None)
    if cache_name is None:
        raise _Unknown(f"({type(layer).__name__}) takes no cache")
    outputs, past = [], 0
    for tokens in _PARTS if cache is not None else (_TOKENS,):
        part, positions = hidden[:, past : past + tokens], torch.arange(past, past + tokens, device=hidden.device)[None]
        # As eager attention wants it; ESA knows what is causal.
        seen = torch.ones(tokens, past + tokens, dtype=torch.bool, device=hidden.device).tril(past)
        mask = torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, torch.finfo(hidden.dtype).min)[None, None]
        given = {
            "hidden_states": part,
            "position_embeddings": rotary(part, positions),
            "attention_mask": mask if eager else None,
            "position_ids": positions,
            cache_name: cache,
        }
        if isinstance(cache, ESACache):
            cache.begin(tokens)
        outputs.append(layer(**{n: v for n, v in given.items() if n in names})[0])
        if isinstance(cache, ESACache):
            cache.end()
        past += tokens
    return torch.cat(outputs, dim=1)
