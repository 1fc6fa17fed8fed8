"""Calibration and tasks on several workers: what one process finds, bit for bit."""

import json
from pathlib import Path

import pytest
import torch

from effkit.errors import UserError
from effkit.executors import Choice
from effkit.progress import listening
from effkit.testing import in_process, two_workers
from esa_attention.calibration import calibrate
from esa_attention.cli import main
from esa_attention.compression.compressor import Compressors, load_compressors
from esa_attention.evaluation.models.registry import build_model
from esa_attention.integration.sending import packed, unpacked

TWO = Choice("process", workers=2, threads=2)
FACTS = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.fixture(scope="module", autouse=True)
def workers():
    """Two processes for the whole file."""
    with two_workers():
        yield


def tiny(**options):
    return build_model("tiny_random", **FACTS, **options)


def text(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 64, (count,), generator=torch.Generator().manual_seed(seed))


def assert_same(one: Compressors, other: Compressors) -> None:
    for ours, theirs in zip(one, other, strict=True):
        for name, value in ours.tensors().items():
            assert torch.equal(value, theirs.tensors()[name])
        assert torch.equal(ours.spectrum, theirs.spectrum)


@pytest.mark.slow
def test_answers_to_a_benchmark_do_not_depend_on_the_workers(tmp_path, monkeypatch, capfd):
    run = in_process(main, tmp_path, monkeypatch, capfd)
    records = [{"context": f"x = {n}\n" * 40, "input": "y =", "answers": [f"y = {n}"]} for n in range(3)]
    (tmp_path / "lcc.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    sizes = ["esa.num_initial=4", "esa.num_local=32", "esa.num_selected=16", "esa.chunk_size=16", "compressor=exact"]
    words = ["eval", "task.folder=.", "task.prompts=plain", "model=tiny_random", "max_new_tokens=4", *sizes]
    said = []
    for more in (["out=here"], ["out=there", "executor=process", "workers=2"]):
        code, _, err = run(*words, *more, "methods=[stock,esa]")
        assert code == 0, err
        out = tmp_path / more[0].partition("=")[2]
        texts = [(out / name / "lcc.jsonl").read_text() for name in ("stock", "esa")]
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        said.append([(line["number"], line["pred"]) for line in lines])
    assert len(said[0]) == 6
    assert said[0] == said[1]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"batch_size": 2}, {"bias": True}, {"method": "key_pca"}], ids=str)
def test_moments_do_not_depend_on_the_workers(more) -> None:
    model, ids = tiny(), text(330)
    options = {"rank": 4, "far_position": 16, "sequence_length": 32, **more}
    assert_same(calibrate(model, ids, **options), calibrate(model, ids, **options, choice=TWO))


def test_moments_stopped_on_workers_go_on_here(tmp_path: Path) -> None:
    model, ids = tiny(), text(330)
    options = {"rank": 4, "far_position": 16, "sequence_length": 32}
    state = {"state_path": tmp_path / "moments"}

    class Stop(Exception):
        pass

    def stop(words: str, fraction: float | None) -> None:
        if words.startswith("read 128"):
            raise Stop

    with listening(stop), pytest.raises(Stop):
        calibrate(model, ids, **options, **state, choice=TWO)
    assert_same(calibrate(model, ids, **options), calibrate(model, ids, **options, **state))


def test_a_model_is_loaded_again_from_its_files_or_refused() -> None:
    model = tiny()
    again = unpacked(packed(model, (build_model, ("tiny_random", None), FACTS)))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert unpacked(packed(model)) is unpacked(packed(model))  # once a process
    other = packed(model, (build_model, ("tiny_random", None), {**FACTS, "initializer_range": 0.2}))
    with pytest.raises(UserError, match="a worker loaded another model than this process did"):
        unpacked(other)


def test_what_is_wrong_with_the_text_is_the_same_one_line() -> None:
    model = tiny()
    with torch.no_grad():
        next(model.parameters())[5] = float("nan")
    ids = torch.full((64,), 5)
    for choice in (None, TWO):
        with pytest.raises(UserError, match=r"calibration (queries|keys) of layer 0 must be finite"):
            calibrate(model, ids, rank=4, far_position=16, sequence_length=32, choice=choice)
    with pytest.raises(UserError, match="executor=process: method=sgd_paper trains on the samples themselves"):
        calibrate(tiny(), text(64), method="sgd_paper", rank=4, far_position=16, choice=TWO)


def test_needles_are_the_same(tmp_path: Path, monkeypatch, capfd: pytest.CaptureFixture[str]) -> None:
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = ["lengths=[128,256]", "depths=[0.0,1.0]", "methods=[esa,sinks_local]", "format=json"]
    found = {}
    for name, more in (("one", []), ("two", ["executor=process", "workers=2"])):
        code, out, err = run("needle", *words, *more, f"hydra.run.dir={name}")
        assert code == 0, err
        found[name] = json.loads(out)["data"], (tmp_path / name / "answers.json").read_bytes()
    assert found["one"] == found["two"]
    assert found["one"][0]["scores"]["esa"] == [[1.0, 1.0], [1.0, 1.0]]


def test_the_command_calibrates_on_workers(tmp_path: Path, monkeypatch, capfd: pytest.CaptureFixture[str]) -> None:
    run = in_process(main, tmp_path, monkeypatch, capfd)
    words = ["model=tiny_random", "compressor.num_tokens=400", "compressor.rank=4", "device=cpu", "precision=fp32"]
    for name, more in (("one", []), ("two", ["executor=process", "workers=2"])):
        code, _, err = run("calibrate", *words, *more, f"out={name}.safetensors", f"hydra.run.dir={name}")
        assert code == 0, err
    one, two = (load_compressors(tmp_path / f"{name}.safetensors", tiny()) for name in ("one", "two"))
    assert_same(one, two)
    code, _, err = run("calibrate", *words, "executor=ray", "ray.address=nonsense")
    assert code == 2
    assert err.count("\n") == 1
