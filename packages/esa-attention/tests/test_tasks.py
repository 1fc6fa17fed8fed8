"""Generators: exact lengths, known places. Runner: one reading, many questions. Perplexity by position. Registry."""

import copy
from itertools import pairwise

import pytest
import tokenizers
import torch
import transformers

from effkit.errors import UserError
from esa_attention.compression.geometry import geometry
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.constructed import constructed_induction
from esa_attention.evaluation.models.llama2c_tokenizer import Llama2cTokenizer
from esa_attention.evaluation.models.registry import TINY_FAMILIES, build_model, config_for, list_models, load_tokenizer
from esa_attention.evaluation.models.text import haystack_bytes
from esa_attention.evaluation.tasks.counting_stars import counting_stars
from esa_attention.evaluation.tasks.multi_needle import multi_needle, one_block
from esa_attention.evaluation.tasks.needle import needle
from esa_attention.evaluation.tasks.passkey import passkey
from esa_attention.evaluation.tasks.ppl import bucket_edges, bucket_means, perplexity_table, token_nats
from esa_attention.evaluation.tasks.runner import Answer, ask, ask_block, feed, new_cache, run_samples, score
from esa_attention.evaluation.tasks.sample import Sample, hide, seeded, spread
from esa_attention.evaluation.tasks.text_vocab import TextVocab
from esa_attention.evaluation.tasks.variable_tracking import variable_tracking
from esa_attention.evaluation.tasks.vocab import SymbolVocab
from esa_attention.integration.apply import apply_esa
from esa_attention.integration.cache_argument import cache_argument

PIECES = [
    b"<unk>",
    b"<s>",
    b"</s>",
    *(f"<0x{i:02X}>".encode() for i in range(256)),
    b" ",
    b"e",
    b" e",
    b"th",
    b"t",
    b"h",
]
TOKENIZER = Llama2cTokenizer(PIECES, [0.0] * len(PIECES))
VOCABS = {
    "symbols": SymbolVocab(),
    "bytes": TextVocab.byte_level(),
    "tokenizer": TextVocab.from_tokenizer(TOKENIZER),
}
TASKS = {
    "needle": lambda vocab, length, seed: [needle(vocab, length, 0.4, seed)],
    "multi_needle": lambda vocab, length, seed: multi_needle(vocab, length, 5, seed),
    "passkey": lambda vocab, length, seed: [passkey(vocab, length, 0.7, 6, seed)],
    "counting_stars": lambda vocab, length, seed: [counting_stars(vocab, length, 5, seed)],
    "variable_tracking": lambda vocab, length, seed: [variable_tracking(vocab, length, 3, 2, seed)],
}


@pytest.fixture(scope="module")
def model():
    return constructed_induction(1e7)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", VOCABS)
@pytest.mark.parametrize("length", [1001, 6000])
def test_contexts_have_exactly_the_asked_length_and_depend_on_the_seed(task, name, length):
    vocab = VOCABS[name]
    samples, again, other = (TASKS[task](vocab, length, seed) for seed in (1, 1, 2))
    for sample, same in zip(samples, again, strict=True):
        assert sample.context_ids.shape == (length,)
        assert sample.context_ids.dtype == sample.question_ids.dtype == torch.int64
        assert torch.equal(sample.context_ids, same.context_ids)
        assert torch.equal(sample.question_ids, same.question_ids)
        assert sample.answers == same.answers
        assert sample.meta["length"] == length
    assert not torch.equal(samples[0].context_ids, other[0].context_ids)
    assert torch.equal(samples[0].context_ids[: len(vocab.prefix)], vocab.prefix)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", VOCABS)
def test_what_is_asked_for_stands_where_meta_says(task, name):
    vocab = VOCABS[name]
    for sample in TASKS[task](vocab, 2000, 3):
        positions = sample.meta["positions"]
        assert positions == sorted(positions)
        context = sample.context_ids
        if name == "symbols":
            keys = sample.question_ids.tolist()
            if task == "variable_tracking":
                links = [keys[0], *sample.answers[0]]
                assert [context[p : p + 2].tolist() for p in positions] == [links[i : i + 2] for i in range(3)]
            else:
                right = [context[p + 1 : p + 1 + len(sample.answers[0])].tolist() for p in positions]
                assert right == (sample.answers if task == "counting_stars" else sample.answers[:1])
                assert [int(context[p]) for p in positions] == keys * len(positions)
            planted = (context < int(vocab.filler[0])).sum() - 1  # the begin token
            assert planted == {"needle": 2, "multi_needle": 10, "passkey": 7, "counting_stars": 10}.get(task, 12)
        else:
            text = vocab.decode(context.tolist())
            assert len(sample.answer_texts) == (5 if task == "counting_stars" else 3 if "variable" in task else 1)
            assert all(answer in text for answer in sample.answer_texts)
            for position, answer in zip(positions, sample.answer_texts, strict=True):
                assert answer in vocab.decode(context[position : position + 110].tolist())
            assert vocab.decode(sample.answers[0]).strip() in sample.answer_texts


