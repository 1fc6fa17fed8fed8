"""From a model and text to maps: against moments taken by other means, interrupted, resumed, and misused."""

import warnings

import pytest
import torch

from effkit.errors import UserError
from effkit.progress import listening
from esa_attention.attention.functional import fold_keys, fold_queries
from esa_attention.calibration import (
    StreamingMoments,
    calibrate,
    closed_form,
    key_pca,
    per_layer_recall,
    rank_for_tail,
    recall_at_k,
)
from esa_attention.compression.compressor import load_compressors, save_compressors

HEADS, KV_HEADS, DIM, CONTEXT, WIDTH = 4, 2, 8, 64, 16


def tiny(kind: str = "llama", dtype=torch.float32, **changes):
    import transformers

    config_class, model_class = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }[kind]
    settings = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": DIM,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(config_class(**{**settings, **changes})).eval().to(dtype)


def text(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 60, (count,), generator=torch.Generator().manual_seed(seed))


def rows_of(model, ids: torch.Tensor, far_position: int):
    """Folded queries turned to the far position, and keys, of every layer: from stock attention's own inputs.

    Stock attention gets queries and keys rotated to their positions; they are turned back, or on, in float64.
    """
    from transformers import AttentionInterface

    frequency = 10000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def turn(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        one, two = x[..., : DIM // 2], x[..., DIM // 2 :]
        return torch.cat((one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()), dim=-1)

    def spy(module, query, key, value, attention_mask, scaling=None, **kwargs):
        back = torch.arange(query.shape[2], dtype=torch.float64)[:, None] * frequency
        turned = turn(turn(query.double(), -back), far_position * frequency)
        rows.append((fold_queries(turned, KV_HEADS), fold_keys(turn(key.double(), -back))))
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("test_spy", spy)
    before = model.config._attn_implementation
    model.set_attn_implementation("test_spy")
    with torch.no_grad():
        model.model(ids, use_cache=False)
    model.set_attn_implementation(before)
    return rows


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_moments_are_those_of_the_far_attention(kind):
    model, ids = tiny(kind, torch.float64), text(3 * CONTEXT + 10)
    made = calibrate(model, ids, rank=5, far_position=40, text="noise")
    moments = [StreamingMoments(WIDTH) for _ in range(2)]
    for piece in ids.split(CONTEXT):
        for layer, (query, key) in enumerate(rows_of(model, piece[None], 40)):
            moments[layer].update(query[0], key[0])
    for layer in range(2):
        expected = closed_form(moments[layer], 5, num_kv_heads=KV_HEADS)
        torch.testing.assert_close(made[layer].spectrum, expected.spectrum, rtol=1e-7, atol=0)  # rotation is in float32
        for name, value in made[layer].tensors().items():
            assert value.dtype == torch.float32
            error = (value.double() - expected.tensors()[name]).norm() / expected.tensors()[name].norm()
            assert float(error) < 1e-5
    assert (made.method, made.far_position, made.num_tokens, made.text) == ("closed_form", 40, len(ids), "noise")
    assert made.fingerprint["model_type"] == kind
    assert made.ranks == [5, 5]


def test_model_is_given_back_as_it_was():
    model, ids = tiny(), text(CONTEXT)
    model.train()
    model.model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    rotary, implementation = model.model.rotary_emb, model.config._attn_implementation
    calibrate(model, ids, rank=4, far_position=32)
    assert [m.training for m in model.modules()] == modes
    assert model.model.rotary_emb is rotary
    assert model.config._attn_implementation == implementation
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[0] = torch.nan
    with pytest.raises(UserError, match="finite"):
        calibrate(model, ids, rank=4, far_position=32)
    assert [m.training for m in model.modules()] == modes
    assert model.model.rotary_emb is rotary


def test_text_in_every_form_is_the_same_text():
    model, ids = tiny(), text(3 * CONTEXT)
    forms = [ids, ids.view(3, CONTEXT), ids.tolist(), ids.view(3, CONTEXT).tolist(), list(ids.view(3, CONTEXT).int())]
    made = [calibrate(model, form, rank=4, far_position=32) for form in forms]
    for other in made[1:]:
        assert torch.equal(other[1].key_weight, made[0][1].key_weight)
    together = calibrate(model, ids, rank=4, far_position=32, batch_size=2)
    torch.testing.assert_close(together[1].spectrum, made[0][1].spectrum, rtol=1e-5, atol=0)


def test_text_is_cut_and_counted():
    model, ids = tiny(), text(200)
    assert calibrate(model, ids, rank=4, far_position=32, num_tokens=100).num_tokens == 100
    assert calibrate(model, ids, rank=4, far_position=32).num_tokens == 200
    assert calibrate(model, [ids[:40], ids[:1], [], ids[:30]], rank=4, far_position=32).num_tokens == 70
    short, long = (calibrate(model, ids[:64], rank=4, far_position=32, sequence_length=n) for n in (16, 64))
    assert not torch.allclose(short[1].spectrum, long[1].spectrum, rtol=1e-3)


def test_far_position_turns_queries():
    model, ids = tiny(), text(200)
    near, far = (calibrate(model, ids, rank=4, far_position=w) for w in (0, 50))
    assert not torch.allclose(near[0].query_weight, far[0].query_weight, rtol=1e-2)


def test_other_methods_and_their_short_names():
    model, ids = tiny(), text(200)
    query, key = rows_of(model, ids[None, :CONTEXT], 32)[1]
    moments = StreamingMoments(WIDTH)
    moments.update(query[0], key[0])
    pca = calibrate(model, ids[:CONTEXT], method="pca", rank=4, far_position=32)
    assert pca.method == "key_pca"
    torch.testing.assert_close(pca[1].key_weight.double(), key_pca(moments, 4).key_weight, rtol=0, atol=1e-4)
    options = {"rank": 4, "far_position": 32, "epochs": 2, "seed": 3}
    trained, same = (calibrate(model, ids, method=name, **options) for name in ("sgd", "sgd_paper"))
    assert trained.method == "sgd_paper"
    assert set(trained[0].tensors()) == {"query_weight", "key_weight", "query_bias", "key_bias"}
    assert torch.equal(trained[1].query_weight, same[1].query_weight)
    assert set(calibrate(model, ids, method="sgd", bias=False, **options)[0].tensors()) == {
        "query_weight",
        "key_weight",
    }
    exact = calibrate(model, method="exact")
    assert exact.ranks == [WIDTH, WIDTH]
    assert (exact.far_position, exact.num_tokens) == (None, 0)
    literal = calibrate(model, ids, rank=4, far_position=32, bias=True)[0]
    assert float(literal.query_bias.abs().max()) == float(literal.key_bias.abs().max()) == 0
    assert not torch.allclose(literal.spectrum, calibrate(model, ids, rank=4, far_position=32)[0].spectrum, rtol=1e-3)


def test_full_rank_chooses_like_exact_scores():
    model = tiny(dtype=torch.float64)
    made = calibrate(model, text(200), rank=WIDTH, far_position=32).to(dtype=torch.float64)
    for layer, (query, key) in enumerate(rows_of(model, text(CONTEXT, seed=1)[None], 32)):
        assert recall_at_k(made[layer], query[0], key[0], 10) > 0.999


@pytest.mark.parametrize("method", ["closed_form", "key_pca"])
def test_rank_from_the_spectrum(method):
    model, ids = tiny(num_key_value_heads=4, head_dim=16), text(400)
    ranks = [calibrate(model, ids, method=method, rank="auto", tail=t, far_position=32).ranks for t in (0.5, 0.02)]
    whole = calibrate(model, ids, method=method, rank=64, far_position=32)
    for tail, found in zip((0.5, 0.02), ranks, strict=True):
        assert found == [rank_for_tail(layer.spectrum, tail, multiple_of=8) for layer in whole]
        assert all(rank % 8 == 0 for rank in found)
    assert sum(ranks[0]) < sum(ranks[1])
    short = calibrate(model, ids, method=method, rank="auto", tail=0.5, far_position=32)[0]
    torch.testing.assert_close(short.key_weight, whole[0].key_weight[: short.rank], rtol=1e-5, atol=1e-6)


def test_result_can_be_saved_and_used_with_the_model(tmp_path):
    model = tiny(dtype=torch.bfloat16)
    made = calibrate(model, text(200), rank=4, far_position=32)
    again = load_compressors(save_compressors(made, tmp_path / "maps"), model.float())
    assert torch.equal(again[1].query_weight, made[1].query_weight)


def test_progress_is_told():
    told: list[tuple[str, float | None]] = []
    with listening(lambda words, fraction: told.append((words, fraction))):
        calibrate(tiny(), text(160), rank=4, far_position=32)
    assert [words for words, _ in told] == [
        "read 64 of 160 tokens",
        "read 128 of 160 tokens",
        "read 160 of 160 tokens",
        "solve layer 1 of 2",
        "solve layer 2 of 2",
    ]
    assert told[1][1] == pytest.approx(0.8)


def test_interrupted_calibration_goes_on(tmp_path):
    model, ids, path = tiny(), text(5 * CONTEXT), tmp_path / "state"
    options = {"far_position": 32, "state_path": path}
    whole = calibrate(model, ids, rank=4, far_position=32)
    reads: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _m, _a, kw: reads.append(kw["input_ids"].numel()), with_kwargs=True
    )

    class Stop(Exception):
        pass

    def stop(words: str, fraction: float | None) -> None:
        if words.startswith("read 128"):
            raise Stop

    with listening(stop), pytest.raises(Stop):
        calibrate(model, ids, rank=4, **options)
    assert reads == [64, 64]
    resumed = calibrate(model, ids, rank=4, **options)
    assert reads == [64] * 5
    for layer in range(2):
        for name, value in whole[layer].tensors().items():
            assert torch.equal(resumed[layer].tensors()[name], value)
    # Moments serve other ranks and key PCA without another look at the text.
    assert calibrate(model, ids, rank=7, **options).ranks == [7, 7]
    assert calibrate(model, ids, rank=3, method="pca", **options).method == "key_pca"
    assert reads == [64] * 5
    # More of the same text: only what is new is read.
    calibrate(model, torch.cat((ids, text(64, seed=9))), rank=4, **options)
    assert reads == [64] * 6
    hook.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_state_counts_sequences_of_a_batch(tmp_path):
    model, ids, path = tiny(), text(5 * CONTEXT), tmp_path / "state"
    options = {"rank": 4, "far_position": 32, "state_path": path}
    calibrate(model, ids[: 4 * CONTEXT], batch_size=2, **options)
    resumed = calibrate(model, ids, **options)
    assert resumed.num_tokens == 5 * CONTEXT
    torch.testing.assert_close(
        resumed[1].spectrum, calibrate(model, ids, rank=4, far_position=32)[1].spectrum, rtol=1e-5, atol=0
    )


def test_state_of_another_calibration_is_refused(tmp_path):
    model, ids, path = tiny(), text(3 * CONTEXT), tmp_path / "state"
    usual = {"rank": 4, "far_position": 32, "state_path": path}
    calibrate(model, ids, **usual)
    for changes, words in (
        ({"far_position": 16}, "far_position must be 16, got 32"),
        ({"bias": True}, "uncentred must be 1, got 0"),
        ({"token_ids": text(3 * CONTEXT, seed=1)}, "of another text"),
        ({"token_ids": ids[:CONTEXT]}, "of another text"),
        ({"sequence_length": 32}, "of another text"),
        ({"model": tiny(num_key_value_heads=4)}, "of another model: num_kv_heads must be 4, got 2"),
        ({"model": tiny(initializer_range=0.2)}, "of another model: weights must be"),
    ):
        with pytest.raises(UserError, match=words):
            calibrate(**{"model": model, "token_ids": ids, **usual, **changes})
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(UserError, match="whole safetensors file"):
        calibrate(model, ids, **usual)
    save_compressors(calibrate(model, method="exact"), path)
    with pytest.raises(
        UserError, match="format must be 'esa-attention calibration moments', got 'esa-attention compress"
    ):
        calibrate(model, ids, **usual)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"layers.1.scatter": None}, "damaged: moments of layer 1 must be"),
        ({"layers.1.query": torch.zeros(4, 4, dtype=torch.float64)}, "damaged: scatter of layer 1"),
        ({"layers.0.counts": torch.tensor([3, 1])}, "layer 0 must have 16 dimensions, 64 tokens, got 16, 3"),
    ],
)
def test_damaged_state_is_refused(tmp_path, damage, words):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    model, ids, path = tiny(), text(CONTEXT), tmp_path / "state"
    calibrate(model, ids, rank=4, far_position=32, state_path=path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {**load_file(path), **damage}
    save_file({name: t for name, t in tensors.items() if t is not None}, path, metadata)
    with pytest.raises(UserError, match=words):
        calibrate(model, ids, rank=4, far_position=32, state_path=path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "closed"}, "method='closed' is not known, .* did you mean 'closed_form'"),
        ({"rank": 17}, "rank must be a whole number in 1..16 .* got 17"),
        ({"rank": 0}, "rank must be .* got 0"),
        ({"rank": "most"}, "rank must be .* got 'most'"),
        ({"rank": "auto", "method": "sgd"}, "rank must be a number for method=sgd_paper, got 'auto'"),
        ({"tail": 1.0}, r"tail must be in \[0, 1\), got 1\.0"),
        ({"eps": 2.0}, r"eps must be between 0 and 1, got 2\.0"),
        ({"lr": -1.0}, r"lr must be a positive number, got -1\.0"),
        ({"far_position": 65}, r"far_position must be a whole number in 0..64 .* got 65"),
        ({"far_position": None}, "got 4096 by default: give the num_local"),
        ({"num_tokens": 1}, "num_tokens must be a whole number of at least 2, got 1"),
        ({"sequence_length": 65}, "sequence_length must be a whole number in 2..64, got 65"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"token_ids": None}, "token_ids must be given for method=closed_form, got None"),
        ({"token_ids": []}, "at least one token, got none"),
        ({"token_ids": torch.zeros(0, dtype=torch.long)}, "at least one token, got none"),
        ({"token_ids": [[3], [4]]}, "at least 2 tokens, got none"),
        ({"token_ids": torch.tensor([5, 60, 7])}, r"in 0..59 \(the vocabulary\), got 5..60"),
        ({"token_ids": torch.tensor([5, -100, 7])}, r"got -100..7"),
        ({"token_ids": torch.zeros(4)}, "whole numbers in rows, got torch.float32"),
        ({"token_ids": torch.zeros(2, 2, 2).long()}, r"shape \(N,\) or \(B, N\), got \(2, 2, 2\)"),
        ({"token_ids": ["a text", "another"]}, "token_ids must be numbers, got 'a text'"),
        ({"token_ids": "a text"}, "token_ids must be numbers"),
        ({"method": "sgd", "state_path": "state"}, "method=sgd_paper uses none"),
    ],
)
def test_mistakes_are_named(changes, words):
    usual = {"token_ids": text(100), "rank": 4, "far_position": 32}
    with pytest.raises(UserError, match=words):
        calibrate(tiny(), **{**usual, **changes})


