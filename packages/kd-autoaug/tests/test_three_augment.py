"""DeiT III's three-augment, timm's ``3a``: the operators of timm, drawn by our numbers."""

from __future__ import annotations

import numpy as np
import pytest
import timm.data.auto_augment as timm_ops
import torch
from PIL import Image

from effkit.testing import kernels
from kd_autoaug import BatchAugment, Policy
from kd_autoaug.augmentation.adapters import from_timm_string
from kd_autoaug.ops import Layer, Op, apply, gaussian_blur
from kd_autoaug.ops.parity import sample_pictures
from kd_autoaug.reference import reference

interpreter = kernels.interpreter
COUNT = 60
PICTURES = torch.stack([list(sample_pictures(24, 20, n).values())[n % 6] for n in range(COUNT)])


def by_timm(picture: torch.Tensor, op: Op, arg: float) -> np.ndarray:
    """What timm's own operator makes of a picture."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    if op == Op.SOLARIZE:
        done = timm_ops.solarize(image, arg)
    elif op == Op.COLOR:
        done = timm_ops.desaturate(image, 1 - arg)
    else:
        assert op == Op.GAUSSIAN_BLUR
        done = timm_ops.gaussian_blur(image, arg)
    return np.asarray(done)


@pytest.mark.parametrize("backend", ["auto", "torch", "pil"])
def test_bytes_are_those_of_timms_operators(backend: str) -> None:
    augment = BatchAugment("3a", seed=3, backend=backend)
    done, layers = augment(PICTURES, torch.arange(COUNT), 0, return_layers=True)
    assert len(layers) == 1
    for n in range(COUNT):
        theirs = by_timm(PICTURES[n], Op(int(layers[0].op[n])), float(layers[0].arg[n]))
        assert np.array_equal(done[n].permute(1, 2, 0).numpy(), theirs), (n, layers[0].op[n], layers[0].arg[n])


def test_operators_and_strengths_are_those_of_timms_table() -> None:
    theirs = {sub[0].name: sub[0] for sub in timm_ops.auto_augment_policy_3a(dict(timm_ops._HPARAMS_DEFAULT))}
    assert set(theirs) == {"Solarize", "Desaturate", "GaussianBlurRand"}
    (layer,) = Policy.from_name("3a").sample(0, torch.arange(6000), 0, (32, 32))
    counts = {Op(op): int((layer.op == op).sum()) for op in layer.op.unique().tolist()}
    assert set(counts) == {Op.SOLARIZE, Op.COLOR, Op.GAUSSIAN_BLUR}
    assert all(1850 < count < 2150 for count in counts.values())  # 36 is one standard deviation
    assert layer.arg[layer.op == Op.SOLARIZE].unique().tolist() == list(theirs["Solarize"].level_fn(5, {}))
    grey = 1 - theirs["Desaturate"].level_fn(10, {})[0]
    assert layer.arg[layer.op == Op.COLOR].unique().tolist() == [grey] == [0.0]
    widths = layer.arg[layer.op == Op.GAUSSIAN_BLUR]
    (most,) = theirs["GaussianBlurRand"].level_fn(10, {})
    assert 0.1 <= float(widths.min()) < 0.15
    assert 1.95 < float(widths.max()) <= 2.0 * most == 2.0
    assert float(widths.mean()) == pytest.approx(1.05, abs=0.04)


def test_a_single_picture_gets_the_bytes_of_the_batch() -> None:
    augment = BatchAugment("3a", seed=3)
    done = augment(PICTURES, torch.arange(COUNT))
    alone = from_timm_string("3a", seed=3)
    for n in range(8):
        alone.key = (n, 0)
        picture = alone(Image.fromarray(PICTURES[n].permute(1, 2, 0).contiguous().numpy()))
        assert np.array_equal(np.asarray(picture), done[n].permute(1, 2, 0).numpy())


def test_noise_changes_strengths() -> None:
    (layer,) = Policy.from_name("3a-mstd0.5").sample(0, torch.arange(600), 0, (32, 32))
    assert len(layer.arg[layer.op == Op.SOLARIZE].unique()) > 10
    factors = layer.arg[layer.op == Op.COLOR]
    assert bool(((factors >= 0) & (factors <= 0.5)).all())


def test_policies_without_a_blur_keep_their_fingerprint() -> None:
    """Answers kept under the fingerprint of an earlier release stay valid: nothing was added to what is hashed."""
    assert "blur_from" not in Policy.from_name("autoaugment-imagenet").describe()
    assert Policy.from_name("3a").describe()["blur_from"] == 0.1
    assert Policy.from_name("3a").fingerprint() != Policy.from_name("3a-mstd0.5").fingerprint()


@pytest.mark.parametrize("sigma", [0.0, 1e-3, 0.1, 0.7, 2.0, 9.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 7)])
def test_the_blur_is_the_written_out_one(sigma: float, size: tuple[int, int]) -> None:
    picture = torch.randint(0, 256, (1, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = gaussian_blur(picture[None], sigma, backend="torch")[0]
    assert ours.tolist() == reference(picture, Op.GAUSSIAN_BLUR, sigma)


@pytest.mark.usefixtures("interpreter")
def test_kernels_leave_the_blur_to_torch() -> None:
    """A blur as first, last and only layer, with and without normalising, beside operators of the kernels' own."""
    blur = Layer.of(torch.tensor([int(Op.GAUSSIAN_BLUR), int(Op.INVERT)]), torch.full((2,), 1.3))
    other = Layer.uniform(Op.SOLARIZE, 2, 100.0)
    small = PICTURES[:2, :, :9, :7].contiguous()
    for layers in ([blur], [blur, other], [other, blur]):
        for normalize in (None, ((0.5,), (0.25,), torch.float32)):
            wanted = apply(small, layers, backend="torch", normalize=normalize)
            assert torch.equal(apply(small, layers, backend="triton", normalize=normalize), wanted)
