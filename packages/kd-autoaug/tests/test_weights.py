"""Weights in and out: every layout that occurs, refusals, and the real CIFAR-10 ResNets where they are at hand."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effkit.errors import UserError
from effkit.testing import shared_data
from kd_autoaug.distillation.teacher import Teacher
from kd_autoaug.distillation.weights import read_weights, save_weights
from kd_autoaug.networks import create_network, load_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def network(seed: int, name: str = "digits_cnn", classes: int = 10) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_network(name, classes, 1, 8)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_every_layout_loads(tmp_path: Path) -> None:
    source = network(0)
    state = dict(source.state_dict())
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}  # torch before 0.4.1
    layouts = {
        "plain.pt": state,
        "old.pth": old,
        "nested.th": {"state_dict": {f"module.{k}": v for k, v in state.items()}, "best_prec1": 91.7},
        "compiled.pt": {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}, "epoch": 3},
        "ema.pt": {"state_dict": network(1).state_dict(), "state_dict_ema": state},
        "lightning.ckpt": {
            "pytorch-lightning_version": "2.6.0",
            "state_dict": {**{f"model.{k}": v for k, v in state.items()}, "train_loss.total": torch.tensor(0.0)},
        },
    }
    for name, content in layouts.items():
        torch.save(content, tmp_path / name)
    save_weights(source, tmp_path / "ours.safetensors")
    for name in [*layouts, "ours.safetensors"]:
        target = network(2)
        load_weights(target, tmp_path / name)
        assert same(source, target), name
    assert not list(tmp_path.glob(".*"))


def test_half_precision_files_load_into_float32(tmp_path: Path) -> None:
    source, target = network(0).half(), network(1)
    load_weights(target, save_weights(source, tmp_path / "half.safetensors"))
    assert target.linear.weight.dtype == torch.float32
    assert torch.equal(target.linear.weight, source.linear.weight.float())


def test_what_is_refused(tmp_path: Path) -> None:
    def refused(message: str, name: str, content: object) -> None:
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        target = network(1)
        with pytest.raises(UserError, match=message):
            load_weights(target, file)
        assert same(target, network(1))

    state = dict(network(0).state_dict())
    refused("do not exist", "absent.pt", None)
    refused("cannot be read as tensors", "broken.pt", b"not a checkpoint")
    refused("cannot be read as tensors", "broken.safetensors", b"\x00" * 20)
    refused("cannot be read as tensors", "code.pt", {"weights": Path("x")})
    refused("hold no tensors by name", "empty.pt", {"epoch": 3})
    refused("hold no tensors by name", "list.pt", [torch.zeros(3)])
    refused(r"1 missing \(linear\.bias\)", "less.pt", {k: v for k, v in state.items() if k != "linear.bias"})
    refused(r"1 unknown \(head\)", "more.pt", {**state, "head": torch.zeros(1)})
    refused(r"linear\.weight is \(7, 24\), DigitsCNN needs \(10, 24\)", "wide.pt", network(0, classes=7).state_dict())
    refused("NaN or infinite", "nan.pt", {**state, "linear.bias": torch.full((10,), torch.nan)})


# --- the trained CIFAR-10 networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_resnets_load_strictly(depth: int) -> None:
    files = list(shared_data("resnet-cifar10").glob(f"resnet{depth}-*.th"))
    assert len(files) == 1
    model = create_network(f"resnet{depth}_cifar", 10)
    load_weights(model, files[0])
    state = read_weights(files[0])
    assert all(torch.equal(model.state_dict()[k], v) for k, v in state.items())
    assert {k for k in model.state_dict() if not k.endswith("num_batches_tracked")} <= set(state)


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test pictures of each class, read from the archive without unpacking it."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    with tarfile.open(shared_data("cifar10", "cifar10-jpeg.tar.xz")) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if len(parts) < 4 or parts[1] != "test" or len(found[parts[2]]) >= count // 10:
                continue
            file = archive.extractfile(member)
            assert file is not None
            found[parts[2]].append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
            if all(len(kept) == count // 10 for kept in found.values()):
                break
    images = np.stack([picture for name in CLASSES for picture in found[name]])
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(10).repeat_interleave(count // 10)


@pytest.mark.slow
def test_published_resnets_know_cifar10() -> None:
    images, labels = pictures(500)
    accuracy = {}
    for depth in (20, 56):
        model = create_network(f"resnet{depth}_cifar", 10)
        load_weights(model, next(shared_data("resnet-cifar10").glob(f"resnet{depth}-*.th")))
        accuracy[depth] = 100 * float((Teacher(model, MEAN, STD)(images).argmax(1) == labels).float().mean())
        wrong = Teacher(model, 0.5, 0.1)(images).argmax(1)
        assert float((wrong == labels).float().mean()) < accuracy[depth] / 100 - 0.1
    # 82.2 and 83.5 % on 2,000 of these files; two standard errors of 500 are 3.4 points.
    assert accuracy[20] == pytest.approx(82.2, abs=4)
    assert accuracy[56] == pytest.approx(83.5, abs=4)
