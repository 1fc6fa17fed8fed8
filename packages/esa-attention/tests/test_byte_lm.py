"""The byte-level model learns real text, is reproducible, and survives being saved."""

import json
import math

import pytest
import torch

from effkit.errors import UserError
from effkit.progress import listening
from esa_attention.evaluation.models.byte_lm import (
    byte_lm_config,
    load_byte_lm,
    save_byte_lm,
    train_byte_lm,
    unigram_nats,
    window_nats,
)
from esa_attention.evaluation.models.registry import build_model
from esa_attention.evaluation.models.text import encode_bytes, read_split


@pytest.fixture(scope="module")
def short_run():
    """A small context and few steps: seconds, and already far from knowing nothing."""
    return train_byte_lm(steps=120, context=64, batch_size=8, seed=1)


def test_it_learns_quickly(short_run):
    assert short_run.steps == 120
    assert short_run.test_nats < short_run.unigram_nats - 0.25
    assert 3.0 < short_run.unigram_nats < 3.6
    assert [step for step, _, _ in short_run.curve] == list(range(20, 121, 20))
    assert short_run.curve[0][2] > short_run.curve[-1][2]
    assert not short_run.model.training
    size = sum(p.numel() for p in short_run.model.parameters())
    assert size == 758_912


def test_it_is_reproducible_and_leaves_the_callers_generator_alone(short_run):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, second = (train_byte_lm(steps=3, context=32, batch_size=4, seed=2).model for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = train_byte_lm(steps=3, context=32, batch_size=4, seed=3).model
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_a_time_budget_ends_in_time_and_reports_progress():
    heard = []
    with listening(lambda text, fraction: heard.append((text, fraction))):
        run = train_byte_lm(seconds=0.8, context=32, batch_size=4)
    assert run.steps >= 1
    assert 0.8 <= run.seconds < 8
    assert math.isfinite(run.test_nats)
    assert all(0 < fraction <= 1 and "nats per byte" in text for text, fraction in heard)


def test_saving_and_loading(short_run, tmp_path):
    folder = save_byte_lm(short_run.model, tmp_path / "run" / "byte_lm")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    ids = encode_bytes(read_split("test"))[:64]
    with torch.no_grad():
        expected = short_run.model(ids[None]).logits
        for model in (load_byte_lm(folder), build_model("byte_lm", folder)):
            assert torch.equal(model(ids[None]).logits, expected)
            assert model.config.max_position_embeddings == 64
            assert model.lm_head.weight is model.model.embed_tokens.weight


def test_transformers_reads_the_folder_too(short_run, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_byte_lm(short_run.model, tmp_path))
    ids = torch.arange(32)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, short_run.model(ids).logits)


def test_broken_folders_are_refused(short_run, tmp_path):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load_byte_lm(tmp_path)
    folder = save_byte_lm(short_run.model, tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="holds no byte_lm"):
        load_byte_lm(folder)
    folder = save_byte_lm(short_run.model, tmp_path / "b")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(UserError, match="holds no byte_lm"):
        load_byte_lm(folder)
    with pytest.raises(UserError, match="takes no steps"):
        build_model("byte_lm", folder, steps=3)


def test_known_cross_entropies():
    ids = torch.tensor([0, 1] * 600)
    counts = torch.tensor([0] * 3 + [1])
    expected = -(math.log(4 / 260) + math.log(2 / 260)) / 2
    assert unigram_nats(counts, ids) == pytest.approx(expected, abs=1e-12)
    uniform = build_model("constructed_induction", vocab_size=64)
    uniform.lm_head.weight.data.zero_()
    assert window_nats(uniform, torch.zeros(1100, dtype=torch.long)) == pytest.approx(math.log(64), abs=1e-5)
    with pytest.raises(UserError, match=r"more than 512 bytes, got 512"):
        window_nats(uniform, torch.zeros(512, dtype=torch.long))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"steps": 3, "seconds": 2.0}, ["steps", "seconds", "both"]),
        ({"steps": 0}, ["steps", "0"]),
        ({"seconds": -1.0}, ["seconds", "-1.0"]),
        ({"steps": 1, "lr": 0.0}, ["lr", "0.0"]),
        ({"steps": 1, "batch_size": 0}, ["batch_size", "0"]),
        ({"steps": 1, "context": 1}, ["context", "1"]),
    ],
)
def test_mistakes_are_named(kwargs, words):
    with pytest.raises(UserError) as error:
        train_byte_lm(**kwargs)
    assert all(word in str(error.value) for word in words)


@pytest.mark.slow
def test_the_default_budget_reaches_less_than_half_the_unigram_entropy():
    run = train_byte_lm()
    assert run.test_nats < 0.5 * run.unigram_nats
    assert byte_lm_config().max_position_embeddings == 256
