"""Policies: tables equal to the installed packages', names and timm strings, distribution of what is drawn."""

import dataclasses
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_aa
from torchvision.transforms import v2

from effkit.errors import UserError
from kd_autoaug.augmentation import rng
from kd_autoaug.augmentation.policies import autoaugment
from kd_autoaug.augmentation.policies.law import WIDTH
from kd_autoaug.augmentation.policies.names import NAMES
from kd_autoaug.augmentation.policies.policy import Policy
from kd_autoaug.augmentation.policies.spaces import space
from kd_autoaug.augmentation.policies.timm_strings import WEIGHTS
from kd_autoaug.ops.operators import BICUBIC, BILINEAR, NEAREST, Op

N = 6000
SIZE = (24, 40)
PLAIN = {"autocontrast", "equalize", "invert", "identity"}


def camel(op):
    name = op.name.title().replace("_", "")
    return {"Autocontrast": "AutoContrast"}.get(name, name)


def significant(observed, expected):
    """Excess of chi-square over its mean, in its standard deviations; cells expected empty must be empty."""
    assert (observed[expected == 0] == 0).all()
    observed, expected = observed[expected > 0], expected[expected > 0]
    degrees = len(observed) - 1
    return float((((observed - expected) ** 2 / expected).sum() - degrees) / (2 * degrees) ** 0.5)


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("autoaugment-imagenet", v2.AutoAugmentPolicy.IMAGENET),
        ("autoaugment-cifar10", v2.AutoAugmentPolicy.CIFAR10),
        ("autoaugment-svhn", v2.AutoAugmentPolicy.SVHN),
    ],
)
def test_autoaugment_equals_torchvision(name, policy):
    ours, theirs = Policy.from_name(name), v2.AutoAugment(policy)._policies
    assert len(ours.rows) == len(theirs) == 25
    for row, other in zip(ours.rows, theirs, strict=True):
        mine = [(camel(e.op), e.prob, None if e.op.name.lower() in PLAIN else e.level) for e in row]
        assert mine == list(other)
    assert (ours.space.name, ours.space.bins, ours.fill, ours.interpolation) == ("torchvision", 10, 0, (NEAREST,))


@pytest.mark.parametrize("name", ["original", "originalr", "v0", "v0r"])
def test_autoaugment_equals_timm(name):
    ours, theirs = Policy.from_name(name), timm_aa.auto_augment_policy(name)
    suffix = {"original": "Original", "originalr": "Increasing", "v0": "", "v0r": "Increasing"}[name]
    assert len(ours.rows) == len(theirs) == 25
    for row, other in zip(ours.rows, theirs, strict=True):
        spelled = [camel(e.op) + (suffix if e.op == Op.POSTERIZE else "") for e in row]
        spelled = [s + "Rel" if s.startswith("Translate") else s for s in spelled]
        assert [(s, e.prob, e.level) for s, e in zip(spelled, row, strict=True)] == [
            (o.name, o.prob, o.magnitude) for o in other
        ]
    assert ours.fingerprint() == Policy.from_name(f"timm-{name}").fingerprint()
    assert ours.fill == 128


RAND = [
    "rand-m9-mstd0.5-inc1",
    "rand-m5-n3-p0.7",
    "rand",
    "rand-m7-mstd101",
    "rand-m28-n4-mmax30-mstd1",
    "rand-inc1-m3",
]


@pytest.mark.parametrize("text", [*RAND, "rand-mstd1-tweights", "rand-m9-n3-inc0-tweights-p1"])
def test_rand_strings_equal_timm(text):
    ours, theirs = Policy.from_name(text), timm_aa.rand_augment_transform(text, {})
    assert ours.draws == theirs.num_layers
    assert [row[0].prob for row in ours.rows] == [op.prob for op in theirs.ops]
    assert [row[0].level for row in ours.rows] == [op.magnitude for op in theirs.ops]
    increasing = any("Increasing" in op.name for op in theirs.ops)
    assert ours.space.name == ("timm_increasing" if increasing else "timm")
    spelled = [op.name.removesuffix("Increasing").removesuffix("Rel") for op in theirs.ops]
    assert [camel(row[0].op) for row in ours.rows] == spelled
    std = theirs.ops[0].magnitude_std
    assert (ours.noise.std if ours.noise else 0) == std
    if ours.noise:
        assert ours.noise.upper == (theirs.ops[0].magnitude_max or 10)
    if theirs.choice_weights is None:
        assert ours.weights is None
    else:
        shares = np.array(ours.weights) / sum(ours.weights)
        np.testing.assert_allclose(shares, theirs.choice_weights, rtol=1e-12)
    assert ours.interpolation == (BILINEAR, BICUBIC)


