r"""The theorem of the paper on real blocks: how far apart tokens can be after a sub-layer, at most.

For a block ``x <- s (x + branch(y) + paths(y))`` with y = norm(x), d the Frobenius distance to equal tokens:

- attention: :math:`d(out) \le |s| (d(x) + (\sqrt{\lambda H}\, s_v\, v + L) d(y))`, lambda the largest eigenvalue of
  :math:`A_h^T (I - ee^T) A_h` over heads, s_v the largest spectral norm of a head's value matrix, v that of the output
  projection (LayerScale included), L the paths' Lipschitz constant;
- MLP: the factor of the branch is ``Lip(act) |W_1| |W_2|``.

Biases shift all tokens alike and change nothing. An upper bound: it says nothing about how different tokens are.
(A restatement by the paper's group prints lambda without the root in one lemma, a misprint.)
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from timm.layers import Attention, LayerScale, Mlp
from torch import Tensor, nn

from augshortcut.injection.families import AugViTBlock
from augshortcut.injection.joining import Augmented
from augshortcut.ops.activations import LIPSCHITZ
from effkit.diversity import distance
from effkit.errors import UserError
from effkit.watching import evaluating, hooked

__all__ = ["block_bound", "collapse_bound"]

_ACTS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Identity: "identity"}


def _norm(weight: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(weight, 2)


def _scale(module: nn.Module, weight: Tensor, name: str) -> Tensor:
    """A projection's weight with LayerScale multiplied in."""
    if isinstance(module, nn.Identity):
        return weight
    if type(module) is LayerScale:
        return module.gamma.unsqueeze(1) * weight
    raise UserError(f"{name} is a {type(module).__name__}; the bound knows LayerScale or nothing there")


