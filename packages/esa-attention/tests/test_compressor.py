"""The maps of a layer against sums over heads spelled out; their file, and everything that is refused."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from effkit.errors import UserError
from esa_attention.compression import tensor_files
from esa_attention.compression.compressor import (
    Compressors,
    QKCompressor,
    fingerprint,
    load_compressors,
    save_compressors,
)

HEADS, KV_HEADS, DIM, RANK = 6, 2, 4, 5


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def small(bias: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0) -> QKCompressor:
    biases = (rand(RANK, seed=seed + 2, dtype=dtype), rand(RANK, seed=seed + 3, dtype=dtype)) if bias else (None, None)
    weights = (rand(RANK, KV_HEADS * DIM, seed=seed + i, dtype=dtype) for i in range(2))
    return QKCompressor(KV_HEADS, DIM, *weights, *biases, spectrum=rand(KV_HEADS * DIM).abs().sort(descending=True)[0])


def tiny_llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 50,
        "hidden_size": 24,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": DIM,
        "max_position_embeddings": 64,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def of(model, **changes) -> Compressors:
    """Compressors that fit a tiny Llama."""
    layers = [small(seed=10 * i) for i in range(3)]
    return Compressors(layers, **{"far_position": 32, "fingerprint": fingerprint(model), **changes})


def test_folded_maps_spelled_out():
    maps, query, key = small(), rand(2, HEADS, 3, DIM, seed=7), rand(2, KV_HEADS, 4, DIM, seed=8)
    q_index, k_index = maps.compress_query(query), maps.compress_key(key)
    assert q_index.shape == (2, 3, RANK)
    assert k_index.shape == (2, 4, RANK)
    for b in range(2):
        for c in range(3):
            folded = torch.cat([query[b, 3 * g : 3 * g + 3, c].sum(0) for g in range(KV_HEADS)])
            torch.testing.assert_close(q_index[b, c], maps.query_weight @ folded + maps.query_bias, rtol=0, atol=1e-10)
        for m in range(4):
            row = torch.cat([key[b, g, m] for g in range(KV_HEADS)])
            torch.testing.assert_close(k_index[b, m], maps.key_weight @ row + maps.key_bias, rtol=0, atol=1e-10)


def test_exact_scores_sum_over_query_heads():
    exact, query, key = QKCompressor.exact(KV_HEADS, DIM), rand(1, HEADS, 3, DIM), rand(1, KV_HEADS, 5, DIM, seed=1)
    scores = exact.compress_query(query)[0] @ exact.compress_key(key)[0].T
    for c in range(3):
        for m in range(5):
            summed = sum(float(query[0, h, c] @ key[0, h // 3, m]) for h in range(HEADS))
            assert float(scores[c, m]) == pytest.approx(summed, abs=1e-10)
    assert (exact.rank, exact.is_exact, exact.is_folded, exact.num_parameters()) == (KV_HEADS * DIM, True, True, 0)


def test_unfolded_maps_of_the_paper_are_taken_over():
    query, key = rand(1, HEADS, 3, DIM), rand(1, KV_HEADS, 4, DIM, seed=1)
    w_q, w_k = rand(RANK, HEADS * DIM, seed=2), rand(RANK, HEADS * DIM, seed=3)
    b_q, b_k = rand(RANK, seed=4), rand(RANK, seed=5)
    maps = QKCompressor.from_unfolded(w_q, w_k, b_q, b_k, num_heads=HEADS, num_kv_heads=KV_HEADS)
    assert maps.key_weight.shape == (RANK, KV_HEADS * DIM)
    assert not maps.is_folded
    for c in range(3):
        expected = w_q @ torch.cat([query[0, h, c] for h in range(HEADS)]) + b_q
        torch.testing.assert_close(maps.compress_query(query)[0, c], expected, rtol=0, atol=1e-10)
    for m in range(4):
        expected = w_k @ torch.cat([key[0, h // 3, m] for h in range(HEADS)]) + b_k
        torch.testing.assert_close(maps.compress_key(key)[0, m], expected, rtol=0, atol=1e-10)


def test_narrow_inputs_are_widened_before_heads_are_summed():
    maps = small(dtype=torch.float32)
    query = rand(1, HEADS, 9, DIM, dtype=torch.bfloat16)
    assert maps.compress_query(query).dtype == torch.float32
    assert torch.equal(maps.compress_query(query), maps.compress_query(query.float()))


def test_moving_changes_weights_and_nothing_else():
    maps = small().to("meta", torch.bfloat16)
    assert {(t.device.type, t.dtype) for t in maps.tensors().values()} == {("meta", torch.bfloat16)}
    assert maps.spectrum.dtype == torch.float64
    assert Compressors([small()]).to(dtype=torch.float16)[0].query_bias.dtype == torch.float16
    assert QKCompressor.exact(2, 4).to("cpu", torch.float16).is_exact


@pytest.mark.parametrize(
    ("layers", "bias", "count"), [(32, True, 8_396_800), (32, False, 8_388_608), (36, True, 9_446_400)]
)
def test_parameters_of_llama3_8b_and_qwen3_8b(layers, bias, count):
    weight, one = torch.empty(128, 1024, device="meta"), torch.empty(128, device="meta")
    layer = QKCompressor(8, 128, weight, weight, *([one, one] if bias else []))
    assert Compressors([layer] * layers).num_parameters() == count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_weight": rand(9, 8)}, ["key_weight", "R in 1..8", "(9, 8)"]),
        ({"key_weight": rand(0, 8)}, ["key_weight", "(0, 8)"]),
        ({"key_weight": rand(5, 7)}, ["key_weight", "(5, 7)"]),
        ({"key_weight": rand(5)}, ["key_weight", "(5,)"]),
        ({"query_weight": rand(4, 8)}, ["query_weight", "(5, 8)", "(4, 8)"]),
        ({"query_weight": rand(5, 12)}, ["query_weight", "(5, 12)"]),
        ({"query_weight": None}, ["query_weight", "key_weight", "both"]),
        ({"query_weight": None, "key_weight": None}, ["query_bias", "need"]),
        ({"query_bias": rand(4)}, ["query_bias", "(5,)", "(4,)"]),
        ({"key_bias": torch.zeros(5, dtype=torch.int64)}, ["key_bias", "floating", "int64"]),
        ({"spectrum": rand(2, 2)}, ["spectrum", "(2, 2)"]),
        ({"num_kv_heads": 0}, ["num_kv_heads", "0"]),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    fields = {name: getattr(small(), name) for name in ("num_kv_heads", "head_dim", "spectrum", *small().tensors())}
    with pytest.raises(UserError) as error:
        QKCompressor(**{**fields, **changes})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_inputs_of_other_heads_are_refused():
    maps = small()
    with pytest.raises(UserError, match=r"query must have the shape .* got \(1, 3, 2, 4\)"):
        maps.compress_query(rand(1, 3, 2, DIM))
    with pytest.raises(UserError, match=r"key must have the shape \(B, 2, T, 4\), got \(1, 6, 2, 4\)"):
        maps.compress_key(rand(1, HEADS, 2, DIM))
    weight = rand(RANK, HEADS * DIM)
    wide = QKCompressor.from_unfolded(weight, weight, num_heads=HEADS, num_kv_heads=KV_HEADS)
    with pytest.raises(UserError, match="6 heads, got 8"):
        wide.compress_query(rand(1, 8, 2, DIM))
    with pytest.raises(UserError, match="folded queries of 8 dimensions, got one of 24"):
        wide.project_query(rand(3, 8))
    with pytest.raises(UserError, match="must divide num_heads=6, got 4"):
        QKCompressor.from_unfolded(weight, weight, num_heads=HEADS, num_kv_heads=4)
    with pytest.raises(UserError, match="query_weight must have the shape of key_weight"):
        QKCompressor.from_unfolded(weight[:2], weight, num_heads=HEADS, num_kv_heads=KV_HEADS)
    with pytest.raises(UserError, match="got none"):
        Compressors([])
    with pytest.raises(UserError, match="2 x 4 in layer 1 and 4 x 4 in layer 0"):
        Compressors([QKCompressor.exact(4, 4), small()])


def test_file_gives_back_what_was_saved(tmp_path):
    wide = rand(3, HEADS * DIM, dtype=torch.float32)
    layers = [
        small(),
        small(bias=False, dtype=torch.bfloat16),
        QKCompressor.exact(KV_HEADS, DIM),
        QKCompressor.from_unfolded(wide, wide, num_heads=HEADS, num_kv_heads=KV_HEADS),
        # Views of one tensor: what lies around them must not get into the file.
        QKCompressor(KV_HEADS, DIM, wide[:, :8], wide[:, 8:16]),
    ]
    before = Compressors(
        layers, "closed_form", 32, {"model_type": "llama", "rope": {"rope_theta": 1e4}}, 1234, "topics µ"
    )
    path = save_compressors(before, tmp_path / "new" / "maps.safetensors")
    after = load_compressors(path)
    assert [p.name for p in path.parent.iterdir()] == ["maps.safetensors"]
    for name in ("method", "far_position", "fingerprint", "num_tokens", "text", "ranks", "key_dim"):
        assert getattr(after, name) == getattr(before, name)
    for ours, theirs in zip(before, after, strict=True):
        assert (ours.num_kv_heads, ours.head_dim) == (theirs.num_kv_heads, theirs.head_dim)
        assert ours.tensors().keys() == theirs.tensors().keys()
        for name, value in ours.tensors().items():
            assert value.dtype == theirs.tensors()[name].dtype
            assert torch.equal(value, theirs.tensors()[name])
    assert torch.equal(after[0].spectrum, layers[0].spectrum)
    assert load_compressors(save_compressors(Compressors([layers[2]]), tmp_path / "exact"))[0].is_exact
    assert load_compressors(tmp_path / "exact").far_position is None


def test_writing_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_compressors(Compressors([small()]), tmp_path / "maps.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr("effkit.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_compressors(Compressors([small(seed=5)]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 0.5, -1])
def test_truncated_file_is_refused(tmp_path, keep):
    path = save_compressors(Compressors([small()]), tmp_path / "maps")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="maps: must be a whole safetensors file"):
        load_compressors(path)


def test_file_that_is_not_ours_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb()))
    torch.save({"a": Bomb()}, tmp_path / "torch")
    for name in ("pickle", "torch"):
        with pytest.raises(UserError, match="cannot be read"):
            load_compressors(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(UserError, match="format must be 'esa-attention compressors', got None"):
        load_compressors(tmp_path / "foreign")
    for name in ("missing", "."):
        with pytest.raises(UserError, match="is not there"):
            load_compressors(tmp_path / name)


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({"layers.0.key_weight": rand(RANK, 7)}, {}, ["layer 0", "key_weight", "(5, 7)"]),
        ({"layers.0.key_weight": rand(9, 8), "layers.0.query_weight": rand(9, 8)}, {}, ["layer 0", "1..8", "(9, 8)"]),
        ({"layers.0.key_weight": rand(4, 8), "layers.0.query_weight": rand(4, 8)}, {}, ["layer 0", "bias", "(4,)"]),
        ({"layers.1.query_weight": torch.full((RANK, 8), torch.nan)}, {}, ["layers.1.query_weight", "finite"]),
        ({"layers.1.key_bias": torch.full((RANK,), torch.inf)}, {}, ["layers.1.key_bias", "finite"]),
        ({"layers.0.query_weight": torch.zeros(RANK, 8, dtype=torch.int32)}, {}, ["query_weight", "floating", "int32"]),
        ({"layers.2.key_bias": rand(RANK)}, {}, ["0..1", "layers.2.key_bias"]),
        ({"layers.1.extra": rand(RANK)}, {}, ["extra"]),
        ({}, {"ranks": "[5]"}, ["ranks", "2", "1"]),
        ({}, {"ranks": "[5, 6]"}, ["layer 1", "6", "5"]),
        ({}, {"ranks": "{"}, ["ranks", "JSON list"]),
        ({}, {"num_layers": "3", "ranks": "[5, 5, 5]"}, ["layer 2", "5", "8"]),
        ({}, {"num_layers": "1", "ranks": "[5]"}, ["0..0", "layers.1."]),
        ({}, {"num_layers": "0"}, ["num_layers", "at least 1", "'0'"]),
        ({}, {"num_kv_heads": "-2"}, ["num_kv_heads", "'-2'"]),
        ({}, {"head_dim": "9" * 30}, ["head_dim", "999"]),
        ({}, {"far_position": "near"}, ["far_position", "near"]),
        ({}, {"fingerprint": "[]"}, ["fingerprint", "JSON dict"]),
        ({}, {"version": "9"}, ["version", "'1'", "'9'"]),
    ],
)
def test_inconsistent_file_is_refused(tmp_path, tensors, metadata, words):
    path = save_compressors(Compressors([small(), small(seed=9)], far_position=3), tmp_path / "maps")
    content, described = tensor_files.read_tensors(path, "esa-attention compressors")
    save_file({**content, **tensors}, path, {**described, **metadata})
    with pytest.raises(UserError) as error:
        load_compressors(path)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    bad = QKCompressor(KV_HEADS, DIM, torch.full((2, 8), torch.inf), torch.zeros(2, 8))
    with pytest.raises(UserError, match=r"layers\.0\.query_weight must be finite"):
        save_compressors(Compressors([bad]), tmp_path / "maps")
    assert not list(tmp_path.iterdir())


def test_fingerprint_does_not_depend_on_the_type():
    model = tiny_llama(initializer_range=1e-4)  # small numbers, of which float16 has fewer
    known = fingerprint(model)
    assert known["weights"]
    assert known["num_layers"] == 3
    assert fingerprint(model.bfloat16()) == known  # a float32 checkpoint loaded as bfloat16
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert fingerprint(model.to(dtype)) == known  # a bfloat16 checkpoint loaded as something else
    assert fingerprint(model.model) == known


@pytest.mark.parametrize(
    ("layer", "projection", "seen"), [(0, "q_proj", True), (2, "k_proj", True), (2, "v_proj", False)]
)
def test_fingerprint_sees_other_weights(layer, projection, seen):
    model = tiny_llama()
    known = fingerprint(model)
    with torch.no_grad():
        getattr(model.model.layers[layer].self_attn, projection).weight.mul_(1.1)
    assert (fingerprint(model) != known) == seen


def test_file_of_another_model_is_refused(tmp_path):
    model = tiny_llama()
    path = save_compressors(of(model), tmp_path / "maps")
    assert load_compressors(path, model).ranks == [5, 5, 5]
    with torch.device("meta"):
        skeleton = tiny_llama()
    assert fingerprint(skeleton) == {**fingerprint(model), "weights": None}
    load_compressors(path, skeleton)  # weights that are not there cannot differ
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.add_(0.1)
    with pytest.raises(UserError, match="other weights: weights must be"):
        load_compressors(path, model)
    load_compressors(path, model, strict=False)
    for changes, words in (
        ({"num_hidden_layers": 2}, "number of layers must be 2, got 3"),
        ({"num_key_value_heads": 3}, "num_kv_heads must be 3, got 2"),
        ({"head_dim": 8}, "head_dim must be 8, got 4"),
        ({"num_attention_heads": 4}, "num_heads must be 4, got 6"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope must be"),
    ):
        for strict in (True, False):
            with pytest.raises(UserError, match=words):
                load_compressors(path, tiny_llama(**changes), strict=strict)


def test_maps_over_other_query_heads_are_refused():
    model, weight = tiny_llama(), rand(RANK, 4 * DIM)
    layer = QKCompressor.from_unfolded(weight, weight, num_heads=4, num_kv_heads=KV_HEADS)
    with pytest.raises(UserError, match="layer 0 must act on 8 or 24 dimensions, got 16"):
        Compressors([layer] * 3).check_model(model)


def test_file_holds_tensors_under_plain_names(tmp_path):
    path = save_compressors(Compressors([small(bias=False)]), tmp_path / "maps.safetensors")
    assert set(load_file(path)) == {"layers.0.query_weight", "layers.0.key_weight", "layers.0.spectrum"}
