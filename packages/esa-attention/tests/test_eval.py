"""The command eval: answers that are the model's own, tables, and a run that goes on where it was killed."""

import json
from pathlib import Path

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_one_line_mistake, in_process
from esa_attention.cli import main
from esa_attention.commands import answering
from esa_attention.evaluation.benchmarks.codec import Codec
from esa_attention.evaluation.benchmarks.completion import Request, complete, make_request
from esa_attention.evaluation.benchmarks.record import Question
from esa_attention.evaluation.tasks.runner import new_cache

ESA = ["esa.num_initial=4", "esa.num_local=32", "esa.num_selected=16", "esa.chunk_size=16", "compressor=exact"]
TINY = ["eval", "model=tiny_random", "threads=1", *ESA, "task.folder=lb", "max_new_tokens=5", "out=kept"]
CHAT = "{% for m in messages %}<s><u>{{ m['content'] }}</u>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.fixture
def folder(tmp_path):
    """Three records of LongBench's qasper and two of its trec, in its format."""
    made = tmp_path / "lb"
    made.mkdir()
    records = [
        {
            "input": f"Who did {n}?",
            "context": f"Ada did {n}. " * 12,
            "answers": ["Ada"],
            "length": 36,
            "all_classes": None,
        }
        for n in range(3)
    ]
    (made / "qasper.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    classes = [{**r, "answers": ["city"], "all_classes": ["city", "state"]} for r in records[:2]]
    (made / "trec.jsonl").write_text("".join(json.dumps(r) + "\n" for r in classes))
    prompts = {"qasper": "Read.\n{context}\nQuestion: {input}\nAnswer:", "trec": "{context}\n{input}"}
    (made / "dataset2prompt.json").write_text(json.dumps(prompts))
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of transformers: a tiny Llama of the same attention layout as any, and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("checkpoint")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=CHAT)
    fast.save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "vocab_size": len(vocabulary), "max_position_embeddings": 128}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **more, bos_token_id=0, eos_token_id=1))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(20)
    model.save_pretrained(path)
    return path


def loaded(path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def test_answers_are_those_of_greedy_generation(checkpoint):
    model, tokenizer = loaded(checkpoint)
    codec = Codec(model, tokenizer)
    assert codec.stop_ids == [1]
    ids = codec.encode("A text of some words, and a question?")
    assert ids[0] == 0
    wanted = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0, len(ids) :].tolist()
    for question in ("block", "tokens"):
        request = Request(ids, tail=10, max_new_tokens=12, min_new_tokens=0, stop_ids=(1,))
        said = complete(model, request, new_cache(model), block=7, question=question)
        assert said == (wanted[: wanted.index(1)] if 1 in wanted else wanted)
    # It stops before a token that ends the answer, but not before the least length.
    stop = wanted[3]
    first = wanted.index(stop)
    request = Request(ids, tail=len(ids), max_new_tokens=12, min_new_tokens=0, stop_ids=(stop,))
    assert complete(model, request, new_cache(model)) == wanted[:first]
    never = Request(ids, tail=1, max_new_tokens=6, min_new_tokens=6, stop_ids=tuple(set(wanted)))
    said = complete(model, never, new_cache(model))
    assert len(said) == 6
    assert not set(said) & set(wanted)


def test_a_long_prompt_loses_its_middle(checkpoint):
    codec = Codec(*loaded(checkpoint))
    asked = Question("0123456789" * 3, "89", max_new_tokens=4)
    whole = make_request(asked, codec)
    assert (len(whole.ids), whole.tail, whole.cut, whole.max_new_tokens) == (31, 2, 0, 4)  # the begin token, too
    for most in (12, 13):  # 6 at either end; the begin token is one of them, and is put there anew
        cut = make_request(asked, codec, max_prompt_tokens=most, max_new_tokens=2)
        assert codec.decode(cut.ids) == "01234" + "456789"
        assert (cut.ids[0], len(cut.ids), cut.cut, cut.max_new_tokens) == (0, 12, 31 - 12, 2)
    with pytest.raises(UserError, match="max_prompt_tokens=1 must be at least 2"):
        make_request(asked, codec, max_prompt_tokens=1)


def test_a_chat_template_goes_around_the_prompt(checkpoint):
    model, tokenizer = loaded(checkpoint)
    codec = Codec(model, tokenizer)
    asked = Question("A context. What?", " What?", max_new_tokens=4)
    request = make_request(asked, codec, chat_template=True)
    assert tokenizer.decode(request.ids) == "<s><u>A context. What?</u><a>"
    assert request.ids.count(0) == 1
    assert request.tail == len("What?</u><a>")
    plain = make_request(Question("A context. What?", " What?", 4, chat=False), codec, chat_template=True)
    assert tokenizer.decode(plain.ids) == "<s>A context. What?"
    line = make_request(Question("A", "A", 4, stop_at_line_end=True), codec)
    assert line.stop_ids == (1, codec.encode("\n", begin=False)[0])
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="chat_template=true"):
        Codec(model, tokenizer).check_chat()


