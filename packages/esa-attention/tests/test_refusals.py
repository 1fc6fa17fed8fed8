"""What the commands refuse, before they begin: values of another kind or range, and outputs that cannot be written."""

import pytest

from effkit.testing import assert_one_line_mistake, in_process
from esa_attention.cli import main

TINY = ["model=tiny_random", "threads=1"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "hi", "max_new_tokens=abc"], ["max_new_tokens='abc'", "whole number"]),
        (["generate", "hi", "top_k=1.5"], ["top_k=1.5", "whole number"]),
        (["generate", "hi", "temperature=null"], ["temperature=null", "number"]),
        (["generate", "prompt_file=nowhere.txt"], ["prompt_file='nowhere.txt'", "does not exist"]),
        (["generate", "prompt_file="], ["prompt_file= is empty"]),
        (["generate", "words=5"], ["words=5", "list of words"]),
        (["generate", "hi", "esa.offload=5"], ["esa.offload=5", "true or false"]),
        (["generate", "hi", "esa.reuse_threshold=abc"], ["esa.reuse_threshold='abc'", "number"]),
        (["generate", "hi", "esa.num_selected=0"], ["esa.num_selected"]),
        (["generate", "hi", "model.rank=abc"], ["model.rank='abc'", "whole number"]),
        (["generate", "hi", "model.path=5"], ["model.path=5"]),
        (["generate", "hi", "compressor.tail=abc"], ["compressor.tail='abc'", "number"]),
        (["calibrate", "compressor.path=", "compressor.strict=5"], ["compressor.strict=5", "true or false"]),
        (["calibrate", "compressor.num_tokens=1.5"], ["compressor.num_tokens=1.5", "whole number"]),
        (["calibrate", "out=/proc/x.safetensors"], ["out='/proc/x.safetensors'"]),
        (["calibrate", "out=[1]"], ["out=[1]", "path"]),
        (["calibrate", "out=x.bin"], ["out='x.bin'", ".safetensors"]),
        (["needle", "lengths=abc"], ["lengths='abc'", "list of whole numbers"]),
        (["needle", "samples=abc"], ["samples='abc'"]),
        (["needle", "methods=null"], ["methods=null", "list"]),
        (["needle", "task=passkey", "task.options.digits=abc"], ["task.options.digits='abc'", "whole number"]),
        (["ppl", "length=abc"], ["length='abc'", "whole number"]),
        (["ppl", "strict=5"], ["strict=5", "true or false"]),
        (["ppl", "text=."], ["text='.'", "is no file"]),
        (["recall", "k=abc"], ["k='abc'", "whole number"]),
        (["recall", "methods=5"], ["methods=5", "list"]),
        (["bench", "csv=/proc/x.csv"], ["csv='/proc/x.csv'"]),
        (["bench", "layer.num_heads=abc"], ["layer.num_heads='abc'", "whole number"]),
        (["bench", "layer.head_dim=0"], ["layer.head_dim=0"]),
        (["bench", "rank=abc"], ["rank='abc'", "whole number"]),
        (["inspect", "lengths=5"], ["lengths=5", "list"]),
        (["inspect", "esa.check_finite=5"], ["esa.check_finite=5", "true or false"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_refused_in_one_line_that_names_the_key(run, words, said):
    tiny = [] if words[0] in ("bench", "inspect") else TINY
    assert_one_line_mistake("esa-attention", run(words[0], *tiny, *words[1:]), said)


def test_an_interrupted_calibration_leaves_no_file_under_the_final_name(run, tmp_path, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("effkit.checkpoints.writing.plain_state", interrupt)
    code, _, err = run("calibrate", *TINY, "compressor.num_tokens=300", "out=new/maps.safetensors")
    assert code == 130, err
    assert not (tmp_path / "new").exists()
