"""What is calibrated on: several texts in equal shares, named and counted in the file."""

import json
from types import SimpleNamespace

import pytest
import torch

from effkit.errors import UserError
from effkit.testing import assert_one_line_mistake, in_process
from esa_attention.calibration import calibrate
from esa_attention.calibration.sequences import hash_sequences
from esa_attention.cli import main
from esa_attention.commands import calibration_texts as module
from esa_attention.commands.calibration_texts import calibration_texts
from esa_attention.compression.compressor import load_compressors, save_compressors
from esa_attention.evaluation.models.text import encode_bytes, read_split


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def subject(name="causal_lm"):
    """As much of a subject as texts look at: a model whose tokens are bytes."""
    return SimpleNamespace(name=name, encode=encode_bytes, tokenizer=None)


def test_a_model_from_a_folder_is_calibrated_on_english_and_on_code_alike():
    texts, names = calibration_texts(subject(), 5001)
    assert names == ["Python's documentation topics", "Python's library sources"]
    assert [len(text) for text in texts] == [2500, 2501]
    for text, source in zip(texts, ("topics", "stdlib"), strict=True):
        content = read_split("train", (source,)).decode()[: len(text)]
        assert text.tolist() == encode_bytes(content)[: len(text)].tolist()


def test_the_bundled_texts_have_an_end(monkeypatch):
    monkeypatch.setattr(module, "read_split", lambda split, sources: b"abc")
    with pytest.raises(UserError, match=r"hold 6 tokens, compressor.num_tokens=7 .*compressor.text="):
        calibration_texts(subject(), 7)


@pytest.mark.parametrize(
    ("lengths", "total", "shares"),
    [
        ((100, 100, 100), 9, [3, 3, 3]),
        ((100, 100), 9, [4, 5]),
        ((100, 2, 100), 12, [5, 2, 5]),  # what the short one cannot give, the others do
        ((100, 2), 12, [10, 2]),
        ((3, 2), 12, [3, 2]),  # there is no more
        ((7,), 5, [5]),
    ],
)
def test_shares_are_equal_as_far_as_texts_reach(tmp_path, lengths, total, shares, caplog):
    files = []
    for number, length in enumerate(lengths):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text("abcdefghij"[number] * length)
    texts, names = calibration_texts(subject(), total, [str(file) for file in files])
    assert [len(text) for text in texts] == shares
    assert names == [file.name for file in files]
    assert ("asks for more" in caplog.text) == (sum(lengths) < total)


def test_files_of_one_name_keep_their_folders(tmp_path):
    files = [tmp_path / folder / "a.txt" for folder in ("x", "y")]
    for file in files:
        file.parent.mkdir()
        file.write_text("words")
    assert calibration_texts(subject(), 10, [str(file) for file in files])[1] == [str(file) for file in files]


def test_what_was_read_is_recorded(tiny, tmp_path):
    model = tiny(dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(2, 128, (n,), generator=generator) for n in (300, 200)]
    made = calibrate(model, texts, rank=4, far_position=32, num_tokens=450, text=["prose", "code"])
    loaded = load_compressors(save_compressors(made, tmp_path / "maps.safetensors"), model)
    for found in (made, loaded):
        assert found.text == "prose and code"
        assert found.num_tokens == 450
        assert [(text["name"], text["tokens"]) for text in found.texts] == [("prose", 300), ("code", 150)]
        # Cut where the model's context of 128 ends.
        assert found.texts[1]["sha256"] == hash_sequences([texts[1][:128], texts[1][128:150]])
    one = calibrate(model, texts, rank=4, far_position=32, num_tokens=450, text="both")
    assert [(text["name"], text["tokens"]) for text in one.texts] == [("both", 450)]
    for ours, theirs in zip(made, one, strict=True):
        assert torch.equal(ours.key_weight, theirs.key_weight)  # names change nothing
    with pytest.raises(UserError, match="num_tokens=300 leaves nothing for 'code'"):
        calibrate(model, texts, rank=4, far_position=32, num_tokens=300, text=["prose", "code"])
    with pytest.raises(UserError, match="each of the 2 sequences"):
        calibrate(model, texts, rank=4, far_position=32, text=["prose"])


def test_calibrate_reads_several_files_and_says_so(run, tmp_path):
    (tmp_path / "prose.txt").write_text("It was a dark night, and nobody spoke. " * 20)
    (tmp_path / "code.txt").write_text("def f(x):\n    return x + 1\n" * 30)
    words = ["calibrate", "model=tiny_random", "threads=1", "compressor.num_tokens=900", "out=maps.safetensors"]
    code, out, err = run(*words, "compressor.text=[prose.txt,code.txt]", "format=json")
    assert code == 0, err
    found = json.loads(out)
    assert [(t["name"], t["tokens"]) for t in found["data"]["texts"]] == [("prose.txt", 450), ("code.txt", 450)]
    assert "450 tokens of prose.txt and 450 tokens of code.txt" in found["tables"][0]["note"]
    assert load_compressors(tmp_path / "maps.safetensors").texts == found["data"]["texts"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calibrate", "compressor.text=[]"], ["compressor.text=[]", "null"]),
        (["calibrate", "compressor.text=[a.txt,a.txt]"], ["compressor.text", "each once"]),
        (["calibrate", "compressor.text=[a.txt,b.txt]"], ["b.txt", "does not exist"]),
        (["calibrate", "compressor.text=one.txt"], ["one.txt", "fewer than 2 tokens"]),
        (["calibrate", "compressor.text=few.txt"], ["9 tokens", "rank of 16", "compressor.text"]),
        (["calibrate", "compressor.text=[a.txt,latin.txt]"], ["latin.txt", "UTF-8", "byte 1"]),
        (["ppl", "text=latin.txt", "length=20"], ["latin.txt", "UTF-8"]),
        (["recall", "compressor.text=[few.txt,a.txt]", "text=a.txt"], ["text=", "a.txt", "another"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_about_texts(run, tmp_path, words, said):
    for name, content in (
        ("a.txt", b"some words " * 9),
        ("one.txt", b"x"),
        ("few.txt", b"few words"),
        ("latin.txt", b"h\xe9"),
    ):
        (tmp_path / name).write_bytes(content)
    assert_one_line_mistake("esa-attention", run(*words, "model=tiny_random", "threads=1"), said)