def test_eval_of_a_model_from_a_folder(run, folder, checkpoint, tmp_path):
    words = ["eval", "model=causal_lm", f"model.path={checkpoint}", "threads=1", *ESA, "task.folder=lb"]
    code, out, err = run(*words, "methods=[stock,full,esa]", "max_new_tokens=6", "chat_template=true", "format=json")
    assert code == 0, err
    document = json.loads(out)
    data = document["data"]
    assert data["records"] == {"qasper": 3, "trec": 2}
    assert data["scores"]["stock"] == data["scores"]["full"]
    assert data["prompts"] == "dataset2prompt.json"
    table = document["tables"][0]
    assert table["columns"] == ["data set", "metric", "records", "stock", "full", "esa"]
    assert [row[:3] for row in table["rows"]] == [
        ["qasper", "F1", 3],
        ["trec", "classification", 2],
        ["mean of the data sets", "", 5],
    ]
    names = [name.rpartition("/")[2] for name in document["files"]]
    assert names == ["scores.csv", "scores.md", "scores.json"]
    answers = Path(data["answers"])
    lines = [json.loads(line) for line in (answers / "full" / "qasper.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    # What LongBench's own scorer reads.
    assert {"pred", "answers", "all_classes", "length"} <= set(lines[0])
    model, tokenizer = loaded(checkpoint)
    prompt = "Read.\n" + "Ada did 1. " * 12 + "\nQuestion: Who did 1?\nAnswer:"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(chat, add_special_tokens=False, return_tensors="pt").input_ids
    wanted = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
    assert lines[1]["pred"] == tokenizer.decode(wanted, skip_special_tokens=True)
    assert lines[1]["prompt_tokens"] == ids.shape[1]


def test_a_killed_run_goes_on_where_it_was(run, folder, tmp_path, monkeypatch):
    words = [*TINY, "methods=[full,esa]", "format=json"]
    calls = []
    answer = answering._answer

    def killed(way, method, make_cache, question, asking):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append((method, question.prompt[-12:]))
        return answer(way, method, make_cache, question, asking)

    monkeypatch.setattr(answering, "_answer", killed)
    code, _, _ = run(*words)
    assert code not in (0, 2)
    assert len(calls) == 4  # 3 by full, one by esa
    torn = tmp_path / "kept" / "esa" / "qasper.jsonl"
    with torn.open("a") as file:
        file.write('{"number": 1, "pr')  # as a kill in the middle of a line leaves it
    seen = list(calls)
    calls.clear()
    monkeypatch.setattr(answering, "_answer", lambda *args: calls.append(args[1]) or answer(*args))
    code, out, err = run(*words)
    assert code == 0, err
    assert "cut short" in err
    assert calls == ["esa", "esa", "full", "full", "esa", "esa"]  # 2 left of qasper, then trec by both
    assert len(seen) + len(calls) == 2 * 5
    scores = json.loads(out)["data"]["scores"]
    # Nothing is left to do; and the same in one go.
    calls.clear()
    assert json.loads(run(*words).stdout)["data"]["scores"] == scores
    assert calls == []
    assert json.loads(run(*words, "out=other").stdout)["data"]["scores"] == scores
    # Fewer records are a part of those.
    assert json.loads(run(*words, "limit=1").stdout)["data"]["records"] == {"qasper": 1, "trec": 1}


def test_compressors_made_for_answers_are_kept_with_them(run, folder, tmp_path, monkeypatch):
    words = [*TINY, "compressor=closed_form", "compressor.num_tokens=600", "methods=[esa,key_pca]", "limit=1"]
    code, _, err = run(*words)
    assert code == 0, err
    kept = tmp_path / "kept"
    assert sorted(p.name for p in kept.glob("*.safetensors")) == [
        "compressors_closed_form.safetensors",
        "compressors_key_pca.safetensors",
    ]
    monkeypatch.setattr("esa_attention.commands.methods.calibrate", None)  # it would be called
    code, _, err = run(*words[:-1])
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["esa.num_selected=8"], ["kept/full", "esa=", "give another out="]),
        (["question=tokens"], ["question='block'", "'tokens'"]),
        (["model.options.seed=1"], ["model="]),
        (["max_new_tokens=4"], ["max_new_tokens=5", "4"]),
    ],
)
def test_answers_that_were_given_otherwise_are_not_gone_on_with(run, folder, words, said):
    assert run(*TINY, "methods=[full]", "limit=1")[0] == 0
    assert_one_line_mistake("esa-attention", run(*TINY, "methods=[full]", *words), said)