@pytest.mark.gpu
def test_calibration_on_a_gpu_agrees_with_the_cpu():
    ids, made = text(300), []
    for device in ("cpu", "cuda"):
        model = tiny(dtype=torch.float64).to(device)
        named = {m: calibrate(model, ids, method=m, rank=4, far_position=32) for m in ("closed_form", "key_pca", "sgd")}
        assert {t.device.type for maps in named.values() for t in maps[1].tensors().values()} == {device}
        named |= {"exact": calibrate(model, method="exact")}
        made.append((named, per_layer_recall(model, text(CONTEXT, seed=1), named, 10, num_queries=30)))
    (cpu, cpu_recall), (gpu, gpu_recall) = made
    for method in ("closed_form", "key_pca"):
        torch.testing.assert_close(gpu[method][1].spectrum, cpu[method][1].spectrum, rtol=1e-6, atol=0)
        torch.testing.assert_close(gpu[method][1].key_weight.cpu(), cpu[method][1].key_weight, rtol=0, atol=1e-4)
        assert gpu_recall[method] == pytest.approx(cpu_recall[method], abs=0.02)
    assert gpu_recall["exact"] == [1.0, 1.0]


def test_few_tokens_warn():
    with pytest.warns(UserWarning, match="10 tokens, fewer than the 16 dimensions"):
        calibrate(tiny(), text(10), rank=4, far_position=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(tiny(), text(16), rank=4, far_position=32)


def test_values_that_are_not_finite_are_named():
    model = tiny()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[3] = torch.inf
    for method in ("closed_form", "sgd"):
        with pytest.raises(UserError, match="calibration queries of layer 1 must be finite"):
            calibrate(model, text(100), method=method, rank=4, far_position=32)
