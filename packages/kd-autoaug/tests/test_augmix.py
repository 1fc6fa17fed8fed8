"""AugMix, timm's ``augmix``: timm's operators and timm's arithmetic, drawn by our numbers."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import timm.data.auto_augment as timm_ops
import torch
from packaging.version import Version
from PIL import Image

from kd_autoaug import BatchAugment, Policy
from kd_autoaug.augmentation.adapters import AugmentTransform
from kd_autoaug.augmentation.policies.timm_strings import _AUGMIX
from kd_autoaug.ops import Op
from kd_autoaug.ops.parity import sample_pictures
from kd_autoaug.ops.single import apply_to_picture

COUNT = 24
# timm before 1.0.30 mixes square pictures only.
HEIGHT = 20 if Version(timm.__version__) >= Version("1.0.30") else 24
PICTURES = torch.stack([list(sample_pictures(24, HEIGHT, n).values())[n % 6] for n in range(COUNT)])
TIMM = {
    "AutoContrast": Op.AUTOCONTRAST,
    "ColorIncreasing": Op.COLOR,
    "ContrastIncreasing": Op.CONTRAST,
    "BrightnessIncreasing": Op.BRIGHTNESS,
    "SharpnessIncreasing": Op.SHARPNESS,
    "Equalize": Op.EQUALIZE,
    "Rotate": Op.ROTATE,
    "PosterizeIncreasing": Op.POSTERIZE,
    "SolarizeIncreasing": Op.SOLARIZE,
    "ShearX": Op.SHEAR_X,
    "ShearY": Op.SHEAR_Y,
    "TranslateXRel": Op.TRANSLATE_X,
    "TranslateYRel": Op.TRANSLATE_Y,
}


def image_of(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def by_timm(monkeypatch: pytest.MonkeyPatch, augment: BatchAugment, text: str, n: int) -> np.ndarray:
    """Timm's own ``AugMixAugment``, its random numbers replaced by those that we drew for picture n."""
    policy, index = augment.policy, torch.tensor([n])
    mixture = policy.mixture
    words = mixture.words(augment.seed, index, 0)
    share, weights = mixture.shares(words)
    layers = augment.layers(index, 0, tuple(PICTURES.shape[2:]))
    chains = [layers[c * mixture.longest : (c + 1) * mixture.longest] for c in range(mixture.width)]

    def chain(layers):  # one operator of timm's list of them, for a whole chain of ours
        return lambda image: apply_to_picture(image, layers, fill=policy.fill, cutout_fill=None)

    drawn = iter(chains)
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "dirichlet", lambda alphas: weights[:, 0].numpy())
        patch.setattr(np.random, "beta", lambda a, b: float(share))
        patch.setattr(np.random, "choice", lambda ops, depth, replace: [chain(next(drawn))])
        patch.setattr(np.random, "randint", lambda low, high: 1)
        return np.asarray(timm_ops.augment_and_mix_transform(text, {})(image_of(PICTURES[n])))


@pytest.mark.parametrize("text", ["augmix", "augmix-m9-w2-d2", "augmix-m5-w4-mstd0.5"])
def test_bytes_are_those_of_timms_mixing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    augment = BatchAugment(text, seed=3)
    done = augment(PICTURES, torch.arange(COUNT))
    for n in range(COUNT):
        theirs = by_timm(monkeypatch, augment, text, n)
        assert np.array_equal(done[n].permute(1, 2, 0).numpy(), theirs), n


def test_operators_are_timms() -> None:
    assert [TIMM[name] for name in timm_ops._AUGMIX_TRANSFORMS] == list(_AUGMIX)


def test_backends_agree() -> None:
    done = [BatchAugment("augmix-m9", seed=1, backend=b)(PICTURES, torch.arange(COUNT)) for b in ("torch", "pil")]
    assert torch.equal(*done)


def test_shares_and_lengths_are_drawn_as_they_should_be() -> None:
    mixture = Policy.from_name("augmix").mixture
    index = torch.arange(20_000)
    words = mixture.words(0, index, 0)
    share, weights = mixture.shares(words)
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(weights.sum(0), torch.ones(()), atol=1e-6)
    # A flat Dirichlet of three: means of a third, variances of 1/18.
    assert weights.mean(1).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert weights.var(1).tolist() == pytest.approx([1 / 18] * 3, abs=0.003)
    layers = Policy.from_name("augmix").sample(0, index, 0, (32, 32))
    assert len(layers) == 9
    alive = torch.stack([layer.op != int(Op.IDENTITY) for layer in layers]).view(3, 3, -1).double()
    assert alive.mean(2).tolist() == [pytest.approx([1, 2 / 3, 1 / 3], abs=0.02)] * 3


def test_a_picture_alone_gets_the_bytes_of_the_batch() -> None:
    done = BatchAugment("augmix", seed=3)(PICTURES, torch.arange(COUNT))
    alone = AugmentTransform("augmix", seed=3)
    for n in range(4):
        alone.key = (n, 0)
        assert np.array_equal(np.asarray(alone(image_of(PICTURES[n]))), done[n].permute(1, 2, 0).numpy())


def test_one_chain_of_one_operator_is_blended_only() -> None:
    assert Policy.from_name("augmix-w1-d1").mixture.shares(torch.zeros(2, 5, dtype=torch.int64))[1].tolist() == [
        [1.0] * 5
    ]


def test_fingerprints_tell_mixtures_apart() -> None:
    prints = {Policy.from_name(t).fingerprint() for t in ("augmix", "augmix-w2", "augmix-d2", "augmix-m4")}
    assert len(prints) == 4
    assert "mixture" not in Policy.from_name("rand-m9").describe()