def _attention_maps(attn: Any, y: Tensor) -> Tensor:
    """``(B, H, N, N)``."""
    batch, tokens, _ = y.shape
    q, k, _ = attn.qkv(y).reshape(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return ((attn.q_norm(q) * attn.scale) @ attn.k_norm(k).transpose(-2, -1)).softmax(dim=-1)


def _attention_factor(block: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Factor of the branch and lambda, one each a picture."""
    attn = block.attn
    if type(attn) is not Attention or not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity):
        raise UserError(
            f"the bound knows timm's plain Attention, got {type(attn).__name__} (or one with a norm inside)"
        )
    if type(attn.qkv) is not nn.Linear or type(attn.proj) is not nn.Linear:
        raise UserError(f"the bound needs plain linear layers in attention, got {type(attn.qkv).__name__}")
    heads = attn.num_heads
    maps = _attention_maps(attn, y)
    centred = maps - maps.mean(dim=-2, keepdim=True)
    root = torch.linalg.matrix_norm(centred, 2).amax(dim=1)
    values = attn.qkv.weight.chunk(3)[2]
    s = torch.stack([_norm(head) for head in values.chunk(heads)]).max()
    v = _norm(_scale(block.ls1, attn.proj.weight, "ls1"))
    return root * math.sqrt(heads) * s * v, root.square()


def _mlp_factor(block: Any) -> Tensor:
    mlp = block.mlp
    if type(mlp) is not Mlp or not isinstance(mlp.norm, nn.Identity):
        raise UserError(f"the bound knows timm's plain Mlp, got {type(mlp).__name__} (or one with a norm inside)")
    act = mlp.act
    name = {"none": "gelu", "tanh": "gelu_tanh"}[act.approximate] if isinstance(act, nn.GELU) else _ACTS.get(type(act))
    if name is None or type(mlp.fc1) is not nn.Linear or type(mlp.fc2) is not nn.Linear:
        raise UserError(f"the bound needs linear layers and a known activation in the MLP, got {type(act).__name__}")
    return LIPSCHITZ[name] * _norm(mlp.fc1.weight) * _norm(_scale(block.ls2, mlp.fc2.weight, "ls2"))


def _row(layer: str, part: str, bound: Tensor, out: Tensor, x: Tensor, **more: float) -> dict[str, Any]:
    """The picture that comes nearest to its bound."""
    measured = distance(out)
    nearest = int((measured / bound.clamp_min(1e-300)).argmax())
    ratio = float(measured[nearest] / bound[nearest].clamp_min(1e-300))
    return {
        "layer": layer,
        "part": part,
        "d_in": float(distance(x)[nearest]),
        "d_out": float(measured[nearest]),
        "bound": float(bound[nearest]),
        "ratio": ratio,
        "holds": ratio <= 1 + 1e-9,
        **more,
    }


def block_bound(block: nn.Module, x: Tensor, name: str = "block") -> list[dict[str, Any]]:
    """The bound of both sub-layers of one block, in float64.

    Args:
        block: timm's ``vision_transformer.Block``, plain or augmented.
        x: Its input, ``(B, N, d)``.
        name: For messages and rows.

    Returns:
        A row for attention, one for the MLP: ``d_in``, ``d_out`` and ``bound`` of the picture nearest to its bound,
        their ``ratio``, ``paths`` (L), ``lambda`` (attention), and whether it ``holds``.

    Raises:
        UserError: If the block holds something whose norm is not known.
    """
    from timm.models.vision_transformer import Block

    if type(block) not in (Block, AugViTBlock):
        raise UserError(f"{name} is a {type(block).__name__}; the bound knows vision_transformer.Block")
    twin: Any = copy.deepcopy(block).double().cpu().eval()
    config = twin.aug_config if isinstance(twin, Augmented) else None
    rows = []
    with torch.no_grad():
        x = x.double().cpu()
        for part in ("attn", "mlp"):
            y = (twin.norm1 if part == "attn" else twin.norm2)(x)
            branch = twin.ls1(twin.attn(y)) if part == "attn" else twin.ls2(twin.mlp(y))
            shortcut = getattr(twin, f"aug_{part}", None)
            paths = 0.0 if shortcut is None else float(shortcut.lipschitz())
            scale = 1.0 if shortcut is None or config is None else config.residual_scale
            out = x + branch if shortcut is None else twin.join(part, x, branch, y, nn.Identity())
            tap = x if config is not None and config.tap == "input" else y
            more: dict[str, float] = {"paths": paths}
            if part == "attn":
                factor, spread = _attention_factor(twin, y)
                more["lambda"] = float(spread.max())
            else:
                factor = _mlp_factor(twin)
            bound = scale * (distance(x) + factor * distance(y) + paths * distance(tap))
            rows.append(_row(name, part, bound, out, x, **more))
            x = out
    return rows


def collapse_bound(model: nn.Module, images: Tensor) -> list[dict[str, Any]]:
    """The theorem's bound beside what happens, for every block of a ViT on pictures.

    Args:
        model: A timm model of ``vision_transformer.Block``, plain or augmented; stays as it is.
        images: ``(B, C, H, W)``.

    Returns:
        Two rows a block, see :func:`block_bound`.

    Raises:
        UserError: If it has no such block, or one holds something whose norm is not known.
    """
    from timm.models.vision_transformer import Block

    names = [name for name, module in model.named_modules() if type(module) in (Block, AugViTBlock)]
    if not names:
        raise UserError(f"{type(model).__name__} has no vision_transformer.Block, which the bound is about")
    inputs: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, args: Any, kwargs: Any) -> None:
            masks = [value for value in [*args[1:], *kwargs.values()] if isinstance(value, Tensor)]
            if masks:
                raise UserError(f"{name} runs with an attention mask, which the bound does not know")
            inputs[name] = args[0].detach()

        return keep

    with evaluating(model), hooked(model, names, hook, before=True):
        model(images)
    modules = dict(model.named_modules())
    return [row for name in names for row in block_bound(modules[name], inputs[name], name)]
