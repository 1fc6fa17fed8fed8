"""A trained model far past its 512 tokens: plain attention breaks, ESA stays itself."""

import pytest
import torch

from effkit.testing import shared_data
from esa_attention import ESAConfig, apply_esa, calibrate
from esa_attention.evaluation.models.registry import build_model, load_tokenizer
from esa_attention.evaluation.models.sampling import sample_stories
from esa_attention.evaluation.tasks.ppl import token_nats

CONFIG = ESAConfig(num_initial=16, num_selected=64, num_local=192, chunk_size=64, proximity=1, dense_until=0)
CONTEXT = 512


@pytest.fixture(scope="module")
def model():
    folder = shared_data("stories260k")
    return build_model("stories260k", folder), load_tokenizer("stories260k", folder)


@pytest.mark.slow
@pytest.mark.parametrize("length", [4096, 32_768])
def test_esa_keeps_a_trained_model_within_a_quarter_of_a_nat(model, length):
    model, tokenizer = model
    ids = sample_stories(model, tokenizer, length, seed=0)
    windows = ids[: length // CONTEXT * CONTEXT].view(-1, CONTEXT)[:16]
    with torch.no_grad():
        logits = model(windows).logits[:, :-1]
    inside = float(torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:]))
    assert 1.2 < inside < 1.7
    train = sample_stories(model, tokenizer, 8192, seed=10_000)
    maps = calibrate(model, train, rank=8, far_position=CONFIG.w)
    means = {}
    for name, config, compressors in (("esa", CONFIG, maps), ("exact", CONFIG, None)):
        with apply_esa(model, config, compressors) as handle:
            nats = token_nats(model, ids, cache=handle.new_cache(), chunk=64)
        # By quarters: an average over everything could hide where it breaks.
        means[name] = [float(part.mean()) for part in nats[CONTEXT:].chunk(4)]
    stock = token_nats(model, ids[:4096], chunk=256)
    assert float(stock[3000:].mean()) > inside + 3, "plain attention should break"
    for name, parts in means.items():
        assert max(parts) < inside + 0.25, (name, parts, inside)