def test_depth_moves_the_needle():
    vocab = VOCABS["symbols"]
    places = [needle(vocab, 1000, depth).meta["positions"][0] for depth in (0.0, 0.5, 1.0)]
    assert places == [1, 1 + 997 // 2, 998]
    vocab = VOCABS["bytes"]
    statement = len(vocab.facts(1, seeded(0))[0].statement)
    places = [needle(vocab, 3000, depth).meta["positions"][0] for depth in (0.0, 0.5, 1.0)]
    assert places == [0, (3000 - statement) // 2, 3000 - statement]


def test_there_is_filler_between_any_two_statements_however_tight():
    statements = [torch.tensor([-1, -2])] * 4
    for depths in ([0.0] * 4, [1.0] * 4, [0.5] * 4, [0.0, 0.1, 0.9, 1.0]):
        for tail, size in ((0, 3), (1, 4), (1, 50)):
            ids, positions = hide(statements, depths, torch.arange(size), tail=tail)
            assert len(ids) == size + 8
            assert [ids[p : p + 2].tolist() for p in positions] == [[-1, -2]] * 4
            assert all(b - a >= 3 for a, b in pairwise(positions))
            assert len(ids) - positions[-1] - 2 >= tail
            assert ids[ids >= 0].tolist() == list(range(size))


def test_spread_fills_every_part():
    depths = spread(10, seeded(0))
    assert [int(d * 10) for d in depths] == list(range(10))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: needle(v, 2), ["length", "at least 3", "got 2"]),
        (lambda v: needle(v, 100, 1.5), ["depth", "1.5"]),
        (lambda v: multi_needle(v, 95, 32), ["length", "at least 96", "32 statements", "got 95"]),
        (lambda v: multi_needle(v, 4000, 33), ["num_needles", "1..32", "33"]),
        (lambda v: multi_needle(v, 4000, 0), ["num_needles", "1..32", "0"]),
        (lambda v: passkey(v, 100, digits=65), ["digits", "1..64", "65"]),
        (lambda v: counting_stars(v, 4000, 65), ["num_stars", "1..64", "65"]),
        (lambda v: variable_tracking(v, 4000, 5, 7), ["num_chains * num_hops", "1..32", "35"]),
        (lambda v: variable_tracking(v, 4000, 0), ["num_hops", "0"]),
        (lambda v: variable_tracking(v, 12, 4), ["length", "at least 13", "got 12"]),
    ],
)
def test_mistakes_in_symbols_are_named(call, words):
    with pytest.raises(UserError) as error:
        call(VOCABS["symbols"])
    assert all(word in str(error.value) for word in words)


def test_the_tightest_contexts_fit():
    vocab = VOCABS["symbols"]
    assert len(multi_needle(vocab, 96, 32)[0].context_ids) == 96
    assert len(variable_tracking(vocab, 13, 4).context_ids) == 13
    assert len(needle(vocab, 3).context_ids) == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: needle(v, 20), ["length", "got 20"]),
        (lambda v: multi_needle(v, 10**6, 577), ["num_needles", "1..576", "577"]),
        (lambda v: passkey(v, 4000, digits=16), ["digits", "1..15", "16"]),
        (lambda v: counting_stars(v, 10**6, 9001), ["1..9000", "4 digits", "9001"]),
        (lambda v: variable_tracking(v, 4000, 2, 0), ["num_chains", "0"]),
        (lambda v: needle(TextVocab.byte_level("too short"), 3000), ["haystack", "got 9"]),
    ],
)
def test_mistakes_in_english_are_named(call, words):
    with pytest.raises(UserError) as error:
        call(VOCABS["bytes"])
    assert all(word in str(error.value) for word in words)


def test_symbols_of_other_sizes():
    vocab = SymbolVocab(64, 16)
    assert (vocab.num_values, int(vocab.filler[0]), int(vocab.filler[-1])) == (32, 50, 63)
    for size, keys in ((128, 42), (128, 0)):
        with pytest.raises(UserError, match=r"num_keys must be in 1\.\.41"):
            SymbolVocab(size, keys)


