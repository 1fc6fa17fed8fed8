"""What a survey derives from counts and times: memory traffic, the roofline, Pareto fronts; and energy."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effkit.errors import UserError
from effkit.plots import read_description
from effkit.timing import machine_floor
from tnt_vit.plots.roofline import draw_roofline
from tnt_vit.survey import energy as energy_module
from tnt_vit.survey.counting import count
from tnt_vit.survey.energy import Meter, NoMeter, energy
from tnt_vit.survey.fronts import fronts
from tnt_vit.survey.memory import train_cost
from tnt_vit.survey.registry import read_registry
from tnt_vit.survey.roofline import position, positions
from tnt_vit.survey.settings import Settings
from tnt_vit.survey.traffic import Traffic, traffic

FLOOR = {"flops_per_second": 100e9, "bytes_per_second": 10e9}


class Heads(nn.Module):
    """Fused attention of three heads of 16 tokens, 16 wide."""

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_traffic_of_few_operators(device):
    net = nn.Sequential(nn.Conv2d(3, 4, 2, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    net = net.to(device)
    # convolution: 48 in, 16 out; ReLU: 16 in, 16 out; flatten: a view; linear: 16 in, 5 out
    assert traffic(net, 4) == Traffic(weights=4 * 12 + 16 * 5 + 5, picture=48 + 16 + 16 + 16 + 16 + 5, activations=21)
    assert traffic(net, 4).moved(3) == 133 + 3 * 117
    assert traffic(Heads(), 16) == Traffic(weights=0, picture=4 * 768, activations=3 * 256 + 768)


def test_activations_of_a_vision_transformer():
    n, d, heads = 197, 192, 3
    block = n * 3 * d + heads * n * n + n * d + n * d + n * 4 * d + n * d
    found = count(read_registry()["deit_tiny"])
    assert found["activations"] == 12 * block + 196 * d + 1000
    assert found["trainable"] == found["params"]
    assert found["traffic"]["weights"] == found["params"]  # each is read once


def test_a_large_product_reaches_the_roof():
    n = 256
    floor = machine_floor("cpu", threads=1, min_seconds=0, matrix_size=n, copy_bytes=2**22)
    rates = {"flops_per_second": floor.flops_per_second, "bytes_per_second": floor.bytes_per_second}
    at = position(n**3, 3 * n * n, floor.seconds(n**3), rates)
    assert at.intensity == pytest.approx(n / 6)
    assert (at.bound, at.share) == ("products", pytest.approx(1))
    assert at.bytes_per_second == pytest.approx(floor.flops_per_second * 6 / n)


def test_a_copy_reaches_the_roof_of_memory():
    numbers = 10**6
    at = position(numbers // 2, 2 * numbers, 8e6 / FLOOR["bytes_per_second"], FLOOR)  # an operation a number
    assert (at.bound, at.share, at.bytes_per_second) == ("memory", pytest.approx(1), pytest.approx(10e9))
    half = position(numbers // 2, 2 * numbers, 8e6 / FLOOR["bytes_per_second"], FLOOR, itemsize=2)
    assert (half.intensity, half.share) == (pytest.approx(2 * at.intensity), pytest.approx(0.5))


def row(name, batches=(1, 4), **more):
    sweep = [{"batch": b, "seconds": 0.01 * b**0.5, "images_per_second": 100 * b**0.5} for b in batches]
    counts = {"macs": 10**8, "traffic": {"weights": 10**6, "picture": 10**6}}
    found = {"name": name, "counts": counts, "sweep": sweep, "floor": FLOOR, "best_batch": batches[-1]}
    found |= {"throughput": sweep[-1]["images_per_second"], "latency": sweep[0]}
    found |= {"backbone": {"published": {"top1": 70.0}, "group": "CNN"}, "settings": {"precision": "bf16"}}
    return found | more


def test_positions_of_a_row(tmp_path):
    one, four = positions(row("a"))
    assert [p.intensity for p in (one, four)] == [2e8 / 4e6, 8e8 / 1e7]
    assert four.flops_per_second == pytest.approx(8e8 / 0.02)
    assert (one.bound, one.share) == ("products", pytest.approx(0.2))  # 20 of 100 GFLOP/s
    assert positions(row("a", counts={"macs": 1})) == []  # of an older version
    assert positions(row("a", sweep=[])) == []
    points = {"a": [(p.intensity, p.flops_per_second) for p in (one, four)], "b": [(2.0, 10e9)]}
    groups = {"a": "CNN", "b": "other"}
    said = read_description(draw_roofline(points, FLOOR, tmp_path / "roof.png", groups=groups, title="Roofline"))
    assert "100 GFLOP/s and 10.0 GB/s" in said
    assert "b 50 % and a 40 %" in said


def test_fronts_of_two_costs():
    slow = {"throughput": 10.0, "counts": {"macs": 9 * 10**9}}
    rows = [row("fast"), row("good", backbone={"published": {"top1": 80.0}, "group": ""}, **slow), row("bad", **slow)]
    table = {line[0]: line[1:] for line in fronts(rows).rows}
    assert table["measured images/s"] == [3, 2, "good, fast"]
    assert table["GMACs"] == [3, 2, "fast, good"]
    assert "memory of a training step, MiB" not in table


# --- energy -----------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """NVML's error."""


@pytest.fixture
def nvml(monkeypatch):
    """A stand-in for NVML: five joules between any two looks."""
    counter = iter(range(1000, 10**6, 5000))
    fake = SimpleNamespace(
        NVMLError=Refused, NVML_CLOCK_SM=1, nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda gpu: next(counter),
        nvmlDeviceGetClockInfo=lambda gpu, kind: 1500 + kind,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(energy_module, "_uuid", lambda device: "GPU-7")
    return fake


def test_energy_by_a_counter(nvml):
    meter, calls = Meter(torch.device("cuda:0")), []
    found = energy(lambda: calls.append(1), meter, torch.device("cpu"), batch=2, call_seconds=0.25, seconds=2)
    assert (found["calls"], len(calls)) == (8, 9)  # one more to warm up
    assert found["joules_per_image"] == 5 / 16
    assert found["watts"] > 0
    assert (found["batch"], found["sm_clock_mhz"]) == (2, 1501)


def test_where_there_is_no_counter(nvml, monkeypatch):
    with pytest.raises(NoMeter, match="only an NVIDIA GPU"):
        Meter(torch.device("cpu"))

    def refuse(gpu):
        raise Refused("Not Supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    with pytest.raises(NoMeter, match="cuda:0: Not Supported"):
        Meter(torch.device("cuda:0"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoMeter, match=r"pip install 'tnt-vit\[energy\]'"):
        Meter(torch.device("cuda:0"))
    with pytest.raises(UserError, match="name both"):
        Settings(parts=["energy"])


@pytest.mark.gpu
def test_memory_and_energy_of_a_gpu():
    device = torch.device("cuda")
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1)).to(device)
    found = train_cost(net, 224, 8, device, torch.float32)
    assert found["reserved_bytes"] >= found["peak_bytes"] > 0
    pytest.importorskip("pynvml")
    a = torch.randn(4096, 4096, device=device)
    used = energy(lambda: a @ a, Meter(device), device, batch=1, call_seconds=0.01, seconds=2)
    assert used["joules_per_image"] > 0
