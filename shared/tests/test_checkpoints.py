"""Weights in files: every kind that occurs, written here for real, those that are read and those that are refused."""

import argparse
import gzip
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models import load_state_dict as timms_loader
from torch import nn

from effkit.checkpoints import (
    Checkpoint,
    CheckpointError,
    Misfit,
    MissingCheckpointError,
    atomic,
    check_finite,
    check_fit,
    check_folder,
    compare,
    read_checkpoint,
    read_content,
    read_metadata,
    read_safetensors,
    write_safetensors,
    write_state,
    write_torch,
)
from effkit.errors import UserError

PLAIN = {"stem.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([1.0, 2.0])}
EMA = {name: value + 10 for name, value in PLAIN.items()}
OTHER = {name: value + 20 for name, value in PLAIN.items()}


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def same(state, expected):
    return state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in expected)


def saved(folder, content, name="weights.pth", **options):
    torch.save(content, folder / name, **options)
    return folder / name


def test_import_needs_no_torch():
    code = "import sys, effkit.checkpoints; print(*{'torch', 'safetensors', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


# Which weights are taken.

WRAPPINGS = {
    "plain": (PLAIN, ""),
    "ordered": (OrderedDict(PLAIN), ""),
    "state_dict": ({"epoch": 3, "state_dict": PLAIN}, "state_dict"),
    "model": ({"model": PLAIN, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}, "model"),
    "both": ({"model": OTHER, "state_dict": PLAIN}, "state_dict"),
    "module": ({"module": PLAIN, "ds_version": "0.16"}, "module"),
    "params": ({"params": PLAIN}, "params"),
    "configuration": ({"model": {"name": "tnt_s"}, "weights": PLAIN}, "weights"),
    "ddp": ({"state_dict": prefixed("module.", PLAIN)}, "state_dict"),
    "compiled ddp": ({"model": prefixed("_orig_mod.module.", PLAIN)}, "model"),
    "parts compiled": ({"model": {k.replace(".", "._orig_mod.", 1): v for k, v in PLAIN.items()}}, "model"),
    "ddp compiled": ({"model": prefixed("module._orig_mod.", PLAIN)}, "model"),
    "arguments": ({"args": argparse.Namespace(lr=1e-3), "arch": "tnt", "state_dict": PLAIN}, "state_dict"),
    "not only tensors": ({"state_dict": {**PLAIN, "extra_state": None, "steps": 3}}, "state_dict"),
    "twice": ({"model": {"state_dict": PLAIN}}, "model.state_dict"),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", WRAPPINGS)
def test_every_wrapping_is_read(tmp_path, what, old):
    content, wrapper = WRAPPINGS[what]
    found = read_checkpoint(saved(tmp_path, content, _use_new_zipfile_serialization=not old))
    assert same(found.state, PLAIN)
    assert (found.wrapper, found.container, found.averaged) == (wrapper, "torch", False)


def test_what_else_is_in_the_file_is_kept(tmp_path):
    content = {"epoch": 3, "model": PLAIN, "config": {"lr": 0.1}, "step": torch.tensor(5)}
    found = read_checkpoint(saved(tmp_path, content))
    assert found.content == {"epoch": 3, "config": {"lr": 0.1}}
    assert found.stored == tuple(PLAIN)
    assert not found.lightning
    assert found.others == ()


AVERAGED = {
    "state_dict_ema": {"state_dict": PLAIN, "state_dict_ema": EMA},
    "model_ema": {"model": PLAIN, "model_ema": EMA, "epoch": 1},
    "mixed": {"state_dict": PLAIN, "model_ema": prefixed("module.", EMA)},
    "all": {"model": OTHER, "model_ema": OTHER, "state_dict": PLAIN, "state_dict_ema": EMA},
    "none": {"state_dict_ema": None, "state_dict": PLAIN},
    "only plain": {"model": PLAIN},
}


@pytest.mark.parametrize("what", AVERAGED)
def test_by_default_the_choice_is_timms(tmp_path, what):
    path = saved(tmp_path, AVERAGED[what])
    found = read_checkpoint(path)
    assert same(found.state, timms_loader(str(path)))
    assert same(found.state, EMA if found.averaged else PLAIN)
    if found.averaged:
        assert same(read_checkpoint(path, ema=True).state, EMA)
    plain = read_checkpoint(path, ema=False)
    assert same(plain.state, timms_loader(str(path), use_ema=False))
    assert same(plain.state, PLAIN)


def test_averages_that_timm_does_not_know(tmp_path):
    restorer = saved(tmp_path, {"params": PLAIN, "params_ema": EMA}, "restorer.pth")
    assert same(read_checkpoint(restorer).state, EMA)
    detector = saved(tmp_path, {"model": PLAIN, "ema": {"module": EMA, "updates": 5}}, "detector.pth")
    found = read_checkpoint(detector)
    assert same(found.state, PLAIN)  # as timm would
    assert found.others == ("ema.module",)
    found = read_checkpoint(detector, ema=True)
    assert (found.wrapper, found.averaged) == ("ema.module", True)
    assert same(found.state, EMA)


def test_the_choice_is_said_where_there_is_one(tmp_path, caplog):
    path = saved(tmp_path, {"model": PLAIN, "model_ema": EMA})
    with caplog.at_level(logging.INFO, logger="effkit.checkpoints"):
        read_checkpoint(path)
        read_checkpoint(path, ema=False)
        read_checkpoint(saved(tmp_path, PLAIN, "plain.pth"))
    assert [r.getMessage() for r in caplog.records] == [
        f"weights {str(path)!r}: took model_ema (averaged weights); the file also has model, ema=auto",
        f"weights {str(path)!r}: took model (not averaged weights); the file also has model_ema, ema=False",
    ]


def test_what_is_not_there_cannot_be_asked_for(tmp_path):
    path = saved(tmp_path, {"model": PLAIN})
    with pytest.raises(UserError, match=r"ema=true, but weights .* hold no averaged ones \(there is model\)"):
        read_checkpoint(path, ema=True)
    with pytest.raises(UserError, match=r"ema=true, but weights .* hold no averaged ones \(there is one set\)"):
        read_checkpoint(saved(tmp_path, PLAIN), ema=True)
    path = saved(tmp_path, {"state_dict_ema": EMA})
    assert same(read_checkpoint(path).state, EMA)
    with pytest.raises(UserError, match=r"ema=false, but weights .* hold averaged ones only \(state_dict_ema\)"):
        read_checkpoint(path, ema=False)
    with pytest.raises(UserError, match="ema='yes' is not known, choose one of auto, True, False"):
        read_checkpoint(path, ema="yes")


# Names.


def lightning(state, **more):
    return {"pytorch-lightning_version": "2.6.6", "state_dict": state, "config": {"model": {"name": "x"}}, **more}


def test_lightning_modules_give_their_network(tmp_path):
    content = lightning(prefixed("model.", PLAIN) | {"train_loss.total": torch.tensor(0.0), "teacher.w": torch.ones(1)})
    found = read_checkpoint(saved(tmp_path, content, "last.ckpt"))
    assert same(found.state, PLAIN)
    assert (found.prefix, found.lightning, len(found.stored)) == ("model.", True, 4)
    assert found.content["config"] == {"model": {"name": "x"}}
    compiled = saved(tmp_path, lightning(prefixed("model._orig_mod.", PLAIN)), "compiled.ckpt")
    assert same(read_checkpoint(compiled).state, PLAIN)
    bare = saved(tmp_path, lightning(PLAIN), "bare.ckpt")
    assert same(read_checkpoint(bare).state, PLAIN)


def test_lightning_runs_with_an_average(tmp_path):
    """Lightning then calls the average ``state_dict``."""
    content = lightning(prefixed("model.", EMA), current_model_state=prefixed("model.", PLAIN), averaging_state={})
    path = saved(tmp_path, content, "last.ckpt")
    for ema in ("auto", True):
        assert same(read_checkpoint(path, ema=ema).state, EMA)
        assert read_checkpoint(path, ema=ema).averaged
    assert same(read_checkpoint(path, ema=False).state, PLAIN)
    twins = saved(tmp_path, lightning(prefixed("model.", PLAIN) | prefixed("ema_model.", EMA)), "twins.ckpt")
    found = read_checkpoint(twins)
    assert same(found.state, EMA)
    assert (found.prefix, found.averaged, found.others) == ("ema_model.", True, ("model.*",))
    assert same(read_checkpoint(twins, ema=True).state, EMA)
    assert same(read_checkpoint(twins, ema=False).state, PLAIN)


def test_names_behind_a_prefix_are_found_by_what_is_expected(tmp_path):
    """Elsewhere ``model.`` may be the network's own word, as in Hugging Face's language models."""
    own = {"model.layers.0.weight": torch.ones(1), "lm_head.weight": torch.ones(1)}
    assert same(read_checkpoint(saved(tmp_path, own)).state, own)
    expect = lambda name: name.startswith(("stem.", "head."))
    for prefix in ("model.", "student.", "module.model.", "model._orig_mod."):
        wrapped = saved(tmp_path, {"state_dict": prefixed(prefix, PLAIN) | {"criterion.weight": torch.ones(3)}})
        assert same(read_checkpoint(wrapped, expect=expect).state, PLAIN)
    mixed = {**PLAIN, "model.stem.weight": torch.zeros(1)}
    assert same(read_checkpoint(saved(tmp_path, mixed), expect=expect).state, mixed)
    unlike = {"conv1.weight": torch.zeros(3)}
    assert same(read_checkpoint(saved(tmp_path, unlike), expect=expect).state, unlike)


def test_prefixes_that_would_make_one_name_of_two_are_names(tmp_path):
    own = {"weight": torch.ones(1), "module.weight": torch.zeros(1)}
    assert same(read_checkpoint(saved(tmp_path, own)).state, own)


# Safetensors.


def test_safetensors_are_known_by_their_contents(tmp_path):
    save_file(PLAIN, tmp_path / "weights.bin", {"format": "pt", "grid": "14x14"})
    found = read_checkpoint(tmp_path / "weights.bin")
    assert same(found.state, PLAIN)
    assert (found.container, found.metadata) == ("safetensors", {"format": "pt", "grid": "14x14"})
    tensors, metadata = read_safetensors(tmp_path / "weights.bin")
    assert same(tensors, PLAIN)
    assert metadata == read_metadata(tmp_path / "weights.bin") == found.metadata
    torch.save(PLAIN, tmp_path / "torch.safetensors")
    assert same(read_checkpoint(tmp_path / "torch.safetensors").state, PLAIN)
    with pytest.raises(CheckpointError, match="it is a file of torch, no safetensors"):
        read_safetensors(tmp_path / "torch.safetensors")
    save_file(PLAIN, tmp_path / "bare")
    assert read_metadata(tmp_path / "bare") == {}


def test_contents_can_be_mapped_instead_of_read(tmp_path):
    for old in (False, True):
        path = saved(tmp_path, lightning(PLAIN), _use_new_zipfile_serialization=not old)
        content = read_content(path, mmap=True)
        assert content.value["config"] == {"model": {"name": "x"}}
        assert content.container == "torch"


# What is refused.


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path(self.marker).write_text, ("ran",)


def cut(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    return path


def refusal(path, **options):
    """The one line, fit for a terminal, that never advises to switch the protection off."""
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path, **options)
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 500 + len(str(path))
    assert repr(str(path)) in line
    assert "weights_only" not in line
    assert "trust" not in line
    return line


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_code_is_named_and_not_run(tmp_path, old):
    options = {"_use_new_zipfile_serialization": not old}
    line = refusal(saved(tmp_path, Net(), "net.pth", **options))
    assert "cannot be read as tensors: it holds " in line
    assert "test_checkpoints.Net" in line
    assert "torch.nn.modules.linear.Linear" in line
    assert "code from a file is not run here" in line
    assert "torch.save(model.state_dict(), 'weights.pth')" in line
    line = refusal(saved(tmp_path, {"state_dict": PLAIN, "run": Bomb(tmp_path / "ran")}, "bomb.pth", **options))
    assert "pathlib.Path.write_text" in line or "getattr" in line
    assert "builtins.print" in refusal(saved(tmp_path, {"state_dict": print}, "print.pth", **options))
    for protocol in (2, 3, 4, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = saved(tmp_path, {"a": Path("x")}, "path.pth", pickle_protocol=protocol, **options)
        assert "pathlib." in refusal(path), protocol
    assert not (tmp_path / "ran").exists()


def test_many_names_are_counted(tmp_path):
    line = refusal(saved(tmp_path, [Path("x"), np.float64(1), print, len, sorted]))
    assert "and 3 more, which only code could bring back" in line


FOREIGN = {
    "empty": (b"", "it is empty (0 bytes)"),
    "text": (b"hello", "it is text, no file of plain tensors"),
    "long text": ("Grüße 你好\n".encode() * 1000, "it is text"),
    "page": (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "it is a web page (HTML), no file of plain"),
    "json": (b'{"message": "Not Found"}', "it is JSON"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n", "'git lfs pull'"),
    "zeros": (bytes(20), "it begins with zero bytes only"),
    "many zeros": (bytes(5000), "it begins with zero bytes only"),
    "noise": (bytes(range(128, 256)) * 20, "its format is not known"),
    "escapes": (b"\x1b[31mred\x1b[0m\n", "it is text"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "llama.cpp": (b"GGUF\x03\0\0\0", "GGUF"),
    "gzip": (gzip.compress(b"weights"), "it is an archive (gzip): unpack it first"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(30), "it is a picture"),
    "photograph": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(30), "it is a picture"),
    "animation": (b"GIF89a" + bytes(30), "it is a picture"),
    "web picture": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(30), "it is a picture"),
    "bitmap": (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0" + bytes(30), "it is a picture"),
    "scan": (b"II*\0\x08\0\0\0" + bytes(30), "it is a picture"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x05" + bytes(30), "it is an ONNX model, a program"),
    "lite": (b"\x1c\0\0\0TFL3" + bytes(30), "it is a TensorFlow Lite model"),
    "table": (b"PAR1" + bytes(30), "it is a Parquet table"),
    "pickle": (pickle.dumps({"a": 1}), "it is a bare Python pickle, which could run code"),
    "old pickle": (pickle.dumps({"a": 1}, protocol=2), "it is a bare Python pickle"),
    "three bytes": (b"\x01\0\x02", "it is cut short: it has 3 bytes"),
    "header alone": ((1000).to_bytes(8, "little") + b'{"a"', "it is cut short: it has 12 bytes, its header alone"),
    "no table": ((20).to_bytes(8, "little") + b"{nothing of the kind}", "its header is no table of tensors"),
    "no offsets": ((10).to_bytes(8, "little") + b'{"a": 3   }'[:10], "its header is no table of tensors"),
    "half an archive": (b"PK\x03\x04" + bytes(40), "it is cut short or damaged: 44 bytes"),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files_are_named(tmp_path, what, suffix):
    content, words = FOREIGN[what]
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    line = refusal(path)
    assert line.startswith(f"weights {str(path)!r} cannot be read as tensors: ")
    assert words in line


def test_other_archives_are_named(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    assert "a zip archive with NumPy arrays" in refusal(tmp_path / "w.npz")
    np.save(tmp_path / "w.npy", np.zeros(3))
    assert "it is a NumPy array" in refusal(tmp_path / "w.npy")
    shutil.make_archive(str(tmp_path / "folder"), "zip", root_dir=tmp_path, base_dir="w.npy")
    (tmp_path / "note.txt").write_text("x")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "note.txt", "note.txt")
    assert "it is an archive (tar)" in refusal(tmp_path / "w.tar")
    with zipfile.ZipFile(tmp_path / "w.pt2", "w") as archive:  # as torch.export names what it writes
        archive.writestr("w/archive_format", "pt2")
        archive.writestr("w/models/model.json", "{}")
    assert "it is a file of torch.export, a program" in refusal(tmp_path / "w.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    assert "it is a TorchScript archive, a program" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize("keep", [5, 8, 40, 100, 0.5, -1, -300])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path, kind, keep):
    state = {"a": torch.randn(40, 40), "b": torch.randn(7)}
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    line = refusal(cut(path, keep))
    assert "cut short" in line or "not known" in line or "bare Python pickle" in line
    if keep in (0.5, -1):
        assert "cut short" in line


def test_damaged_files_are_refused(tmp_path):
    save_file(PLAIN, tmp_path / "long")
    with open(tmp_path / "long", "ab") as file:
        file.write(b"more")
    assert "its header accounts for" in refusal(tmp_path / "long")
    content = bytearray(saved(tmp_path, PLAIN, _use_new_zipfile_serialization=False).read_bytes())
    for place in range(0, len(content), 7):
        damaged = content.copy()
        damaged[place] ^= 0x5A
        (tmp_path / "damaged.pth").write_bytes(damaged)
        try:
            read_checkpoint(tmp_path / "damaged.pth", finite=False)
        except CheckpointError:
            refusal(tmp_path / "damaged.pth", finite=False)


def test_names_and_values_that_are_no_weights(tmp_path):
    for content, words in [
        ([torch.zeros(3)], "hold no tensors by name: the file is a list"),
        (torch.zeros(3), "hold no tensors by name: the file is a Tensor"),
        ({"epoch": 3, "lr": 0.1}, "hold no tensors by name: there are epoch, lr"),
        ({}, "hold no tensors by name: it is an empty dictionary"),
        ({"state_dict": {}}, "hold no tensors by name: there are state_dict"),
        ({0: torch.zeros(1)}, "hold no tensors by name: there are 0"),
        ({"\x1b[31mred": 1, "x" * 500: 2}, "there are red, xxx"),
    ]:
        assert words in refusal(saved(tmp_path, content))
    recursive = {}
    recursive["state_dict"] = recursive
    assert "hold no tensors by name" in refusal(saved(tmp_path, recursive))


def test_values_must_be_finite_unless_told_otherwise(tmp_path):
    for bad in (float("nan"), float("inf")):
        path = saved(tmp_path, {**PLAIN, "head.bias": torch.tensor([0.0, bad])})
        with pytest.raises(UserError, match=r"weights .*: head\.bias holds NaN or infinite values"):
            read_checkpoint(path)
        assert read_checkpoint(path, finite=False).state.keys() == PLAIN.keys()
    check_finite({"a": torch.tensor([1, 2]), "b": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "w")
    with pytest.raises(UserError, match=r"weights 'w': c holds NaN"):
        check_finite({"c": torch.tensor([float("nan")], dtype=torch.float8_e5m2)}, "w")


def test_what_is_no_file(tmp_path, monkeypatch):
    with pytest.raises(
        MissingCheckpointError, match=r"weights '.*gone\.pth' do not exist: give a \.safetensors"
    ) as error:
        read_checkpoint(tmp_path / "gone.pth")
    assert isinstance(error.value, FileNotFoundError)
    assert isinstance(error.value, UserError)
    assert "it is a folder, give a file in it" in refusal(tmp_path)
    saved(tmp_path, PLAIN)
    assert "it is a folder, give a file in it (weights.pth)" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "it is no regular file" in refusal(tmp_path / "pipe")
    with pytest.raises(MissingCheckpointError):
        read_checkpoint("a\0b")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same(read_checkpoint("~/weights.pth").state, PLAIN)
    with pytest.raises(MissingCheckpointError, match=r"weights\.pth\\x1b'"):
        read_content(tmp_path / "weights.pth\x1b")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = saved(tmp_path, PLAIN)
    path.chmod(0)
    assert "cannot be read as tensors: Permission denied" in refusal(path)


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    path = saved(tmp_path, PLAIN)

    def failing(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", failing)
    assert "cannot be read as tensors: Input/output error" in refusal(path)


# Folders.


def index(folder, kind, files):
    names = {f"layer{number}": name for number, name in enumerate(files)}
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_folders_are_checked_before_a_library_loads_them(tmp_path):
    with pytest.raises(MissingCheckpointError):
        check_folder(tmp_path / "gone")
    assert check_folder(tmp_path) == []
    saved(tmp_path, PLAIN, "pytorch_model.bin")
    assert check_folder(tmp_path) == [tmp_path / "pytorch_model.bin"]
    cut(tmp_path / "pytorch_model.bin", 0.5)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin' .* it is cut short"):
        check_folder(tmp_path)
    saved(tmp_path, Net(), "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it holds .*\.Net"):
        check_folder(tmp_path)
    parts = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index(tmp_path, "model.safetensors", parts)
    save_file(PLAIN, tmp_path / parts[0])
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are not there: model-00002-of-00002\.safetensors"):
        check_folder(tmp_path)
    save_file(PLAIN, tmp_path / parts[1])
    assert check_folder(tmp_path) == [tmp_path / part for part in parts]
    cut(tmp_path / parts[1], -1)
    with pytest.raises(CheckpointError, match=r"model-00002.* it is cut short: it has \d+ bytes, its header asks for"):
        check_folder(tmp_path)
    for broken in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000):
        (tmp_path / "model.safetensors.index.json").write_text(broken)
        with pytest.raises(CheckpointError, match="it is no index of shards"):
            check_folder(tmp_path)
    index(tmp_path, "model.safetensors", [])
    with pytest.raises(CheckpointError, match="it names no shards"):
        check_folder(tmp_path)


# Fitting.


def test_misfits_are_named():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = dict(model.state_dict())
    assert not compare(state, model)
    check_fit(state, model, "w.pth")
    del state["1.num_batches_tracked"]
    assert compare(state, model).missing == ("1.num_batches_tracked",)
    assert not compare(state, model, optional=["num_batches_tracked"])
    state = {**state, "0.weight": torch.zeros(5, 3), "0.bias": torch.zeros(5), "head": torch.zeros(1)}
    with pytest.raises(UserError) as error:
        check_fit(state, model, "w.pth", hints={"0.": "give num_classes", "7.": "give up"})
    assert str(error.value) == (
        "weights 'w.pth' do not fit Sequential: 1 missing (1.num_batches_tracked); 1 unknown (head); 0.weight is "
        "(5, 3), Sequential needs (2, 3); 0.bias is (5,), not (2,); give num_classes"
    )
    many = {f"layer{n}": torch.zeros(1) for n in range(9)}
    wide = {name: torch.zeros(2) for name in many}
    assert str(compare(many, {})) == "9 unknown (layer0, layer1, layer2)"
    assert str(compare({}, many)) == "9 missing (layer0, layer1, layer2)"
    assert str(compare(wide, many)).endswith("layer2 is (2,), not (1,); 6 more of other shapes")
    assert "layer0 is (2,), the model needs (1,)" in str(compare(wide, many))
    assert "layer0 is (2,), TNT needs (1,)" in str(compare(wide, many, network="TNT"))
    assert str(Misfit((), ("\x1b[31mred\nline",), {})) == "1 unknown (red)"


# Writing.


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_written_files_are_whole_and_readable_by_others(tmp_path, umask, name):
    path = tmp_path / "deep" / "er" / name
    assert write_state(path, PLAIN, {"grid": "2x3"}) == path
    assert [p.name for p in path.parent.iterdir()] == [name]
    found = read_checkpoint(path)
    assert same(found.state, PLAIN)
    assert found.metadata == ({"format": "pt", "grid": "2x3"} if name == "w.safetensors" else {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    os.umask(0o027)
    write_state(path, EMA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert same(timms_loader(str(path)), EMA)


def test_metadata_may_name_another_format(tmp_path):
    write_safetensors(tmp_path / "maps", PLAIN, {"format": "maps of ours"})
    assert read_metadata(tmp_path / "maps") == {"format": "maps of ours"}


def test_tensors_that_share_memory_are_written_alone(tmp_path):
    whole = torch.arange(1000.0)
    state = {"a": whole[:10], "b": whole[:10].reshape(2, 5).T, "c": nn.Parameter(torch.ones(2)), "d": whole[:0]}
    for name in ("w.safetensors", "w.pth"):
        path = write_state(tmp_path / name, state)
        assert same(read_checkpoint(path).state, {k: v.detach() for k, v in state.items()})
        assert path.stat().st_size < 3500


def test_equal_contents_give_equal_files(tmp_path):
    for name in ("w.safetensors", "w.pth"):
        one, two = write_state(tmp_path / name, PLAIN), write_state(tmp_path / f"other {name}", PLAIN)
        assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = write_state(tmp_path / "w.safetensors", PLAIN)
    for bad, words in [
        (3, "b is a int; only tensors can be written"),
        (torch.zeros(3, device="meta"), "b is on device 'meta' and has no values to write"),
        (torch.eye(3).to_sparse(), "b is torch.sparse_coo; only dense tensors"),
    ]:
        with pytest.raises(UserError, match=words):
            write_state(path, {**PLAIN, "b": bad})
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    with pytest.raises(Exception, match=r"pickle|Can't get local object"):  # the words of Python 3.13
        write_torch(path, {"a": lambda: 0})
    assert same(load_file(path), PLAIN)
    assert list(tmp_path.iterdir()) == [path]


def _interrupted(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_state(tmp_path / "folder", PLAIN)
    assert error.value.filename == str(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises((NotADirectoryError, FileExistsError)) as error:
        write_state(tmp_path / "file" / "w.pth", PLAIN)
    assert ".tmp" not in str(error.value)
    with pytest.raises(FileNotFoundError) as error, atomic(tmp_path / "w.pth"):
        (tmp_path / "source").read_bytes()
    assert error.value.filename == str(tmp_path / "source")

    def failing(source, _):
        raise OSError(5, "Input/output error", str(source))

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error") as error:
        write_state(tmp_path / "w.pth", PLAIN)
    assert error.value.filename == str(tmp_path / "w.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_long_names_have_room_for_a_temporary_one(tmp_path):
    path = tmp_path / f"{'w' * 240}.pth"
    assert write_state(path, PLAIN).is_file()


WRITE_TOO_MUCH = """
import sys, torch
from effkit.checkpoints import write_safetensors, write_torch
path, kind = sys.argv[1:]
state = {"a": torch.zeros(1_000_000)}
try:
    (write_safetensors if kind == "safetensors" else write_torch)(path, state)
except OSError as error:
    assert error.filename == path, error
    print(error.strerror)
"""


def _limit():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_file_that_gets_too_large_is_told_as_the_system_does(tmp_path, kind):
    path = write_state(tmp_path / f"w.{kind}", PLAIN)
    before = path.read_bytes()
    command = [sys.executable, "-c", WRITE_TOO_MUCH, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_limit)
    assert (done.returncode, done.stdout.strip()) == (0, "File too large"), done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path):
    """Start of a command that sees a disk of 200 kB in a folder, where users may mount one for themselves."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size=200k none "{folder}" && '
    start = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*start, f"{mount} true"], capture_output=True).returncode:
        pytest.skip("no user namespaces with mounts here")
    return folder, lambda script: [*start, f"{mount}{script}"]


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_full_disk_names_the_path_and_leaves_nothing(small_disk, kind):
    folder, command = small_disk
    script = f'"$0" -c "$1" "{folder}/w.{kind}" {kind}; ls -A "{folder}"'
    done = subprocess.run([*command(script), sys.executable, WRITE_TOO_MUCH], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "No space left on device"), done.stderr


def test_descriptions():
    found = Checkpoint({}, Path("w"), "torch", "state_dict", prefix="model.")
    assert str(found) == "state_dict, model.* (not averaged weights)"
    assert str(Checkpoint({}, Path("w"), "torch")) == "its tensors (not averaged weights)"


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    code = "import os, signal, sys\nfrom effkit.atomic import atomic\nwith atomic(sys.argv[1]) as t:\n"
    code += "    t.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    target = tmp_path / "weights.bin"
    killed = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1  # the leftover
    with atomic(target) as mine:
        with atomic(target) as other:  # of a process that lives: left alone
            other.write_bytes(b"first")
        assert mine.exists()
        mine.write_bytes(b"second")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("weights.bin", b"second")]
