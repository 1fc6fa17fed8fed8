"""The commands that know a network's forms: count, convert, deploy, export, bench."""

from __future__ import annotations

import copy
import importlib.util
import json

import pytest
import torch

from effkit.errors import UserError
from effkit.results import read_csv
from effkit.testing import assert_close_to_reference, assert_one_line_mistake, in_process
from shiftghost_sr import create_model, deploy, load_model, save_model
from shiftghost_sr.cli import main
from shiftghost_sr.commands.bench import build_providers
from shiftghost_sr.commands.deploy import costs_of
from shiftghost_sr.compression.exporting import export_network
from shiftghost_sr.layers.ghost_conv import GhostConv2d

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(n) is None for n in ("onnx", "onnxscript", "onnxruntime")), reason="no onnx"
)
TINY = {"blocks": 1, "features": 8}


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return in_process(main, tmp_path, monkeypatch, capfd)


def ghost(**more):
    torch.manual_seed(0)
    return create_model("edsr", 2, {"shift": "random", **more}, **TINY).eval()


def test_count(run):
    found = json.loads(run("count", "model=edsr_baseline", "scale=2", "ghost=official", "format=json").stdout)["data"]
    assert {form: (one["params"], round(one["macs"] / 1e9, 1)) for form, one in found.items()} == {
        "dense": (1_369_859, 316.2), "ghost": (779_011, 180.4), "deployed": (729_859, 157.7),
    }  # fmt: skip
    assert found["dense"]["lr256"]["convolutions"] == 36
    assert found["deployed"]["lr256"]["body_peak"] < found["dense"]["lr256"]["body_peak"]


def test_convert_then_deploy(run, tmp_path):
    torch.manual_seed(0)
    save_model(create_model("edsr", 2, **TINY), tmp_path / "dense.safetensors")
    done = run("convert", "model=dense.safetensors", "ghost_ratio=0.25", "out=ghost.safetensors", "format=json")
    found = json.loads(done.stdout)["data"]
    assert (done.code, len(found["layers"])) == (0, 2)
    model = load_model(tmp_path / "ghost.safetensors")
    assert [len(m.ghosts) for m in model.modules() if isinstance(m, GhostConv2d)] == [2, 2]
    done = run("deploy", "model=ghost.safetensors", "out=fast.pt2", "format=json")
    found = json.loads(done.stdout)["data"]
    assert done.code == 0
    assert found["match"]
    assert found["difference"] < 1e-12
    program = torch.export.load(str(tmp_path / "fast.pt2")).module()
    exact = copy.deepcopy(model).double()
    for frame in ((4, 4), (9, 31)):
        x = torch.rand(1, 3, *frame)
        with torch.no_grad():
            assert_close_to_reference(program(x), model(x), exact(x.double()))