def test_answers_to_other_records_and_damaged_ones_are_named(run, folder, tmp_path):
    words = [*TINY, "methods=[full]", "task.datasets=[trec]"]
    assert run(*words)[0] == 0
    prompts = folder / "dataset2prompt.json"
    kept = prompts.read_text()
    prompts.write_text(json.dumps({"trec": "{context} {input}"}))
    assert_one_line_mistake("esa-attention", run(*words), ["trec.jsonl, line 1", "another record"])
    prompts.write_text(kept)
    answers = tmp_path / "kept" / "full" / "trec.jsonl"
    first, second = answers.read_text().splitlines()
    answers.write_text(f"{first[:-3]}\n{second}\n")
    assert_one_line_mistake("esa-attention", run(*words), ["trec.jsonl, line 1", "no JSON"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=ruler"], ["task.folder=", "ruler"]),
        (["task.folder=nowhere"], ["task.folder='nowhere'", "does not exist"]),
        (["task.folder=lb", "task.datasets=[qaspr]"], ["task.datasets='qaspr'", "qasper"]),
        (["task.folder=lb", "task.prompts=x.json"], ["task.prompts='x.json'", "dataset2prompt.json"]),
        (["task.folder=lb", "methods=[esaa]"], ["esaa", "stock"]),
        (["task.folder=lb", "methods=[]"], ["methods"]),
        (["task.folder=lb", "methods=[esa,esa]"], ["methods", "each once"]),
        (["task.folder=lb", "limit=0"], ["limit=0"]),
        (["task.folder=lb", "question=words"], ["question", "words", "block"]),
        (["task.folder=lb", "max_prompt_tokens=1"], ["max_prompt_tokens=1"]),
        (["task.folder=lb", "chat_template=true"], ["chat_template", "no chat template"]),
        (["task.folder=lb", "model=constructed_induction"], ["constructed_induction", "text"]),
        (["task.folder=lb", "model=causal_lm"], ["causal_lm", "path"]),
        (["task=needle"], ["task.name='needle'", "longbench"]),
        (["task.folder=lb", "out=lb/qasper.jsonl"], ["out=", "is a file"]),
        (["task.folder=lb", "task.options.lengths=[1]"], ["task.options.lengths"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_are_one_line(run, folder, words, said):
    assert_one_line_mistake("esa-attention", run("eval", "model=tiny_random", "threads=1", *words), said)


def test_a_bad_record_is_refused_before_a_model_is_loaded(run, folder):
    with (folder / "trec.jsonl").open("a") as file:
        file.write('{"context": "x"}\n')
    words = ["eval", "task.folder=lb"]  # the model has no path yet
    assert_one_line_mistake("esa-attention", run(*words), ["trec.jsonl, line 3", "answers"])
    assert_one_line_mistake("esa-attention", run(*words, "limit=2"), ["causal_lm", "path"])


def test_the_other_commands_refuse_a_benchmark(run):
    assert_one_line_mistake("esa-attention", run("needle", "task=longbench"), ["task.name='longbench'", "needle"])


def test_needlebench_on_a_model(run, tmp_path):
    needle = {"needle": "The gold lies in Rome.", "arg1": "gold", "arg2": "Rome", "language": "English"}
    (tmp_path / "needles.jsonl").write_text(json.dumps({**needle, "retrieval_question": "Where is the gold?"}) + "\n")
    (tmp_path / "PaulGrahamEssays.jsonl").write_text(json.dumps({"text": "a b c " * 60}) + "\n")
    words = ["task=needlebench", "task.folder=.", "task.datasets=[single_retrieval]", "task.options.lengths=[150,200]"]
    sizes = ["task.options.depths=[0,100]", "task.options.repeats=1", "task.options.buffer=20", "methods=[full]"]
    code, out, err = run(
        "eval", "model=tiny_random", "threads=1", *ESA, *words, *sizes, "max_new_tokens=3", "format=json"
    )
    assert code == 0, err
    assert any(name.endswith("single_retrieval.png") for name in json.loads(out)["files"])
    tables = json.loads(out)["tables"]
    assert [row[:3] for row in tables[1]["rows"]] == [
        ["single_retrieval", "150 tokens", 2],
        ["single_retrieval", "200 tokens", 2],
    ]
