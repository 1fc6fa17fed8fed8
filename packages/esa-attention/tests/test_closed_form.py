"""Known answers of the closed form, of the moments it is made of, and of what it is compared with."""

import warnings

import pytest
import torch

from effkit.errors import UserError
from esa_attention.calibration import (
    StreamingMoments,
    closed_form,
    key_pca,
    rank_for_tail,
    recall_at_k,
    score_error,
    sgd_paper,
)
from esa_attention.calibration.closed_form import pair_loss


def gaussians(count: int, dim: int, *, seed: int = 0, decay: float = 0.7, mean: float = 0.0, draws: int = 1):
    """Queries and keys with power-law spectra in unrelated directions: ``draws`` pairs of ``(count, dim)``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scale = torch.arange(1, dim + 1, dtype=torch.float64) ** -decay
    mix_q, mix_k = (torch.linalg.qr(normal(dim, dim))[0] * scale for _ in range(2))
    shift = mean * normal(dim)
    return [(normal(count, dim) @ mix_q.T, normal(count, dim) @ mix_k.T + shift) for _ in range(draws)]


def moments_of(*pairs, uncentred: bool = True) -> StreamingMoments:
    moments = StreamingMoments(pairs[0][0].shape[1], uncentred=uncentred)
    for query, key in pairs:
        moments.update(query, key)
    return moments


def eq7(query, key, w_q, w_k, b_q=None, b_k=None):
    """Mean of Eq. 7 over all pairs, from the samples."""
    low = torch.nn.functional.linear(query, w_q, b_q) @ torch.nn.functional.linear(key, w_k, b_k).T
    return (low - query @ key.T).square().mean()


def relative_gradients(query, key, maps):
    """Gradients of Eq. 7 at the maps, as shares of those some way off."""
    shares = []
    tensors = {n: t.clone().requires_grad_() for n, t in maps.tensors().items()}
    at = torch.autograd.grad(eq7(query, key, *tensors.values()), list(tensors.values()))
    off = {n: (t.detach() + 0.1 * t.abs().mean() + 0.1).requires_grad_() for n, t in tensors.items()}
    beside = torch.autograd.grad(eq7(query, key, *off.values()), list(off.values()))
    shares = [float(a.norm() / b.norm()) for a, b in zip(at, beside, strict=True)]
    assert all(b.norm() > 0 for b in beside)
    return shares


def root(moment):
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@pytest.mark.parametrize("rank", [1, 7, 31, 32])
def test_loss_is_the_tail_of_the_spectrum(rank):
    ((query, key),) = gaussians(500, 32, mean=2.0)
    moments = moments_of((query, key))
    maps = closed_form(moments, rank)
    tail = float(maps.spectrum[rank:].square().sum())
    measured = float(eq7(query, key - key.mean(dim=0), maps.query_weight, maps.key_weight))
    total = float(maps.spectrum.square().sum())
    assert measured == pytest.approx(tail, rel=1e-8, abs=1e-12 * total)
    assert pair_loss(maps, moments) == pytest.approx(tail, rel=1e-8, abs=1e-12 * total)
    assert total == pytest.approx(float((query @ (key - key.mean(dim=0)).T).square().mean()), rel=1e-10)


def test_maps_are_those_of_the_formula_with_square_roots_and_inverses():
    ((query, key),) = gaussians(300, 24)
    moments = moments_of((query, key))
    s_q, c_k = root(moments.query_moment), root(moments.key_covariance)
    u, s, vh = torch.linalg.svd(s_q @ c_k)
    w_q = (u[:, :9] * s[:9].sqrt()).T @ torch.linalg.inv(s_q)
    w_k = s[:9, None].sqrt() * vh[:9] @ torch.linalg.inv(c_k)
    maps = closed_form(moments, 9, num_kv_heads=3)
    torch.testing.assert_close(maps.spectrum, s, rtol=0, atol=1e-10)
    torch.testing.assert_close(maps.query_weight.T @ maps.key_weight, w_q.T @ w_k, rtol=0, atol=1e-10)
    torch.testing.assert_close(maps.query_weight.abs(), w_q.abs(), rtol=0, atol=1e-10)
    assert (maps.num_kv_heads, maps.head_dim, maps.rank) == (3, 8, 9)
    assert maps.query_weight.dtype == maps.spectrum.dtype == torch.float64


def test_gradient_at_the_solution_is_zero():
    ((query, key),) = gaussians(400, 24, mean=1.0)
    maps = closed_form(moments_of((query, key)), 6)
    assert max(relative_gradients(query, key - key.mean(dim=0), maps)) < 1e-10


def test_dimensions_are_uncorrelated_and_share_the_singular_value():
    ((query, key),) = gaussians(400, 24, mean=1.0)
    maps = closed_form(moments_of((query, key)), 6)
    for rows in (maps.project_query(query), maps.project_key(key - key.mean(dim=0))):
        torch.testing.assert_close(rows.T @ rows / len(rows), maps.spectrum[:6].diag(), rtol=0, atol=1e-10)


def test_first_rows_are_the_maps_of_a_lower_rank():
    moments = moments_of(*gaussians(200, 16))
    high, low = closed_form(moments, 12), closed_form(moments, 4)
    torch.testing.assert_close(high.query_weight[:4], low.query_weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(high.key_weight[:4], low.key_weight, rtol=0, atol=1e-10)


def test_full_rank_gives_exact_scores_up_to_a_constant_of_the_query():
    (train, (query, key)) = gaussians(300, 24, mean=3.0, draws=2)
    for bias in (False, True):
        maps = closed_form(moments_of(train), 24, bias=bias)
        error = maps.project_query(query) @ maps.project_key(key).T - query @ key.T
        assert float((error - error.mean(dim=1, keepdim=True)).abs().max()) < 1e-10
        assert float(error.abs().max()) < 1e-10  # invertible moments: not even the constant is lost


def test_biases_of_the_literal_loss_are_zero_at_its_optimum():
    ((query, key),) = gaussians(400, 24, mean=1.0)
    query = query + 0.7
    moments = moments_of((query, key))
    maps = closed_form(moments, 6, bias=True)
    assert [t.shape for t in (maps.query_bias, maps.key_bias)] == [(6,), (6,)]
    assert max(relative_gradients(query, key, maps)) < 1e-10
    loss = float(eq7(query, key, *maps.tensors().values()))
    # The same from the augmented problem: a constant 1 appended to both, target diag(I, 0).
    one = torch.ones(400, 1, dtype=torch.float64)
    roots = [root(x.T @ x / 400) for x in (torch.cat((query, one), 1), torch.cat((key, one), 1))]
    target = torch.eye(25, dtype=torch.float64)
    target[-1, -1] = 0
    u, s, vh = torch.linalg.svd(roots[0] @ target @ roots[1])
    assert loss == pytest.approx(float(s[6:].square().sum()), rel=1e-8)
    torch.testing.assert_close(s[:24], maps.spectrum, rtol=0, atol=1e-10)
    augmented = torch.linalg.inv(roots[0]) @ (u[:, :6] * s[:6]) @ vh[:6] @ torch.linalg.inv(roots[1])
    assert float(augmented[-1].abs().max()) < 1e-10
    assert float(augmented[:, -1].abs().max()) < 1e-10
    torch.testing.assert_close(augmented[:24, :24], maps.query_weight.T @ maps.key_weight, rtol=0, atol=1e-10)
    # Centred maps pay for the constant that they do not model, and are the better ones where it does not count.
    centred = closed_form(moments, 6)
    assert loss < float(eq7(query, key, *centred.tensors().values()))
    assert score_error(centred, query, key) < score_error(maps, query, key)


@pytest.mark.parametrize("few", ["queries", "keys", "both"])
def test_rank_deficient_moments(few):
    ((query, key),) = gaussians(60, 16)
    flat = torch.eye(16, dtype=torch.float64)
    flat[:, 10:] = 0
    query = query @ flat if few != "keys" else query
    key = key @ flat if few != "queries" else key
    maps = closed_form(moments_of((query, key)), 16)
    assert all(bool(torch.isfinite(t).all()) for t in maps.tensors().values())
    assert float(maps.query_weight[10:].abs().max()) == float(maps.key_weight[10:].abs().max()) == 0
    assert float(maps.spectrum[10:].abs().max()) < 1e-10
    centred = key - key.mean(dim=0)
    assert float((maps.project_query(query) @ maps.project_key(centred).T - query @ centred.T).abs().max()) < 1e-10
    part = closed_form(moments_of((query, key)), 4)
    assert float(eq7(query, centred, part.query_weight, part.key_weight)) == pytest.approx(
        float(part.spectrum[4:].square().sum()), rel=1e-8
    )


def test_scores_of_lower_rank_than_queries_and_keys():
    query, key = gaussians(60, 16)[0]
    query[:, 10:] = 0
    key[:, :6] = 0  # four dimensions in common
    maps = closed_form(moments_of((query, key)), 16)
    assert float(maps.spectrum[3]) > 1e-3
    assert float(maps.spectrum[4:].max()) < 1e-12
    assert not bool(maps.query_weight[4:].any())
    assert not bool(maps.key_weight[4:].any())
    assert float(eq7(query, key - key.mean(dim=0), maps.query_weight, maps.key_weight)) < 1e-20


def test_a_query_unlike_those_seen_gets_its_least_squares_fit():
    ((query, key),) = gaussians(60, 16)
    query[:, 10:] = 0
    maps = closed_form(moments_of((query, key)), 4)
    strange = torch.zeros(16, dtype=torch.float64)
    strange[12] = 1.0
    centred = key - key.mean(dim=0)
    fit = torch.linalg.lstsq(maps.project_key(centred), centred @ strange[:, None]).solution[:, 0]
    assert float(fit.norm()) > 1e-3
    torch.testing.assert_close(maps.project_query(strange), fit, rtol=0, atol=1e-10)


def test_keys_that_do_not_differ_give_no_dimension():
    query, key = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.full((40, 8), 0.1)
    maps = closed_form(moments_of((query, key)), 3)
    for value in (maps.spectrum, maps.query_weight, maps.key_weight):
        assert not bool(value.any())


def test_few_tokens_warn_and_none_raise():
    query, key = gaussians(10, 16)[0]
    for solve in (closed_form, key_pca):
        with pytest.warns(UserWarning, match="10 tokens, fewer than the 16 dimensions"):
            solve(moments_of((query, key)), 4)
        with pytest.raises(UserError, match="at least 1 token, got 0"):
            solve(StreamingMoments(16), 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "rank must be a whole number in 1..16 .* got 0"),
        ({"rank": 17}, "rank must be .* got 17"),
        ({"rank": 4.0}, r"rank must be .* got 4\.0"),
        ({"rank": 4, "eps": 0.0}, r"eps must be between 0 and 1, got 0\.0"),
        ({"rank": 4, "num_kv_heads": 3}, "num_kv_heads must divide the 16 dimensions of keys, got 3"),
        ({"rank": 4, "bias": True}, "uncentred=True"),
    ],
)
def test_mistakes_are_named(arguments, words):
    moments = moments_of(*gaussians(40, 16), uncentred=False)
    with pytest.raises(UserError, match=words):
        closed_form(moments, **arguments)


def test_moments_of_several_sequences():
    pairs = [(q + 1, k + i) for i, (q, k) in enumerate(gaussians(30, 8, draws=3))]
    moments = moments_of(*pairs)
    query = torch.cat([q for q, _ in pairs])
    centred = torch.cat([k - k.mean(dim=0) for _, k in pairs])
    key = torch.cat([k for _, k in pairs])
    torch.testing.assert_close(moments.query_moment, query.T @ query / 90, rtol=0, atol=1e-12)
    torch.testing.assert_close(moments.key_covariance, centred.T @ centred / 90, rtol=0, atol=1e-12)
    torch.testing.assert_close(moments.key_moment, key.T @ key / 90, rtol=0, atol=1e-12)
    assert (moments.num_tokens, moments.num_sequences) == (90, 3)
    halves = moments_of(*pairs[:1]).merge(moments_of(*pairs[1:]))
    for name, value in moments.state().items():
        torch.testing.assert_close(halves.state()[name], value, rtol=0, atol=1e-12)


def test_long_sequences_are_taken_in_blocks(monkeypatch):
    from esa_attention.calibration import moments as module

    pair = gaussians(50, 8)[0]
    whole = moments_of(pair).state()
    monkeypatch.setattr(module, "_BLOCK", 7)
    for name, value in moments_of(pair).state().items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-12)


def test_small_variance_beside_an_outlier_channel_survives():
    generator = torch.Generator().manual_seed(0)
    key = torch.randn(2000, 4, generator=generator)
    key[:, 0] = key[:, 0] * 1000 + 5000
    key[:, 1] *= 1e-3
    covariance = moments_of((key, key)).key_covariance
    expected = torch.cov(key.double().T, correction=0)
    torch.testing.assert_close(covariance, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["queries", "keys"])
@pytest.mark.parametrize("row", [0, 5])
def test_values_that_are_not_finite_are_named_and_not_added(value, which, row):
    moments = StreamingMoments(8, layer=3)
    good = gaussians(20, 8)[0]
    moments.update(*good)
    before = {name: t.clone() for name, t in moments.state().items()}
    bad = tuple(t.clone() for t in good)
    bad[which == "keys"][row, 2] = value
    with pytest.raises(UserError, match=f"calibration {which} of layer 3 must be finite"):
        moments.update(*bad)
    for name, t in moments.state().items():
        assert torch.equal(t, before[name])


def test_moments_refuse_what_does_not_fit():
    moments = StreamingMoments(8, layer=2)
    rows = torch.zeros(3, 8)
    with pytest.raises(UserError, match=r"at least 1 token, got 0 .layer 2"):
        moments.update(rows[:0], rows[:0])
    with pytest.raises(UserError, match=r"key must have the shape \(N, 8\), the same N in both, got \(2, 8\)"):
        moments.update(rows, rows[:2])
    with pytest.raises(UserError, match=r"query_bar must have the shape .* got \(3, 7\)"):
        moments.update(rows[:, :7], rows)
    with pytest.raises(UserError, match=r"\(8, 2, False\), got \(8, 1, False\)"):
        moments.merge(StreamingMoments(8, layer=1))
    with pytest.raises(UserError, match="key_dim must be at least 1, got 0"):
        StreamingMoments(0)


def test_state_comes_back_and_damage_is_seen():
    moments = moments_of(gaussians(20, 8)[0])
    state = moments.state()
    again = StreamingMoments.from_state(state, layer=0)
    assert again.state().keys() == state.keys()
    assert all(torch.equal(again.state()[name], state[name]) for name in state)
    for changes, words in (
        ({"query": torch.zeros(3, 8, dtype=torch.float64)}, r"query of layer 0 must be .*\(3, 8\)"),
        ({"scatter": state["scatter"].float()}, "scatter .* got torch.float32"),
        ({"between": state["between"] * torch.nan}, "between of layer 0 must be finite"),
        ({"counts": torch.tensor([-1, 0])}, r"counts .* \[-1, 0\]"),
        ({"more": torch.zeros(1)}, "more"),
    ):
        with pytest.raises(UserError, match=words):
            StreamingMoments.from_state({**state, **changes})
    with pytest.raises(UserError, match=r"got .'query', 'scatter'"):
        StreamingMoments.from_state({name: state[name] for name in ("query", "scatter")})


def test_key_pca_keeps_the_widest_directions():
    query, key = gaussians(300, 16, mean=2.0)[0]
    maps = key_pca(moments_of((query, key)), 5, num_kv_heads=2)
    values, vectors = torch.linalg.eigh(torch.cov(key.T, correction=0))
    projector = vectors[:, -5:] @ vectors[:, -5:].T
    torch.testing.assert_close(maps.key_weight.T @ maps.key_weight, projector, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        maps.key_weight @ maps.key_weight.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-10
    )
    assert torch.equal(maps.query_weight, maps.key_weight)
    torch.testing.assert_close(maps.spectrum.square(), values.flip(0), rtol=0, atol=1e-10)
    with pytest.raises(UserError, match="got 17"):
        key_pca(moments_of((query, key)), 17)


@pytest.mark.parametrize(
    ("tail", "multiple_of", "rank"),
    [(0.0, 1, 4), (0.001, 1, 4), (0.011, 1, 3), (0.06, 1, 2), (0.3, 1, 2), (0.32, 1, 1), (0.06, 3, 3), (0.9, 8, 4)],
)
def test_rank_for_tail(tail, multiple_of, rank):
    spectrum = torch.tensor([8.0, 5.0, 2.0, 1.0])  # squares 64, 25, 4, 1: shares lost 0.32, 0.053, 0.0106, 0
    assert rank_for_tail(spectrum, tail, multiple_of=multiple_of) == rank


def test_rank_for_tail_at_the_edges():
    assert rank_for_tail(torch.zeros(16), 0.01, multiple_of=8) == 8
    assert rank_for_tail(torch.tensor([1.0, 0.0]), 0.0) == 1
    for spectrum, tail, words in (
        (torch.ones(4), 1.0, r"tail must be in \[0, 1\), got 1\.0"),
        (torch.ones(4), -0.1, r"tail .* got -0\.1"),
        (torch.tensor([1.0, 2.0]), 0.1, "falling"),
        (torch.tensor([torch.nan, 1.0]), 0.1, "finite"),
        (torch.ones(0), 0.1, r"\(0,\)"),
    ):
        with pytest.raises(UserError, match=words):
            rank_for_tail(spectrum, tail)
    with pytest.raises(UserError, match="multiple_of must be at least 1, got 0"):
        rank_for_tail(torch.ones(4), 0.1, multiple_of=0)


def test_pair_loss_agrees_with_samples_and_refuses_biases():
    train, test = gaussians(200, 16, mean=1.0, draws=2)
    maps, held_out = key_pca(moments_of(train), 4), moments_of(test)
    measured = float(eq7(test[0], test[1] - test[1].mean(dim=0), maps.query_weight, maps.key_weight))
    assert pair_loss(maps, held_out) == pytest.approx(measured, rel=1e-10)
    share = measured / float((test[0] @ (test[1] - test[1].mean(dim=0)).T).square().mean())
    assert score_error(maps, *test) == pytest.approx(share, rel=1e-10)
    trained = sgd_paper(train, 4, epochs=1).compressor
    with pytest.raises(UserError, match="no biases"):
        pair_loss(trained, held_out)


def test_training_counts_its_steps_and_its_losses():
    query, key = (t.float() for t in gaussians(300, 8)[0])
    result = sgd_paper((query, key), 3, epochs=2, seed=5)
    assert result.losses.shape == (2 * 3,)
    generator = torch.Generator().manual_seed(5)
    w_q, w_k = (torch.empty(3, 8).uniform_(-(8**-0.5), 8**-0.5, generator=generator) for _ in range(2))
    b_q, b_k = (torch.empty(3).uniform_(-(8**-0.5), 8**-0.5, generator=generator) for _ in range(2))
    first = torch.randperm(300, generator=generator)[:128]
    pairs = [
        (float((w_q @ query[c] + b_q) @ (w_k @ key[m] + b_k)) - float(query[c] @ key[m])) ** 2
        for c in first[:128:4]
        for m in first[:128:4]
    ]
    sampled = float(eq7(query[first[::4]], key[first[::4]], w_q, w_k, b_q, b_k))
    assert sum(pairs) / len(pairs) == pytest.approx(sampled, rel=1e-5)
    assert float(result.losses[0]) == pytest.approx(float(eq7(query[first], key[first], w_q, w_k, b_q, b_k)), rel=1e-5)


def test_training_depends_on_the_seed_alone():
    query, key = (t.float() for t in gaussians(256, 8)[0])
    state = torch.get_rng_state()
    one = sgd_paper((query, key), 3, epochs=2, seed=1)
    with torch.inference_mode():
        same = sgd_paper([(query[:100], key[:100]), (query[100:], key[100:])], 3, epochs=2, seed=1)
    other = sgd_paper((query, key), 3, epochs=2, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.losses, same.losses)
    assert torch.equal(one.compressor.query_weight, same.compressor.query_weight)
    assert not torch.equal(one.losses, other.losses)
    assert not one.compressor.query_weight.requires_grad
    assert set(sgd_paper((query, key), 3, epochs=1, bias=False).compressor.tensors()) == {"query_weight", "key_weight"}


def test_training_can_begin_at_the_optimum():
    pair = tuple(t.float() for t in gaussians(512, 16)[0])
    cold, warm = (sgd_paper(pair, 4, epochs=20, lr=1e-3, init=init) for init in ("default", "closed_form"))
    best = float(closed_form(moments_of(pair), 4, bias=True).spectrum[4:].square().sum())
    maps = [result.compressor.tensors().values() for result in (warm, cold)]
    losses = [float(eq7(*pair, *tensors)) for tensors in maps]
    assert best * (1 - 1e-5) <= losses[0] < losses[1]
    assert losses[0] == pytest.approx(best, rel=0.02)
    assert float(cold.losses[-4:].mean()) < 0.8 * float(cold.losses[:4].mean())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.0}, r"lr must be a positive number, got 0\.0"),
        ({"lr": float("inf")}, "lr must be a positive number, got inf"),
        ({"lr": 1e20}, "lr must be small enough"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be .* got 1\.5"),
        ({"init": "zero"}, "init='zero' is not known"),
        ({"rank": 9}, "rank must be a whole number in 1..8"),
        ({"samples": []}, "at least one pair"),
        ({"samples": (torch.zeros(3, 8), torch.zeros(2, 8))}, r"\(3, 8\) and \(2, 8\)"),
        ({"samples": (torch.zeros(3, 8), torch.full((3, 8), torch.nan))}, "keys must be finite"),
    ],
)
def test_mistakes_in_training_are_named(arguments, words):
    samples = tuple(t.float() for t in gaussians(40, 8)[0])
    with pytest.raises(UserError, match=words):
        sgd_paper(**{"samples": samples, "rank": 3, "epochs": 2, **arguments})


def ranking(epochs):
    """Recall of the top 200 of 4,096 held-out keys at 32 of 256 dimensions, and the error of scores, by method."""
    train, test = gaussians(4096, 256, draws=2)
    moments = moments_of(train, uncentred=False)
    single = tuple(t.float() for t in train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {
            "closed_form": closed_form(moments, 32),
            "sgd": sgd_paper(single, 32, epochs=epochs).compressor,
            "pca": key_pca(moments, 32),
        }
    query, key = test[0][:1024].float(), test[1].float()
    return {name: (recall_at_k(m, query, key, 200), score_error(m, query, key)) for name, m in found.items()}


def test_closed_form_beats_training_and_key_pca_on_unseen_pairs():
    found = ranking(epochs=10)  # 320 steps
    assert found["closed_form"][0] > max(found["sgd"][0], found["pca"][0]) + 0.1
    assert found["closed_form"][1] < 0.3 * min(found["sgd"][1], found["pca"][1])
    assert found["closed_form"][0] > 0.8


@pytest.mark.slow
def test_closed_form_beats_long_training():
    found = ranking(epochs=120)  # 3,840 steps, about as many as the paper's 3,910
    assert found["closed_form"][0] > max(found["sgd"][0], found["pca"][0]) + 0.01
    assert found["closed_form"][1] < found["sgd"][1] < found["pca"][1]
