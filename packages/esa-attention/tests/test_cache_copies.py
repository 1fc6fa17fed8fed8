"""A prompt is read once: its cache is copied for every question, saved and loaded, and never takes the model along."""

import copy
import io
import pickle

import pytest
import torch

from effkit.errors import UserError
from esa_attention import ESAConfig, QKCompressor, apply_esa
from esa_attention.integration.cache_argument import cache_argument

FEW = ESAConfig(num_initial=4, num_selected=8, num_local=16, chunk_size=8, proximity=1, dense_until=0)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def _maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [QKCompressor(2, 8, *(torch.randn(4, 16, generator=generator) for _ in range(2))) for _ in range(2)]


CONFIGS = {
    "plain": FEW,
    "int8": FEW.replace(index_dtype="int8"),
    "reuse": FEW.replace(selection="reuse"),
    "offload": FEW.replace(offload=True),
    "infllm": FEW.replace(method="infllm_blocks", block_size=4, block_representatives=2),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("how", ["copy", "deepcopy", "file", "pickle"])
def test_a_copy_answers_as_the_original_and_leaves_it_alone(tiny, tokens, tmp_path, config, how):
    model, ids, questions = tiny(), tokens(2, 70), [tokens(2, 5, seed) for seed in (1, 2)]
    name = cache_argument(model)

    def twin(cache, handle):
        if how == "file":
            return handle.load_cache(cache.save(tmp_path / "prompt.safetensors"))
        return pickle.loads(pickle.dumps(cache)) if how == "pickle" else getattr(copy, how)(cache)

    with apply_esa(model, config, _maps()) as handle:
        cache = handle.new_cache()
        model(ids, **{name: cache})
        copies = [twin(cache, handle) for _ in questions]
        found = [model(q, **{name: c}).logits for q, c in zip(questions, copies, strict=True)]
        assert cache.get_seq_length() == 70
        for question, answer in zip(questions, found, strict=True):
            torch.testing.assert_close(model(question, **{name: cache}).logits, answer, rtol=0, atol=1e-9)
            cache.crop(-5)


def test_the_model_is_never_inside(tiny, tokens):
    model, ids = tiny(vocab_size=4000), tokens(1, 30)
    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache(reserve=4096)
        model(ids, **{cache_argument(model): cache})
        memo: dict = {}
        copy.deepcopy(cache, memo)
        assert not any(isinstance(x, torch.nn.Module) for x in memo.values())
        file = io.BytesIO()
        torch.save(cache, file)
    held = 2 * 30 * 2 * 16 * 8  # layers, tokens, keys and values, numbers, bytes
    assert held < len(file.getvalue()) < held + 40_000  # the weights are 4 MB, the reserved room 4 MB


def test_a_cache_goes_on_under_an_equal_handle_and_no_other(tiny, tokens, tmp_path):
    model, ids = tiny(), tokens(1, 40)
    name = cache_argument(model)
    with apply_esa(model, FEW, _maps()) as handle:
        cache = handle.new_cache()
        model(ids, **{name: cache})
        path = cache.copy().save(tmp_path / "prompt.safetensors")
        expected = model(ids[:, :3], **{name: cache.copy()}).logits
    with apply_esa(model, FEW, _maps()) as handle:
        assert torch.equal(model(ids[:, :3], **{name: cache.copy()}).logits, expected)
        torch.testing.assert_close(model(ids[:, :3], **{name: handle.load_cache(path)}).logits, expected)
    for other, config, maps in (
        (tiny(seed=1), FEW, _maps()),
        (model, FEW.replace(num_local=17), _maps()),
        (model, FEW, _maps(seed=1)),
    ):
        with apply_esa(other, config, maps) as handle:
            with pytest.raises(UserError, match="made by another handle"):
                other(ids[:, :3], **{name: cache})
            with pytest.raises(UserError, match="saved for another model"):
                handle.load_cache(path)


def test_a_reconfigured_cache_is_loaded_as_it_was(tiny, tokens, tmp_path):
    model, ids = tiny(), tokens(1, 60)
    name = cache_argument(model)
    with apply_esa(model, FEW) as handle:
        cache = handle.new_cache()
        cache.reconfigure(num_selected=20)
        model(ids, **{name: cache})
        loaded = handle.load_cache(cache.save(tmp_path / "a.safetensors"))
        assert loaded.config == cache.config
        again = [model(ids[:, :4], **{name: c}).logits for c in (cache, loaded)]
    torch.testing.assert_close(*again, rtol=0, atol=1e-9)


def test_what_cannot_be_saved_or_loaded(tiny, tmp_path):
    with apply_esa(tiny(), FEW) as handle:
        with pytest.raises(UserError, match="empty"):
            handle.new_cache().save(tmp_path / "a.safetensors")
        with pytest.raises(UserError, match="not there"):
            handle.load_cache(tmp_path / "b.safetensors")


def test_a_copied_model_keeps_its_own_esa(tiny, tokens):
    model, ids = tiny(), tokens(1, 60)
    with apply_esa(model, FEW) as handle:
        expected = model(ids).logits
        twin = copy.deepcopy(model)
        handle.remove()
        assert torch.equal(twin(ids).logits, expected)
        assert twin.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 62)
        twin.set_attn_implementation("sdpa")
        assert torch.equal(twin(ids).logits, model(ids).logits)
