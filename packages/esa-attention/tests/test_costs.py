"""Closed forms of cost: the figures worked out beforehand, brute-force counts, and the cache as it really is."""

from __future__ import annotations

import pytest
import torch

from effkit.errors import UserError
from esa_attention.attention.cache.cache import ESACache
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.geometries import config_for
from esa_attention.integration import costs
from esa_attention.integration.costs import ModelShape, Storage

PAPER = ESAConfig()
LLAMA = ModelShape(num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128)
QWEN = ModelShape(num_layers=36, num_heads=32, num_kv_heads=8, head_dim=128)
SMALL = ModelShape(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
TIGHT = ESAConfig(num_initial=3, num_selected=5, num_local=8, chunk_size=4, proximity=1)
INT8_BARE = Storage(kv=2, index=1)


@pytest.mark.parametrize(("name", "shape"), [("llama3_8b", LLAMA), ("mistral_7b", LLAMA), ("qwen3_8b", QWEN)])
def test_shape_of_a_config(name: str, shape: ModelShape) -> None:
    assert ModelShape.from_config(config_for(name)) == shape


def test_shape_where_heads_are_wider_than_the_model() -> None:
    shape = ModelShape.from_config(config_for("constructed_induction"))
    assert (shape.query_dim, shape.key_dim) == (256, 128)  # hidden_size is 400


def test_ratio_of_operations() -> None:
    assert costs.operations_ratio_limit(LLAMA) == 257 / 16480
    assert round(100 * costs.operations_ratio_limit(LLAMA), 4) == 1.5595
    assert round(100 * costs.operations_ratio(LLAMA, PAPER, 65_536), 2) == 11.99
    assert round(100 * costs.operations_ratio(LLAMA, PAPER, 131_072), 3) == 6.776
    assert costs.operations_ratio(LLAMA, PAPER, 1 << 40) == pytest.approx(257 / 16480, rel=1e-6)


@pytest.mark.parametrize("length", [25, 64, 1000])
@pytest.mark.parametrize("tokens", [1, 4])
def test_operations_are_those_of_appendix_a(length: int, tokens: int) -> None:
    """The formula as printed, letter by letter; the segments are all full here."""
    l_i, k, l_l, l_c, rank = 3, 5, 8, tokens, 7
    d_h, heads = 32, 4
    l_m = length - l_i - l_l - l_c
    assert l_m > k
    printed = 4 * l_c * d_h * rank + 2 * l_c * rank + (2 * rank + 1) * l_m * l_c
    printed += (4 * d_h + 3 * heads) * l_c * (l_i + l_l + l_c + k)
    assert costs.esa_operations(SMALL, TIGHT, length, rank, tokens=tokens).total == printed
    assert costs.full_operations(SMALL, length, tokens) == (4 * d_h + 3 * heads) * l_c * (l_i + l_m + l_l + l_c)


def test_a_full_middle_part_is_not_scored() -> None:
    """With no more than k middle tokens ESA reads everything: full attention, and the maps of the keys."""
    length = 4 + 8 + 3 + 5
    parts = costs.esa_operations(SMALL, TIGHT, length, 7)
    assert parts.scores == 0
    assert parts.attention == costs.full_operations(SMALL, length, 4)
    assert (parts.maps, parts.biases) == (2 * 4 * 32 * 7, 4 * 7)
    one_more = costs.esa_operations(SMALL, TIGHT, length + 1, 7)
    assert one_more.scores == 15 * 6 * 4
    assert one_more.attention == parts.attention


def test_folded_maps_and_max_filter() -> None:
    paper = costs.esa_operations(LLAMA, PAPER, 65_536)
    folded = costs.esa_operations(LLAMA, PAPER, 65_536, folded=True)
    assert paper.maps == 4 * 512 * 4096 * 128
    assert folded.maps == 4 * 512 * 1024 * 128 + 512 * 3072  # two products a quarter as wide, and the sums over groups
    assert folded.biases == 0
    assert (folded.scores, folded.attention) == (paper.scores, paper.attention)
    filtered = costs.esa_operations(LLAMA, PAPER, 65_536, max_filter=True)
    assert filtered.total - paper.total == 7 * (65_536 - 128 - 4096 - 512)


def test_cache_overhead() -> None:
    assert costs.cache_overhead(LLAMA) == 0.0625
    assert costs.cache_overhead(LLAMA, storage=Storage.named("bf16", "int8")) == (128 + 4) / 4096
    assert costs.cache_overhead(LLAMA, storage=Storage.named("fp32", "bf16")) == 256 / 8192


@pytest.mark.parametrize(
    ("shape", "unfolded", "folded", "without_biases"),
    [(LLAMA, 33_562_624, 8_396_800, 8_388_608), (QWEN, 37_757_952, 9_446_400, 9_437_184)],
)
def test_parameters(shape: ModelShape, unfolded: int, folded: int, without_biases: int) -> None:
    assert costs.compressor_parameters(shape, folded=False, bias=True) == unfolded
    assert costs.compressor_parameters(shape, folded=True, bias=True) == folded
    assert costs.compressor_parameters(shape) == without_biases


def test_parameters_are_those_of_the_maps() -> None:
    maps = QKCompressor(2, 8, torch.zeros(5, 16), torch.zeros(5, 16), torch.zeros(5), torch.zeros(5))
    assert 2 * maps.num_parameters() == costs.compressor_parameters(SMALL, 5, bias=True)


@pytest.mark.parametrize(
    ("length", "bf16", "int8"),
    [
        (32 << 10, "4.07", "4.57"),
        (64 << 10, "6.49", "8.00"),
        (128 << 10, "9.23", "12.8"),
        (256 << 10, "11.7", "18.3"),
        (1 << 20, "14.7", "26.9"),
    ],
)
def test_bytes_ratio(length: int, bf16: str, int8: str) -> None:
    def shown(figure: str, storage: Storage) -> str:
        return f"{costs.decode_ratio(LLAMA, PAPER, length, storage=storage):.{len(figure.split('.')[1])}f}"

    assert shown(bf16, Storage()) == bf16
    assert shown(int8, INT8_BARE) == int8
    # Ours keeps a float32 scale a token, which costs up to 3 %.
    ours = costs.decode_ratio(LLAMA, PAPER, length, storage=Storage.named("bf16", "int8"))
    bare = costs.decode_ratio(LLAMA, PAPER, length, storage=INT8_BARE)
    assert 0.97 * bare < ours < bare


def test_limits_of_the_bytes_ratio() -> None:
    assert costs.decode_ratio_limit(LLAMA) == 16
    assert costs.decode_ratio_limit(LLAMA, storage=INT8_BARE) == 32
    assert costs.decode_ratio_limit(LLAMA, storage=Storage.named("bf16", "int8")) == pytest.approx(4096 / 132)
    assert costs.decode_ratio(LLAMA, PAPER, 1 << 40) == pytest.approx(16, rel=1e-6)


@pytest.mark.parametrize("storage", [Storage(), INT8_BARE, Storage.named("bf16", "int8"), Storage(4, 2)])
def test_break_even_is_the_first_length_that_pays(storage: Storage) -> None:
    """Against a search: before it there are lengths at which ESA reads more, from it on none."""
    even = costs.break_even_length(LLAMA, PAPER, storage=storage)
    assert even is not None

    def more(length: int) -> bool:
        full = costs.full_decode_bytes(LLAMA, length, storage)
        return costs.esa_decode_bytes(LLAMA, PAPER, length, storage=storage) > full

    assert more(even - 1)
    assert not any(more(length) for length in range(even, even + 3000))


def test_break_even_figure() -> None:
    even = costs.break_even_length(LLAMA, PAPER)
    assert even == 6410
    assert costs.break_even_length(ModelShape(1, 4, 1, 8), ESAConfig(), rank=8, storage=Storage(1, 2)) is None


def test_bytes_by_hand() -> None:
    """29 tokens: 3 initial, 17 middle of which 5 are read, 8 local, 1 new; 16 keys and 16 values a token."""
    assert costs.full_decode_bytes(SMALL, 29) == 29 * 64
    assert costs.esa_decode_bytes(SMALL, TIGHT, 29, 4) == 17 * 8 + 17 * 64
    assert costs.esa_decode_bytes(SMALL, TIGHT, 29, 4, Storage.named("fp32", "int8")) == 17 * 8 + 17 * 128
    assert costs.esa_decode_bytes(SMALL, TIGHT, 17, 4) == 17 * 64  # 5 middle tokens: nothing is scored


@pytest.mark.parametrize("index_dtype", ["fp32", "int8"])
def test_cache_bytes_are_those_of_a_real_cache(index_dtype: str) -> None:
    config = TIGHT.replace(index_dtype=index_dtype)
    maps = QKCompressor(2, 8, torch.ones(4, 16), torch.ones(4, 16))
    cache = ESACache(config, [maps, maps], RopeTables.standard(8), reserve=64)
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        rows = torch.randn(1, 2, 64, 8, generator=generator)
        cache.layers[layer].update(rows, rows)
        cache.layers[layer].window(0)  # made when attention first needs it
    held = cache.memory()
    expected = costs.cache_bytes(SMALL, config, 64, 4, Storage.named("fp32", index_dtype), window_values=True)
    assert (held["kv"], held["index"], held["window"]) == (expected.kv, expected.index, expected.window)
    assert expected.total == expected.kv + expected.index + expected.window


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ModelShape(2, 4, 3, 8), "num_kv_heads must divide num_heads=4, got 3"),
        (lambda: ModelShape(0, 4, 2, 8), "num_layers must be a whole number of at least 1, got 0"),
        (lambda: costs.compressor_parameters(SMALL, 17), r"rank must be .* 1\.\.16 .*, got 17"),
        (lambda: costs.esa_operations(SMALL, TIGHT, 0), "rank must be"),
        (lambda: costs.esa_operations(SMALL, TIGHT, 0, 4), "length must be .* at least 1, got 0"),
        (lambda: costs.full_operations(SMALL, 8, 0), "tokens must be .* at least 1, got 0"),
        (lambda: costs.esa_decode_bytes(SMALL, TIGHT, True, 4), "length must be .* got True"),
        (lambda: Storage(kv=0), "kv must be .* at least 1, got 0"),
        (lambda: Storage.named("int8"), "dtype='int8' is not known"),
        (lambda: Storage.named("bf16", "int4"), "index_dtype='int4' is not known.*int8"),
        (lambda: ModelShape.from_config(object()), "config must have num_hidden_layers and num_attention_heads"),
    ],
)
def test_mistakes_are_named(call, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call()
