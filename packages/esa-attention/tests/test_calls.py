"""Calls that fail, and calls at the same time: a cache holds what its own successful calls gave it, and no more."""

import threading

import pytest
import torch
from transformers import DynamicCache

from effkit.errors import UserError
from esa_attention import ESAConfig, apply_esa
from esa_attention.integration.cache_argument import cache_argument

SMALL = ESAConfig(num_initial=4, num_selected=16, num_local=64, chunk_size=16, proximity=1, dense_until=0)
FEW = ESAConfig(num_initial=4, num_selected=8, num_local=16, chunk_size=8, proximity=1, dense_until=0)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def _bad_calls(ids):
    """What a caller may get wrong, over 40 cached tokens of two rows and 6 new ones."""
    right = torch.ones(2, 46, dtype=torch.long)
    right[0, -2:] = 0
    return {
        "right padding": {"attention_mask": right},
        "short mask": {"attention_mask": torch.ones(2, 6, dtype=torch.long)},
        "packed mask": {"attention_mask": torch.ones(2, 1, 6, 46, dtype=torch.bool)},
        "positions": {"position_ids": torch.arange(6)[None]},
        "output_attentions": {"output_attentions": True},
    }


@pytest.mark.parametrize("kind", ["right padding", "short mask", "packed mask", "positions", "output_attentions"])
def test_a_refused_call_leaves_the_cache_as_it_was(tiny, tokens, kind):
    model, ids = tiny(), tokens(2, 46)
    name = cache_argument(model)
    with apply_esa(model, FEW) as handle:
        cache, twin = handle.new_cache(), handle.new_cache()
        for one in (cache, twin):
            model(ids[:, :40], **{name: one})
        with pytest.raises(UserError):
            model(ids[:, 40:], **{name: cache}, **_bad_calls(ids)[kind])
        assert [layer.get_seq_length() for layer in cache.layers] == [40, 40]
        retry, expected = (model(ids[:, 40:], **{name: c}).logits for c in (cache, twin))
    assert torch.equal(retry, expected)


def test_the_first_call_may_fail_and_another_batch_size_follow(tiny, tokens):
    model, ids = tiny(), tokens(3, 40)
    name = cache_argument(model)
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    with apply_esa(model, SMALL) as handle:
        cache = handle.new_cache()
        with pytest.raises(UserError, match="left"):
            model(ids, attention_mask=mask, **{name: cache})
        assert cache.get_seq_length() == 0
        torch.testing.assert_close(model(ids[:2], **{name: cache}).logits, model(ids[:2]).logits)


@pytest.mark.parametrize("where", ["second layer", "after the decoder", "interrupted"])
@pytest.mark.parametrize("selection", ["paper", "reuse"])
def test_a_failure_in_the_middle_is_taken_back_from_every_layer(tiny, tokens, where, selection):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)
    parts = ids[:, 40:].split([6, 1, 1, 1, 11], dim=1)
    error = KeyboardInterrupt if where == "interrupted" else RuntimeError

    def fail(*_):
        raise error

    with apply_esa(model, FEW.replace(selection=selection)) as handle:
        logits = []
        for broken in (False, True):
            cache = handle.new_cache()
            model(ids[:, :40], **{name: cache})
            for part in parts:
                if broken:
                    module = model.lm_head if where == "after the decoder" else model.model.layers[1].mlp
                    hook = module.register_forward_pre_hook(fail)
                    with pytest.raises(error):
                        model(part, **{name: cache})
                    hook.remove()
                logits.append(model(part, **{name: cache}).logits)
            assert [layer.get_seq_length() for layer in cache.layers] == [60, 60]
    count = len(parts)
    assert all(torch.equal(a, b) for a, b in zip(logits[:count], logits[count:], strict=True))


def test_a_reordering_that_fails_half_way_makes_the_cache_unusable(tiny, tokens, monkeypatch):
    model, ids = tiny(), tokens(2, 20)
    name = cache_argument(model)

    def fail(*_):
        raise MemoryError

    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        model(ids, **{name: cache})
        monkeypatch.setattr(cache.layers[1].store, "rearrange", fail)
        with pytest.raises(MemoryError):
            cache.reorder_cache(torch.tensor([1, 0]))
        with pytest.raises(UserError, match="reorder_cache failed in the middle; take a new one"):
            model(ids[:, :1], **{name: cache})


def test_positional_arguments_are_looked_at_too(tiny, tokens):
    model, ids = tiny(), tokens(2, 20)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    with apply_esa(model, SMALL):
        by_name = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(model.model(ids, mask).last_hidden_state[1, 7:], by_name[1, 7:])
        with pytest.raises(UserError, match="left"):
            model.model(ids, mask.flip(1))


def test_a_cache_of_esa_is_not_read_by_a_models_own_attention(tiny, tokens):
    model, ids = tiny(), tokens(1, 20)
    name = cache_argument(model)
    with apply_esa(model, SMALL) as handle:
        cache = handle.new_cache()
        model(ids, **{name: cache})
    with pytest.raises(UserError, match="this model's own attention cannot read it"):
        model(ids[:, :1], **{name: cache})
    assert model(ids, **{name: DynamicCache()}).logits.shape == (1, 20, 130)


def test_threads_on_one_model_keep_apart(tiny, tokens):
    """Forced to interleave: each thread waits for the other inside its first layer."""
    model, prompts = tiny(), [tokens(1, 50, seed) for seed in (1, 2)]
    name = cache_argument(model)
    barrier = threading.Barrier(2, timeout=30)
    answers: dict[int, list] = {0: [], 1: []}

    with apply_esa(model, FEW) as handle:

        def ask(number):
            with torch.no_grad():
                cache = handle.new_cache()
                for part in prompts[number].split([30, 1, 1, 9, 9], dim=1):
                    answers[number].append(model(part, **{name: cache}).logits)

        for number in (0, 1):
            ask(number)
        alone = {number: list(parts) for number, parts in answers.items()}
        answers[0].clear()
        answers[1].clear()
        # After the projections of a layer, before its attention: where a table by module is already overwritten.
        hook = model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda *_: (barrier.wait(), None)[1])
        threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hook.remove()
    for number in (0, 1):
        assert len(answers[number]) == 5
        assert all(torch.equal(a, b) for a, b in zip(answers[number], alone[number], strict=True))


def test_many_threads_generate_what_one_does(tiny, tokens):
    model, prompts = tiny(), [tokens(1, 30 + seed, seed) for seed in range(6)]
    options = {"max_new_tokens": 6, "do_sample": False}
    with apply_esa(model, FEW):
        alone = [model.generate(ids, **options) for ids in prompts]
        found: list = [None] * len(prompts)

        def generate(number):
            found[number] = model.generate(prompts[number], **options)

        threads = [threading.Thread(target=generate, args=(number,)) for number in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_one_cache_in_two_threads_is_refused(tiny, tokens):
    model, ids = tiny(), tokens(1, 20)
    name, inside, go_on = cache_argument(model), threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        go_on.wait(30)

    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        hook = model.model.layers[0].mlp.register_forward_pre_hook(wait)
        thread = threading.Thread(target=lambda: model(ids, **{name: cache}))
        thread.start()
        inside.wait(30)
        with pytest.raises(UserError, match="in another thread"):
            model(ids, **{name: cache})
        go_on.set()
        thread.join()
        hook.remove()
        assert cache.get_seq_length() == 20
