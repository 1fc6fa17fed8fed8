r"""A two-layer Llama with written-down weights that retrieves by induction: no training, answers known in advance.

The residual stream of width ``3 V + 16`` (``V`` the vocabulary) has three blocks and a constant: the token itself,
one-hot, in ``[0, V)``; the token before it in ``[V, 2V)``; the output in ``[2V, 3V)``; a 1 at ``3V``.

* Layer 0 copies the previous token. Query and key come from the constant: on the ``V/4`` fastest RoPE pairs
  :math:`q_i = (a, 0)` and :math:`k_i = (a \cos\theta_i, a \sin\theta_i)`, that is, the key is rotated one step ahead:
  :math:`q_m \cdot k_n = a^2 \sum_i \cos((m - n - 1) \theta_i)` is largest at distance one.
* Layer 1 looks for a token whose predecessor is the present token. A random :math:`\pm 1` code of ``V/2`` dimensions on
  the ``V/4`` slowest pairs carries it: :math:`q = b\,code(token)`, :math:`k = b\,code(previous)`.

So after ``... key value ... key`` the largest logit is that of ``value``. The slow pairs turn by
:math:`\theta^{-1/2}` to :math:`\theta^{-1}` radians per token: with ``rope_theta=1e7`` retrieval works over many
thousand tokens, with ``1e4`` full attention loses it past some hundred - out of distribution on purpose, as a trained
model past its context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from effkit.errors import UserError
from esa_attention.evaluation.models.blank import blank_model, placed

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["constructed_config", "constructed_induction"]

POSITION_GAIN = 24.0  # a: far above the noise of a softmax over 65,536 keys, still far from overflow in float16
CODE_GAIN = 6.0  # b


def constructed_config(
    rope_theta: float = 1e4, vocab_size: int = 128, max_position_embeddings: int = 512
) -> LlamaConfig:
    """Configuration of :func:`constructed_induction`: 2 layers, 2 query heads on 1 key-value head of ``vocab_size``.

    Args:
        rope_theta: Base of the rotary frequencies.
        vocab_size: Number of tokens and also the head dimension; a multiple of 4, at least 64.
        max_position_embeddings: The context the model is said to have; only a label, no weight depends on it.

    Raises:
        UserError: If an argument is out of range.
    """
    from transformers import LlamaConfig

    if vocab_size < 64 or vocab_size % 4:
        raise UserError(f"vocab_size must be a multiple of 4 and at least 64, got {vocab_size}")
    if rope_theta <= 1:
        raise UserError(f"rope_theta must be above 1, got {rope_theta}")
    if max_position_embeddings < 1:
        raise UserError(f"max_position_embeddings must be at least 1, got {max_position_embeddings}")
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=3 * vocab_size + 16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=vocab_size,
        max_position_embeddings=max_position_embeddings,
        rms_norm_eps=1e-8,
        rope_parameters={"rope_type": "default", "rope_theta": float(rope_theta)},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )


def constructed_induction(
    rope_theta: float = 1e4,
    vocab_size: int = 128,
    max_position_embeddings: int = 512,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LlamaForCausalLM:
    """Build the retrieval model with known answers.

    Args:
        rope_theta: ``1e7`` retrieves far with full attention, ``1e4`` only within some hundred tokens.
        vocab_size: Number of tokens ``V``, also the head dimension; a multiple of 4, at least 64.
        max_position_embeddings: The context written into the configuration.
        seed: Of the random codes of layer 1.
        dtype: Of the weights.
        device: Where they live.

    Returns:
        A stock ``LlamaForCausalLM`` in evaluation mode. The logit of what followed the present token before is 10 if
        nothing competes; ``n`` equally good answers share it.

    Raises:
        UserError: If an argument is out of range.

    Example:
        >>> model = constructed_induction()
        >>> int(model(torch.tensor([[100, 5, 60, 101, 102, 5]])).logits[0, -1].argmax())
        60
    """
    from transformers import LlamaForCausalLM

    config = constructed_config(rope_theta, vocab_size, max_position_embeddings)
    model = blank_model(LlamaForCausalLM, config)
    _write_weights(model, seed)
    return placed(model, device, dtype)


@torch.no_grad()
def _write_weights(model: LlamaForCausalLM, seed: int) -> None:
    vocab, width = model.config.vocab_size, model.config.hidden_size
    half, quarter = vocab // 2, vocab // 4
    token = torch.arange(vocab)
    previous, output, constant = vocab + token, 2 * vocab + token, 3 * vocab
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "norm" in name else 0.0)
    # RMS norm divides by sqrt(ones / width); undone in the weights, so that a, b and the copied ones are what they say.
    seen_by_layer_0, seen_by_layer_1 = (2 / width) ** 0.5, (3 / width) ** 0.5

    embedding = model.model.embed_tokens.weight
    embedding[token, token] = 1.0
    embedding[:, constant] = 1.0
    shift, induction = (layer.self_attn for layer in model.model.layers)

    angles = model.model.rotary_emb.inv_freq[:quarter].float()
    fast = torch.arange(quarter)
    gain = POSITION_GAIN * seen_by_layer_0
    shift.q_proj.weight[fast, constant] = gain  # head 0; head 1 stays silent in both layers
    shift.k_proj.weight[fast, constant] = gain * angles.cos()
    shift.k_proj.weight[fast + half, constant] = gain * angles.sin()
    shift.v_proj.weight[token, token] = seen_by_layer_0
    shift.o_proj.weight[previous, token] = 1.0

    generator = torch.Generator().manual_seed(seed)
    code = 2.0 * torch.randint(0, 2, (half, vocab), generator=generator) - 1.0
    slow = torch.arange(quarter, half)
    rows = torch.cat([slow, slow + half])[:, None]
    gain = CODE_GAIN * seen_by_layer_1
    induction.q_proj.weight[rows, token] = gain * code
    induction.k_proj.weight[rows, previous] = gain * code
    induction.v_proj.weight[token, token] = seen_by_layer_1
    induction.o_proj.weight[output, token] = 1.0

    model.lm_head.weight[token, output] = 1.0