def test_timm_hparams():
    hparams = {"img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC, "translate_const": 100}
    changed = {**hparams, "magnitude_std": 2.0, "magnitude_max": 20, "translate_pct": 0.2}
    policy = Policy.from_timm("rand-m9-mstd0.5", changed)
    assert policy.fill == (124, 116, 104)
    assert policy.interpolation == (BICUBIC,)
    assert (policy.noise.std, policy.noise.upper) == (2.0, 20.0)
    assert policy.space.argument(Op.TRANSLATE_X, 10, SIZE) == 0.2 * SIZE[1]
    assert Policy.from_timm("v0", {"img_mean": (128, 128, 128)}).fingerprint() == Policy.from_timm("v0").fingerprint()
    assert Policy.from_timm("original-mstd0.5").noise.std == 0.5
    with pytest.raises(UserError, match="hparams='shift'"):
        Policy.from_timm("v0", {"shift": 1})


def test_a_level_timm_clamps_is_clamped_with_a_warning():
    with pytest.warns(UserWarning, match="clamps m=15 to 10"):
        policy = Policy.from_name("rand-m15")
    assert policy.fingerprint() == Policy.from_name("rand-m10").fingerprint()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Policy.from_name("rand-m15-mmax30").rows[0][0].level == 15


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rand-m9-x3", ["key='x'", "mstd"]),
        ("rand-m9.5", ["m='9.5'", "an integer"]),
        ("rand-m", ["m=''"]),
        ("rand-m9-mstdinf", ["key='mstdinf'"]),
        ("rand-m9-p1.5", ["prob=1.5", "0 to 1"]),
        ("rand-n0", ["n=0"]),
        ("rand-m9-tfoo", ["'foo'", "weights"]),
        ("rand-m9-w0", ["key='w'"]),
        ("rand-m9-t3a", ["t3a"]),
        ("rand-n16-tweights", ["weights"]),
        ("3a-m5", ["key", "mstd"]),
        ("augmix-m5-b1", ["augmix", "b0"]),
        ("augmix-a2", ["augmix", "a1"]),
        ("augmix-m11", ["m must be 0 to 10", "m=11"]),
        ("augmix-w30", ["64 operators", "w=30"]),
        ("original-m5", ["key='m'", "mstd"]),
        ("autoaugment-imagenett", ["did you mean 'autoaugment-imagenet'"]),
        ("randaugment(n=2)", ["m=None"]),
        ("randaugment(m=31,space=torchvision)", ["m=31", "bins 0 to 30"]),
        ("randaugment(m=28)", ["m=28", "tf_tpu", "extrapolate"]),
        ("randaugment(m=9,prob=1.2)", ["prob=1.2"]),
        ("randaugment(m=9,ops=rotate+shear)", ["operator='shear'", "shear_x"]),
        ("randaugment(m=9,space=torchvision,ops=cutout)", ["ops='cutout'", "torchvision"]),
        ("randaugment(m=9,space=torchvision,mstd=0.5)", ["mstd=0.5", "torchvision"]),
        ("randaugment(m=9,strength=3)", ["option='strength'"]),
        ("randaugment(m=9,m=8)", ["given twice"]),
        ("randaugment(m)", ["key=value"]),
        ("randaugment(m=9,n=2.5)", ["n=2.5"]),
        ("randaugment(m=9,fill=300)", ["fill=300"]),
        ("randaugment(m=9,interpolation=cubic)", ["interpolation='cubic'"]),
        ("autoaugment-svhn(m=3)", ["option='m'"]),
        ("rand aug ment", ["NAME"]),
        ("", ["NAME"]),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(UserError) as caught:
        Policy.from_name(text)
    for word in words:
        assert word in str(caught.value)


def test_names_options_and_config():
    a = Policy.from_name("randaugment(n=2,m=9,space=tf_tpu)")
    b = Policy.from_config({"name": "randaugment", "n": 2, "m": 9, "space": "tf_tpu", "prob": None})
    c = Policy.from_name("RandAugment( m = 9 )", n=2)
    assert a.fingerprint() == b.fingerprint() == c.fingerprint()
    assert a.name == "randaugment(n=2,m=9,space=tf_tpu)"
    d = Policy.from_name("randaugment(m=28,extrapolate=true)")
    assert d.fingerprint() != a.fingerprint()
    assert d.rows[0][0].level == 28
    assert Policy.from_name("randaugment(m=1,space=linear,ops=rotate+cutout)").operators() == ["rotate", "cutout"]
    assert (
        Policy.from_name("autoaugment_imagenet").fingerprint() == Policy.from_name("autoaugment-imagenet").fingerprint()
    )
    for bad in ({}, {"name": None}, {"name": 3}):
        with pytest.raises(UserError, match="name"):
            Policy.from_config(bad)
    for name in NAMES:
        policy = Policy.from_name(name, **({"m": 1} if name == "randaugment" else {}))
        assert policy.name == name
        layers = policy.sample(0, torch.arange(3), 0, (8, 8))
        assert len(layers) == policy.num_layers == {"none": 0, "identity": 0, "trivialaugment-wide": 1}.get(name, 2)


def test_own_subpolicies():
    policy = Policy.from_subpolicies(
        [[("rotate", 1.0, 30), ("invert", 0.5)], [("posterize", 1, 3)]], space="torchvision"
    )
    assert policy.num_layers == 2
    assert policy.operators() == ["rotate", "posterize", "invert"]
    first, second = policy.sample(0, torch.arange(N), 0, SIZE)
    rotated = first.op == Op.ROTATE
    assert 0.45 < rotated.double().mean() < 0.55
    assert (second.op[~rotated] == Op.IDENTITY).all()  # the shorter row ends early
    assert 0.45 < (second.op[rotated] == Op.INVERT).double().mean() < 0.55
    for rows, words in (
        ([], "subpolicies="),
        ([[]], "subpolicies="),
        ([[("rotate",)]], "subpolicies[0][0]"),
        ([[("rotate", 2, 3)]], "subpolicies[0][0]: probability=2"),
        ([[("rotate", 1, 31)]], "subpolicies[0][0]: level=31"),
        ([[("rotate", 1, "9")]], "level='9'"),
        ([[("cutout", 1, 3)]], "cutout"),
        ([[("spin", 1, 3)]], "spin"),
    ):
        with pytest.raises(UserError) as caught:
            Policy.from_subpolicies(rows)
        assert words in str(caught.value)


def test_random_draws_operators_signs_and_application_as_it_should():
    policy = Policy.random(n=2, m=7, space="timm")
    first, second = policy.sample(1, torch.arange(N), 0, SIZE)
    expected = torch.zeros(17, dtype=torch.float64)
    for op in policy.space.operators:
        expected[op] = N * 0.5 / 15
    expected[Op.IDENTITY] = N * 0.5  # not applied
    for layer in (first, second):
        assert abs(significant(torch.bincount(layer.op, minlength=17).double(), expected)) < 5
        signed = layer.arg[layer.op == Op.ROTATE]
        assert set(signed.tolist()) == {21.0, -21.0}
        assert abs((signed > 0).double().mean() - 0.5) < 5 * 0.5 / len(signed) ** 0.5
        cubic = (layer.interpolation == BICUBIC).double().mean()
        assert abs(cubic - 0.5) < 5 * 0.5 / N**0.5
        assert set(layer.interpolation.unique().tolist()) == {BILINEAR, BICUBIC}
    # The layers are independent: joint counts of applied or not.
    joint = torch.bincount((first.op > 0) * 2 + (second.op > 0), minlength=4).double()
    assert abs(significant(joint, torch.full((4,), N / 4))) < 5
    # Sign, application and interpolation of one layer are, too.
    rows = torch.stack([first.op > 0, first.interpolation == BICUBIC, second.interpolation == BICUBIC]).double()
    assert (torch.corrcoef(rows) - torch.eye(3)).abs().max() < 5 / N**0.5


def test_subpolicies_are_drawn_uniformly_with_their_probabilities():
    policy = Policy.from_name("autoaugment-cifar10")
    layers = policy.sample(5, torch.arange(N), 3, SIZE)
    for slot, layer in enumerate(layers):
        expected = torch.zeros(17, dtype=torch.float64)
        for row in policy.rows:
            expected[row[slot].op] += row[slot].prob * N / 25
            expected[Op.IDENTITY] += (1 - row[slot].prob) * N / 25
        assert abs(significant(torch.bincount(layer.op, minlength=17).double(), expected)) < 5


def test_trivialaugment_draws_one_operator_and_every_bin():
    policy = Policy.from_name("trivialaugment-wide")
    (layer,) = policy.sample(0, torch.arange(N * 2), 0, SIZE)
    expected = torch.zeros(17, dtype=torch.float64)
    expected[list(policy.space.operators)] = N * 2 / 14
    assert abs(significant(torch.bincount(layer.op, minlength=17).double(), expected)) < 5
    rotations = layer.arg[layer.op == Op.ROTATE]
    table = torch.linspace(0.0, 135.0, 31).double()
    bins = torch.bincount(torch.searchsorted(table, rotations.abs()), minlength=31).double()
    assert abs(significant(bins, torch.full((31,), len(rotations) / 31))) < 5
    assert set(layer.arg[layer.op == Op.POSTERIZE].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}


def test_noise_of_levels_is_timm_s():
    index = torch.arange(N)
    policy = Policy.random(n=1, m=9, space="timm", ops=["rotate"], prob=1.0, mstd=2.0)
    (layer,) = policy.sample(0, index, 0, SIZE)
    level = layer.arg.abs() / 3
    generator = random.Random(0)
    theirs = torch.tensor([max(0.0, min(generator.gauss(9, 2.0), 10.0)) for _ in range(N)], dtype=torch.float64)
    assert level.max() == 10.0
    for quantile in (0.05, 0.25, 0.5, 0.65):
        assert abs(level.quantile(quantile) - theirs.quantile(quantile)) < 0.2
    assert abs((level == 10).double().mean() - 0.3085) < 5 * (0.3085 * 0.6915 / N) ** 0.5  # P(noise > 1 / 2)
    (uniform,) = Policy.from_timm("rand-m7-mstd101-p1-n1").sample(0, index, 0, SIZE)
    level = uniform.arg[uniform.op == Op.ROTATE].abs() / 3
    counts = torch.bincount((level / 0.7).long(), minlength=10).double()
    assert abs(significant(counts, torch.full((10,), len(level) / 10))) < 5
    # Integers stay integers, by truncation.
    (layer,) = Policy.random(n=1, m=5, space="timm_increasing", ops=["posterize"], prob=1.0, mstd=3.0).sample(
        0, index, 0, SIZE
    )
    assert set(layer.arg.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    # Without noise the law and the table agree to the bit.
    fixed = Policy.random(n=2, m=6.5, space="timm_increasing")
    noisy = Policy.random(n=2, m=6.5, space="timm_increasing", mstd=1e-300)
    for a, b in zip(fixed.sample(0, index, 0, SIZE), noisy.sample(0, index, 0, SIZE), strict=True):
        assert torch.equal(a.arg, b.arg)
        assert torch.equal(a.op, b.op)


def test_weighted_operators_are_drawn_without_replacement_as_numpy_does():
    policy = Policy.from_name("rand-m9-n3-p1-tweights")
    layers = torch.stack([layer.op for layer in policy.sample(0, torch.arange(N), 0, SIZE)])
    assert all(len(set(column)) == 3 for column in layers.t().tolist())
    ops = list(WEIGHTS)
    shares = np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())
    expected = torch.zeros(17, dtype=torch.float64)
    expected[[int(op) for op in ops]] = torch.tensor(shares) * N
    assert abs(significant(torch.bincount(layers[0], minlength=17).double(), expected)) < 5
    # The second draw: sum over the first of p_i p_j / (1 - p_i).
    second = np.array([sum(p * q / (1 - p) for i, p in enumerate(shares) if i != j) for j, q in enumerate(shares)])
    expected[[int(op) for op in ops]] = torch.tensor(second) * N
    assert abs(significant(torch.bincount(layers[1], minlength=17).double(), expected)) < 5


def test_cutout_of_a_policy():
    policy = Policy.random(n=1, m=5, space="tf_tpu", ops=["cutout"])
    assert policy.cutout_fill is None
    assert policy.fill == 128
    (layer,) = policy.sample(0, torch.arange(N), 0, SIZE)
    left, top, right, bottom = layer.box.unbind(-1)
    assert ((right - left == 40) & (bottom - top == 40)).all()  # half the side is int(0.5 x 40)
    for start, side in ((left, SIZE[1]), (top, SIZE[0])):
        counts = torch.bincount(start + 20, minlength=side).double()
        assert abs(significant(counts, torch.full((side,), N / side))) < 5
    assert Policy.random(n=1, m=5, space="ra_pytorch").cutout_fill == (125, 123, 114)


@pytest.mark.parametrize("name", ["fast-aa-cifar10", "rand-m9-mstd0.5-inc1", "trivialaugment-wide", "rand-m9-tweights"])
def test_a_sample_depends_on_seed_index_and_view_only(name):
    policy = Policy.from_name(name)
    index = torch.tensor([5, 900, 3, 70_000_000_000, 0, 12, 77])
    view = torch.tensor([0, 1, 1, 2, 0, 5, 4])
    whole = policy.sample(9, index, view, SIZE)
    again = pickle.loads(pickle.dumps(policy))
    for i in range(len(index)):
        alone = again.sample(9, index[i : i + 1], int(view[i]), SIZE)
        for a, b in zip(whole, alone, strict=True):
            for field in ("op", "arg", "interpolation", "box"):
                assert torch.equal(getattr(a, field)[i : i + 1], getattr(b, field))
    many = torch.arange(500)
    base = policy.sample(9, many, 0, SIZE)
    for other in (
        policy.sample(10, many, 0, SIZE),
        policy.sample(9, many, 1, SIZE),
        policy.sample(9, many + 500, 0, SIZE),
    ):
        assert any(not torch.equal(a.op, b.op) for a, b in zip(base, other, strict=True))
    assert len(policy.sample(9, many[:0], 0, SIZE)[0]) == 0


def test_translations_follow_the_size_and_tables_of_many_sizes_are_right():
    policy = Policy.random(n=1, m=10, space="torchvision", ops=["translate_x", "translate_y"])
    index = torch.arange(64)
    first = {}
    for side in range(8, 108):
        (layer,) = policy.sample(0, index, 0, (side, 2 * side))
        width = layer.op == Op.TRANSLATE_X
        expected = torch.where(width, int(150 / 331 * 2 * side / 3), int(150 / 331 * side / 3)).double()
        assert (layer.arg.abs() - expected).abs().max() <= 1  # a third of 150/331 of the side, float32 in torchvision
        first[side] = layer.arg
    assert torch.equal(policy.sample(0, index, 0, (8, 16))[0].arg, first[8])


def test_fingerprints():
    names = [n for n in NAMES if n not in ("identity", "none", "randaugment")]
    prints = {Policy.from_name(n).fingerprint() for n in names}
    assert len(prints) == len(names)
    assert all(len(p) == 64 for p in prints)
    base = {"m": 9, "n": 2}
    changed = [
        {},
        {"m": 8},
        {"n": 3},
        {"prob": 0.5},
        {"fill": 0},
        {"fill": (1, 2, 3)},
        {"cutout_fill": 7},
        {"interpolation": "bilinear"},
        {"interpolation": ["bilinear", "bicubic"]},
        {"space": "timm"},
        {"mstd": 0.5},
        {"mstd": 0.5, "mmax": 12},
        {"mstd": 0.6},
        {"ops": ["rotate", "invert"]},
        {"ops": ["invert", "rotate"]},
        {"weights": [1] * 16},
        {"weights": [2] + [1] * 15},
    ]
    prints = [Policy.random(**{**base, **c}).fingerprint() for c in changed]
    assert len(set(prints)) == len(prints)
    assert Policy.random(**base, name="other").fingerprint() == prints[0]
    # A space of one's own under a known name is told apart by what it does.
    timm = space("timm")
    for side in (0, WIDTH):
        laws = {**timm.laws, Op.TRANSLATE_Y: dataclasses.replace(timm.laws[Op.TRANSLATE_Y], side=side)}
        other = Policy.random(**base, space=dataclasses.replace(timm, laws=laws))
        assert other.fingerprint() != Policy.random(**base, space="timm").fingerprint()
    loaded = pickle.loads(pickle.dumps(Policy.random(**base)))
    assert loaded.fingerprint() == prints[0]


def states():
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_no_global_generator_is_touched():
    before = states()
    Policy.from_name("rand-m9-mstd0.5-inc1").sample(0, torch.arange(10), 0, SIZE)
    assert states() == before


def test_degenerate_entries_are_kept_as_published():
    """Probability 0 and neutral levels stand in the lists; they are part of what was published."""
    assert sum(e.prob == 0 for row in autoaugment.IMAGENET for e in row) == 1
    assert sum(e.prob == 0 for row in autoaugment.V0 for e in row) == 2
    layers = Policy.from_subpolicies([[("invert", 0.0), ("invert", 1.0)]]).sample(0, torch.arange(N), 0, SIZE)
    assert (layers[0].op == Op.IDENTITY).all()
    assert (layers[1].op == Op.INVERT).all()
    assert rng.LAYERS > rng.PLACEMENT
