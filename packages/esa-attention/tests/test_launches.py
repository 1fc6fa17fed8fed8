"""What a decoding step would launch on a GPU, counted through Triton's interpreter; and that it is the same step."""

import pickle

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import count_launches
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.engine.step_fixed import attend_fixed, step_tables
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig
from esa_attention.ops.chunk_prepare_triton import prepare_chunk

CONFIG = ESAConfig(num_initial=3, num_selected=7, num_local=10, chunk_size=6, proximity=1)
STEP = {
    "prepare_kernel": 1,
    "decode_scores_kernel": 1,
    "refine_kernel": 1,
    "collect_kernel": 1,
    "write_kernel": 1,
    "decode_attention_kernel": 1,
}

CHUNK = (
    "chunk_prepare_kernel",
    "row_max_kernel",
    "chunk_scores_kernel",
    "dilate_kernel",
    "refine_kernel",
    "collect_kernel",
    "write_kernel",
    "chunk_attention_kernel",
)


def _randn(*size, seed=0, device="cpu"):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(device)


def _compressor(kind, dim):
    if kind == "exact":
        return QKCompressor.exact(2, dim)
    bias = (_randn(12), _randn(12, seed=3)) if kind == "biased" else ()
    return QKCompressor(2, dim, _randn(12, 2 * dim, seed=1), _randn(12, 2 * dim, seed=2), *bias)


@pytest.mark.parametrize(
    ("kind", "index_dtype", "dim", "rotary"),
    [("exact", "auto", 16, 16), ("folded", "auto", 16, 16), ("biased", "int8", 10, 6), ("folded", "int8", 16, 16)],
)
def test_a_decoding_step_is_six_launches(device, kind, index_dtype, dim, rotary):
    config, length = CONFIG.replace(index_dtype=index_dtype), 40
    q, k, v = (_randn(2, heads, length + 1, dim, seed=heads, device=device) for heads in (4, 2, 2))
    starts, layers = [0, 9], {}
    for name in ("torch", "fused"):
        tables = RopeTables.standard(dim, rotary_dim=rotary)
        backend = "triton" if name == "fused" else name
        layers[name] = ESALayer(config.replace(backend=backend), _compressor(kind, dim), tables, reserve=64)
        layers[name].update(k[:, :, :length], v[:, :, :length])
        layers[name].flush()
    new = [t[:, :, length:] for t in (q, k, v)]
    state = FixedState(2, q.device)
    state.agree(length, starts)
    step_tables(layers["fused"], q.device)  # made once, for all layers

    def step():
        state.length.add_(1)
        return attend_fixed(layers["fused"], *new, 0.25, state)

    counted = count_launches(step)
    layers["torch"].update(*new[1:])
    expected = attend_layer(layers["torch"], new[0], 0.25, starts)
    torch.testing.assert_close(counted.result, expected, rtol=0, atol=1e-5)
    assert counted.by_name["launches"] == {**STEP, "add_": 1}  # the length: once for all layers
    assert counted.copies == counted.reads == 0
    ours, theirs = layers["fused"], layers["torch"]
    assert torch.equal(ours.store.data[:, length], theirs.store.data[:, length])
    if theirs.index is not None:
        a, b = (layer.index.floats(length, length + 1) for layer in (ours, theirs))
        # A sum in another order may round to the neighbouring one of 255 steps.
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 if index_dtype == "auto" else float(b.abs().max()) / 120)


