"""Recall against sorting spelled out, and against queries and keys taken from a model by other means."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention.attention.functional import fold_keys, fold_queries, importance_score, select_topk
from esa_attention.calibration import calibrate, per_layer_recall, recall_at_k, score_error
from esa_attention.compression.compressor import Compressors, QKCompressor

HEADS, KV_HEADS, DIM, CONTEXT = 4, 2, 8, 96


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(rank: int = 3, seed: int = 0) -> QKCompressor:
    return QKCompressor(KV_HEADS, DIM, rand(rank, KV_HEADS * DIM, seed=seed), rand(rank, KV_HEADS * DIM, seed=seed + 1))


def tiny_llama(dtype=torch.float32):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=DIM,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval().to(dtype)


def text(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 60, (count,), generator=torch.Generator().manual_seed(seed))


def best(scores: list[float], k: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda m: (-scores[m], m))[:k])


@pytest.mark.parametrize("whole_numbers", [False, True])
@pytest.mark.parametrize("k", [1, 7, 39])
def test_recall_spelled_out(whole_numbers, k):
    compressor, query, key = maps(), rand(5, 16, seed=3), rand(40, 16, seed=4)
    if whole_numbers:  # many equal scores, exactly so
        query, key = query.round(), key.round()
        compressor = QKCompressor(KV_HEADS, DIM, compressor.query_weight.round(), compressor.key_weight.round())
    exact, low = query @ key.T, compressor.project_query(query) @ compressor.project_key(key).T
    assert whole_numbers == (len(exact.unique()) < 150)
    shares = [len(best(e, k) & best(c, k)) / k for e, c in zip(exact.tolist(), low.tolist(), strict=True)]
    assert recall_at_k(compressor, query, key, k) == pytest.approx(sum(shares) / 5, abs=1e-10)
    together = [
        importance_score(s[0], s[1])
        for s in ((query, key), (compressor.project_query(query), compressor.project_key(key)))
    ]
    chosen = [set(select_topk(scores, k).tolist()) for scores in together]
    assert recall_at_k(compressor, query, key, k, chunked=True) == len(chosen[0] & chosen[1]) / k
    assert recall_at_k(QKCompressor.exact(KV_HEADS, DIM), query, key, k) == 1


def test_recall_in_blocks_is_the_same(monkeypatch):
    from esa_attention.calibration import recall

    compressor, query, key = maps(), rand(11, 16, seed=3).round(), rand(40, 16, seed=4).round()
    whole = [recall_at_k(compressor, query, key, 9, chunked=c) for c in (False, True)]
    error = score_error(compressor, query, key)
    monkeypatch.setattr(recall, "_BLOCK", 80)
    assert [recall_at_k(compressor, query, key, 9, chunked=c) for c in (False, True)] == whole
    assert score_error(compressor, query, key) == pytest.approx(error, rel=1e-10)


def test_recall_of_maps_that_say_nothing_is_chance():
    zero = QKCompressor(KV_HEADS, DIM, torch.zeros(1, 16), torch.zeros(1, 16))
    query, key = rand(200, 16), rand(100, 16, seed=1)
    assert recall_at_k(zero, query, key, 20) == pytest.approx(0.2, abs=0.05)
    assert score_error(zero, query, key) == pytest.approx(1, abs=1e-10)
    assert score_error(QKCompressor.exact(KV_HEADS, DIM), query, key) == 0
    negative = QKCompressor(KV_HEADS, DIM, torch.eye(16), -torch.eye(16))
    assert recall_at_k(negative, query, key, 50) == 0


def test_a_constant_of_the_query_does_not_count():
    query, key = rand(20, 16).double(), rand(30, 16, seed=1).double()
    shifted = QKCompressor(KV_HEADS, DIM, torch.eye(16).double(), torch.eye(16).double(), None, torch.ones(16).double())
    assert recall_at_k(shifted, query, key, 5) == 1
    assert score_error(shifted, query, key) < 1e-20
    assert score_error(shifted, query, key, centred=False) > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, "k must be a whole number in 1..29 .* got 0"),
        ({"k": 30}, "k must be .* got 30"),
        ({"query": rand(4, 15)}, r"query must have the shape \(N, 16\).* got \(4, 15\)"),
        ({"key": rand(0, 16)}, r"key must have the shape .* got \(0, 16\)"),
        ({"key": torch.full((30, 16), torch.nan)}, "key must be finite"),
    ],
)
def test_mistakes_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        recall_at_k(**{"compressor": maps(), "query": rand(4, 16), "key": rand(30, 16), "k": 5, **changes})


def projected(model, ids, far_position):
    """Folded queries turned to the far position, and keys, of every layer: from hooks on the projections."""
    found: dict[tuple[int, str], torch.Tensor] = {}
    hooks = [
        getattr(layer.self_attn, name).register_forward_hook(
            lambda _m, _i, out, at=(i, name): found.__setitem__(at, out.detach().double())
        )
        for i, layer in enumerate(model.model.layers)
        for name in ("q_proj", "k_proj")
    ]
    with torch.no_grad():
        model(ids[None])
    for hook in hooks:
        hook.remove()
    frequency = 10000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    cos, sin = (far_position * frequency).cos(), (far_position * frequency).sin()
    rows = []
    for i in range(len(model.model.layers)):
        query = found[i, "q_proj"].unflatten(-1, (HEADS, DIM)).transpose(1, 2)
        key = found[i, "k_proj"].unflatten(-1, (KV_HEADS, DIM)).transpose(1, 2)
        one, two = query[..., : DIM // 2], query[..., DIM // 2 :]
        turned = torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)
        rows.append((fold_queries(turned, KV_HEADS)[0], fold_keys(key)[0]))
    return rows


def test_recall_of_every_layer_of_a_model():
    model, ids = tiny_llama(torch.float64), text(80)
    layers = [maps(4).to(dtype=torch.float64), maps(3, seed=5).to(dtype=torch.float64)]
    named = {
        "random": Compressors(layers, far_position=32),
        "exact": calibrate(model, method="exact"),
    }
    found = per_layer_recall(model, ids, named, 9, num_queries=20, num_initial=4, num_local=6)
    chunked = per_layer_recall(model, ids[None], named, 9, num_queries=20, num_initial=4, num_local=6, chunk_size=8)
    for i, (query, key) in enumerate(projected(model, ids, 32)):
        query, key = query[60:], key[4:54]
        assert found["random"][i] == pytest.approx(recall_at_k(layers[i], query, key, 9), abs=1e-10)
        parts = [recall_at_k(layers[i], q, key, 9, chunked=True) for q in (query[:8], query[8:16], query[16:])]
        assert chunked["random"][i] == pytest.approx(sum(parts) / 3, abs=1e-10)
    assert found["exact"] == chunked["exact"] == [1.0, 1.0]
    assert max(found["random"]) < 1


def test_calibrated_maps_choose_better_on_another_text():
    model = tiny_llama()
    named = {
        method: calibrate(model, text(900), method=method, rank=4, far_position=32)
        for method in ("closed_form", "sgd_paper", "key_pca", "exact")
    }
    found = per_layer_recall(model, text(CONTEXT, seed=1), named, 10, num_queries=40)
    for layer in range(2):
        others = [found[name][layer] for name in ("sgd_paper", "key_pca")]
        assert max(others) < found["closed_form"][layer] < found["exact"][layer] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compressors": {}}, r"compressors must be at least one, .* got \{\}"),
        ({"compressors": {"a": 32, "b": 16}}, "same known far_position, got {'a': 32, 'b': 16}"),
        ({"compressors": {"a": None}}, "got {'a': None}"),
        ({"token_ids": text(97)}, r"at most 96 tokens .* got lengths \[97\]"),
        ({"token_ids": text(80).view(2, 40)}, r"one sequence .* got lengths \[40, 40\]"),
        ({"num_queries": 0}, "num_queries must be a whole number of at least 1, got 0"),
        ({"chunk_size": 0}, "chunk_size must be .* got 0"),
        ({"num_local": -1}, "num_local must be .* got -1"),
        ({"k": 60}, "more than num_initial . k . num_local . num_queries = 80 tokens, got 80"),
    ],
)
def test_mistakes_about_the_model_are_named(changes, words):
    if "compressors" in changes:
        made = {n: Compressors([maps(), maps()], far_position=w) for n, w in changes["compressors"].items()}
        changes = {**changes, "compressors": made}
    usual = {
        "token_ids": text(80),
        "k": 9,
        "num_queries": 20,
        "compressors": {"a": Compressors([maps()] * 2, far_position=3)},
    }
    with pytest.raises(UserError, match=words):
        per_layer_recall(tiny_llama(), **{**usual, **changes})


def test_compressors_of_another_model_are_refused():
    with pytest.raises(UserError, match="number of layers must be 2, got 3"):
        per_layer_recall(tiny_llama(), text(80), {"a": Compressors([maps()] * 3, far_position=3)}, 9, num_queries=20)
