"""Benchmarks in their published formats, made up here: what a record becomes, and which answer to it is right."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from effkit.errors import UserError
from esa_attention.evaluation.benchmarks.infinitebench import DATASETS as INFINITE
from esa_attention.evaluation.benchmarks.longbench import DATASETS as LONG
from esa_attention.evaluation.benchmarks.needles import apart, at_depth, at_depths, haystack, unique_needles
from esa_attention.evaluation.benchmarks.opening import open_benchmark
from esa_attention.evaluation.benchmarks.prompts import Template, load_templates
from esa_attention.evaluation.benchmarks.segmenting import chinese_segmenter


class Bytes:
    """A codec whose tokens are bytes."""

    def encode(self, text, *, begin=True):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode()


def write_lines(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def long_record(**changes):
    record = {"input": "Who?", "context": "Ada did.", "answers": ["Ada"], "length": 2, "all_classes": None}
    return {**record, "dataset": "x", "language": "en", "_id": "0", **changes}


def records(benchmark, name, codec=None):
    return list(benchmark.read(name, codec))


def test_longbench_as_published(tmp_path):
    (tmp_path / "config").mkdir()
    prompts = {"qasper": "Read {context} and say: {input} Answer:", "trec": "{context}\n{input}", "samsum": "{context}"}
    (tmp_path / "config" / "dataset2prompt.json").write_text(json.dumps(prompts))
    write_lines(tmp_path / "data" / "qasper.jsonl", long_record(answers=["Ada", "the red fox"]), long_record())
    trec = long_record(answers=["city"], all_classes=["city", "state"])
    write_lines(tmp_path / "trec.jsonl", trec)
    write_lines(tmp_path / "samsum.jsonl", long_record(answers=["They met"]))
    found = open_benchmark("longbench", tmp_path)
    assert dict(found.metrics) == {"qasper": "F1", "trec": "classification", "samsum": "ROUGE-L"}
    assert found.prompts == "dataset2prompt.json"
    first, second = records(found, "qasper")
    assert first.question.prompt == "Read Ada did. and say: Who? Answer:"
    assert first.question.tail == " and say: Who? Answer:"
    assert (first.question.max_new_tokens, first.question.chat, second.number) == (128, True, 1)
    assert first.score("A red fox") == 1.0  # the better of two right answers
    assert first.score("red") == pytest.approx(2 / 3)
    assert first.details == {"answers": ["Ada", "the red fox"], "all_classes": None, "length": 2}
    (asked,) = records(found, "trec")
    assert not asked.question.chat
    assert asked.score("\ncity\nstate") == 1.0  # only the first line counts
    assert asked.score("city, state") == 0.5
    (talk,) = records(found, "samsum")
    assert (talk.question.stop_at_line_end, talk.question.min_new_tokens) == (True, 1)
    assert talk.question.tail == ""
    assert found.overall({"a": 10.0, "b": 20.0}) == {"mean of the data sets": 15.0}


def test_longbench_e_is_shown_by_length(tmp_path):
    for name in ("lcc", "passage_retrieval_en", "passage_count"):
        answer = {"lcc": "return x", "passage_retrieval_en": "Paragraph 12", "passage_count": "3"}[name]
        sizes = (3999, 4000, 8000)
        write_lines(tmp_path / f"{name}_e.jsonl", *(long_record(answers=[answer], length=size) for size in sizes))
    found = open_benchmark("longbench", tmp_path, prompts="plain")
    assert list(found.metrics) == ["passage_count_e", "passage_retrieval_en_e", "lcc_e"]
    assert "not to be compared" in found.prompts
    assert [record.group for record in records(found, "lcc_e")] == ["0-4k", "4-8k", "8k+"]
    assert records(found, "passage_retrieval_en_e")[0].score("12 or 13") == 0.5
    assert records(found, "passage_count_e")[0].score("There are 3") == 1.0
    assert records(found, "lcc_e")[0].score("return x\n") == 1.0


def test_chinese_words_are_those_of_jieba_which_is_asked_for_before_anything_is_read(tmp_path, monkeypatch):
    for name, answer in (("dureader", "ab cd"), ("multifieldqa_zh", "ab cd")):
        write_lines(tmp_path / f"{name}.jsonl", long_record(answers=[answer]))
    chinese_segmenter.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match="pip install jieba"):
        open_benchmark("longbench", tmp_path, prompts="plain")

    def cut(text, cut_all):
        return re.findall("..", text.replace(" ", ""))  # words of two characters

    monkeypatch.setitem(sys.modules, "jieba", SimpleNamespace(cut=cut, setLogLevel=lambda level: None))
    found = open_benchmark("longbench", tmp_path, prompts="plain")
    assert records(found, "multifieldqa_zh")[0].score("abxy") == 0.5
    assert records(found, "dureader")[0].score("abxycd") == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    chinese_segmenter.cache_clear()


LETTERS = {f"OPTION_{letter}": letter for letter in "ABCD"}
# Input, answer, options, an answer that is right, one that is not.
INFINITE_RECORDS = {
    "passkey": ("The pass key?", ["71432"], None, "It is 71432.", "7143"),
    "number_string": ("The digits?", ["0011"], None, "0011", "011"),
    "kv_retrieval": ("Key: x", ["c14c-ba"], None, 'is "c14c-ba"', "c14c"),
    "longbook_sum_eng": ("", ["The fox\nran off"], None, "the fox\nran off", "none"),
    "longbook_choice_eng": ("Who ran?", ["fox"], ["dog", "fox", "cow", "hen"], "B", "A"),
    "longbook_qa_eng": ("Who ran?", ["the fox", "a hen"], None, "Fox!", "cow"),
    "longbook_qa_chn": ("?", ["\u72d0\u72f8"], None, "\u72d0\u72f8\u3002", "x"),
    "longdialogue_qa_eng": ("", ["ACE", "ACE R"], None, "Ace.", "Nicky"),
    "math_find": ("The second largest number of the list is: ", [88], None, "88", "8"),
    "math_calc": ("", [1, 4, 8], None, "[1, 4, 8]", "[2]"),
    "code_run": ("What is func_12(-3)?", [-12], None, "returns -12", "12"),
    "code_debug": ("", ["fetch"], ["store", "load", "fetch", "send"], "C.", "A."),
}


@pytest.mark.parametrize("name", INFINITE)
def test_infinitebench_as_published(tmp_path, name):
    asked, answer, options, right, wrong = INFINITE_RECORDS[name]
    record = {"id": 0, "context": "A long text.", "input": asked, "answer": answer, "options": options or []}
    write_lines(tmp_path / f"{name}.jsonl", record)
    found = open_benchmark("infinitebench", tmp_path, prompts="plain")
    (one,) = records(found, name)
    assert one.question.prompt.startswith(f"A long text.\n\n{asked}")
    assert one.question.max_new_tokens == INFINITE[name][1]
    assert one.score(right) == 1.0
    assert one.score(wrong) == 0.0
    if options:
        assert one.question.tail == f"\n\n{asked}\n" + "".join(
            f"{a}. {b}\n" for a, b in zip("ABCD", options, strict=True)
        )
        assert one.details["ground_truth"] == [answer[0], "ABCD"[options.index(answer[0])]]


def test_infinitebench_reads_its_prompts_from_a_python_file_without_running_it(tmp_path):
    (tmp_path / "prompt.py").write_text(
        "raise SystemExit('run')\n"
        "gpt4_templates = {'code_run': '{context} of {func}'}\n"
        "yarn_mistral_templates = {\n"
        "    'code_run': 'In {context} {func} is. ' + 'What is {func_call}?',  # noqa\n"
        "    'math_find': '{prefix} {context} {input}',\n"
        "}\n"
    )
    asked = {"code_run": "func_12(-3)", "math_find": "The median number of the list is:"}
    for name, answer in (("code_run", [2]), ("math_find", [2.5])):
        write_lines(tmp_path / f"{name}.jsonl", {"context": "XYZ", "input": asked[name], "answer": answer})
    found = open_benchmark("infinitebench", tmp_path)
    assert found.prompts == "prompt.py, yarn_mistral_templates"
    assert records(found, "code_run")[0].question.prompt == "In XYZ func_12 is. What is func_12(-3)?"
    assert records(found, "math_find")[0].question.prompt == (
        "What is the median number in the following list? XYZ The median number of the list is:"
    )
    other = open_benchmark("infinitebench", tmp_path, ["code_run"], options={"prompt_set": "gpt4_templates"})
    assert records(other, "code_run")[0].question.prompt == "XYZ of func_12"
    with pytest.raises(UserError, match=r"prompt_set='gpt5'.*gpt4_templates"):
        open_benchmark("infinitebench", tmp_path, ["code_run"], options={"prompt_set": "gpt5"})


def test_ruler_as_prepared(tmp_path):
    line = {"index": 7, "input": "Find it.", "outputs": ["12", "34"], "length": 9, "answer_prefix": " It is"}
    write_lines(tmp_path / "niah_multivalue" / "validation.jsonl", line)
    write_lines(tmp_path / "qa_1.jsonl", {**line, "answer_prefix": ""})
    found = open_benchmark("ruler", tmp_path)
    assert dict(found.metrics) == {"niah_multivalue": "string_match_all", "qa_1": "string_match_part"}
    (needle,), (asked,) = records(found, "niah_multivalue"), records(found, "qa_1")
    assert needle.question.prompt == "Find it. It is"
    assert (needle.question.max_new_tokens, asked.question.max_new_tokens) == (128, 32)
    assert (needle.score("\x0012 and"), asked.score("12 and")) == (0.5, 1.0)


def test_needles_stand_where_the_published_code_puts_them():
    hay = list(range(100))
    assert at_depth(hay, [-1, -2], 42) == [*hay[:42], -1, -2, *hay[42:]]
    assert at_depth(hay, [-1], 100)[-1] == -1
    both = at_depths(hay, [[-1, -1], [-2], [-3]], [0, 50, 100])
    assert both == [-1, -1, *hay[:50], -2, *hay[50:], -3]
    # Ten percent apart, and the two tokens of the first counted twice: 20, then 20 + 2 + 10 + 2.
    reasoned = apart(hay, [[-1, -1], [-2]], 20, 10)
    assert reasoned.index(-1) == 20
    assert reasoned.index(-2) == 34
    assert sorted(reasoned) == sorted([*hay, -1, -1, -2])
    assert apart(hay, [[-1], [-2], [-3]], 100, 10)[-3:] == [-1, -2, -3]
    assert haystack(["ab", "cd", "ef"], 3, Bytes().encode) == list(b"abc")
    assert haystack(["ab"], 3, Bytes().encode) is None


def test_needles_retrieved_together_differ_in_subject_and_key_word():
    needles = [{"arg1": a, "arg2": b} for a, b in (("x", "1"), ("x", "2"), ("y", "1"), ("y", "3"))]
    for seed in range(4):
        found = unique_needles(needles, 3, seed)
        assert len({n["arg1"] for n in found}) == len({n["arg2"] for n in found}) == len(found) <= 2
        assert found == unique_needles(needles, 3, seed)


@pytest.fixture
def needle_folder(tmp_path):
    needles = [
        {"needle": f"The {a} lies in {b}.", "arg1": a, "arg2": b, "language": "English",
         "retrieval_question": f"Where is the {a}? Answer with 'The {a} lies in ______.'"}
        for a, b in (("gold", "Rome"), ("map", "Oslo"), ("ring", "Lima"))
    ]  # fmt: skip
    write_lines(tmp_path / "needles.jsonl", *needles, {**needles[0], "language": "Chinese"})
    write_lines(tmp_path / "PaulGrahamEssays.jsonl", *({"text": letter * 90} for letter in "abc"))
    chain = {"derivations": ["A is B.", "B is C."], "derivation_count": 2, "question": "What is A?", "answer": "Big C"}
    (tmp_path / "multi_needle_reasoning_en.json").write_text(json.dumps([chain]))
    return tmp_path


def test_needlebench_as_published(needle_folder):
    options = {"lengths": [200, 250], "depths": [0, 50, 100], "repeats": 2, "buffer": 20}
    names = ["single_retrieval", "multi_retrieval", "2_needle_reasoning"]
    found = open_benchmark("needlebench", needle_folder, names, options=options)
    single = records(found, "single_retrieval", Bytes())
    assert [record.number for record in single] == list(range(2 * 3 * 2))
    assert {record.group for record in single} == {"200 tokens", "250 tokens"}
    for record, length in zip(single, [200] * 6 + [250] * 6, strict=True):
        context, _, asked = record.question.prompt.partition("\n\nWhere")
        assert len(context) == length - 20  # the needle included
        assert asked.startswith(" is the ")
        assert record.score(f"in {record.details['wanted'][1]}") == 1.0
        assert record.score("no idea") < 0.2
    assert single[0].question.prompt.startswith("\nThe ")  # depth 0
    assert records(found, "single_retrieval", Bytes())[5].question == single[5].question
    multi = records(found, "multi_retrieval", Bytes())
    assert len(multi) == 2 * 2
    assert all(f"\nThe {a} lies in {b}.\n" in multi[0].question.prompt for a, b in (("gold", "Rome"), ("map", "Oslo")))
    assert multi[0].question.tail.count("?") == 3
    assert "Answer in this form: 'The " in multi[0].question.tail
    assert multi[0].score("Rome and Lima") == pytest.approx(2 / 3)
    reasoned = records(found, "2_needle_reasoning", Bytes())[2]
    assert "\nA is B.\n" in reasoned.question.prompt
    assert reasoned.question.tail == "\n\nWhat is A?\n"
    assert reasoned.score("c, I think") == 0.5
    means = {"single_retrieval": 100.0, "multi_retrieval": 50.0, "2_needle_reasoning": 20.0, "3_needle_reasoning": 0.0}
    assert found.overall(means) == pytest.approx(
        {
            "mean of the reasoning tasks": 10.0,
            "overall, weights 0.4, 0.3, 0.3": 40 + 15 + 3,
            "overall, equal weights": 160 / 3,
        }
    )
    assert found.overall({"single_retrieval": 5.0}) == {}


def test_needlebench_says_what_is_missing(needle_folder):
    def opened(names=None, **options):
        return open_benchmark("needlebench", needle_folder, names, options=options)

    with pytest.raises(UserError, match=r"holds 3 different English needles.*20 depths"):
        opened(["multi_retrieval"])
    with pytest.raises(UserError, match="nothing with derivation_count 5"):
        opened(["5_needle_reasoning"])
    with pytest.raises(UserError, match=r"lengths=\[600\] must be above buffer=600"):
        opened(["single_retrieval"], lengths=[600])
    with pytest.raises(UserError, match="depths"):
        opened(["single_retrieval"], depths=[101])
    with pytest.raises(UserError, match=r"holds no zh_finance.jsonl"):
        opened(["single_retrieval"], language="Chinese")
    with pytest.raises(UserError, match=r"task.options.lengths='long' must be a list of whole numbers"):
        opened(lengths="long")
    long = opened(["single_retrieval"], lengths=[5000])
    with pytest.raises(UserError, match=r"PaulGrahamEssays.jsonl holds fewer than 4,\d+ tokens"):
        records(long, "single_retrieval", Bytes())


def test_every_data_set_of_a_folder_is_found_by_name(tmp_path):
    for name in LONG:
        if "zh" not in name and name not in ("dureader", "vcsum"):
            write_lines(tmp_path / f"{name}.jsonl", long_record())
    found = open_benchmark("longbench", tmp_path, prompts="plain")
    assert len(found.metrics) == 17  # 14 English, two of code, and lsht, whose classes need no words
    with pytest.raises(UserError, match=r"task.datasets='qaspr' is not known.*did you mean 'qasper'"):
        open_benchmark("longbench", tmp_path, ["qaspr"], "plain")
    with pytest.raises(UserError, match="each once"):
        open_benchmark("longbench", tmp_path, ["qasper", "qasper"], "plain")
    with pytest.raises(UserError, match=r"holds no qasper_e.jsonl or data/qasper_e.jsonl"):
        open_benchmark("longbench", tmp_path, ["qasper_e"], "plain")
    with pytest.raises(UserError, match=r"dataset2prompt.json.*task.prompts=plain"):
        open_benchmark("longbench", tmp_path)
    with pytest.raises(UserError, match="'nowhere' does not exist"):
        open_benchmark("longbench", "nowhere", prompts="plain")
    with pytest.raises(UserError, match=r"holds none of the data sets"):
        open_benchmark("infinitebench", tmp_path, prompts="plain")
    with pytest.raises(UserError, match=r"task.name='bench'"):
        open_benchmark("bench", tmp_path)
    with pytest.raises(UserError, match=r"leave task.prompts out"):
        open_benchmark("ruler", tmp_path, prompts="plain")
    with pytest.raises(UserError, match="longbench takes no options"):
        open_benchmark("longbench", tmp_path, options={"lengths": [1]})


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("longbench/qasper", "{", "no JSON"),
        ("longbench/qasper", "[1]", "must be a JSON object, got list"),
        ("longbench/qasper", json.dumps(long_record(answers=[])), "'answers' must hold a list of at least 1"),
        ("longbench/qasper", json.dumps(long_record(answers=[3])), "'answers'"),
        ("longbench/qasper", json.dumps(long_record(context=None)), "'context' must hold text, got nothing"),
        ("longbench/trec", json.dumps(long_record()), "'all_classes'"),
        ("longbench/qasper_e", json.dumps(long_record(length="2")), "'length' must hold a whole number"),
        ("longbench/passage_retrieval_en", json.dumps(long_record(answers=["15"])), "'Paragraph ' and a number"),
        ("infinitebench/passkey", '{"context": "", "answer": [5]}', "'answer' must hold text"),
        ("infinitebench/math_find", '{"context": "", "answer": [true], "input": "The x of"}', "'answer'"),
        ("infinitebench/math_find", '{"context": "", "answer": [1], "input": "x"}', "'input'"),
        ("infinitebench/math_calc", '{"context": "", "answer": ["1"]}', "'answer'"),
        ("infinitebench/code_run", '{"context": "", "answer": [1], "input": "f(2)"}', "func_1(2)"),
        ("infinitebench/code_debug", '{"context": "", "answer": ["e"], "options": ["a"]}', "at least 4"),
        ("infinitebench/code_debug", '{"context": "", "answer": ["e"], "options": ["a","b","c","d"]}', "one of the"),
        ("ruler/vt", '{"input": "x", "outputs": []}', "'outputs'"),
        ("ruler/vt", '{"outputs": ["x"]}', "'input'"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named_by_file_and_line(tmp_path, name, line, said):
    benchmark, dataset = name.split("/")
    path = tmp_path / f"{dataset}.jsonl"
    path.write_text(f"\n{line}\n")
    found = open_benchmark(benchmark, tmp_path, prompts=None if benchmark == "ruler" else "plain")
    with pytest.raises(UserError) as error:
        records(found, dataset)
    assert str(error.value).startswith(f"{path}, line 2")
    assert said in str(error.value)
    path.write_bytes(b'{"input": "\xff"}\n')
    with pytest.raises(UserError, match="line 1 is no UTF-8"):
        records(found, dataset)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = 1", "assigns no dictionary"),
        ("t = {'x': open('y')}", "line 1: a template must be plain text"),
        ("t = {'x': 'a' +", "is no Python"),
    ],
)
def test_a_prompt_file_of_python_holds_plain_texts(tmp_path, content, said):
    path = tmp_path / "prompt.py"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        load_templates(path, "t")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{context} {inputs}", "names {inputs}, it may name context, input"),
        ("{context.__class__}", "may name"),
        ("{file:{context}}", "may name"),
        ("{context!r}", "may name"),
        ("{context", "is no template"),
        ("{input}", "must name {context}"),
    ],
)
def test_a_template_names_plain_fields(text, said):
    with pytest.raises(UserError) as error:
        Template.parse(text, ("context", "input"), "file: x")
    assert said in str(error.value)


def test_a_template_fills_as_str_format_does():
    template = Template.parse("{{}} {input}: {context}; {input} {{x}}", ("context", "input"), "x")
    assert template.fill({"context": "C {input}", "input": "I"}) == ("{} I: C {input}; I {x}", "; I {x}")