def test_costs_of_a_network_with_learnt_slopes():
    """Whether its ghosts fold depends on numbers, which counting does without."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        GhostConv2d(3, 8), torch.nn.PReLU(8), torch.nn.Conv2d(8, 12, 3, padding=1), torch.nn.PixelShuffle(2)
    ).eval()
    model.scale, model.channels = 2, 3
    before, after = costs_of(model, deploy(model))
    assert after.macs < before.macs == 360 * 640 * 9 * (3 * 4 + 8 * 12)
    model[1].weight.data = torch.linspace(0, 1, 8)  # a ghost has another slope than its map
    before, after = costs_of(model, deploy(model))
    assert after.macs == before.macs


@needs_onnx
def test_onnx_of_plain_operators(tmp_path):
    import onnx
    import onnxruntime

    model = ghost()
    file, tables = export_network(model, tmp_path / "net.onnx")
    nodes = onnx.load(str(file)).graph.node
    assert {n.op_type for n in nodes} <= {
        "Conv", "Relu", "Pad", "Slice", "Add", "Sub", "Mul", "Div", "Concat", "DepthToSpace", "Split", "Shape",
        "Gather", "Constant", "Squeeze", "Unsqueeze", "Reshape", "Cast", "SplitToSequence", "SequenceAt",
    }  # fmt: skip
    (shuffle,) = [n for n in nodes if n.op_type == "DepthToSpace"]
    assert {a.name: a.s for a in shuffle.attribute}["mode"] == b"CRD"
    assert [row[-1] for row in tables[-1].rows] == ["match", "match"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 7, 10)
    found = torch.from_numpy(session.run(None, {"picture": x.numpy()})[0])
    with torch.no_grad():
        assert_close_to_reference(found, model(x), copy.deepcopy(model).double()(x.double()))


def test_a_file_that_is_wrong_is_not_kept(tmp_path, monkeypatch):
    """By more than twice what torch is wrong by; a last bit more than that is enough."""
    from shiftghost_sr.compression import exporting

    model = ghost()
    real = exporting._run_program
    monkeypatch.setattr(exporting, "_run_program", lambda file: lambda x: real(file)(x) + 2e-6)
    with pytest.raises(UserError, match="twice what torch is"):
        export_network(model, tmp_path / "net.pt2", "torch_export")
    assert not (tmp_path / "net.pt2").exists()


def test_bench_compares_the_same_network(run, tmp_path):
    names = ["dense", "ghost", "official", "official_nhwc", "deployed", "deployed_nhwc", "deployed_nhwc_compile"]
    built = build_providers(names, "edsr", 2, direction="random", size={"blocks": 2, "features": 8})
    x = torch.rand(1, 3, 9, 11)
    with torch.inference_mode():
        outputs = {n: m(x) for n, m in built.items()}
        exact = copy.deepcopy(built["ghost"]).double()(x.double())
    for name in names[2:]:
        assert_close_to_reference(outputs[name], outputs["ghost"], exact, what=name)
    words = ["size.blocks=1", "size.features=8", "frames=[[8,9]]", "threads=1", "min_rounds=1", "min_seconds=0.01"]
    done = run("bench", *words, "providers=[dense,official,deployed]", "csv=a.csv", "format=json")
    found = json.loads(done.stdout)["data"]["9x8"]
    assert set(found["seconds"]) == {"dense", "official", "deployed"}
    assert found["ratios"]["dense"]["bound"] == pytest.approx(found["macs"]["dense"] / found["macs"]["deployed"])
    assert {row.provider for row in read_csv(tmp_path / "a.csv")} >= {"dense", "official", "deployed"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["count", "model=edrs"], ["model='edrs'", "edsr"]),
        (["count", "scale=two"], ["scale='two'"]),
        (["count", "direction=up"], ["direction='up'", "axis"]),
        (["count", "hr=[720]"], ["hr=[720]"]),
        (["count", "ghost=null"], ["ghost=null"]),
        (["convert", "model=none.pth"], ["model='none.pth'", "does not exist"]),
        (["convert", "model=net.safetensors", "select=means"], ["select='means'"]),
        (["convert", "model=net.safetensors"], ["ghosts already"]),
        (["deploy", "model=net.safetensors", "out=x.onnx"], ["out='x.onnx'", ".pt2"]),
        (["export", "model=net.safetensors", "to=tflite"], ["to='tflite'", "onnx"]),
        (["export", "model=net.safetensors", "to=torch_export", "opset=18"], ["opset=18"]),
        (["bench", "providers=[fast]"], ["providers='fast'", "deployed"]),
        (["bench", "seed=-inf"], ["seed", "-inf"]),
        (["bench", "warmup=0"], ["warmup=0", "from 1 on"]),
        (["bench", "frames=[8]"], ["frames"]),
        (["bench", "direction=left"], ["direction='left'"]),
    ],
)
def test_mistakes(words, said, run, tmp_path):
    save_model(ghost(), tmp_path / "net.safetensors")
    assert_one_line_mistake("shiftghost-sr", run(*words), said)