def test_own_haystack_and_order_of_requests():
    text = " ".join(f"word{i}" for i in range(5000))
    own = TextVocab.byte_level(text)
    decoded = own.decode(needle(own, 3000).context_ids.tolist())
    assert len(set(decoded.split()) & set(text.split())) > 300
    fresh, used = TextVocab.byte_level(), TextVocab.byte_level()
    needle(used, 150_000)
    assert torch.equal(needle(fresh, 2000, seed=5).context_ids, needle(used, 2000, seed=5).context_ids)


class FakeHFTokenizer:
    """What the vocabulary uses of a tokenizer of transformers."""

    bos_token_id = 300

    def __init__(self, adds_bos: bool) -> None:
        self.adds_bos = adds_bos

    def encode(self, text, add_special_tokens=True):
        return [300] * (self.adds_bos and add_special_tokens) + list(text.encode())

    def decode(self, ids, skip_special_tokens=False):
        return bytes(i for i in ids if i < 256).decode(errors="replace")


def test_a_tokenizer_of_transformers():
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>"], initial_alphabet=alphabet)
    bpe.train_from_iterator([haystack_bytes(20_000).decode()], trainer)
    vocab = TextVocab.from_tokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>"))
    sample = multi_needle(vocab, 3000, 4)[2]
    assert sample.context_ids.shape == (3000,)
    assert sample.answer_texts[0] in vocab.decode(sample.context_ids.tolist())
    assert vocab.decode(sample.question_ids.tolist()).endswith(" is")
    assert len(vocab.prefix) == 0


@pytest.mark.parametrize("adds_bos", [True, False])
def test_begin_token_only_where_the_tokenizer_puts_one(adds_bos):
    sample = needle(TextVocab.from_tokenizer(FakeHFTokenizer(adds_bos)), 1000)
    assert sample.context_ids.shape == (1000,)
    assert (sample.context_ids == 300).sum() == int(adds_bos)
    assert 300 not in sample.question_ids


def test_feeding_in_blocks_is_feeding_at_once(model):
    ids = needle(VOCABS["symbols"], 700).context_ids
    with torch.no_grad():
        whole = model(ids[None]).logits[0, -1]
    for block in (1, 64, 10_000):
        cache = new_cache(model)
        part = feed(model, ids[: 100 if block == 1 else 700], cache, block)
        assert cache.get_seq_length() == (100 if block == 1 else 700)
        if block > 1:
            assert torch.allclose(part, whole, atol=1e-4)
    cache = new_cache(model)
    feed(model, ids[:300], cache, 128)
    assert torch.allclose(feed(model, ids[300:], cache, 128), whole, atol=1e-4)


def test_asking_leaves_the_cache_as_it_was(model):
    sample = passkey(VOCABS["symbols"], 500, digits=6)
    cache = new_cache(model)
    feed(model, sample.context_ids, cache)
    before = copy.deepcopy([layer.keys for layer in cache.layers])
    answers = [
        ask(model, cache, sample.question_ids, max_new_tokens=6, question=question)
        for question in ("block", "tokens", "block")
    ]
    assert [a.ids for a in answers] == [sample.answers[0]] * 3
    assert torch.equal(answers[0].logits, answers[2].logits)
    assert cache.get_seq_length() == 500
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, before, strict=True))
    context, questions, due = one_block(multi_needle(VOCABS["symbols"], 500, 4))
    cache = new_cache(model)
    feed(model, context, cache)
    assert torch.equal(ask_block(model, cache, questions), due)
    assert cache.get_seq_length() == 500


def test_answers_end_at_a_stop_token_and_keep_to_allowed_ids(model):
    sample = passkey(VOCABS["symbols"], 300, digits=5)
    right = sample.answers[0]
    cache = new_cache(model)
    feed(model, sample.context_ids, cache)
    stopped = ask(model, cache, sample.question_ids, max_new_tokens=5, stop_ids=[right[2]])
    assert stopped.ids == right[:2]
    filler = ask(model, cache, sample.question_ids, allowed_ids=VOCABS["symbols"].filler)
    assert filler.ids[0] in VOCABS["symbols"].filler
    assert cache.get_seq_length() == 300


