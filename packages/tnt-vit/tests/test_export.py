"""Exported files compute what torch computes, for any batch, and a file that does not is not kept."""

import copy
import importlib.util
import json

import pytest
import torch

import tnt_vit
from tnt_vit.inference import export, formats
from tnt_vit.inference.export import export_model
from tnt_vit.inference.exportable import ExportableTNT
from tnt_vit.inference.verify import tolerance

ARGS = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "inner_dim": 6,
    "depth": 2,
    "num_heads": 3,
    "inner_num_heads": 2,
    "num_classes": 5,
}
NO_ONNX = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
needs_onnx = pytest.mark.skipif(bool(NO_ONNX), reason=f"not installed: {', '.join(NO_ONNX)}")
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torch_export"]


def small(**kwargs) -> tnt_vit.TNT:
    torch.manual_seed(0)
    model = tnt_vit.TNT(**{**ARGS, **kwargs})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def run_file(path, x: torch.Tensor) -> torch.Tensor:
    """Run an exported file as its user would."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(str(path)).module()(x)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def assert_same(path, model: tnt_vit.TNT, batches) -> None:
    model = copy.deepcopy(model).eval()
    exact = copy.deepcopy(model).double()
    for batch in batches:
        x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            reference, ours = exact(x.double()), model(x)
        found = run_file(path, x)
        assert found.shape == ours.shape
        assert float((found - reference).abs().max()) <= tolerance(reference, ours)


@pytest.mark.parametrize("optimize", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("format", FORMATS)
def test_files_equal_torch_for_any_batch(tmp_path, format, optimize):
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = tmp_path / "deep" / f"model{export.SUFFIXES[format]}"
    report = export_model(model, path, format, optimize=optimize)
    assert report.exit_code == 0
    assert report.files == [path]
    assert [(row[0], row[1], row[-1]) for row in report.tables[1].rows] == [
        ("random", 1, "match"),
        ("photographs", 1, "match"),
        ("random", 3, "match"),
        ("photographs", 3, "match"),
    ]
    assert_same(path, model, [1, 2, 7])
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    # the caller's model stays as it was
    assert (model.training, model.backend) == (True, "auto")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("optimize", [False, True], ids=["plain", "optimized"])
def test_graphs_hold_no_kernels_of_this_machine_and_no_writes_into_rows(tmp_path, optimize):
    export_model(small(), tmp_path / "model.pt2", "torch_export", optimize=optimize, check=False)
    graph = torch.export.load(str(tmp_path / "model.pt2")).graph
    operators = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert not [name for name in operators if name.startswith(("mkl", "mkldnn", "tnt_vit", "effkit"))]
    assert not [name for name in operators if "copy_" in name or "scatter" in name or "set_grad" in name]


@needs_onnx
def test_fixed_batch_opset_and_preprocessing_are_in_the_file(tmp_path):
    import onnx

    model = small()
    path = tmp_path / "model.onnx"
    report = export_model(model, path, batch=2, opset=18)
    stored = onnx.load(path)
    assert [d.dim_value for d in stored.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 32, 32]
    assert [o.version for o in stored.opset_import if o.domain == ""] == [18]
    metadata = {p.key: json.loads(p.value) for p in stored.metadata_props}
    assert metadata["mean"] == [0.5, 0.5, 0.5]
    assert metadata["img_size"] == [32, 32]
    assert [row[1] for row in report.tables[1].rows] == [2, 2]
    assert_same(path, model, [2])


@needs_onnx
def test_weights_too_large_for_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ONE_FILE_BYTES", 0)
    model = small()
    path = tmp_path / "model.onnx"
    report = export_model(model, path)
    assert report.files[0] == path
    assert len(report.files) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.name for f in report.files)
    assert report.files[1].stat().st_size > path.stat().st_size / 2
    assert_same(path, model, [3])


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.write_text("an earlier file")
    prepared = export.prepared

    def wrong(model, optimize):
        found = prepared(model, optimize)
        with torch.no_grad():
            found.head.bias[2] += 1e-4
        return found

    monkeypatch.setattr(export, "prepared", wrong)
    report = export_model(small(), path, "torch_export")
    assert report.exit_code == 1
    assert report.files == []
    assert {row[-1] for row in report.tables[1].rows} == {"differs"}
    assert any("not kept" in line for line in report.lines)
    assert path.read_text() == "an earlier file"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]
    unchecked = export_model(small(), path, "torch_export", check=False)
    assert (unchecked.exit_code, unchecked.files) == (0, [path])


def test_nothing_is_left_when_the_export_breaks(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("disk full")

    monkeypatch.setattr(export, "write_torch_export", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        export_model(small(), tmp_path / "model.pt2", "torch_export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"legacy": True},
        {"tnt_blocks": [2]},
        {"tnt_blocks": []},
        {"se_ratio": 0.25},
        {"global_pool": "avg"},
        {"qkv_bias": True},
        {"in_chans": 1},
        {"img_size": (16, 40)},
        {"inner_stride": 2},
        {"num_classes": 0},
    ],
    ids=str,
)
def test_the_exportable_form_equals_the_model(kwargs):
    model = small(**kwargs).double().eval()
    x = torch.randn(3, model.in_chans, *model.img_size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ExportableTNT(model)(x), model(x), rtol=0, atol=1e-10)


def test_untrained_weights_are_said_so(tmp_path):
    report = export_model(tnt_vit.TNT(**ARGS), tmp_path / "a.pt2", "torch_export", check=False)
    assert any("random weights" in line for line in report.lines)
    assert any("not checked" in line for line in report.lines)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"out": "model.pt"}, r"model\.pt.*\.pt2"),
        ({"to": "onxx"}, "onxx.*onnx"),
        ({"batch": 0}, "batch.*0"),
        ({"batch": "any"}, "batch.*any"),
        ({"opset": 18}, "opset=18.*onnx"),
        ({"to": "onnx", "out": "model.onnx", "opset": 3}, r"opset=3 must be .*18\.\.23"),
    ],
    ids=str,
)
def test_bad_arguments_raise(tmp_path, kwargs, words):
    if kwargs.get("to") == "onnx" and NO_ONNX:
        pytest.skip(f"not installed: {', '.join(NO_ONNX)}")
    arguments = {"out": "model.pt2", "to": "torch_export", **kwargs}
    with pytest.raises(ValueError, match=words):
        export_model(small(), tmp_path / arguments.pop("out"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_only_the_model_itself_is_exported(tmp_path):
    with pytest.raises(ValueError, match=r"tnt_vit\.TNT.*ExportableTNT"):
        export_model(ExportableTNT(small()), tmp_path / "a.pt2", "torch_export")


def test_missing_packages_are_one_line_with_the_extra(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    with pytest.raises(ValueError, match=r"onnx, onnxscript, onnxruntime.*pip install 'tnt-vit\[onnx\]'") as error:
        export_model(small(), tmp_path / "a.onnx")
    assert "\n" not in str(error.value)
