"""What a backbone costs by its structure alone: counted on the meta device, where nothing takes memory or time."""

from __future__ import annotations

from typing import Any

import torch

from effkit.cost import count_params, measure_image, on_meta
from tnt_vit.survey.models import build
from tnt_vit.survey.registry import Backbone
from tnt_vit.survey.traffic import traffic

__all__ = ["count"]

# Elsewhere is in modules without a weight of their own: products of tokens with tokens, in what is written as usual.
_PARTS = ("convolutions", "linear layers", "elsewhere")


def count(backbone: Backbone) -> dict[str, Any]:
    """Parameters, MACs and memory traffic of one picture.

    Args:
        backbone: What to count; weights are not needed.

    Returns:
        ``params``, ``trainable``, ``macs``, ``macs_by`` (convolutions, linear layers, and elsewhere: attention
        products, unless a model calls functions in place of layers), ``weight_bytes`` in float32, ``uncounted``
        operators that may hide products, and of :class:`tnt_vit.survey.traffic.Traffic` ``activations`` and
        ``traffic`` (``weights``, ``picture``).

    Raises:
        Skipped: If there is no such network here.
    """
    model = on_meta(lambda: build(backbone))
    cost = measure_image(model.net, backbone.size)
    modules = dict(model.net.named_modules())
    parts = dict.fromkeys(_PARTS, 0)
    for layer in cost.layers:
        module = modules[layer.name]
        weight = getattr(module, "weight", None)
        dims = weight.ndim if isinstance(weight, torch.Tensor) else 0
        parts[_PARTS[0] if dims > 2 else _PARTS[1] if dims == 2 else _PARTS[2]] += layer.macs
    moved = traffic(model.net, backbone.size)
    return {
        "params": cost.params,
        "trainable": count_params(model.net, trainable_only=True),
        "macs": cost.macs,
        "macs_by": parts,
        "weight_bytes": 4 * cost.params,
        "activations": moved.activations,
        "traffic": {"weights": moved.weights, "picture": moved.picture},
        "uncounted": list(cost.uncounted),
    }
