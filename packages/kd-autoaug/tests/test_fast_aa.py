"""The Fast AutoAugment lists: counts, ranges, and their pictures' arguments as the original computes them."""

import importlib
import math

import pytest
import torch

from kd_autoaug.ops.operators import Op
from kd_autoaug.policies.policy import Policy

COUNTS = {"cifar10": 493, "imagenet": 498, "svhn": 497}  # of the published lists
SIZE = (32, 48)


@pytest.mark.parametrize(("data", "count"), COUNTS.items())
def test_counts_and_ranges(data, count):
    table = importlib.import_module(f"kd_autoaug.policies.fast_aa_{data}").SUBPOLICIES
    assert len(table) == count
    assert all(len(row) == 2 for row in table)
    entries = [e for row in table for e in row]
    assert all(0 < e.prob < 1 and 0 < e.level < 1 for e in entries)
    assert len({e.op for e in entries}) == 15  # all operators of the search occur
    # Unrounded: found by a search over real numbers, so nearly all figures have more than ten digits.
    assert sum(len(repr(e.prob)) > 12 and len(repr(e.level)) > 12 for e in entries) > 0.99 * len(entries)


def test_first_figures_as_published():
    """Spot checks; the whole lists were compared with the source when they were carried over."""
    rows = {data: Policy.from_name(f"fast-aa-{data}").rows[0] for data in COUNTS}
    assert rows["cifar10"][0] == (Op.CONTRAST, 0.8320659688593578, 0.49884310562180767)
    assert rows["cifar10"][1] == (Op.TRANSLATE_X, 0.41849883971249136, 0.394023086494538)
    assert rows["imagenet"][0] == (Op.SHEAR_Y, 0.14143816458479197, 0.513124791615952)
    assert rows["svhn"][1] == (Op.INVERT, 0.7395307279252639, 0.7538444307982558)


LOW_HIGH = {
    Op.SHEAR_X: (-0.3, 0.3),
    Op.SHEAR_Y: (-0.3, 0.3),
    Op.TRANSLATE_X: (-0.45, 0.45),
    Op.TRANSLATE_Y: (-0.45, 0.45),
    Op.ROTATE: (-30, 30),
    Op.SOLARIZE: (0, 256),
    Op.POSTERIZE: (4, 8),
    Op.CONTRAST: (0.1, 1.9),
    Op.COLOR: (0.1, 1.9),
    Op.BRIGHTNESS: (0.1, 1.9),
    Op.SHARPNESS: (0.1, 1.9),
    Op.CUTOUT: (0, 0.2),
}


@pytest.mark.parametrize("data", COUNTS)
def test_arguments_are_the_original_s_to_the_bit(data):
    """The original computes ``level * (high - low) + low``, mirrors geometric values, then scales by the side."""
    policy = Policy.from_name(f"fast-aa-{data}")
    table = policy._sampler.arguments(SIZE)
    flat = [e for row in policy.rows for e in row]
    for e, (plus, minus) in zip(flat, table[:, 0].tolist(), strict=True):
        if e.op not in LOW_HIGH:
            assert plus == minus == 0
            continue
        low, high = LOW_HIGH[e.op]
        value = e.level * (high - low) + low
        if e.op == Op.POSTERIZE:
            value = int(value)
        signed = e.op in (Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y, Op.ROTATE)
        side = {Op.TRANSLATE_X: SIZE[1], Op.TRANSLATE_Y: SIZE[0], Op.CUTOUT: SIZE[1]}.get(e.op, 1)
        assert plus == value * side
        assert minus == (-value if signed else value) * side


def test_sub_policies_are_drawn_uniformly():
    policy = Policy.from_name("fast-aa-svhn")
    assert policy.cutout_fill == (125, 123, 114)
    n = 497 * 40
    layers = policy.sample(0, torch.arange(n), 0, SIZE)
    for slot, layer in enumerate(layers):
        expected = torch.zeros(17, dtype=torch.float64)
        for row in policy.rows:
            expected[row[slot].op] += row[slot].prob * n / 497
            expected[Op.IDENTITY] += (1 - row[slot].prob) * n / 497
        observed = torch.bincount(layer.op, minlength=17).double()
        used = expected > 0
        degrees = int(used.sum()) - 1
        statistic = float(((observed - expected)[used] ** 2 / expected[used]).sum())
        assert observed[~used].sum() == 0
        assert abs(statistic - degrees) / math.sqrt(2 * degrees) < 5
