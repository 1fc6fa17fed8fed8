"""The Fast AutoAugment lists: counts, ranges, and their pictures' arguments as the original computes them."""

import hashlib
import math
from importlib.resources import files

import pytest
import torch

from effkit.errors import UserError
from kd_autoaug.augmentation.policies.learnt import LISTS, learnt, list_file, read_list
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.ops.operators import Op

COUNTS = {"cifar10": 493, "imagenet": 498, "svhn": 497}  # of the published lists
SIZE = (32, 48)
# SHA-256 of each file, and of the numbers read from it: operators' names and the bits of both figures.
FILES = {
    "cifar10": "05e3b47728de4fb44700cfa3826171efb658d65cb725b59647b72f46bd836692",
    "imagenet": "9231a0baf17cc12297681d1a92c01fde2c434d369faba385c72332230564cf82",
    "svhn": "ff4e101c79f4a365ba731c6bb7ee6793d8bf907810034c9511957adaa5d91f8e",
}
FIGURES = {
    "cifar10": "d78744227312d0f73755287f1c150d99650b3c1bea9c08f083ba3593c68d07eb",
    "imagenet": "73771e5ec1f18d14b0c13d59102c7b6e16ea4e23464949200431cab4606ddfa7",
    "svhn": "113efe5a9f6e91037759797cda7b2867c82e9c95ae6adbcd8f4ea858f61c8e41",
}


@pytest.mark.parametrize("data", LISTS)
def test_files_and_figures_are_those_that_were_carried_over(data):
    file = files("kd_autoaug.augmentation.policies") / list_file(data)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == FILES[data]
    rows = [" | ".join(f"{e.op.name} {e.prob.hex()} {e.level.hex()}" for e in row) for row in learnt(data)]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest() == FIGURES[data]
    assert learnt(data) is learnt(data)  # read once


def test_a_damaged_file_is_one_line_that_names_the_place():
    with pytest.raises(UserError, match=r"list='cifar100' is not known.*cifar10"):
        learnt("cifar100")
    for text, words in (
        ("# where from\nrotate 0.5 0.5 | tilt 0.1 0.2\n", r"f\.txt, line 2: 'rotate 0\.5 0\.5 \| tilt 0\.1 0\.2' must"),
        ("rotate\n", r"f\.txt, line 1: 'rotate' must read OPERATOR PROBABILITY LEVEL"),
        ("rotate 0.5 0.x\n", r"f\.txt, line 1: 'rotate 0\.5 0\.x' must read"),
        ("\nrotate 1.5 0.5\n", r"f\.txt, line 2: probability=1\.5 must be a probability"),
        ("# nothing but a comment\n", r"f\.txt holds no sub-policies"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            read_list(text, "f.txt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "count"), COUNTS.items())
def test_counts_and_ranges(data, count):
    table = learnt(data)
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
