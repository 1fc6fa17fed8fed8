"""Networks by name: the counts of the fact sheet, shaking per picture, and what is refused."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import kd_autoaug
from effkit.cost import measure_image
from effkit.errors import UserError
from kd_autoaug.networks import NETWORKS, build_network, build_teacher, create_network
from kd_autoaug.networks.layers import ShakeDrop, ShakeShake
from kd_autoaug.networks.shake_resnet import ShakeResNet

CONFIGS = Path(kd_autoaug.__file__).parent / "configs"


def counts(name: str, num_classes: int) -> tuple[int, int]:
    with torch.device("meta"):
        model = create_network(name, num_classes)
    cost = measure_image(model, 32)
    return cost.params, cost.macs


# --- structure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params10", "params100", "macs"),
    [
        ("wrn_40_2", 2_243_546, 2_255_156, 327_599_360),
        ("wrn_28_10", 36_479_194, 36_536_884, 5_243_328_768),
        ("wrn_28_10_fastaa", 36_489_290, 36_546_980, 5_951_117_568),
        ("pyramidnet_272_a200", 26_210_842, 26_288_692, 4_488_778_176),
        ("resnet20_cifar", 269_722, 275_572, 40_551_040),
        ("resnet56_cifar", 853_018, 858_868, 125_485_696),
    ],
)
def test_golden_counts(name: str, params10: int, params100: int, macs: int) -> None:
    assert counts(name, 10) == (params10, macs)
    assert counts(name, 100)[0] == params100


@pytest.mark.parametrize(
    ("base", "published10", "published100", "macs"),
    [(32, 2_989_002, 3_000_612, 426_689_792), (96, 26_777_546, 26_812_196, 3_776_892_672)],
)
def test_golden_counts_of_shake_shake(base: int, published10: int, published100: int, macs: int) -> None:
    # The code the published counts come from builds a shortcut of two 1x1 convolutions and a batch norm for every block
    # and runs it only where channels change: three blocks in each stage have idle ones.
    idle = sum(3 * (width * width + 2 * width) for width in (base, 2 * base, 4 * base))
    assert counts(f"shake_shake_26_2x{base}d", 10) == (published10 - idle, macs)
    assert counts(f"shake_shake_26_2x{base}d", 100)[0] == published100 - idle


@pytest.mark.parametrize(
    ("name", "size", "params", "macs"),
    [("tf_efficientnet_b0", 224, 5_288_548, 385_814_752), ("tf_efficientnet_b4", 380, 19_341_616, 4_393_771_024)],
)
def test_golden_counts_of_efficientnet(name: str, size: int, params: int, macs: int) -> None:
    with torch.device("meta"):
        cost = measure_image(create_network(name, 1000, image_size=size), size)
    assert (cost.params, cost.macs) == (params, macs)


def test_the_digits_network() -> None:
    model = create_network("digits_cnn", 10, 1, 8)
    assert measure_image(model, 8, 1).params == 8_254
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [12, 24, 24]
    assert create_network("digits_cnn", 10, 1, 32)(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert create_network("digits_cnn", 10, 1, 8)(torch.zeros(2, 1, 1, 1)).shape == (2, 10)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in ("wrn_28_10", "wrn_28_10_fastaa")])
def test_logits_of_any_channels_and_size(name: str) -> None:
    with torch.device("meta"):
        model = create_network(name, 7, in_chans=1).eval()
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert model(torch.zeros(1, 1, 20, 28)).shape == (1, 7)


def test_variances_begin_as_in_he() -> None:
    torch.manual_seed(0)
    model = create_network("wrn_40_2", 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            area = module.kernel_size[0] * module.kernel_size[1]
            assert float(module.weight.detach().var()) == pytest.approx(2 / (module.out_channels * area), rel=0.1)


def test_a_short_training_moves_every_parameter() -> None:
    torch.manual_seed(0)
    for model in (
        ShakeResNet(8, 4),
        NETWORKS["pyramidnet_272_a200"].func(11, 9.0),  # type: ignore[attr-defined]
        NETWORKS["wrn_40_2"].func(10, 1, dropout=0.1),  # type: ignore[attr-defined]
        NETWORKS["wrn_40_2"].func(10, 1, fastaa=True),  # type: ignore[attr-defined]
        NETWORKS["resnet20_cifar"].func(8),  # type: ignore[attr-defined]
    ):
        logits = model(torch.randn(8, 3, 16, 16))
        logits.logsumexp(1).sum().backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not idle, (type(model).__name__, idle)
        assert torch.equal(model.eval()(torch.ones(2, 3, 16, 16)), model(torch.ones(2, 3, 16, 16)))


# --- shaking ----------------------------------------------------------------------------------------------------------


def test_shake_shake_draws_for_each_picture_and_anew_for_the_gradient() -> None:
    torch.manual_seed(0)
    first = torch.ones(2000, 2, 1, 1, requires_grad=True)
    second = torch.zeros(2000, 2, 1, 1, requires_grad=True)
    shake = ShakeShake()
    out = shake(first, second)
    out.sum().backward()
    forward, backward = out.detach()[:, 0, 0, 0], first.grad[:, 0, 0, 0]
    assert torch.equal(out[:, 0], out[:, 1])
    torch.testing.assert_close(second.grad, 1 - first.grad)
    for drawn in (forward, backward):
        assert 0 <= float(drawn.min()) < 0.01
        assert 0.99 < float(drawn.max()) <= 1
        assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)
    assert abs(float(torch.corrcoef(torch.stack([forward, backward]))[0, 1])) < 0.08
    assert torch.equal(shake.eval()(first, second), torch.full_like(first, 0.5))


def test_shake_drop_keeps_or_scales_each_picture() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 1, 1, requires_grad=True)
    drop = ShakeDrop(0.7)
    out = drop(x)
    out.sum().backward()
    forward, backward = out.detach()[:, 0, 0, 0], x.grad[:, 0, 0, 0]
    kept = forward == 1
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(kept, backward == 1)
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert -1 <= float(forward[~kept].min()) < -0.98
    assert 0.98 < float(forward[~kept].max()) < 1
    assert 0 <= float(backward[~kept].min()) < 0.02
    assert float(forward.mean()) == pytest.approx(0.7, abs=0.03)  # what evaluation multiplies by
    assert float(backward[~kept].mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(drop.eval()(x), torch.full_like(x, 0.7))


def test_shake_drop_falls_evenly_to_one_half() -> None:
    with torch.device("meta"):
        model = create_network("pyramidnet_272_a200", 10)
    survivals = [m.survival for m in model.modules() if isinstance(m, ShakeDrop)]
    assert len(survivals) == 90
    assert survivals == pytest.approx([1 - (i + 1) / 180 for i in range(90)])


# --- names and configs ------------------------------------------------------------------------------------------------


def test_every_config_builds() -> None:
    files = sorted((CONFIGS / "model").glob("*.yaml"))
    assert {f.stem for f in files} >= set(NETWORKS)
    for file in files:
        cfg = yaml.safe_load(file.read_text())
        if cfg["name"] == "???":
            cfg["name"] = "resnet18"
        with torch.device("meta"):
            model = build_network(cfg, num_classes=10, image_size=32)
        assert sum(p.numel() for p in model.parameters()) > 8000, file.stem


def test_a_timm_model_of_one_size_is_told_the_pictures() -> None:
    with torch.device("meta"):
        model = create_network("vit_tiny_patch16_224", 5, in_chans=1, image_size=32)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
        assert create_network("resnet18", 5, image_size=32)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_network("wrn_40_3", 10), r"model\.name='wrn_40_3'.*did you mean 'wrn_40_2'"),
        (lambda: create_network("wrn_40_2", 0), "num_classes=0 must be a whole number"),
        (lambda: create_network("wrn_40_2", 10, 3, -1), "image_size=-1"),
        (lambda: create_network("wrn_40_2", 10, depth=20), "option of wrn_40_2='depth' is not known.*dropout"),
        (lambda: create_network("resnet18", 10, dorp_rate=0.1), r"resnet18.*cannot be built with.*dorp_rate"),
        (lambda: NETWORKS["wrn_40_2"].func(41, 2), "depth=41 of a wide ResNet"),  # type: ignore[attr-defined]
        (lambda: ShakeResNet(27, 32), "depth=27 of a Shake-Shake"),
        (lambda: NETWORKS["resnet20_cifar"].func(21), "depth=21 of a CIFAR ResNet"),  # type: ignore[attr-defined]
        (lambda: NETWORKS["pyramidnet_272_a200"].func(270), "depth=270 of a PyramidNet"),  # type: ignore[attr-defined]
        (lambda: build_network({"name": None}, num_classes=10), r"model\.name is not set"),
    ],
)
def test_what_is_refused(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_a_teacher_needs_weights(tmp_path: Path) -> None:
    from kd_autoaug.distillation.weights import save_weights

    facts = {"num_classes": 10, "in_chans": 1, "image_size": 8, "mean": 0.5, "std": 0.5}
    for file in sorted((CONFIGS / "teacher").glob("*.yaml")):
        cfg = yaml.safe_load(file.read_text())
        with pytest.raises(UserError, match=r"teacher\.(name|weights) is not set"):
            build_teacher({**cfg, "name": None if cfg["name"] == "???" else cfg["name"]}, **facts)
    model = create_network("digits_cnn", 10, 1, 8)
    file = save_weights(model, tmp_path / "teacher.safetensors")
    cfg = yaml.safe_load((CONFIGS / "teacher" / "digits_cnn.yaml").read_text())
    teacher = build_teacher({**cfg, "weights": str(file), "std": 0.25}, **facts)
    assert (teacher.mean, teacher.std) == ((0.5,), (0.25,))
    assert all(torch.equal(v, teacher.model.state_dict()[k]) for k, v in model.state_dict().items())
    with pytest.raises(UserError, match=r"teacher key='weight' is not known.*did you mean 'weights'"):
        build_teacher({"name": "digits_cnn", "weight": "x"}, **facts)
