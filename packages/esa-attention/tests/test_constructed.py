"""The constructed model: its written-down weights do what the module says, and retrieval has known answers."""

import pytest
import torch

from effkit.errors import UserError
from esa_attention.calibration.calibrate import calibrate
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.constructed import constructed_induction
from esa_attention.evaluation.tasks.counting_stars import counting_stars
from esa_attention.evaluation.tasks.multi_needle import multi_needle, one_block
from esa_attention.evaluation.tasks.passkey import passkey
from esa_attention.evaluation.tasks.runner import ask, ask_block, feed, new_cache, run_samples
from esa_attention.evaluation.tasks.variable_tracking import variable_tracking
from esa_attention.evaluation.tasks.vocab import SymbolVocab
from esa_attention.integration.apply import apply_esa

VOCAB = SymbolVocab()
ESA = ESAConfig(
    num_initial=16, num_local=128, num_selected=32, proximity=1, chunk_size=64, far_position=128, dense_until=0
)


def accuracy(model, length: int, num_needles: int = 4, seed: int = 0, make_cache=None) -> float:
    results = run_samples(model, multi_needle(VOCAB, length, num_needles, seed), make_cache=make_cache)
    return sum(r.score for r in results) / num_needles


def test_layer_0_writes_the_previous_token():
    model = constructed_induction()
    ids = torch.randint(2, 128, (300,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = model(ids[None], output_hidden_states=True).hidden_states[1][0]
    previous = torch.nn.functional.one_hot(ids[:-1], 128).float()
    assert torch.allclose(hidden[1:, 128:256], previous, atol=1e-5)
    assert torch.allclose(hidden[:, :128], torch.nn.functional.one_hot(ids, 128).float(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_answer_has_logit_ten(dtype):
    model = constructed_induction(dtype=dtype)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 100, 5, 60, 101, 102, 5]])).logits[0, -1]
    assert int(logits.argmax()) == 60
    assert logits.max().item() == pytest.approx(10.0, rel=0.01 if dtype == torch.bfloat16 else 1e-5)
    assert logits.topk(2).values[1].item() < 0.1


@pytest.mark.parametrize(("rope_theta", "length"), [(1e7, 512), (1e7, 2048), (1e4, 256), (1e4, 512)])
def test_full_attention_retrieves_everything_in_distribution(rope_theta, length):
    assert accuracy(constructed_induction(rope_theta), length) == 1.0


def test_full_attention_loses_it_past_the_context_with_a_small_base():
    model = constructed_induction(1e4)
    assert accuracy(model, 2048) == 0.5
    assert accuracy(model, 6000) == 0.25


@pytest.mark.parametrize("vocab_size", [64, 100, 256])
def test_other_vocabularies(vocab_size):
    model = constructed_induction(1e7, vocab_size)
    vocab = SymbolVocab.for_model(model)
    assert int(vocab.filler[-1]) == vocab_size - 1
    results = list(run_samples(model, multi_needle(vocab, 600, num_needles=8)))
    assert [r.score for r in results] == [1.0] * 8


def test_seed_is_reproducible_and_the_callers_generator_untouched():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = constructed_induction(), constructed_induction(), constructed_induction(seed=1)
    assert torch.equal(torch.rand(3), expected)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"vocab_size": 130}, ["vocab_size", "130", "multiple of 4"]),
        ({"vocab_size": 32}, ["vocab_size", "32", "64"]),
        ({"rope_theta": 1.0}, ["rope_theta", "1.0"]),
        ({"max_position_embeddings": 0}, ["max_position_embeddings", "0"]),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(UserError) as error:
        constructed_induction(**kwargs)
    assert all(word in str(error.value) for word in words)


def test_full_attention_answers_the_other_tasks():
    model = constructed_induction(1e7)
    samples = [
        counting_stars(VOCAB, 2000, num_stars=24),
        passkey(VOCAB, 2000, depth=0.3, digits=8),
        variable_tracking(VOCAB, 2000, num_hops=6, num_chains=5),
    ]
    assert [r.score for r in run_samples(model, samples)] == [1.0, 1.0, 1.0]
    context, questions, due = one_block(multi_needle(VOCAB, 2000, 32))
    cache = new_cache(model)
    feed(model, context, cache)
    assert torch.equal(ask_block(model, cache, questions), due)


def test_esa_retrieves_beyond_the_context_where_a_window_cannot():
    model = constructed_induction(1e4)
    with apply_esa(model, ESA) as handle:
        assert accuracy(model, 6000, 8, make_cache=handle.new_cache) == 1.0
    samples = [s for s in multi_needle(VOCAB, 6000, 8) if s.meta["positions"][0] < 6000 - 128]
    with apply_esa(model, ESA.replace(method="sinks_local")) as handle:
        assert [r.score for r in run_samples(model, samples, make_cache=handle.new_cache)] == [0.0] * len(samples)


def test_the_closed_form_retrieves_with_a_quarter_of_the_dimensions():
    model = constructed_induction(1e4)
    text = torch.cat([multi_needle(VOCAB, 512, 8, seed)[0].context_ids for seed in range(100, 132)])
    found = {}
    for rank in (32, 8):
        with apply_esa(model, ESA, calibrate(model, text, rank=rank, far_position=ESA.w)) as handle:
            found[rank] = accuracy(model, 6000, 8, make_cache=handle.new_cache)
    assert found == {32: 1.0, 8: 0.0}


@pytest.mark.parametrize("proximity", [0, 1, 3])
def test_esa_answers_32_questions_in_one_block(proximity):
    model = constructed_induction(1e4)
    context, questions, due = one_block(multi_needle(VOCAB, 6000, 32))
    with apply_esa(model, ESA.replace(proximity=proximity)) as handle:
        cache = handle.new_cache()
        feed(model, context, cache)
        assert torch.equal(ask_block(model, cache, questions), due)


def test_esa_counts_stars_exactly():
    model = constructed_induction(1e4)
    sample = counting_stars(VOCAB, 6000, num_stars=20)  # the last one is 150 tokens from the end: none in the window
    with apply_esa(model, ESA.replace(num_selected=64)) as handle:
        (result,) = run_samples(model, [sample], make_cache=handle.new_cache)
    assert result.score == 1.0
    logits = result.answer.logits.sort(descending=True).values
    assert torch.allclose(logits[:20], logits[:1].expand(20), rtol=1e-4)
    assert logits[19] > 0.1
    assert logits[20] < 1e-4


@pytest.mark.parametrize("question", ["block", "tokens"])
def test_esa_decodes_strings_and_follows_chains(question):
    model = constructed_induction(1e4)
    samples = [passkey(VOCAB, 6000, depth=0.3, digits=8), variable_tracking(VOCAB, 6000, num_hops=6, num_chains=5)]
    with apply_esa(model, ESA) as handle:
        results = list(run_samples(model, samples, make_cache=handle.new_cache, question=question))
    assert [r.score for r in results] == [1.0, 1.0]


@pytest.mark.slow
def test_esa_answers_32_needles_in_65536_tokens():
    model = constructed_induction(1e4)
    samples = multi_needle(VOCAB, 65536, 32)
    context, questions, due = one_block(samples)
    with apply_esa(model, ESA) as handle:
        cache = handle.new_cache(reserve=65536 + 64)
        feed(model, context, cache)
        assert torch.equal(ask_block(model, cache, questions), due)
        assert [ask(model, cache, s.question_ids).ids for s in samples] == [s.answers[0] for s in samples]