@pytest.mark.parametrize("restore", ["crop", "copy"])
def test_a_shared_context_is_read_once(model, restore):
    samples = multi_needle(VOCABS["symbols"], 600, 6)
    made = []

    def make():
        made.append(new_cache(model))
        return made[-1]

    results = list(
        run_samples(model, [*samples, *multi_needle(VOCABS["symbols"], 400, 2)], make_cache=make, restore=restore)
    )
    assert len(made) == 2
    assert [r.score for r in results] == [1.0] * 8
    assert [r.sample.meta["length"] for r in results] == [600] * 6 + [400] * 2


def test_score_of_ids_and_sets():
    ids = torch.empty(0, dtype=torch.long)
    logits = torch.zeros(10)
    logits[[3, 5, 7]] = torch.tensor([2.0, 3.0, 1.0])
    exact = Sample(ids, ids, [[4, 5], [6]])
    assert score(exact, Answer([4, 5, 9], logits)) == 1.0
    assert score(exact, Answer([6], logits)) == 1.0
    assert score(exact, Answer([4], logits)) == 0.0
    stars = Sample(ids, ids, [[3], [5], [9]], scoring="set")
    assert score(stars, Answer([5], logits)) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="one token"):
        score(Sample(ids, ids, [[3, 4]], scoring="set"), Answer([3], logits))


def test_score_of_text_wants_whole_words():
    ids = torch.empty(0, dtype=torch.long)
    exact = Sample(ids, ids, [[1]], answer_texts=["123"])
    for said, due in ((" 123.", 1.0), ("it is 123", 1.0), ("1234", 0.0), ("12", 0.0)):
        assert score(exact, Answer(list(said.encode()), torch.zeros(1)), lambda i: bytes(i).decode()) == due
    stars = Sample(ids, ids, [[1], [2]], scoring="set", answer_texts=["17", "4"])
    assert score(stars, Answer(list(b"4, 5, 170"), torch.zeros(1)), lambda i: bytes(i).decode()) == 0.5


def test_runner_names_mistakes(model):
    cache = new_cache(model)
    one = torch.tensor([5])
    calls = [
        (lambda: feed(model, one[:0], cache), "at least one token"),
        (lambda: feed(model, one, cache, 0), "block must be at least 1, got 0"),
        (lambda: ask(model, cache, one, max_new_tokens=0), "max_new_tokens must be at least 1, got 0"),
        (lambda: ask(model, cache, one, question="words"), "question='words'"),
        (lambda: list(run_samples(model, [], restore="undo")), "restore='undo'"),
        (lambda: one_block([]), "at least one sample"),
        (
            lambda: one_block(multi_needle(SymbolVocab(), 99, 2) + multi_needle(SymbolVocab(), 99, 2)),
            "share one context",
        ),
        (lambda: one_block([passkey(SymbolVocab(), 99)]), "1 and 5 tokens"),
        (lambda: token_nats(model, one), "at least 2 tokens, got 1"),
        (lambda: token_nats(model, torch.arange(4), chunk=0), "chunk must be at least 1, got 0"),
        (lambda: bucket_edges(0), "num_tokens"),
        (lambda: bucket_means(torch.zeros(5), [0, 3, 2]), "ascend within 0..5"),
        (lambda: bucket_means(torch.zeros(5), [0, 6]), "ascend within 0..5"),
        (lambda: perplexity_table({"a": torch.zeros(5), "b": torch.zeros(6)}), "one length"),
        (lambda: perplexity_table({}), "one length"),
    ]
    for call, words in calls:
        with pytest.raises(UserError) as error:
            call()
        assert words in str(error.value)
    feed(model, one, cache)
    with pytest.raises(UserError, match="cache must be empty, got one with 1 tokens"):
        token_nats(model, torch.arange(4), cache=cache)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_token_nats_is_the_loss_of_the_model(family):
    model = build_model("tiny_random", family=family)
    ids = torch.randint(0, 128, (150,), generator=seeded(0))
    with torch.no_grad():
        logits = model(ids[None]).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    assert torch.allclose(token_nats(model, ids, chunk=32), expected, atol=1e-5)
    assert torch.allclose(token_nats(model, ids, strict=True), expected, atol=1e-5)
    assert token_nats(model, ids).mean().item() == pytest.approx(
        model(ids[None], labels=ids[None]).loss.item(), abs=1e-5
    )


