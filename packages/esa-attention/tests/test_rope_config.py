"""Rotary tables, segments and the configuration."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from effkit.errors import UserError
from esa_attention.attention.rope import RopeTables
from esa_attention.attention.segments import segments
from esa_attention.config import ESAConfig

SCALINGS = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
}


def _rotary(name):
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=256, rope_parameters=SCALINGS[name]
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("name", list(SCALINGS))
def test_rotation_is_the_models_own(name):
    rotary = _rotary(name)
    tables = RopeTables(rotary)
    x = torch.randn(2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary(x, torch.arange(5, 14)[None])
    expected, _ = apply_rotary_pos_emb(x, x, cos, sin)
    torch.testing.assert_close(tables.rotate(x, 5), expected, rtol=0, atol=1e-6)
    assert tables.length_dependent == (name == "dynamic")


@pytest.mark.parametrize("name", list(SCALINGS))
def test_far_queries_meet_unrotated_keys_as_if_those_stood_at_zero(name):
    """YaRN's factor is in the tables at position 0 too, so an unrotated key is not one at position 0."""
    rotary = _rotary(name)
    tables = RopeTables(rotary)
    q, k = (torch.randn(3, 1, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    expected = (tables.rotate(q, 30) * tables.rotate(k, 0)).sum(-1)
    torch.testing.assert_close((tables.rotate_far(q, 30) * k).sum(-1), expected, rtol=0, atol=1e-5)
    if name == "yarn":
        assert tables.attention_scaling > 1.1


def test_only_differences_of_positions_matter():
    tables = RopeTables.standard(16)
    q, k = (torch.randn(1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    near = (tables.rotate(q, 13) * tables.rotate(k, 3)).sum()
    far = (tables.rotate(q, 1013) * tables.rotate(k, 1003)).sum()
    assert abs(near - far) < 1e-4  # the tables are float32


def test_partial_rotation_leaves_the_rest_alone():
    tables = RopeTables.standard(16, rotary_dim=6)
    x = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0))
    turned = tables.rotate(x, 2)
    assert torch.equal(turned[..., 6:], x[..., 6:])
    assert not torch.equal(turned[..., :6], x[..., :6])
    fixed = tables.rotate(x, 2, fixed=True)
    torch.testing.assert_close(fixed[:, 0], turned[:, 0])
    torch.testing.assert_close(fixed[:, 3], tables.rotate(x[:, 3:], 2)[:, 0])


def test_half_precision_is_rotated_in_float32():
    tables = RopeTables.standard(16)
    x = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(tables.rotate(x, 900), tables.rotate(x.float(), 900).bfloat16())


def test_tables_do_not_disturb_the_models_module():
    rotary = _rotary("dynamic")
    before = rotary.inv_freq.clone()
    tables = RopeTables(rotary)
    tables.tables(2000, torch.device("cpu"))
    assert torch.equal(rotary.inv_freq, before)


@pytest.mark.parametrize("past", range(30))
def test_segments_partition_the_past(past):
    cut = segments(past + 2, past + 5, num_initial=4, num_local=7, start=2)
    assert cut.start == 2
    assert cut.current == past + 2
    assert cut.current - cut.local == min(7, past)
    assert cut.initial_end - 2 == min(4, past - min(7, past))
    assert cut.num_middle == max(0, past - 11)


def test_defaults_are_the_papers():
    config = ESAConfig()
    assert (config.num_initial, config.num_selected, config.num_local) == (128, 2048, 4096)
    assert config.w == 4096
    assert config.attended == 6784
    assert config.choosing_block == 512
    assert ESAConfig(selection="strict_causal").choosing_block == 1
    assert ESAConfig(selection="strict_causal", selection_block=8).choosing_block == 8


@pytest.mark.parametrize("context", [16, 128, 512, 4096, 6783, 6784, 131072])
def test_for_context_fits(context):
    config = ESAConfig.for_context(context)
    assert config.attended <= context
    assert config.num_local + config.chunk_size <= context
    if context >= 6784:
        assert config == ESAConfig()
    assert ESAConfig.for_context(context, proximity=1).proximity == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_selected", 0),
        ("num_local", 0),
        ("chunk_size", 0),
        ("chunk_size", 2.5),
        ("num_initial", -1),
        ("proximity", -1),
        ("far_position", -1),
        ("selection_block", 0),
        ("rerank_factor", 0),
        ("reuse_threshold", 1.5),
        ("dense_until", -1),
        ("selection", "papr"),
        ("method", "quest"),
        ("index_dtype", "int4"),
        ("backend", "cuda"),
        ("offload", "yes"),
        ("block_representatives", 200),
        ("num_selected", True),
    ],
)
def test_bad_values_name_field_and_value(field, value):
    with pytest.raises(UserError) as error:
        ESAConfig(**{field: value})
    assert field in str(error.value)
    assert str(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_replace_names_unknown_fields():
    assert ESAConfig().replace(proximity=1).proximity == 1
    with pytest.raises(UserError, match=r"num_lokal.*num_local"):
        ESAConfig().replace(num_lokal=3)
    with pytest.raises(UserError, match="trained_context"):
        ESAConfig.for_context(3)
