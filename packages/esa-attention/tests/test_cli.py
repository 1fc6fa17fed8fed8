"""The commands, run in this process: what they print, write and return, and how they answer mistakes."""

import json

import pytest
import torch

from effkit.testing import assert_one_line_mistake, in_process
from esa_attention.cli import main

TINY = ["model=tiny_random", "threads=1"]
SMALL = ["esa.num_initial=4", "esa.num_local=32", "esa.num_selected=16", "esa.chunk_size=16"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def _data(out: str):
    return json.loads(out)["data"]


def test_calibrate_then_use_the_file(run, tmp_path):
    code, out, err = run("calibrate", *TINY, "compressor.num_tokens=1000", "out=maps.safetensors", "format=json")
    assert code == 0, err
    assert _data(out)["ranks"] == [16, 16]
    files = json.loads(out)["files"]
    assert (tmp_path / "maps.safetensors").is_file()
    assert any(name.endswith("spectrum.png") for name in files)
    code, out, err = run(
        "generate", "hello", *TINY, "compressor.path=maps.safetensors", "max_new_tokens=3", "format=json"
    )
    assert code == 0, err
    assert len(_data(out)["ids"]) == 3
    # Other weights: refused, unless the user says that this is meant.
    other = ["model.options.seed=1", "compressor.path=maps.safetensors", "max_new_tokens=3"]
    code, _, err = run("generate", "hello", *TINY, *other)
    assert code == 2
    assert "other weights" in err
    code, _, err = run("generate", "hello", *TINY, *other, "compressor.strict=false")
    assert code == 0, err


@pytest.mark.parametrize("method", ["esa", "exact", "sinks_local", "quest_pages", "full", "stock"])
def test_generate_with_every_method(run, method):
    words = ["generate", "a long prompt " * 9, *TINY, *SMALL, "compressor.num_tokens=600", f"method={method}"]
    code, out, err = run(*words, "max_new_tokens=4", "format=json")
    assert code == 0, err
    assert len(_data(out)["ids"]) == 4


def test_generate_with_beams_sampling_and_a_file(run, tmp_path):
    (tmp_path / "prompt.txt").write_text("It was a dark night. " * 8)
    base = ["generate", "prompt_file=prompt.txt", *TINY, *SMALL, "compressor=exact", "max_new_tokens=5", "format=json"]
    results = [
        run(*base, *more)
        for more in ([], ["num_beams=2"], ["temperature=1.0", "top_k=5"], ["temperature=1.0", "top_k=5"])
    ]
    assert [code for code, *_ in results] == [0] * 4, results
    ids = [_data(out)["ids"] for _, out, _ in results]
    assert ids[2] == ids[3]  # the seed decides


def test_generate_draws_what_it_selects(run):
    code, out, err = run(
        "generate", "threads=1", "watch_layer=1", "max_new_tokens=4", "compressor=exact", "format=json"
    )
    assert code == 0, err
    names = [name.rpartition("/")[2] for name in json.loads(out)["files"]]
    assert names == ["text.txt", "selected_layer1.png", "overlap_layer1.png"]


def test_needle_on_the_constructed_model(run):
    words = [
        "needle",
        "threads=1",
        "lengths=[512,3000]",
        "depths=[0.2,0.8]",
        "methods=[esa,sinks_local]",
        "format=json",
    ]
    code, out, err = run(*words, "compressor.num_tokens=4096")
    assert code == 0, err
    scores = _data(out)["scores"]
    assert scores["esa"] == [[1.0, 1.0], [1.0, 1.0]]
    assert sum(map(sum, scores["sinks_local"])) < 4
    assert any(name.endswith("needle.png") for name in json.loads(out)["files"])


@pytest.mark.parametrize("task", ["multi_needle", "passkey", "variable_tracking"])
def test_other_tasks(run, task):
    words = ["needle", "threads=1", f"task={task}", "lengths=[2000]", "methods=[exact]", "format=json"]
    code, out, err = run(*words, *(["depths=[0.5]"] if task == "passkey" else []))  # the others hide many things
    assert code == 0, err
    assert _data(out)["scores"]["exact"] == [[1.0]]


def test_counting_stars(run):
    words = ["counting-stars", "threads=1", "lengths=[3000]", "methods=[exact]", "samples=1", "format=json"]
    code, out, err = run(*words)
    assert code == 0, err
    assert _data(out)["scores"]["exact"] == [[1.0]]


def test_ppl_of_stock_and_esa_side_by_side(run):
    words = ["ppl", *TINY, *SMALL, "length=700", "compressor=exact", "methods=[stock,esa,sinks_local]", "format=json"]
    code, out, err = run(*words)
    assert code == 0, err
    nats = _data(out)["nats"]
    assert set(nats) == {"stock", "esa", "sinks_local"}
    assert all(len(v) == len(nats["esa"]) for v in nats.values())
    code, out, err = run(
        "ppl", *TINY, *SMALL, "length=100", "compressor=exact", "methods=[esa]", "strict=true", "format=json"
    )
    assert code == 0, err


def test_recall_draws_and_counts(run):
    words = [
        "recall",
        *TINY,
        "methods=[closed_form,key_pca]",
        "compressor.num_tokens=2000",
        "compressor.rank=8",
        "format=json",
    ]
    code, out, err = run(*words)
    assert code == 0, err
    recall = _data(out)["recall"]
    assert all(0 <= value <= 1 for values in recall.values() for value in values)
    assert sum(recall["closed_form"]) > sum(recall["key_pca"])


@pytest.mark.parametrize("kind", ["decode", "prefill", "crossover", "append", "calibrate"])
def test_bench_writes_the_schema(run, tmp_path, kind):
    from effkit.results import read_csv

    small = [
        "layer={num_heads: 4, num_kv_heads: 2, head_dim: 16}",
        "rank=8",
        "min_rounds=2",
        "min_seconds=0",
        "threads=1",
    ]
    sizes = [] if kind == "calibrate" else ["lengths=[200,400]"]
    code, out, err = run("bench", kind, *small, *sizes, *SMALL, "csv=out.csv", "format=json")
    assert code == 0, err
    rows = read_csv(tmp_path / "out.csv")
    assert {row.mode for row in rows} == {"decode" if kind == "crossover" else kind}
    assert all(row.package == "esa-attention" and row.threads == 1 for row in rows)
    if kind == "decode":
        found = _data(out)["length_400"]
        assert found["ratio"]["sdpa"] == 1.0
        assert {"packed MATH", "enable_gqa MATH", "expanded MATH"} <= set(found["full_attention"])
        fastest = min(found["full_attention"], key=found["full_attention"].__getitem__)
        assert all(
            row.note == f"sdpa: {fastest}" for row in rows if row.x == 400 and not row.provider.startswith("floor")
        )
        assert f"the fastest form that runs here, {fastest}" in json.loads(out)["tables"][1]["note"]
        assert found["kernel_bytes"]["esa"]["attend and merge"] > found["kernel_bytes"]["esa"]["prepare"] > 0
        assert {r.provider for r in rows} >= {"esa", "esa_int8", "sdpa", "floor_esa", "floor_sdpa"}
        assert any(name.endswith("time.png") for name in json.loads(out)["files"])
    if kind in ("decode", "crossover"):
        assert "crossover" in _data(out)
        assert any("faster than full attention" in line for line in json.loads(out)["lines"])


def test_inspect_prints_the_goldens(run, tmp_path):
    code, out, err = run("inspect", "format=json")
    assert code == 0, err
    assert _data(out)["operations_ratio_limit"] == 257 / 16480
    for figure in ("33562624", "8396800", "8388608"):
        assert figure in out
    assert list(tmp_path.iterdir()) == []


def test_reproduce_takes_both_spellings_of_a_table(run):
    results = [run("reproduce", f"table={table}", "format=json") for table in ("7", "table7", "[table7,fig2]")]
    assert [code for code, *_ in results] == [0, 0, 0]
    tables = [json.loads(out)["tables"] for _, out, _ in results]
    assert tables[0] == tables[1]
    assert len(tables[2]) == 2


def test_doctor_says_what_loads(run, tmp_path):
    code, out, _ = run("doctor", "format=json")
    assert code == 0
    assert {"transformers", "compiled CPU forms", "triton kernels"} <= {check["name"] for check in _data(out)["esa"]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calibrat"], ["calibrat", "calibrate"]),
        (["needle", "model=llama3"], ["llama3", "llama3_8b"]),
        (["needle", "model=llama3_8b"], ["llama3_8b", "path"]),
        (["ppl", "model=stories260k"], ["stories260K.bin", "tok512.bin"]),
        (["ppl", "model=stories260k", "model.path=nowhere"], ["nowhere"]),
        (["needle", "esa.num_selected=0"], ["num_selected", "0"]),
        (["needle", "esa.proximity=-1"], ["proximity", "-1"]),
        (["needle", "esa.num_lokal=3"], ["num_lokal", "num_local"]),
        (["needle", "selection=papr"], ["papr", "paper"]),
        (["needle", "task=needel"], ["needel", "needle"]),
        (["needle", "methods=[quest]"], ["quest", "quest_pages"]),
        (["needle", "methods=[]"], ["methods"]),
        (["needle", "lengths=[2]"], ["length", "2"]),
        (["needle", "depths=[2]", "lengths=[1000]", "methods=[exact]"], ["depth", "2"]),
        (["needle", "compressor.rank=999", "lengths=[600]"], ["rank", "999"]),
        (["needle", "compressor.path=nowhere.safetensors"], ["nowhere.safetensors"]),
        (["needle", "esa.far_position=9999"], ["far_position", "9999"]),
        (["needle", "question=words"], ["words", "block"]),
        (["generate", "hello"], ["hello", "0..127"]),
        (["generate", "1", "200"], ["200", "0..127"]),
        (["generate", "model=tiny_random"], ["prompt"]),
        (["generate", "hi", "model=tiny_random", "method=esaa"], ["esaa"]),
        (["generate", "hi", "model=tiny_random", "temperature=-1"], ["temperature", "-1"]),
        (["generate", "hi", "model=tiny_random", "watch_layer=7"], ["watch_layer", "7"]),
        (["calibrate", "model=tiny_random", "model.options.seed=xyz"], ["model.options.seed='xyz'", "whole number"]),
        (["calibrate", "out=maps.pt"], [".safetensors", "maps.pt"]),
        (["calibrate", "compressor.path=x.safetensors"], ["compressor.path"]),
        (["recall", "length=5"], ["length", "5"]),
        (["bench", "decod"], ["decod", "decode"]),
        (["bench", "providers=[sdpaa]"], ["sdpaa", "sdpa"]),
        (["bench", "lengths=[-4]"], ["lengths", "-4"]),
        (["bench", "rank=0"], ["rank", "0"]),
        (["bench", "providers=[flash_attn]"], ["flash_attn"]),
        (["inspect", "model=lama3_8b"], ["lama3_8b", "llama3_8b"]),
        (["inspect", "model.path=nowhere"], ["nowhere"]),
        (["inspect", "rank=0"], ["rank", "0"]),
        (["reproduce", "table=99"], ["99"]),
        (["reproduce", "seed=1"], ["no key 'seed'"]),
        (["reproduce", "claim=maybe"], ["claim=maybe", "true or false"]),
        (["counting-stars", "depths=[0.1]"], ["depths", "counting_stars", "leave depths out"]),
        (["bench", "calibrate", "precision=bf16"], ["precision='bf16'", "fp64"]),
        (["ppl", "strict=perhaps"], ["strict=perhaps", "true or false"]),
        (["ppl", "model=tiny_random", "length=1"], ["1"]),
        (["ppl", "model=tiny_random", "text=nowhere.txt"], ["nowhere.txt"]),
    ],
    ids=lambda w: " ".join(w),
)
def test_mistakes_are_one_line_with_value_and_fix(run, words, said):
    torch.manual_seed(0)
    assert_one_line_mistake("esa-attention", run(*words), said)
