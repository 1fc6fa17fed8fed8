"""``inspect``: everything from a configuration, nothing from weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from effkit.errors import UserError
from effkit.report import Report, Table
from esa_attention.commands.inspect import inspect_report, meta_model
from esa_attention.config import ESAConfig
from esa_attention.evaluation.models.geometries import config_for


@pytest.fixture(scope="module")
def llama() -> Report:
    return inspect_report("llama3_8b")


def table(report: Report, title: str) -> Table:
    (found,) = [t for t in report.tables if t.title.startswith(title)]
    return found


def column(report: Report, title: str, name: str) -> list[Any]:
    found = table(report, title)
    return [row[found.columns.index(name)] for row in found.rows]


def test_figures_of_llama3_8b(llama: Report) -> None:
    model = dict(table(llama, "Model").rows)
    assert model["parameters"] == 8_030_261_248  # as published: 8.03 B
    assert model["k_proj of a layer"] == "1024 x 4096"
    assert (model["queries of a token (d_H)"], model["keys of a token (d_G)"]) == (4096, 1024)
    assert llama.data["operations_ratio_limit"] == 257 / 16480
    assert llama.data["cache_overhead"] == 0.0625
    assert llama.data["break_even_length"] == 6410
    tokens = column(llama, "One step", "tokens")
    by_length = dict(zip(tokens, column(llama, "One step", "operations, %"), strict=True))
    assert f"{by_length[65_536]:.2f}, {by_length[131_072]:.3f}" == "11.99, 6.776"
    for name, figures in {
        "fewer bytes, times": ["4.07", "6.49", "9.23", "11.7", "14.7"],
        "int8 without scales": ["4.57", "8.00", "12.8", "18.3", "26.9"],
    }.items():
        ours = column(llama, "One step", name)[1:]
        assert [f"{o:.{len(f.split('.')[1])}f}" for o, f in zip(ours, figures, strict=True)] == figures
    assert llama.exit_code == 0


@pytest.mark.parametrize(
    ("name", "counts"),
    [("mistral_7b", [33_562_624, 8_396_800, 8_388_608]), ("qwen3_8b", [37_757_952, 9_446_400, 9_437_184])],
)
def test_compressor_parameters(name: str, counts: list[int]) -> None:
    report = inspect_report(name, lengths=[32_768])
    assert column(report, "Compressor parameters", "parameters") == counts
    assert len(table(report, "One step").rows) == 1


def test_no_weights_are_made() -> None:
    model = meta_model(config_for("qwen3_8b"))
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_sizes_of_short_context_follow_apply_esa() -> None:
    report = inspect_report("tiny_random", rank=16, lengths=[1000])
    here = dict(zip(column(report, "Segments", "letter"), column(report, "Segments", "here"), strict=True))
    expected = ESAConfig.for_context(512)
    assert (here["l_L"], here["k"], here["l_C"]) == (expected.num_local, expected.num_selected, expected.chunk_size)
    assert column(report, "Can ESA", "answer") == ["yes", "yes", "yes"]
    assert table(report, "Cache").columns[1] == "keys and values, MB"


def test_what_does_not_fit_is_said() -> None:
    too_long = ESAConfig(num_local=400, chunk_size=200, num_selected=8, num_initial=4)
    report = inspect_report("tiny_random", too_long, rank=16, lengths=[1000])
    assert report.exit_code == 1
    assert report.data["applicable"] is False
    assert column(report, "Can ESA", "answer") == ["yes", "no", "yes"]
    assert "num_local + chunk_size = 600" in column(report, "Can ESA", "reason")[1]
    report = inspect_report("tiny_random", ESAConfig(num_local=400, chunk_size=100), rank=16, lengths=[1000])
    assert column(report, "Can ESA", "answer") == ["yes", "with a warning", "yes"]
    assert report.exit_code == 0


def test_a_model_that_is_refused_still_has_its_figures() -> None:
    report = inspect_report(config_for("mistral_7b", sliding_window=4096, num_hidden_layers=2), lengths=[32_768])
    assert report.exit_code == 1
    assert column(report, "Can ESA", "answer") == ["no"]
    assert "sliding window of 4096" in column(report, "Can ESA", "reason")[0]
    assert f"{column(report, 'One step', 'fewer bytes, times')[0]:.2f}" == "4.07"


def test_rotary_that_changes_with_the_length() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config = config_for("tiny_random", rope_parameters=rope)
    assert column(inspect_report(config, rank=16), "Can ESA", "answer")[2] == "yes"
    full = ESAConfig.for_context(512, dense_until=512)
    report = inspect_report(config, full, rank=16)
    assert column(report, "Can ESA", "answer")[2] == "no"
    assert "dynamic" in column(report, "Can ESA", "reason")[2]


def test_a_folder_with_a_config(tmp_path: Path) -> None:
    config_for("tiny_random", family="qwen3").save_pretrained(tmp_path / "mine")
    report = inspect_report(tmp_path / "mine", rank=8, lengths=[2000])
    assert report.data["model"] == "mine"
    assert dict(table(report, "Model").rows)["type"] == "qwen3"


def test_report_is_plain(llama: Report) -> None:
    json = llama.to_json()
    assert json["data"]["by_length"][2]["tokens"] == 65_536
    assert "6,410 tokens" in json["lines"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "llama4"}, "model='llama4' is not known.*llama3_8b"),
        ({"model": "tiny_random"}, r"rank must be .* 1\.\.32 .*, got 128"),
        ({"model": "tiny_random", "rank": 16, "lengths": []}, "lengths must hold at least one"),
        ({"model": "tiny_random", "rank": 16, "lengths": [0]}, "length must be .* got 0"),
        ({"model": "tiny_random", "dtype": "int8"}, "dtype='int8' is not known"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        inspect_report(**arguments)


def test_models_that_are_none(tmp_path: Path) -> None:
    from transformers import ViTConfig

    with pytest.raises(UserError, match="'vit' cannot be built as a causal language model"):
        inspect_report(ViTConfig(num_hidden_layers=1))
    with pytest.raises(UserError, match="has no configuration that transformers can read"):
        inspect_report(tmp_path)


def test_the_default_device_is_left_alone() -> None:
    meta_model(config_for("tiny_random"))
    assert torch.empty(1).device.type == "cpu"
