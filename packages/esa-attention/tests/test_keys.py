"""Every key of every command's config is read by the command: one that nothing reads would be accepted in silence."""

import pytest

from effkit.testing import in_process, unread_keys
from esa_attention.cli import main

ESA = ["esa.num_initial=4", "esa.num_local=32", "esa.num_selected=16", "esa.chunk_size=16", "threads=1"]
TINY = ["model=tiny_random", *ESA, "compressor.num_tokens=600"]
LAYER = ["layer={num_heads: 2, num_kv_heads: 1, head_dim: 16}", "rank=8", "min_rounds=1", "min_seconds=0.01"]
# Small runs of each command, together all that it can do with its keys.
LINES = {
    "calibrate": [TINY],
    "generate": [["hello", *TINY, "max_new_tokens=2", "temperature=1", "top_k=3"]],
    "needle": [[*TINY, "lengths=[200]", "depths=[0.5]", "methods=[esa]"]],
    "counting-stars": [[*TINY, "task=needle", "lengths=[200]", "methods=[esa]", "samples=1"]],
    "eval": [[*TINY, "task.folder=FOLDER", "methods=[esa]", "max_new_tokens=1"]],
    "ppl": [[*TINY, "length=200", "methods=[esa]"]],
    "recall": [[*TINY, "methods=[closed_form]"]],
    "two-level": [[*TINY, "length=200", "num_queries=1", "ks=[20]", "blocks=[16]"]],
    "bench": [["decode", "lengths=[64]", "providers=[esa,sdpa]", *LAYER, *ESA]],
    "inspect": [["lengths=[1024]"]],
    "reproduce": [["table=7"]],
    "doctor": [[]],
}


@pytest.mark.parametrize("name", main.commands)
def test_every_key_is_read(name, tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "lcc.jsonl").write_text('{"context": "x = 1\\n", "input": "", "answers": ["y = 2"]}\n')
    (tmp_path / "FOLDER" / "dataset2prompt.json").write_text('{"lcc": "{context}{input}"}')
    # All of the node `esa` is given to ESAConfig, which refuses what is none of its fields.
    assert unread_keys(main, name, run, *LINES[name], whole=["esa"]) == []
