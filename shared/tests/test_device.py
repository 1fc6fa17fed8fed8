"""effkit.device: what ``auto`` chooses, what is refused, and what a machine tells about itself."""

import json
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from effkit.device import (
    Backend,
    autocast,
    backends,
    environment,
    resolve_device,
    resolve_precision,
    seed_everything,
    set_threads,
)
from effkit.device import optional as _backends
from effkit.doctor import doctor_report
from effkit.errors import UserError


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs that have bf16, as far as torch can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


def test_auto_without_a_gpu(no_gpu):
    assert resolve_device() == torch.device("cpu")
    assert resolve_precision("auto", "cpu") == torch.float32


def test_auto_with_gpus(two_gpus):
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_precision("auto", "cuda:0") == torch.bfloat16


def test_auto_on_a_gpu_without_bf16(two_gpus, monkeypatch):
    # torch says yes to bf16 there as well, and means that it emulates it, slower than fp32.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Old GPU")
    assert resolve_precision("auto", "cuda") == torch.float16
    with pytest.raises(UserError, match="precision='bf16' is not supported by Old GPU, use fp16 or fp32"):
        resolve_precision("bf16", "cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device='gpu' is not known, choose one of auto, cpu, cuda, mps"),
        ("cuda:x", "device='cuda:x' is not known, write cpu, mps, cuda or cuda:0"),
        ("cpu:0", "device='cpu:0' is not known"),
        ("cuda:2", "device='cuda:2' does not exist, choose one of cuda:0 ... cuda:1"),
    ],
)
def test_unknown_devices(two_gpus, name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_asked_for_by_name_is_never_replaced(no_gpu, name):
    with pytest.raises(UserError, match=rf"device='{name}' cannot be used: .*; use cpu or auto"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precisions_by_name(name, dtype):
    assert resolve_precision(name, "cpu") == dtype


def test_unknown_precision():
    with pytest.raises(UserError, match="precision='bf-16' is not known, choose one of auto, fp32, bf16, fp16"):
        resolve_precision("bf-16", "cpu")


def test_autocast_changes_the_dtype_of_products_only():
    a = torch.ones(2, 2)
    with autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        assert (a + a).dtype == torch.float32
    with autocast("cpu", torch.float32):
        assert (a @ a).dtype == torch.float32


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002  the global generator


def test_seeding_repeats_every_generator(monkeypatch):
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")
    assert seed_everything(7) == 7
    first = draws()
    assert seed_everything(8) == 8
    assert all(x != y for x, y in zip(first, draws(), strict=True))
    seed_everything(7)
    assert draws() == first
    assert (os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"]) == ("7", "1")


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "3", True, None])
def test_bad_seeds(seed):
    with pytest.raises(UserError, match=re.escape(f"seed must be an integer in 0..4294967295, got {seed!r}")):
        seed_everything(seed)


def test_threads():
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert set_threads(None) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -2, 1.0, "all", False, 99999999999])
def test_bad_threads(threads):
    with pytest.raises(
        UserError, match=re.escape(f"threads must be an integer from 1 to 4096 or null, got {threads!r}")
    ):
        set_threads(threads)


def test_environment_can_be_published():
    facts = environment()
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["threads"] == torch.get_num_threads()
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)
    assert facts["cpu"] != ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["date"])
    assert re.fullmatch(r"([0-9a-f]{7,40}(-dirty)?)?", facts["commit"])
    text = json.dumps(facts)
    assert str(Path.home()) not in text
    assert str(Path(__file__).parents[2]) not in text
    assert socket.gethostname() not in text


def test_every_backend_says_why():
    found = backends()
    names = [b.name for b in found]
    assert len(names) == len(set(names))
    assert {"cuda", "triton", "triton interpreter", "flash-attn", "flash-attn-4", "torch.compile on CPU"} <= set(names)
    for backend in found:
        assert backend.reason, backend
        assert "\n" not in backend.reason
    assert next(b for b in found if b.name == "cuda").available == torch.cuda.is_available()


def test_a_broken_backend_is_reported_not_raised(monkeypatch):
    def broken():
        raise OSError("libfoo.so.1: cannot open shared object file\nmore")

    monkeypatch.setitem(_backends._PROBES, "broken", broken)
    assert backends()[-1] == Backend("broken", False, "OSError: libfoo.so.1: cannot open shared object file")


def test_flash_attention_is_found_by_distribution(monkeypatch):
    """Both distributions write the folder ``flash_attn``: one of them being there does not make the other load."""
    monkeypatch.setattr(
        _backends.importlib.metadata, "packages_distributions", lambda: {"flash_attn": ["flash_attn_4"]}
    )
    found = {b.name: b for b in backends()}
    assert "not installed" in found["flash-attn"].reason
    assert not found["flash-attn-4"].available
    assert found["flash-attn-4"].reason.startswith("ModuleNotFoundError")


def test_the_compiler_is_looked_up(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = {b.name: b for b in backends()}["torch.compile on CPU"]
    assert found == Backend("torch.compile on CPU", False, "no C++ compiler 'no-such-compiler': install g++ or set CXX")


def test_doctor_report():
    report = doctor_report()
    environment_table, backend_table = report.tables
    values = dict(environment_table.rows)
    assert values["torch"] == torch.__version__.split("+")[0]
    assert values["device=auto"] == str(resolve_device("auto"))
    assert values["precision=auto"] in ("fp32", "bf16", "fp16")
    assert [row[0] for row in backend_table.rows] == [b["name"] for b in report.data["backends"]]
    json.dumps(report.to_json(), allow_nan=False)
    assert report.exit_code == 0


@pytest.mark.gpu
def test_on_a_gpu():
    device = resolve_device("auto")
    assert device.type == "cuda"
    assert environment()["gpu"] == torch.cuda.get_device_name(0)
    assert environment()["driver"]
    found = {b.name: b for b in backends()}
    assert found["cuda"].available
    assert torch.cuda.get_device_name(0) in found["cuda"].reason
    dtype = resolve_precision("auto", device)
    with autocast(device, dtype):
        a = torch.ones(4, 4, device=device)
        assert (a @ a).dtype == dtype
    with pytest.raises(UserError, match="does not exist, choose one of cuda:0"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


def test_seeds_reach_a_new_process():
    """Lightning's ranks and data workers read the seed from the environment."""
    code = "import os; print(os.environ['PL_GLOBAL_SEED'], os.environ['PL_SEED_WORKERS'])"
    seed_everything(11)
    try:
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "11 1\n"
        )
    finally:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            os.environ.pop(name, None)