@pytest.mark.parametrize(
    ("kind", "index_dtype", "dim", "rotary", "new", "starts"),
    [
        ("folded", "auto", 16, 16, 6, [0, 9]),
        ("exact", "auto", 16, 16, 6, [0, 0]),
        ("biased", "int8", 10, 6, 6, [0, 9]),
        ("folded", "int8", 16, 16, 5, [3, 33]),  # a row that begins in the chunk
        ("biased", "fp16", 18, 10, 20, [0, 4]),  # 20 tokens are four chunks
    ],
)
def test_a_chunk_of_a_prompt_is_eight_launches(device, kind, index_dtype, dim, rotary, new, starts):
    length = 30
    q, k, v = (_randn(2, heads, length + new, dim, seed=heads, device=device) for heads in (4, 2, 2))
    config = CONFIG.replace(check_finite=False, index_dtype=index_dtype)
    layers = {}
    for backend in ("torch", "triton"):
        tables = RopeTables.standard(dim, rotary_dim=rotary)
        layers[backend] = ESALayer(config.replace(backend=backend), _compressor(kind, dim), tables)
        layers[backend].update(k[:, :, :length], v[:, :, :length])

    def chunk(backend):
        layers[backend].update(k[:, :, length:], v[:, :, length:])
        return attend_layer(layers[backend], q[:, :, length:], 0.25, starts)

    chunk("triton")
    layers["triton"].crop(-new)
    counted = count_launches(lambda: chunk("triton"))  # as a second layer: starts and ends are on the device already
    assert counted.copies == counted.reads == 0
    chunks = -(-new // CONFIG.chunk_size)
    assert counted.by_name["launches"] == dict.fromkeys(CHUNK, chunks)
    assert layers["triton"].fresh is None
    torch.testing.assert_close(counted.result, chunk("torch"), rtol=0, atol=1e-5)
    ours, theirs = layers["triton"], layers["torch"]
    assert torch.equal(ours.store.rows, theirs.store.rows)
    if theirs.index is not None:
        a, b = (layer.index.floats(0, length + new) for layer in (ours, theirs))
        bound = {"auto": 1e-5, "fp16": 1e-3, "int8": 1 / 120}[index_dtype]
        torch.testing.assert_close(a, b, rtol=0, atol=bound * max(1.0, float(b.abs().max())))


def test_tokens_that_wait_are_there_for_whoever_asks(device):
    """Between the cache and attention the newest tokens have a place and no contents; nobody gets to see that."""
    k, v = (_randn(2, 2, 12, 16, seed=seed, device=device) for seed in (1, 2))

    def filled():
        layer = ESALayer(CONFIG.replace(backend="triton"), _compressor("folded", 16), RopeTables.standard(16))
        layer.update(k[:, :, :6], v[:, :, :6])
        assert layer.fresh is not None
        layer.update(k[:, :, 6:], v[:, :, 6:])
        assert layer.fresh is not None
        return layer

    layer = filled()
    assert torch.equal(layer.keys, k)
    assert torch.equal(layer.values, v)
    assert layer.fresh is None
    expected = layer.index.keys.rows.clone()
    assert torch.equal(filled().index.keys.rows, expected)
    assert torch.equal(filled().copy(layer.workspace).index.keys.rows, expected)
    assert torch.equal(pickle.loads(pickle.dumps(filled())).keys, k)
    layer = filled()
    layer.crop(-6)
    assert layer.fresh is None  # what is forgotten is not written first
    assert torch.equal(layer.keys, k[:, :, :6])
    layer = filled()
    layer.crop(-2)
    assert torch.equal(layer.keys, k[:, :, :10])
    layer = filled()
    layer.batch_select_indices(torch.tensor([1, 0, 1]))
    assert torch.equal(layer.values, v[[1, 0, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(1, 2, 4, 8)}, r"key and value must be torch.float32 of shape \(1, 2, 5, 8\), got"),
        ({"query_map": torch.zeros(4, 16)}, "maps must both act on folded queries and keys and have at most 256 rows"),
        ({"query_map": torch.zeros(300, 16), "key_map": torch.zeros(300, 16)}, "at most 256 rows"),
        ({"length": torch.zeros(2, dtype=torch.int64)}, "length must hold one number, got 2"),
        ({"cos": torch.ones(11, 4), "sin": torch.ones(11, 4)}, "cos and sin must hold 15 positions, got 11"),
    ],
)
def test_what_a_chunk_cannot_be_prepared_from_is_named(interpreter, change, message):
    rows = {"key": torch.zeros(1, 2, 5, 8), "value": torch.zeros(1, 2, 5, 8), "store": torch.zeros(1, 20, 2, 2, 8)}
    maps = dict.fromkeys(("index", "index_scale", "query_map", "key_map", "query_bias", "key_bias"))
    ends = {"start": torch.zeros(1, dtype=torch.int64), "length": torch.full((1,), 12)}
    tables = {"cos": torch.ones(20, 4), "sin": torch.zeros(20, 4), "zeroed": torch.ones(8, dtype=torch.int32)}
    sizes = {"num_initial": 2, "num_local": 10, "far_position": 9, "far_factor": 1.0}
    with pytest.raises(UserError, match=message):
        prepare_chunk(torch.zeros(1, 4, 5, 8), **{**rows, **maps, **ends, **tables, **change}, **sizes)


@pytest.mark.parametrize("kind", ["bf16", "i8"])
def test_what_comes_before_scoring_compiles_for_hopper(compile_kernel, kind):
    """The real compiler needs no GPU: no spills."""
    names = ("query_ptr", "key_ptr", "value_ptr", "store_ptr", "far_ptr", "local_ptr")
    types = dict.fromkeys(names, "*bf16") | {"start_ptr": "*i64", "length_ptr": "*i64", "zeroed_ptr": "*i32"}
    types["index_ptr"] = f"*{kind}"
    fixed = {"query_bias_ptr": None, "key_bias_ptr": None, "GROUP": 4, "HEADS": 8, "DIM": 128, "DIM_PADDED": 128}
    fixed |= {"HALF": 64, "HALF_PADDED": 64, "REST_PADDED": 0, "RANKS": 128, "ZEROS": 1024}
    fixed |= {"DOT": "bf16", "ACC": "fp32", "EMULATE_BF16": False}
    if kind != "i8":
        fixed["scale_ptr"] = None
    assert compile_kernel("prepare_kernel", "prepare_kernel", types, fixed, warps=8).stack == 0


@pytest.mark.parametrize("kind", ["bf16", "i8"])
def test_what_comes_before_scoring_a_chunk_compiles_for_hopper(compile_kernel, kind):
    names = ("query_ptr", "key_ptr", "value_ptr", "store_ptr", "far_ptr", "local_ptr", "rotated_ptr")
    types = dict.fromkeys(names, "*bf16") | {"start_ptr": "*i64", "length_ptr": "*i64", "zeroed_ptr": "*i32"}
    types["index_ptr"] = f"*{kind}"
    fixed = {"query_bias_ptr": None, "key_bias_ptr": None, "folded_ptr": None, "GROUP": 4, "HEADS": 8}
    fixed |= {"DIM": 128, "DIM_PADDED": 128, "HALF": 64, "HALF_PADDED": 64, "REST_PADDED": 0, "RANKS": 128}
    fixed |= {"TOKENS": 16, "WINDOW": 64, "ROWS": 16, "PART": 32, "ZEROS": 1024, "PRECISION": "ieee"}
    fixed |= {"DOT": "bf16", "ACC": "fp32", "EMULATE_BF16": False}
    if kind != "i8":
        fixed["scale_ptr"] = None
    assert compile_kernel("chunk_prepare_kernel", "chunk_prepare_kernel", types, fixed, warps=4, stages=1).stack == 0