def test_perplexity_under_esa_equals_full_attention_while_all_is_local():
    model = build_model("tiny_random")
    ids = torch.randint(0, 128, (200,), generator=seeded(1))
    full = token_nats(model, ids, chunk=50)
    config = ESAConfig(num_initial=4, num_local=256, num_selected=16, chunk_size=50, dense_until=0)
    with apply_esa(model, config) as handle:
        local = token_nats(model, ids, cache=handle.new_cache(), chunk=50)
    assert torch.allclose(local, full, atol=1e-5)
    with apply_esa(model, config.replace(num_local=8)) as handle:
        block = token_nats(model, ids, cache=handle.new_cache(), chunk=50)
        strict = token_nats(model, ids, cache=handle.new_cache(), strict=True)
    assert not torch.allclose(block, full, atol=1e-4)
    assert not torch.allclose(strict, block, atol=1e-4)


def test_table_by_position():
    nats = torch.cat([torch.full((100,), 1.0), torch.full((300,), 2.0)])
    assert bucket_edges(400, 100) == [0, 100, 200, 400]
    assert bucket_edges(50, 100) == [0, 50]
    table = perplexity_table({"full": nats, "esa": nats + 1}, first=100)
    assert table.columns == ["from", "to", "full", "esa"]
    assert table.rows == [[0, 100, 1.0, 2.0], [100, 200, 2.0, 3.0], [200, 400, 2.0, 3.0]]


GEOMETRIES = {
    # query heads, key-value heads, layers, context, parameters as published (billions, to 1 %)
    "llama3_8b": (32, 8, 32, 8192, 8.03),
    "mistral_7b": (32, 8, 32, 32768, 7.24),
    "qwen3_8b": (32, 8, 36, 40960, 8.19),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_published_geometries(name):
    config = config_for(name)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = geometry(model)
    heads, kv_heads, layers, context, billions = GEOMETRIES[name]
    assert (shape.num_heads, shape.num_kv_heads, shape.num_layers, shape.head_dim) == (heads, kv_heads, layers, 128)
    assert shape.trained_context == context
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_tiny_models_of_every_family_are_supported_and_reproducible(family):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = (build_model("tiny_random", family=family, num_hidden_layers=1) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert first.config.model_type == family
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = build_model("tiny_random", family=family, num_hidden_layers=1, seed=1, dtype=torch.bfloat16)
    assert other.dtype == torch.bfloat16
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight.float())
    assert geometry(first).num_layers == 1
    assert cache_argument(first) in ("cache", "past_key_values")


def test_build_by_name_and_by_path(tmp_path):
    assert build_model("constructed_induction", rope_theta=1e7).config.rope_parameters["rope_theta"] == 1e7
    tiny = build_model("tiny_random", family="qwen3")
    tiny.save_pretrained(tmp_path / "tiny")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(build_model("qwen3_8b", tmp_path / "tiny")(ids).logits, tiny(ids).logits)
    assert load_tokenizer("tiny_random") is None
    assert config_for("byte_lm").vocab_size == 256
    assert config_for("constructed_induction", max_position_embeddings=99).max_position_embeddings == 99
    assert config_for("llama3_8b", num_hidden_layers=2).num_hidden_layers == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: build_model("llama3"), ["model='llama3'", "did you mean 'llama3_8b'"]),
        (lambda p: build_model("llama3_8b"), ["llama3_8b", "path=FOLDER", "nothing is downloaded"]),
        (lambda p: load_tokenizer("llama3_8b"), ["tokenizer", "llama3_8b", "path=FOLDER"]),
        (lambda p: build_model("mistral_7b", p), ["path=", "cannot be loaded"]),
        (lambda p: load_tokenizer("mistral_7b", p), ["tokenizer", "cannot be loaded"]),
        (lambda p: build_model("tiny_random", p), ["tiny_random", "takes no path"]),
        (lambda p: build_model("tiny_random", device_map="auto"), ["device_map", "fits on one device"]),
        (lambda p: build_model("tiny_random", family="gpt"), ["family='gpt'", "llama, mistral, qwen2, qwen3"]),
        (lambda p: config_for("stories260k"), ["stories260K.bin", "build_model"]),
        (lambda p: config_for("gpt5"), ["model='gpt5'"]),
    ],
)
def test_registry_mistakes_are_one_line(call, words, tmp_path):
    with pytest.raises(UserError) as error:
        call(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words)
    assert set(list_models()) >= {"llama3_8b", "mistral_7b", "qwen3_8b", "tiny_random", "byte_lm", "stories260k"}


def test_weights_that_are_cut_short_are_named(tmp_path):
    build_model("tiny_random").save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"cannot be loaded: .*model\.safetensors' .* cut short"):
        build_model("llama3_8b", tmp_path)


def test_device_map_without_accelerate_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(UserError, match="pip install accelerate"):
        build_model("llama3_8b", tmp_path, device_map="auto")
