"""What a decoding step would launch on a GPU, counted through Triton's interpreter; and that it is the same step."""

import pytest
import torch

from effkit.testing import count_launches
from esa_attention.attention.cache.fixed import FixedState
from esa_attention.attention.cache.layer import ESALayer
from esa_attention.attention.engine.step import attend_layer
from esa_attention.attention.engine.step_fixed import attend_fixed, step_tables
from esa_attention.attention.rope import RopeTables
from esa_attention.compression.qk_compressor import QKCompressor
from esa_attention.config import ESAConfig

CONFIG = ESAConfig(num_initial=3, num_selected=7, num_local=10, chunk_size=6, proximity=1)
STEP = {
    "prepare_kernel": 1,
    "decode_scores_kernel": 1,
    "refine_kernel": 1,
    "collect_kernel": 1,
    "write_kernel": 1,
    "decode_attention_kernel": 1,
}

CHUNK = {
    "copy_": 3,  # keys, values, index
    "clone": 1,  # keys of all heads of a token beside each other
    "mm": 2,
    "query_kernel": 1,
    "row_max_kernel": 1,
    "amax": 1,
    "chunk_scores_kernel": 1,
    "dilate_kernel": 1,
    "zero_": 1,
    "count_kernel": 1,
    "refine_kernel": 1,
    "collect_kernel": 1,
    "write_kernel": 1,
    "rotate_kernel": 1,
    "chunk_attention_kernel": 1,
}


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


def test_a_chunk_of_a_prompt_reads_nothing_back(device):
    """Its budget is held, not met: eight were asked for."""
    length, new = 30, 6
    q, k, v = (_randn(2, heads, length + new, 16, seed=heads, device=device) for heads in (4, 2, 2))
    layer = ESALayer(
        CONFIG.replace(backend="triton", check_finite=False), _compressor("folded", 16), RopeTables.standard(16)
    )
    layer.update(k[:, :, :length], v[:, :, :length])

    def chunk():
        layer.update(k[:, :, length:], v[:, :, length:])
        return attend_layer(layer, q[:, :, length:], 0.25, [0, 9])

    chunk()
    layer.crop(-new)
    counted = count_launches(chunk)  # as a second layer: starts and ends are on the device already
    assert counted.copies == counted.reads == 0
    assert counted.by_name["launches"] == CHUNK


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
